"""Section "look at it": one pass of the exported model over split test, and the weights of its first layer."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.report.content import Filter, LookAtIt, LookedAt
from mnist_tfx.components.trainer.export import read_weights
from mnist_tfx.components.transform.preprocessing import decode_images
from mnist_tfx.contract.names import EXAMPLES, IMAGE, LABEL, PROBABILITIES, SERVING_DEFAULT

_SHOWN = 24
_FILTERS = 64
_BATCH = 1000
_FEATURES = {IMAGE: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}


@dataclass(frozen=True)
class ModelPass:
    """What came of the pass: what is shown of it, and all predictions as a confusion matrix, to check it by."""

    look: LookAtIt
    confusion: npt.NDArray[np.int64]  # [actual, predicted]


# Examples with the model's answers, in the order of their positions: fields position, record (serialized), label,
# predicted and probabilities.
_Examples = npt.NDArray[np.void]


@functools.lru_cache(maxsize=1)
def look_at(
    model: Any, examples_files: tuple[str, ...], class_names: tuple[str, ...], image_shape: tuple[int, int, int]
) -> ModelPass:
    """Asks the model for every example, a batch at a time; keeps the few that are shown.

    The answers are those of signature `serving_default`, by which TFMA judges too.

    Args:
        model: the loaded SavedModel.
        examples_files: gzipped TFRecord files of split test, in their order.
        class_names: by class number.
        image_shape: height, width, channels.
    """
    confusion = np.zeros((len(class_names), len(class_names)), np.int64)
    mistakes = uncertain = np.empty(0, _fields(len(class_names)))
    for batch in _answered(model, examples_files, len(class_names)):
        np.add.at(confusion, (batch["label"], batch["predicted"]), 1)
        mistakes = np.concatenate([mistakes, batch[batch["predicted"] != batch["label"]]])
        mistakes = _first(mistakes, -mistakes["probabilities"].max(axis=1))
        uncertain = np.concatenate([uncertain, batch])
        uncertain = _first(uncertain, uncertain["probabilities"].max(axis=1))
    filters, scale, units = _filters(read_weights(model), image_shape)
    look = LookAtIt(
        class_names=tuple(class_names),
        mistakes=_shown(mistakes, image_shape),
        uncertain=_shown(uncertain, image_shape),
        filters=filters,
        filter_scale=scale,
        units=units,
    )
    return ModelPass(look, confusion)


def disagreement(found: ModelPass, confusion: npt.NDArray[np.int64]) -> str | None:
    """In words, how the pass differs from TFMA's confusion matrix; None where it does not."""
    if np.array_equal(found.confusion, confusion):
        return None
    ours, theirs = (np.trace(matrix) / max(matrix.sum(), 1) for matrix in (found.confusion, confusion))
    moved = int(np.abs(found.confusion - confusion).sum())
    return (
        f"The model answers other than when TFMA judged it: accuracy {ours:.4f} on {found.confusion.sum()} examples, "
        f"TFMA's is {theirs:.4f} on {confusion.sum()}, and the confusion matrices differ by {moved}. "
        "The examples shown are not those that were counted."
    )


def _fields(classes: int) -> np.dtype[np.void]:
    scalars = [("position", np.int64), ("record", object), ("label", np.int64), ("predicted", np.int64)]
    return np.dtype([*scalars, ("probabilities", np.float32, (classes,))])


def _answered(model: Any, files: Sequence[str], classes: int) -> Iterator[_Examples]:
    answer = model.signatures[SERVING_DEFAULT]
    position = 0
    for records in tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_BATCH):
        batch = np.empty(len(records), _fields(classes))
        batch["position"] = np.arange(position, position + len(batch))
        batch["record"] = records.numpy()
        batch["label"] = tf.io.parse_example(records, {LABEL: _FEATURES[LABEL]})[LABEL].numpy()
        batch["probabilities"] = answer(**{EXAMPLES: records})[PROBABILITIES].numpy()
        batch["predicted"] = batch["probabilities"].argmax(axis=1)
        yield batch
        position += len(batch)


def _first(examples: _Examples, rank: npt.NDArray[Any]) -> _Examples:
    """The few with the smallest ranks, of equal ones the first."""
    return examples[np.argsort(rank, kind="stable")[:_SHOWN]]


def _shown(examples: _Examples, image_shape: tuple[int, int, int]) -> tuple[LookedAt, ...]:
    if not len(examples):
        return ()
    images = decode_images(tf.io.parse_example(examples["record"], _FEATURES)[IMAGE], image_shape).numpy()
    return tuple(
        LookedAt(
            image=image,
            actual=int(each["label"]),
            predicted=int(each["predicted"]),
            probabilities=tuple(each["probabilities"].tolist()),
            position=int(each["position"]),
        )
        for image, each in zip(images, examples, strict=True)
    )


def _filters(weights: Sequence[Any], image_shape: tuple[int, int, int]) -> tuple[tuple[Filter, ...], float, int]:
    """The units with the largest weights, their scale, and how many units there are; none if no layer sees pixels."""
    for weight in weights:
        if len(weight.shape) == 2 and weight.shape[0] == math.prod(image_shape):
            kernel = weight.numpy()
            chosen = np.argsort(-np.square(kernel).sum(axis=0), kind="stable")[:_FILTERS]
            scale = float(np.abs(kernel[:, chosen]).max()) or 1.0
            images = np.rint(128 + 127 * kernel[:, chosen].T / scale).astype(np.uint8).reshape(-1, *image_shape)
            return (
                tuple(Filter(int(unit), image) for unit, image in zip(chosen, images, strict=True)),
                scale,
                len(kernel[0]),
            )
    return (), 0.0, 0
