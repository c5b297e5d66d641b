"""Batches as arrays: the rows of several requests joined into one, and the outputs split again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import grpc
import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from mnist_tfx.serving.server.errors import ServingError, invalid

Arrays = Mapping[str, np.ndarray]

_MAX_GROWTH = 8
"""Padding inputs to one length must not make a batch larger than this many times what was sent."""


def is_batchable(signature: SignatureDef) -> bool:
    """Whether each input and output has rows: a first dimension whose size the signature leaves open."""

    def has_rows(name: str, shapes: Mapping) -> bool:
        shape = shapes[name].tensor_shape
        return shape.unknown_rank or (len(shape.dim) > 0 and shape.dim[0].size == -1)

    return bool(signature.inputs) and all(
        has_rows(name, tensors) for tensors in (signature.inputs, signature.outputs) for name in tensors
    )


def check_keys(sent: Collection[str], known: Collection[str], optional: Collection[str] = ()) -> None:
    """Raises ServingError where the names of the inputs are not those that a signature knows."""
    extra = [key for key in sent if key not in known]
    missing = [key for key in known if key not in sent and key not in optional]
    if extra or missing:
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(known)} len({{{','.join(sorted(sent))}}}) != "
            f"len({{{','.join(sorted(known))}}}). Sent extra: {{{','.join(sorted(extra))}}}. "
            f"Missing but required: {{{','.join(sorted(missing))}}}."
        )


def count_rows(inputs: Arrays) -> int:
    """The size of the first dimension, which all inputs share. Raises ServingError."""
    rows = -1
    for array in inputs.values():
        if array.ndim == 0:
            raise invalid("Batching Run() input tensors must have at least one dimension")
        if rows not in (-1, len(array)):
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
        rows = len(array)
    return rows


def check_rows(rows: int, limit: int | None) -> None:
    """Raises ServingError for a request of more rows than a batch may have."""
    if limit is not None and rows > limit:
        raise invalid(f"Task size {rows} is larger than maximum input batch size {limit}")


def join(parts: Sequence[Arrays], rows: int, pad_lengths: bool) -> dict[str, np.ndarray]:
    """One array of `rows` rows per input: those of all parts in order, and copies of the first row behind them.

    Args:
        parts: inputs of equal names and dtypes, and of equal dimensions but for the first.
        rows: at least as many as the parts have; not more than that if they have none.
        pad_lengths: the other dimensions may differ too (not the rank); each part is padded to the largest with its
            own first element, as TF Serving does. Raises ServingError where a part has none, or where the batch
            would become too large.
    """
    joined: dict[str, np.ndarray] = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if pad_lengths:
            arrays = _pad_lengths(arrays)
        missing = rows - sum(map(len, arrays))
        if missing:
            first = next(array for array in arrays if len(array))[:1]
            arrays.append(first if missing == 1 else first.repeat(missing, axis=0))
        joined[name] = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    return joined


def split(outputs: Arrays, sizes: Sequence[int], rows: int) -> list[dict[str, np.ndarray]]:
    """The outputs of each part; `sizes` are the parts' rows, `rows` what was computed, with padding.

    Raises ServingError for an output that has not one row for each of the inputs'.
    """
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise ServingError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                f"tensors: output {name!r} has shape {list(array.shape)} for {rows} rows. Serve this model without "
                "batching",
            )
    parts: list[dict[str, np.ndarray]] = []
    start = 0
    for size in sizes:
        parts.append({name: array[start : start + size] for name, array in outputs.items()})
        start += size
    return parts


def _pad_lengths(arrays: list[np.ndarray]) -> list[np.ndarray]:
    lengths = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
    if all(array.shape[1:] == lengths for array in arrays):
        return arrays
    padded_size = sum(len(array) for array in arrays) * int(np.prod(lengths, dtype=object))
    if padded_size > _MAX_GROWTH * sum(array.size for array in arrays):
        raise invalid("inputs of too different lengths to be padded into one batch")
    found: list[np.ndarray] = []
    for array in arrays:
        padded = array
        if array.shape[1:] != lengths:
            if not array.size:
                raise invalid("Got empty tensor in batch of non-empty tensors.")
            padded = np.full((len(array), *lengths), array.flat[0], array.dtype)
            padded[tuple(slice(size) for size in array.shape)] = array
        found.append(padded)
    return found
