"""Logged requests as images to be labelled, and back: the files of an export, and the CSV that is filled in."""

from __future__ import annotations

import csv
import heapq
import re
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.data import add_images
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.recipes import Recipe

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.images.prepare import Imported
    from mnist_tfx.components.monitoring.records import LoggedImage

LABELS = "labels.csv"
_COLUMNS = ("id", "label", "predicted", "probability", "version", "time")
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Asked:
    """An image that a model was asked about, and what it answered; `id` begins the SHA-256 of the pixels."""

    id: str
    pixels: npt.NDArray[np.uint8]  # [height, width, channels]
    answer: LoggedImage


def logged_images(prefix: str, model: str, image_shape: tuple[int, int, int]) -> Iterator[Asked]:
    """Every image of every Predict call to the model that can be decoded.

    Args:
        prefix: of the log files' paths.
        model: its name.
        image_shape: height, width and channels, to which image files are fitted, as the model does.

    Raises:
        UsageError: there are no such files.
    """
    import tensorflow as tf

    from mnist_tfx.components.monitoring.records import LogReader, log_files
    from mnist_tfx.components.transform.images import image_fitter

    if not log_files(prefix):
        raise UsageError(
            f"there is no request log {prefix}-*. Have the server write one: mnist-tfx serve --log-requests; or name "
            "its prefix with --logs."
        )
    fit = image_fitter(image_shape)
    for logged in LogReader(prefix, model):
        pixels = logged.image
        if isinstance(pixels, bytes):
            try:
                pixels = fit(tf.constant(pixels)).numpy()
            except tf.errors.InvalidArgumentError:
                continue  # which the model refused, too
        yield Asked(image_id(pixels), pixels, logged)


def image_id(pixels: npt.NDArray[np.uint8]) -> str:
    """What an image, [height, width, channels], is called in an export: 16 hexadecimal digits."""
    from mnist_tfx.components.transform.images import content_digest

    return content_digest(pixels)[:16]


def export_logged(
    prefix: str, model: str, image_shape: tuple[int, int, int], folder: Path, most: int
) -> tuple[int, int]:
    """Writes the `most` images of which the model was least certain, each once, and a CSV file to be filled in.

    Returns:
        How many were written, and how many there are.

    Raises:
        UsageError: the folder holds such a file already, or the logs no image, or there are none.
    """
    if (folder / LABELS).exists():
        raise UsageError(f"{folder / LABELS} is there already: fill it in, or name another folder.")
    rows = {}
    for image in logged_images(prefix, model, image_shape):
        got = image.answer
        time = f"{datetime.fromtimestamp(got.seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
        rows[image.id] = (image.id, "", got.label, f"{got.probabilities.max():.4f}", got.version, time)
    if not rows:
        raise UsageError(f"the logs hold no image that {model} was asked about: {prefix}-*")
    chosen = heapq.nsmallest(most, rows.values(), key=lambda row: (row[3], row[0]))
    write_images(prefix, model, image_shape, folder, {row[0] for row in chosen})
    with open(folder / LABELS, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *chosen])
    return len(chosen), len(rows)


def write_images(
    prefix: str, model: str, image_shape: tuple[int, int, int], folder: Path, ids: Collection[str]
) -> None:
    """Writes the logged images with these ids as `ID.png`. Raises UsageError where one is not in the logs."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    missing = set(ids)
    for image in logged_images(prefix, model, image_shape):
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
        UsageError: it is no such CSV file, names an id that is none or with two labels, or no row is filled in.
    """
    from mnist_tfx.components.datasets.images.listing import csv_rows

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv_rows(file)
            if not {"id", "label"} <= set(rows.fieldnames or ()):
                raise UsageError(f"{path} must have the columns id and label, as `feedback --export` writes them.")
            found = [((row["id"] or "").strip(), (row["label"] or "").strip()) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path} as CSV in UTF-8: {error}.") from error
    if wrong := [name for name, _ in found if not _ID.fullmatch(name)]:
        raise UsageError(f"{path}: id {wrong[0]!r} is none; it must be 16 hexadecimal digits.")
    labels: dict[str, str] = {}
    for name, label in found:
        if label and labels.setdefault(name, label) != label:
            raise UsageError(f"{path}: id {name} has the labels {labels[name]!r} and {label!r}: leave one of them.")
    if not labels:
        raise UsageError(f"{path}: no row has a label.")
    return labels


def add_feedback(
    recipe: Recipe, home: Home, labels_file: Path, prefix: str, *, with_test: bool
) -> tuple[int, Imported]:
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
        write_images(prefix, recipe.project.model, recipe.data.image_shape, folder, missing)
    with tempfile.TemporaryDirectory() as place:
        listed = Path(place, LABELS)
        with open(listed, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("file", "label"), *((f"{name}.png", label) for name, label in labels.items())])
        return add_images(recipe, home, ImageSource(folder, listed), with_test=with_test)
