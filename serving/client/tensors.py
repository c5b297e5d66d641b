"""NumPy arrays as TensorProtos and back, in microseconds and without TensorFlow."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client.messages import TensorProto, TensorShapeProto, enum_values

# DataType -> NumPy dtype and the typed field that may hold the values. Half floats travel as their bits in int32,
# complex numbers as pairs. Little-endian, as TensorFlow writes `tensor_content` on every machine it serves on.
_TYPES: dict[str, tuple[str, str]] = {
    "DT_FLOAT": ("<f4", "float_val"),
    "DT_DOUBLE": ("<f8", "double_val"),
    "DT_HALF": ("<f2", "half_val"),
    "DT_INT8": ("i1", "int_val"),
    "DT_INT16": ("<i2", "int_val"),
    "DT_INT32": ("<i4", "int_val"),
    "DT_INT64": ("<i8", "int64_val"),
    "DT_UINT8": ("u1", "int_val"),
    "DT_UINT16": ("<u2", "int_val"),
    "DT_UINT32": ("<u4", "uint32_val"),
    "DT_UINT64": ("<u8", "uint64_val"),
    "DT_BOOL": ("?", "bool_val"),
    "DT_COMPLEX64": ("<c8", "scomplex_val"),
    "DT_COMPLEX128": ("<c16", "dcomplex_val"),
    "DT_STRING": ("O", "string_val"),
}
_HELD = {"<f2": "<u2", "<c8": "<f4", "<c16": "<f8"}
_NUMBERS = enum_values("tensorflow.DataType")
_NAMES = {number: name for name, number in _NUMBERS.items()}
_DTYPES = {_NUMBERS[name]: np.dtype(code) for name, (code, _) in _TYPES.items()}
_DATA_TYPES = {dtype: number for number, dtype in _DTYPES.items()}
_STRING = _NUMBERS["DT_STRING"]
# DataType -> the array's dtype, the typed field, and the dtype of what the field holds.
_READING = {
    _NUMBERS[name]: (np.dtype(code), field, np.dtype(_HELD.get(code, code))) for name, (code, field) in _TYPES.items()
}

# A few bytes can announce a tensor of any size (one value stands for all); answers are never filled up beyond this.
_MAX_FILLED_BYTES = 64 << 20


def dtype_of(data_type: int) -> np.dtype[Any] | None:
    """The NumPy dtype of a DataType; strings are `object` (bytes); None for what NumPy has no type for."""
    return _DTYPES.get(data_type)


def type_name(data_type: int) -> str:
    """The DataType's name: NumPy's (`float32`) if it has the type, else TensorFlow's (`string`, `bfloat16`)."""
    dtype = _DTYPES.get(data_type)
    if dtype is not None and data_type != _STRING:
        return dtype.name
    return _NAMES.get(data_type, str(data_type)).removeprefix("DT_").lower()


def encode(array: npt.NDArray[Any], tensor: Any = None) -> Any:
    """Writes an array into `tensor` (a new TensorProto by default) and returns it.

    Args:
        array: numbers of any shape, or an object array of bytes or str (str travels as UTF-8).
        tensor: an empty TensorProto.

    Raises:
        ValueError: there is no DataType for the array's dtype, or an object array holds something else.
    """
    if tensor is None:
        tensor = TensorProto()
    if array.dtype.kind == "U":
        array = array.astype(object)
    data_type = _DATA_TYPES.get(array.dtype.newbyteorder("<"))
    if data_type is None:
        raise ValueError(f"no tensor type for NumPy's {array.dtype}; give bytes as an array of dtype object")
    tensor.dtype = data_type
    tensor.tensor_shape.CopyFrom(_shape_proto(array.shape))
    if data_type == _STRING:
        tensor.string_val.extend([_as_bytes(value) for value in array.flat])
    else:
        tensor.tensor_content = array.astype(_DTYPES[data_type], copy=False).tobytes()
    return tensor


@functools.lru_cache(maxsize=256)
def _shape_proto(shape: tuple[int, ...]) -> Any:
    """Cached: a program sends few shapes, and building one message a dimension costs more than the copy."""
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape])


@functools.lru_cache(maxsize=256)
def _read_shape(serialized: bytes) -> tuple[tuple[int, ...], int]:
    """A shape and how many elements it has; cached for the same reason."""
    proto = TensorShapeProto.FromString(serialized)
    shape = tuple(dim.size for dim in proto.dim)
    if proto.unknown_rank or min(shape, default=0) < 0:
        raise ValueError(f"a tensor's shape must be known; got {shape}")
    return shape, math.prod(shape)


def _as_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise ValueError(f"a string tensor holds bytes or str, not {type(value).__name__}")


def decode(tensor: Any) -> npt.NDArray[Any]:
    """The array in a TensorProto, from `tensor_content` or from the typed field, whichever the server used.

    Returns:
        An array of the tensor's dtype and shape; strings as bytes in an object array.

    Raises:
        ValueError: the dtype has no NumPy type, or the values do not fit the shape.
    """
    data_type = tensor.dtype
    if data_type not in _READING:
        raise ValueError(f"a tensor of type {type_name(data_type)} cannot be read into NumPy")
    dtype, field, held = _READING[data_type]
    shape, size = _read_shape(tensor.tensor_shape.SerializeToString())
    content = tensor.tensor_content
    if content:
        if data_type == _STRING:
            return _strings_in_content(content, size).reshape(shape)
        if len(content) != size * dtype.itemsize:
            raise ValueError(f"{len(content)} bytes of content do not make a {type_name(data_type)} tensor {shape}")
        return np.frombuffer(content, dtype).reshape(shape)
    typed = getattr(tensor, field)
    values = np.fromiter(typed, held, len(typed))
    if held is not dtype:
        values = values.view(dtype)
    if len(values) != size:
        values = _filled(values, size, shape)
    return values if len(shape) == 1 else values.reshape(shape)


def _strings_in_content(content: bytes, count: int) -> npt.NDArray[Any]:
    """TensorFlow's packing of strings (`EncodeStringList`): every length as a varint, then all the bytes."""
    lengths: list[int] = []
    position = 0
    while len(lengths) < count:
        length = shift = 0
        while True:
            if position >= len(content) or shift > 28:
                raise ValueError(f"{len(content)} bytes of content do not hold {count} strings")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ValueError(f"{len(content)} bytes of content do not hold {count} strings")
    strings = np.empty(count, object)
    for index, length in enumerate(lengths):
        strings[index] = content[position : position + length]
        position += length
    return strings


def _filled(values: npt.NDArray[Any], size: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """All `size` values where fewer were sent: the last stands for the rest, none at all for zeros (tensor.proto)."""
    if len(values) > size:
        raise ValueError(f"{len(values)} values do not make a tensor {shape}")
    if size * values.dtype.itemsize > _MAX_FILLED_BYTES:
        raise ValueError(f"{len(values)} values announce a tensor {shape}, which is too large to fill up")
    nothing = b"" if values.dtype == object else 0
    filled = np.full(size, values[-1] if len(values) else nothing, values.dtype)
    filled[: len(values)] = values
    return filled
