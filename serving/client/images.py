"""From what users have (arrays, PNG, JPEG, BMP and GIF files) to what the signatures take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client.errors import InvalidInput
from mnist_tfx.serving.client.results import TensorSpec

EncodedImage: TypeAlias = bytes | str | PathLike[str]
"""The bytes of a PNG, JPEG, BMP or GIF image, or the path of a file of them."""

_MARKS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8")
_MAX_PIXEL = 255
# gRPC servers take 4 MiB a message unless told otherwise; TF Serving takes more.
_MAX_BATCH_BYTES = 3 << 20


def as_batch(images: npt.ArrayLike, spec: TensorSpec, white: float | None) -> npt.NDArray[Any]:
    """The images as a batch of the signature's dtype and shape.

    Args:
        images: one image or many: the signature's shape with or without the batch dimension and, for one channel, with
            or without the channel dimension.
        spec: the signature's input.
        white: for floats, the value of a white pixel (1.0 or 255.0); pixels are scaled by it and rounded.

    Raises:
        InvalidInput: they do not fit; the message says what would.
    """
    return _as_dtype(_as_shape(as_array(images), spec), spec, white)


def as_array(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """As NumPy reads it. Raises InvalidInput for what makes no array, such as rows of different lengths."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"the input makes no array: {error}") from error


def _as_shape(array: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    if spec.shape is None:
        return array
    image = spec.shape[1:]
    one_channel = len(image) == 3 and image[2] == 1
    if one_channel and (array.ndim == 2 or (array.ndim == 3 and not fits(array.shape, image))):
        array = array[..., np.newaxis]
    if array.ndim == len(image):
        array = array[np.newaxis]
    if not fits(array.shape, spec.shape):
        given = list(np.shape(array))
        raise InvalidInput(f"images of shape {given} do not fit the model's input, {spec}.")
    return array


def fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether an array of this shape fits a spec."""
    return len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))


def _as_dtype(array: npt.NDArray[Any], spec: TensorSpec, white: float | None) -> npt.NDArray[Any]:
    if white is not None and array.dtype.kind != "f":
        raise InvalidInput(f"`white` is for images of floats; these are {array.dtype}, whose pixels are 0 to 255.")
    if spec.dtype != np.uint8:
        if array.dtype != spec.dtype:
            raise InvalidInput(f"the model takes {spec.type_name}, not {array.dtype}. Convert the images with astype.")
        return array
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f":
        return _from_floats(array, white)
    if array.dtype.kind in "iu":
        if array.size and not (array.min() >= 0 and array.max() <= _MAX_PIXEL):
            raise InvalidInput(f"pixels are 0 to {_MAX_PIXEL}; these are {array.min()} to {array.max()}.")
        return array.astype(np.uint8)
    raise InvalidInput(f"pixels are numbers; these are of dtype {array.dtype}.")


def _from_floats(array: npt.NDArray[Any], white: float | None) -> npt.NDArray[np.uint8]:
    if white is None:
        raise InvalidInput(
            f"pixels of {array.dtype} may go from 0 to 1 or from 0 to 255, which the client does not guess. "
            "Say what white is: predict(images, white=1.0) or predict(images, white=255.0)."
        )
    if not (np.isfinite(white) and white > 0):
        raise InvalidInput(f"`white` is the value of a white pixel, such as 1.0 or 255.0; got {white}.")
    if not array.size:
        return array.astype(np.uint8)
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= white):  # NaN fails both
        raise InvalidInput(f"with white={white}, pixels are 0 to {white}; these are {low} to {high}.")
    return np.rint(array * (_MAX_PIXEL / white)).astype(np.uint8)


def read_encoded(image: EncodedImage) -> bytes:
    """The bytes of one PNG, JPEG, BMP or GIF image. Raises InvalidInput if it cannot be read or is none of them."""
    name = name_of(image)
    if isinstance(image, bytes):
        content = image
    else:
        try:
            content = Path(image).read_bytes()
        except OSError as error:
            raise InvalidInput(f"cannot read {name}: {error.strerror or error}.") from error
        except (TypeError, ValueError) as error:  # no path at all, or one with a zero byte
            raise InvalidInput(f"{image!r} is neither a path nor the bytes of an image: {error}.") from error
    if not content.startswith(_MARKS):
        begins = content[:8].hex(" ") or "nothing"
        raise InvalidInput(f"{name} is neither PNG nor JPEG nor BMP nor GIF: it begins with {begins}.")
    return content


def name_of(image: EncodedImage) -> str:
    """How messages call an image."""
    return f"an image of {len(image)} bytes" if isinstance(image, bytes) else str(image)


def encoded_batches(images: Iterable[EncodedImage], rows: int) -> Iterator[list[tuple[EncodedImage, bytes]]]:
    """Reads the images into batches of at most `rows` and some megabytes, one batch at a time."""
    batch: list[tuple[EncodedImage, bytes]] = []
    size = 0
    for image in images:
        content = read_encoded(image)
        if batch and (len(batch) == rows or size + len(content) > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((image, content))
        size += len(content)
    if batch:
        yield batch


class Rebatcher:
    """Makes batches of `rows` out of arrays of any number of rows, in their order, holding less than one batch more.

    Batches are copies: a caller may fill one buffer again and again while earlier batches are still being sent.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._parts: list[npt.NDArray[Any]] = []
        self._held = 0

    def add(self, array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Takes an array; yields the batches that are full now."""
        while self._held + len(array) >= self._rows:
            need = self._rows - self._held
            yield self._joined(array[:need])
            array = array[need:]
        if len(array):
            self._parts.append(array.copy())
            self._held += len(array)

    def flush(self) -> Iterator[npt.NDArray[Any]]:
        """Yields what is left, if anything is."""
        if self._parts:
            yield self._joined()

    def _joined(self, *more: npt.NDArray[Any]) -> npt.NDArray[Any]:
        parts = [*self._parts, *more]
        self._parts, self._held = [], 0
        return np.concatenate(parts)
