"""Section "look at it": one pass of the exported model over split test, and the weights of its first layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.report.content import Filter, LookAtIt, LookedAt
from mnist_tfx.components.report.data import FEATURES
from mnist_tfx.components.trainer.export import read_weights
from mnist_tfx.components.transform.preprocessing import decode_images
from mnist_tfx.contract.names import EXAMPLES, IMAGE, LABEL, PROBABILITIES, SERVING_DEFAULT

# Examples with the model's answers, in the order of their positions: fields position, draw (a random number), record
# (serialized), label, predicted and probabilities.
_Examples = npt.NDArray[np.void]
# What is shown: how many at most, and by which rank, the smallest first, of equal ones the first example.
_SHOWN: Mapping[str, tuple[int, Callable[[_Examples], npt.NDArray[Any]]]] = {
    "mistakes": (24, lambda examples: -examples["probabilities"].max(axis=1)),
    "uncertain": (24, lambda examples: examples["probabilities"].max(axis=1)),
    "drawn": (30, lambda examples: examples["draw"]),
}
_FILTERS = 64
_BATCH = 1000


@dataclass(frozen=True)
class ModelPass:
    """What came of the pass: what is shown of it, and all predictions as a confusion matrix, to check it by."""

    look: LookAtIt
    confusion: npt.NDArray[np.int64]  # [actual, predicted]


def look_at(
    model: Any,
    examples_files: Sequence[str],
    class_names: Sequence[str],
    image_shape: tuple[int, int, int],
    *,
    seed: str,
) -> ModelPass:
    """Asks the model for every example, a batch at a time; keeps the few that are shown.

    The answers are those of signature `serving_default`, by which TFMA judges too.

    Args:
        model: the loaded SavedModel.
        examples_files: gzipped TFRecord files of split test, in their order.
        class_names: by class number.
        image_shape: height, width, channels.
        seed: decides, with the number of examples, which are drawn at random.
    """
    rng = np.random.default_rng([*seed.encode()])
    confusion = np.zeros((len(class_names), len(class_names)), np.int64)
    shown = dict.fromkeys(_SHOWN, np.empty(0, _fields(len(class_names))))
    for batch in _answered(model, examples_files, len(class_names)):
        np.add.at(confusion, (batch["label"], batch["predicted"]), 1)
        batch["draw"] = rng.random(len(batch))
        for kind, (most, rank) in _SHOWN.items():
            candidates = batch[batch["predicted"] != batch["label"]] if kind == "mistakes" else batch
            candidates = np.concatenate([shown[kind], candidates])
            shown[kind] = candidates[np.argsort(rank(candidates), kind="stable")[:most]]
    filters, scale, units = _filters(read_weights(model), image_shape)
    look = LookAtIt(
        class_names=tuple(class_names),
        **{kind: _decoded(examples, image_shape) for kind, examples in shown.items()},
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
    scalars = [
        ("position", np.int64),
        ("draw", np.float64),
        ("record", object),
        ("label", np.int64),
        ("predicted", np.int64),
    ]
    return np.dtype([*scalars, ("probabilities", np.float32, (classes,))])


def _answered(model: Any, files: Sequence[str], classes: int) -> Iterator[_Examples]:
    answer = model.signatures[SERVING_DEFAULT]
    position = 0
    for records in tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_BATCH):
        batch = np.empty(len(records), _fields(classes))
        batch["position"] = np.arange(position, position + len(batch))
        batch["record"] = records.numpy()
        batch["label"] = tf.io.parse_example(records, {LABEL: FEATURES[LABEL]})[LABEL].numpy()
        batch["probabilities"] = answer(**{EXAMPLES: records})[PROBABILITIES].numpy()
        batch["predicted"] = batch["probabilities"].argmax(axis=1)
        yield batch
        position += len(batch)


def _decoded(examples: _Examples, image_shape: tuple[int, int, int]) -> tuple[LookedAt, ...]:
    if not len(examples):
        return ()
    images = decode_images(tf.io.parse_example(examples["record"], FEATURES)[IMAGE], image_shape).numpy()
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
