"""Looks at each image file: whether all that reads it later will be able to, and what it shows."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import apache_beam as beam
import tensorflow as tf

from mnist_tfx.components.datasets.images.index import Finding, Index
from mnist_tfx.components.transform.images import content_digest, image_fitter

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000  # decoded, 200 MB: what is larger is a mistake, or made to exhaust memory
MAX_BYTES = 128 * 2**20
_JPEGS = ("JPEG", "MPO")  # Pillow's names; MPO: a JPEG of some cameras, with more images behind it
_KINDS = ("PNG", *_JPEGS, "BMP", "GIF")
_Fit: TypeAlias = Callable[[tf.Tensor], tf.Tensor]  # of an encoded image, to pixels of one size


class Inspect(beam.DoFn):
    """Looks at the files of one range of numbers, and leaves a JSON file with what was found."""

    def __init__(
        self,
        index: str,
        folder: str,
        findings: str,
        image_shape: tuple[int, int, int] | None = None,
        span_shapes: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        """Takes the index's path, the source's folder and a folder for the findings.

        With `image_shape`, what names an image is its pixels fitted to that, not the bytes of its file. `span_shapes`
        are the sizes at which spans may know it.
        """
        self._index, self._folder, self._findings = index, folder, findings
        self._image_shape, self._span_shapes = image_shape, span_shapes
        self._fit: _Fit | None = None
        self._fit_as_spans: list[_Fit] = []

    def setup(self) -> None:
        """Makes the graphs that fit an image."""
        if shape := self._image_shape:
            self._fit = image_fitter(shape)
        self._fit_as_spans = [image_fitter(shape) for shape in self._span_shapes]

    def process(self, numbers: tuple[int, int]) -> Iterator[int]:
        """Yields how many files they were."""
        files = Index(Path(self._index)).files(*numbers)
        found = [
            asdict(inspect_file(number, Path(self._folder, file), self._fit, self._fit_as_spans))
            for number, file in files
        ]
        target = Path(self._findings, f"{numbers[0]}.json")
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.replace(target)
        yield len(found)


def inspect_file(number: int, path: Path, fit: _Fit | None = None, fit_as_spans: Sequence[_Fit] = ()) -> Finding:
    """Reads and decodes one file, with the decoder that training and serving use; `fit` makes the pixels that name it.

    Without `fit`, the bytes of the file name it. `fit_as_spans` make the pixels by which spans may know it.
    """
    import imagehash
    from PIL import Image

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Finding(number, problem="is no file")
        if status.st_size > MAX_BYTES:
            return Finding(number, problem=f"is larger than {MAX_BYTES // 2**20} MiB")
        content = path.read_bytes()
    except OSError as error:
        return Finding(number, problem=f"cannot be read: {error.strerror}")
    if not content:
        return Finding(number, problem="is empty")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as header:  # decodes nothing yet
            kind, pixels, mode = header.format, header.width * header.height, header.mode
            on_its_side = kind in _JPEGS and _on_its_side(header)
    except Image.DecompressionBombError:
        kind, pixels, mode, on_its_side = "PNG", MAX_PIXELS + 1, "", False
    except Exception:  # Pillow's readers raise what damaged headers make them
        return Finding(number, problem="is no image, or its beginning is damaged")
    if kind not in _KINDS:
        return Finding(number, problem=f"is a {kind} image: convert it to PNG or JPEG")
    if kind == "BMP" and mode in ("1", "P"):  # TensorFlow would take the numbers of its colours for grey, or refuse it
        return Finding(number, problem="is a BMP image with a palette: convert it to PNG or JPEG")
    if pixels > MAX_PIXELS:
        return Finding(number, problem=f"has more than {MAX_PIXELS:,} pixels")
    try:
        image = tf.io.decode_image(content, channels=0, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError:
        return Finding(number, problem="is truncated or damaged")
    grey = image.shape[2] < 3 or bool((image[..., :1] == image[..., 1:3]).all())
    looks = imagehash.phash(Image.fromarray(image[..., 0] if grey else image[..., :3]))
    digest = _of_pixels(fit, content) if fit else hashlib.sha256(content).hexdigest()
    fitted = json.dumps([_of_pixels(each, content) for each in fit_as_spans])
    height, width = image.shape[1::-1] if on_its_side else image.shape[:2]
    return Finding(number, digest, str(looks), height, width, grey, fitted=fitted)


def _of_pixels(fit: _Fit, content: bytes) -> str:
    return content_digest(fit(tf.constant(content)).numpy())


def _on_its_side(header: Image.Image) -> bool:
    """Whether what its file calls height is its width when it is upright, as `image_fitter` turns it."""
    from PIL import ExifTags

    try:
        return header.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # damaged Exif data, which say nothing
        return False
