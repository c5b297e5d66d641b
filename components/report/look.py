"""Section "look at it": one pass of the exported model over split test, and the weights of its first layer."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
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

_EXAMPLES, _DRAWN = 24, 30  # shown at most: mistakes and uncertain ones, and those drawn at random
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
    """Asks the model for every example, a batch at a time, and decodes the few that are shown.

    The answers are those of signature `serving_default`, by which TFMA judges too.

    Args:
        model: the loaded SavedModel.
        examples_files: gzipped TFRecord files of split test, in their order.
        class_names: by class number.
        image_shape: height, width, channels.
        seed: decides, with the number of examples, which are drawn at random.
    """
    records = tf.data.TFRecordDataset(examples_files, compression_type="GZIP")
    batches = [_answers(model, batch) for batch in records.batch(_BATCH)]
    labels, predicted, confidence = (np.concatenate(part) for part in zip(*batches, strict=True))
    confusion = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    wrong = np.flatnonzero(predicted != labels)
    at_random = np.random.default_rng([*seed.encode()]).random(len(labels))
    shown = {
        "mistakes": wrong[np.argsort(-confidence[wrong], kind="stable")][:_EXAMPLES],
        "uncertain": np.argsort(confidence, kind="stable")[:_EXAMPLES],
        "drawn": np.argsort(at_random, kind="stable")[:_DRAWN],
    }
    looked_at = _looked_at(model, records, {int(at) for positions in shown.values() for at in positions}, image_shape)
    examples = {kind: tuple(looked_at[int(at)] for at in positions) for kind, positions in shown.items()}
    filters, scale, units = _filters(read_weights(model), image_shape)
    look = LookAtIt(tuple(class_names), **examples, filters=filters, filter_scale=scale, units=units)
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


def _answers(model: Any, records: tf.Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Of each example its label, the predicted class and that one's probability: all that is kept of many."""
    probabilities = _probabilities(model, records)
    labels = tf.io.parse_example(records, {LABEL: FEATURES[LABEL]})[LABEL].numpy()
    return labels, probabilities.argmax(axis=1), probabilities.max(axis=1)


def _looked_at(
    model: Any, records: tf.data.Dataset, positions: Container[int], image_shape: tuple[int, int, int]
) -> dict[int, LookedAt]:
    """Those to be shown, by position."""
    # By the batch: tf.data's own iterator takes long for each record.
    numbered = enumerate(record for batch in records.batch(_BATCH).as_numpy_iterator() for record in batch)
    chosen = {at: record for at, record in numbered if at in positions}
    serialized = tf.constant(list(chosen.values()))
    parsed = tf.io.parse_example(serialized, FEATURES)
    images = decode_images(parsed[IMAGE], image_shape).numpy()
    rows = zip(chosen, images, parsed[LABEL].numpy(), _probabilities(model, serialized), strict=True)
    return {
        at: LookedAt(image, int(label), int(probabilities.argmax()), tuple(probabilities.tolist()), at)
        for at, image, label, probabilities in rows
    }


def _probabilities(model: Any, records: tf.Tensor) -> npt.NDArray[np.float32]:
    return model.signatures[SERVING_DEFAULT](**{EXAMPLES: records})[PROBABILITIES].numpy()


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
