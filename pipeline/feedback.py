"""Logged requests as images to be labelled, and back: the files of an export, and the CSV that is filled in."""

from __future__ import annotations

import csv
import heapq
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.contract import names
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.data import add_images
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.recipes import Recipe

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.images.prepare import Imported

LABELS = "labels.csv"
_COLUMNS = ("id", "label", "predicted", "probability", "version", "time")
_ID = re.compile(r"[0-9a-f]{16}")
_SUFFIX = ".tfrecord.gz"


@dataclass(frozen=True)
class LoggedImage:
    """An image that a model was asked about, and what it answered; `id` begins the SHA-256 of the pixels."""

    id: str
    pixels: npt.NDArray[np.uint8]  # [height, width, channels]
    predicted: str
    probability: float  # of the predicted class; nan where the answer does not tell
    version: int
    time: int  # seconds since 1970


def log_files(logs: Path) -> list[Path]:
    """The files of a request log: all in a folder, or those whose paths begin with a prefix.

    Raises:
        UsageError: there are none.
    """
    found = logs.rglob(f"*{_SUFFIX}") if logs.is_dir() else logs.parent.glob(f"{logs.name}-*{_SUFFIX}")
    if files := sorted(found):
        return files
    raise UsageError(
        f'there is no request log at {logs}: serve with a logging_config (serving/README.md, "A request log"), or name '
        "its folder or prefix with --logs."
    )


def logged_images(files: Sequence[Path], model: str, image_shape: tuple[int, int, int]) -> Iterator[LoggedImage]:
    """Every image of every Predict call to the model; the order is that of the files.

    Args:
        files: of PredictionLog records, as `log_files` finds them.
        model: its name.
        image_shape: height, width and channels, to which image files are fitted, as the model does.
    """
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    from mnist_tfx.components.transform.images import content_digest

    for path in files:
        records = tf.data.TFRecordDataset(str(path), compression_type="GZIP").as_numpy_iterator()
        for record in records:
            log = PredictionLog.FromString(record)
            spec = log.log_metadata.model_spec
            if log.WhichOneof("log_type") != "predict_log" or spec.name != model:
                continue
            images, answer = _pixels(log.predict_log.request.inputs, image_shape), log.predict_log.response.outputs
            labels, probabilities = (_answered(answer, name) for name in (names.LABELS, names.PROBABILITIES))
            for row, pixels in enumerate(images):
                yield LoggedImage(
                    id=content_digest(pixels)[:16],
                    pixels=pixels,
                    predicted="" if labels is None else labels[row].decode(),
                    probability=float("nan") if probabilities is None else float(np.max(probabilities[row])),
                    version=spec.version.value,
                    time=log.log_metadata.timestamp_secs,
                )


def _pixels(inputs: Any, image_shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """uint8 [N, height, width, channels], of what any of the three signatures is given; N is 0 for anything else."""
    import tensorflow as tf

    from mnist_tfx.components.transform.images import fit_images

    if names.IMAGES in inputs:
        images = tf.make_ndarray(inputs[names.IMAGES])
        if images.dtype == np.uint8 and images.shape[1:] == image_shape:
            return images
    encoded: list[bytes] = []
    if names.ENCODED_IMAGES in inputs:
        encoded = list(inputs[names.ENCODED_IMAGES].string_val)
    elif names.EXAMPLES in inputs:
        examples = map(tf.train.Example.FromString, inputs[names.EXAMPLES].string_val)
        encoded = [each.features.feature[names.IMAGE].bytes_list.value[0] for each in examples]
    return np.asarray(fit_images(tf.constant(encoded, tf.string), image_shape))


def _answered(outputs: Any, name: str) -> npt.NDArray[Any] | None:
    """An output as an array; None where the caller asked for others only."""
    import tensorflow as tf

    return tf.make_ndarray(outputs[name]) if name in outputs else None


def export_logged(
    files: Sequence[Path], model: str, image_shape: tuple[int, int, int], folder: Path, most: int
) -> tuple[int, int]:
    """Writes the `most` images of which the model was least certain, each once, and a CSV file to be filled in.

    Returns:
        How many were written, and how many there are.

    Raises:
        UsageError: the folder holds such a file already, or the logs no image.
    """
    if (folder / LABELS).exists():
        raise UsageError(f"{folder / LABELS} is there already: fill it in, or name another folder.")
    rows = {
        image.id: (image.id, "", image.predicted, f"{image.probability:.4f}", image.version, _utc(image.time))
        for image in logged_images(files, model, image_shape)
    }
    if not rows:
        raise UsageError(f"the logs hold no image that {model} was asked about: {files[0]}, ...")
    chosen = heapq.nsmallest(most, rows.values(), key=lambda row: (row[3], row[0]))
    write_images(files, model, image_shape, folder, {row[0] for row in chosen})
    with open(folder / LABELS, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *chosen])
    return len(chosen), len(rows)


def write_images(
    files: Sequence[Path], model: str, image_shape: tuple[int, int, int], folder: Path, ids: Collection[str]
) -> None:
    """Writes the logged images with these ids as `ID.png`. Raises UsageError where one is not in the logs."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    missing = set(ids)
    for image in logged_images(files, model, image_shape):
        if image.id in missing:
            Image.fromarray(image.pixels.squeeze()).save(folder / f"{image.id}.png")
            missing.remove(image.id)
    if missing:
        raise UsageError(
            f"image {min(missing)} ({len(missing)} in all) is neither beside the CSV file nor in the logs."
        )


def read_labels(path: Path) -> dict[str, str]:
    """The label of each image by its id, of the rows that are filled in.

    Raises:
        UsageError: it is no such CSV file, names an id that is none, or no row is filled in.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"id", "label"} <= set(rows.fieldnames or ()):
                raise UsageError(f"{path} must have the columns id and label, as `feedback --export` writes them.")
            found = {(row["id"] or "").strip(): (row["label"] or "").strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path} as CSV in UTF-8: {error}.") from error
    if wrong := [name for name in found if not _ID.fullmatch(name)]:
        raise UsageError(f"{path}: id {wrong[0]!r} is none; it must be 16 hexadecimal digits.")
    labels = {name: label for name, label in found.items() if label}
    if not labels:
        raise UsageError(f"{path}: no row has a label.")
    return labels


def add_feedback(recipe: Recipe, home: Home, labels_file: Path, logs: Path, *, with_test: bool) -> tuple[int, Imported]:
    """Adds the images with a label in the CSV file to the recipe's dataset as a new span.

    The images are taken from beside the file, as an export leaves them, or else from the logs.

    Raises:
        UsageError: the file is none, an image cannot be found, or a label is no class of the dataset.
        DataRejected: none of them is new.
    """
    from mnist_tfx.components.datasets.images.listing import ImageSource

    labels, folder = read_labels(labels_file), labels_file.resolve().parent
    missing = [name for name in labels if not (folder / f"{name}.png").is_file()]
    if missing:
        write_images(log_files(logs), recipe.data.dataset, recipe.data.image_shape, folder, missing)
    with tempfile.TemporaryDirectory() as place:
        listed = Path(place, LABELS)
        with open(listed, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("file", "label"), *((f"{name}.png", label) for name, label in labels.items())])
        return add_images(recipe, home, ImageSource(folder, listed), with_test=with_test)


def _utc(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
