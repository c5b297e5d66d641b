"""TensorProto to NumPy and back.

A request is untrusted: nothing here allocates memory that the message's own bytes do not account for, but for the
repetition of a last value, which the wire format allows and `MAX_REPEATED_BYTES` bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto

from mnist_tfx.serving.server.limits import MAX_PARTS

MAX_REPEATED_BYTES = 16 * 2**20
"""A message may hold fewer values than its shape: the last one is repeated, up to an array of this size."""

MAX_RANK = 64  # NumPy's own limit

_PIECE = 2**16

# Of each type: its array, the typed field that holds it, and the array of what the field holds.
_TYPES: dict[int, tuple[Any, str, Any]] = {
    types_pb2.DT_FLOAT: (np.float32, "float_val", np.float32),
    types_pb2.DT_DOUBLE: (np.float64, "double_val", np.float64),
    types_pb2.DT_INT32: (np.int32, "int_val", np.int32),
    types_pb2.DT_UINT8: (np.uint8, "int_val", np.int32),
    types_pb2.DT_INT16: (np.int16, "int_val", np.int32),
    types_pb2.DT_INT8: (np.int8, "int_val", np.int32),
    types_pb2.DT_UINT16: (np.uint16, "int_val", np.int32),
    types_pb2.DT_UINT32: (np.uint32, "uint32_val", np.uint32),
    types_pb2.DT_UINT64: (np.uint64, "uint64_val", np.uint64),
    types_pb2.DT_INT64: (np.int64, "int64_val", np.int64),
    types_pb2.DT_BOOL: (np.bool_, "bool_val", np.bool_),
    types_pb2.DT_HALF: (np.float16, "half_val", np.int32),
    types_pb2.DT_BFLOAT16: (ml_dtypes.bfloat16, "half_val", np.int32),
    types_pb2.DT_COMPLEX64: (np.complex64, "scomplex_val", np.float32),
    types_pb2.DT_COMPLEX128: (np.complex128, "dcomplex_val", np.float64),
}
_ENUMS: dict[np.dtype, int] = {np.dtype(dtype): enum for enum, (dtype, _, _) in _TYPES.items()}
_DTYPES: dict[int, np.dtype] = {enum: np.dtype(dtype) for enum, (dtype, _, _) in _TYPES.items()}
_SIXTEEN_BIT_FLOATS = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)
_COMPLEX = (types_pb2.DT_COMPLEX64, types_pb2.DT_COMPLEX128)

# Fields whose packed wire format is the array's own bytes: (the field's tag, its dtype).
_FIXED_WIDTH_TAGS = {np.dtype(np.float32): b"\x2a", np.dtype(np.float64): b"\x32"}


def enum_of(dtype: np.dtype) -> int:
    """The `DataType` of arrays of `dtype`; strings are arrays of bytes or objects. Raises ValueError."""
    if dtype.kind in "SO":
        return types_pb2.DT_STRING
    enum = _ENUMS.get(dtype)
    if enum is None:
        raise ValueError(f"arrays of {dtype} have no tensor type")
    return enum


def type_name(enum: int) -> str:
    """What TensorFlow calls a type in its messages: "float", "uint8", "string"."""
    try:
        return types_pb2.DataType.Name(enum).removeprefix("DT_").lower()
    except ValueError:
        return f"unknown dtype enum ({enum})"


def decode_tensor(proto: TensorProto) -> np.ndarray:
    """The array of a tensor, in any of the wire format's encodings.

    Numeric arrays may be read-only views of the message's bytes. Strings come as bytes in an array of dtype object.

    Raises:
        ValueError: the message is no tensor: unknown type, a negative or unknown dimension, values that do not
            fit the shape.
    """
    shape = _shape(proto)
    count = math.prod(shape)
    if proto.dtype == types_pb2.DT_STRING:
        return _decode_strings(proto, shape, count)
    dtype = _DTYPES.get(proto.dtype)
    if dtype is None:
        raise ValueError(f"tensors of type {type_name(proto.dtype)} are not supported")
    content = proto.tensor_content
    if content:
        size = count * dtype.itemsize
        if len(content) != size:
            raise ValueError(f"tensor_content has {len(content)} bytes; shape {list(shape)} of {dtype} takes {size}")
        if dtype.kind == "b":  # any other byte than 0 and 1 is undefined behaviour in a kernel
            return (np.frombuffer(content, np.uint8) != 0).reshape(shape)
        return np.frombuffer(content, dtype).reshape(shape)
    return _decode_typed_field(proto, dtype, shape, count)


def encode_tensor(array: np.ndarray, as_content: bool) -> TensorProto:
    """A tensor of an array of any supported dtype; strings are arrays of bytes or of objects that are bytes.

    Args:
        array: any shape.
        as_content: write the array's bytes into `tensor_content` (strings never are), as TF Serving does with
            `--enable_serialization_as_tensor_content`; else the values go into the type's own field.

    Raises:
        ValueError: the dtype has no tensor type.
    """
    enum = enum_of(array.dtype)
    proto = TensorProto()
    if enum == types_pb2.DT_STRING:
        proto.string_val.extend(array.ravel().tolist())
    elif as_content:
        proto.tensor_content = array.tobytes()
    else:
        _encode_typed_field(proto, enum, array)
    proto.dtype = enum  # type: ignore[assignment]
    dims = proto.tensor_shape.dim
    for size in array.shape:
        dims.add().size = size
    return proto


def _shape(proto: TensorProto) -> tuple[int, ...]:
    if proto.tensor_shape.unknown_rank:
        raise ValueError("the shape has an unknown rank")
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    if len(shape) > MAX_RANK:
        raise ValueError(f"the shape has {len(shape)} dimensions; at most {MAX_RANK} are allowed")
    if shape and min(shape) < 0:
        raise ValueError(f"shape {list(shape)} has a negative dimension")
    if math.prod(size for size in shape if size) >= 2**63:
        raise ValueError("the shape has too many elements")
    return shape


def _decode_strings(proto: TensorProto, shape: tuple[int, ...], count: int) -> np.ndarray:
    values: Sequence[bytes] = _split_strings(proto.tensor_content, count) if proto.tensor_content else proto.string_val
    pointer = np.dtype(object).itemsize
    _check_count(len(values), shape, count, pointer)
    array = np.empty(count, object)
    array[: len(values)] = values
    array[len(values) :] = values[-1] if values else b""
    return array.reshape(shape)


def _split_strings(content: bytes, count: int) -> list[bytes]:
    """`tensor_content` of strings: the varint lengths of all, then the bytes of all."""
    if count > min(len(content), MAX_PARTS):
        raise ValueError(f"tensor_content has {len(content)} bytes; it cannot hold {count} strings")
    lengths: list[int] = []
    at = 0
    while len(lengths) < count:
        value = shift = 0
        while True:
            if at >= len(content) or shift > 63:
                raise ValueError("tensor_content holds a broken string length")
            byte = content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(value)
    if at + sum(lengths) != len(content):
        raise ValueError(f"tensor_content has {len(content)} bytes; its {count} strings take {at + sum(lengths)}")
    strings: list[bytes] = []
    for length in lengths:
        strings.append(content[at : at + length])
        at += length
    return strings


def _decode_typed_field(proto: TensorProto, dtype: np.dtype, shape: tuple[int, ...], count: int) -> np.ndarray:
    _, field, wire_dtype = _TYPES[proto.dtype]
    numbers = getattr(proto, field)
    values = np.empty(len(numbers), wire_dtype)
    for start in range(0, len(numbers), _PIECE):  # in pieces: others compute in between
        values[start : start + _PIECE] = numbers[start : start + _PIECE]
    if proto.dtype in _COMPLEX:
        if len(values) % 2:
            raise ValueError(f"{field} has {len(values)} numbers; complex values are pairs")
        values = values.view(dtype)
    elif proto.dtype in _SIXTEEN_BIT_FLOATS:
        values = values.astype(np.uint16).view(dtype)  # the field holds the bits
    elif values.dtype != dtype:
        values = values.astype(dtype)  # too large a number wraps around, as in TensorFlow
    _check_count(len(values), shape, count, dtype.itemsize)
    if len(values) < count:
        whole = np.empty(count, dtype)
        whole[: len(values)] = values
        whole[len(values) :] = values[-1] if len(values) else np.zeros((), dtype)
        values = whole
    return values.reshape(shape)


def _check_count(given: int, shape: tuple[int, ...], count: int, itemsize: int) -> None:
    if given > count:
        raise ValueError(f"there are {given} values; shape {list(shape)} takes {count}")
    if given < count and count * itemsize > MAX_REPEATED_BYTES:
        raise ValueError(
            f"shape {list(shape)} takes {count} values and there are {given}; "
            f"the last is repeated up to {MAX_REPEATED_BYTES} bytes only"
        )


def _encode_typed_field(proto: TensorProto, enum: int, array: np.ndarray) -> None:
    tag = _FIXED_WIDTH_TAGS.get(array.dtype)
    if tag is not None:
        content = array.tobytes()
        if content:  # 2 us whatever the size, where appending number by number takes 30 ns for each
            proto.MergeFromString(tag + _varint(len(content)) + content)
        return
    _, field, wire_dtype = _TYPES[enum]
    values = array.ravel()
    if enum in _COMPLEX:
        values = values.view(wire_dtype)
    elif enum in _SIXTEEN_BIT_FLOATS:
        values = values.view(np.uint16)
    getattr(proto, field).extend(values.tolist())


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
