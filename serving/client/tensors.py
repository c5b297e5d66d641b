"""NumPy arrays as TensorProtos and back, in microseconds and without TensorFlow."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.client.messages import TensorProto, TensorShapeProto, enum_values

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
_NUMBERS = enum_values("tensorflow.DataType")
_NAMES = {number: name for name, number in _NUMBERS.items()}
_DTYPES = {_NUMBERS[name]: np.dtype(code) for name, (code, _) in _TYPES.items()}
_FIELDS = {_NUMBERS[name]: field for name, (_, field) in _TYPES.items()}
_DATA_TYPES = {dtype: number for number, dtype in _DTYPES.items()}
_STRING, _HALF = _NUMBERS["DT_STRING"], _NUMBERS["DT_HALF"]

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
    dtype = _DTYPES.get(data_type)
    if dtype is None:
        raise ValueError(f"a tensor of type {type_name(data_type)} cannot be read into NumPy")
    dims = tensor.tensor_shape
    shape = [dim.size for dim in dims.dim]
    if dims.unknown_rank or (shape and min(shape) < 0):
        raise ValueError(f"a tensor's shape must be known; got {shape}")
    size = math.prod(shape)
    content = tensor.tensor_content
    if content:
        if data_type == _STRING:
            return _strings_in_content(content, size).reshape(shape)
        if len(content) != size * dtype.itemsize:
            raise ValueError(f"{len(content)} bytes of content do not make a {type_name(data_type)} tensor {shape}")
        return np.frombuffer(content, dtype).reshape(shape)
    values = _typed_values(getattr(tensor, _FIELDS[data_type]), data_type, dtype)
    if values.size != size:
        values = _filled(values, size, shape)
    return values if len(shape) == 1 else values.reshape(shape)


def _typed_values(field: Any, data_type: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if data_type == _HALF:
        return np.fromiter(field, np.uint16, len(field)).view(np.float16)
    if dtype.kind == "c":
        return np.fromiter(field, dtype.type(0).real.dtype, len(field)).view(dtype)
    return np.fromiter(field, dtype, len(field))


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


def _filled(values: npt.NDArray[Any], size: int, shape: list[int]) -> npt.NDArray[Any]:
    """All `size` values where fewer were sent: the last stands for the rest, none at all for zeros (tensor.proto)."""
    if len(values) > size:
        raise ValueError(f"{len(values)} values do not make a tensor {shape}")
    if size * values.dtype.itemsize > _MAX_FILLED_BYTES:
        raise ValueError(f"{len(values)} values announce a tensor {shape}, which is too large to fill up")
    nothing = b"" if values.dtype == object else 0
    filled = np.full(size, values[-1] if len(values) else nothing, values.dtype)
    filled[: len(values)] = values
    return filled
