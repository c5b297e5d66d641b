"""What of a request's tensors a log keeps: all, only a hash of each row, or averages of the pixels."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client import tensors
from mnist_tfx.serving.client.errors import InvalidOption
from mnist_tfx.serving.client.messages import GetModelStatusRequest, PredictRequest

Pixels: TypeAlias = Literal["full", "hash"] | int

_MOST = 64


def parse_pixels(given: str | int) -> Pixels:
    """Reads an option: `full`, `hash`, or a number N for N x N averages. Raises InvalidOption."""
    if given in ("full", "hash"):
        return "full" if given == "full" else "hash"
    try:
        size = int(given)
    except ValueError:
        size = 0
    if not 1 <= size <= _MOST:
        raise InvalidOption(f"pixels are full, hash, or N from 1 to {_MOST} for N x N averages; got {given!r}.")
    return size


def reduced(kind: str, request: bytes, pixels: Pixels) -> bytes:
    """A serialized request without what a log shall not keep.

    Of a Predict, each input NAME is replaced: by `NAME.sha256`, a string tensor [rows] with the SHA-256 (hex) of each
    row's bytes; or, where it is a numeric [rows, height, width, channels], by `NAME.NxN`, the averages as uint8 or
    float32 [rows, N, N, channels] (fewer where the image is smaller). Images that travel encoded, or inside
    tf.Examples, are not decoded for it: they are hashed. Of Classify and Regress, which have nothing
    but tf.Examples, the model_spec stays; of MultiInference nothing.

    Raises:
        ValueError: a tensor cannot be read. Nothing of it may then be logged.
    """
    if pixels == "full":
        return request
    kept = PredictRequest()
    if kind != "multi_inference_log":  # whose tasks have a model_spec each
        kept.model_spec.CopyFrom(GetModelStatusRequest.FromString(request).model_spec)  # the same field in all
    if kind == "predict_log":
        message = PredictRequest.FromString(request)
        kept.output_filter.extend(message.output_filter)
        for name, tensor in message.inputs.items():
            array = tensors.decode(tensor)
            if isinstance(pixels, int) and array.ndim == 4 and array.dtype.kind in "uif":
                tensors.encode(_averages(array, pixels), kept.inputs[f"{name}.{pixels}x{pixels}"])
            else:
                tensors.encode(_hashes(array), kept.inputs[f"{name}.sha256"])
    return bytes(kept.SerializeToString())


def _hashes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    rows = array if array.ndim else array[np.newaxis]
    digests = [hashlib.sha256(_bytes(row)).hexdigest() for row in rows]
    return np.array(digests, object)


def _bytes(row: Any) -> bytes:
    if isinstance(row, bytes):
        return row
    return b"\0".join(row.flat) if row.dtype == object else row.tobytes()


def _averages(images: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Means over size x size blocks of about the same size."""
    _, height, width, _ = images.shape
    if not images.size:
        return np.zeros((0, 0, 0, 0), np.uint8)
    tops, lefts = (np.unique(np.arange(size) * length // size) for length in (height, width))
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.float64), tops, 1), lefts, 2)
    counts = np.outer(np.diff([*tops, height]), np.diff([*lefts, width]))[..., np.newaxis]
    means = sums / counts
    return np.rint(means).astype(np.uint8) if images.dtype == np.uint8 else means.astype(np.float32)
