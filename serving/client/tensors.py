"""NumPy arrays as TensorProtos and back, in microseconds and without TensorFlow.

What is read is not trusted: nothing here allocates memory that the message's own bytes do not account for, but for the
repetition of a last value, which the wire format allows and a limit bounds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client.messages import TensorProto, TensorShapeProto, enum_values

# NumPy dtype and the typed field that may hold the values. Little-endian, as TensorFlow writes `tensor_content` on
# every machine it serves on.
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
# The dtype of what a field holds, where it is not the array's: half floats travel as their bits, complex numbers as
# pairs.
HELD: Mapping[str, np.dtype[Any]] = {
    "int_val": np.dtype("<i4"),
    "half_val": np.dtype("<i4"),
    "scomplex_val": np.dtype("<f4"),
    "dcomplex_val": np.dtype("<f8"),
}
_NUMBERS = enum_values("tensorflow.DataType")
_NAMES = {number: name for name, number in _NUMBERS.items()}
_STRING = _NUMBERS["DT_STRING"]

Types: TypeAlias = Mapping[int, tuple[np.dtype[Any], str]]
TYPES: Types = {_NUMBERS[name]: (np.dtype(code), field) for name, (code, field) in _TYPES.items()}
"""DataType -> the array's dtype, and the typed field."""
_DATA_TYPES = {dtype: number for number, (dtype, _) in TYPES.items()}

_MAX_FILLED_BYTES = 64 << 20
_MAX_RANK = 64  # NumPy's own
_PIECE = 1 << 16


def dtype_of(data_type: int) -> np.dtype[Any] | None:
    """The NumPy dtype of a DataType; strings are `object` (bytes); None for what NumPy has no type for."""
    return TYPES[data_type][0] if data_type in TYPES else None


def type_name(data_type: int) -> str:
    """The DataType's name: NumPy's (`float32`) if it has the type, else TensorFlow's (`string`, `bfloat16`)."""
    dtype = dtype_of(data_type)
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
        tensor.tensor_content = array.astype(TYPES[data_type][0], copy=False).tobytes()
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


def decode(
    tensor: Any, types: Types = TYPES, most_filled: int = _MAX_FILLED_BYTES, most_strings: int | None = None
) -> npt.NDArray[Any]:
    """The array in a TensorProto, from `tensor_content` or from the typed field, whichever the sender used.

    Args:
        tensor: the message; of this package, or of TensorFlow.
        types: what there is.
        most_filled: a message may hold fewer values than its shape: the last one is repeated (none stands for zeros),
            up to an array of so many bytes.
        most_strings: how many of them `tensor_content` may hold.

    Returns:
        An array of the tensor's dtype and shape, perhaps a read-only view of the message's bytes; strings as bytes in
        an object array.

    Raises:
        ValueError: there is no such type, a dimension is negative or unknown, or the values do not fit the shape.
    """
    data_type = tensor.dtype
    if data_type not in types:
        raise ValueError(f"a tensor of type {type_name(data_type)} cannot be read into NumPy")
    dtype, field = types[data_type]
    shape, count = _read_shape(tensor.tensor_shape.SerializeToString())
    content = tensor.tensor_content
    values: Any
    if not content:
        values = _typed(field, getattr(tensor, field), dtype)
    elif data_type == _STRING:
        if count > min(len(content), len(content) if most_strings is None else most_strings):
            raise ValueError(f"tensor_content has {len(content)} bytes; it cannot hold {count} strings")
        values = _strings_in_content(content, count)
    elif len(content) != count * dtype.itemsize:
        raise ValueError(
            f"tensor_content has {len(content)} bytes; shape {list(shape)} of {dtype} takes {count * dtype.itemsize}"
        )
    elif dtype.kind == "b":  # any other byte than 0 and 1 is undefined behaviour in a kernel
        values = np.frombuffer(content, np.uint8) != 0
    else:
        values = np.frombuffer(content, dtype)
    if len(values) != count:
        values = _filled(values, count, shape, most_filled)
    return values if len(shape) == 1 else values.reshape(shape)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=256)
def _read_shape(serialized: bytes) -> tuple[tuple[int, ...], int]:
    """A shape, and how many elements it has; cached for the same reason."""
    proto = TensorShapeProto.FromString(serialized)
    if proto.unknown_rank:
        raise ValueError("the shape has an unknown rank")
    shape = tuple([dim.size for dim in proto.dim])
    if len(shape) > _MAX_RANK:
        raise ValueError(f"the shape has {len(shape)} dimensions; at most {_MAX_RANK} are allowed")
    if shape and min(shape) < 0:
        raise ValueError(f"shape {list(shape)} has a negative dimension")
    if math.prod(size for size in shape if size) >= 2**63:
        raise ValueError("the shape has too many elements")
    return shape, math.prod(shape)


def _typed(field: str, numbers: Sequence[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    held = HELD.get(field)
    if held is None:
        return _read(numbers, dtype)
    values = _read(numbers, held)
    if dtype.kind == "c":
        if len(values) % 2:
            raise ValueError(f"{field} has {len(values)} numbers; complex values are pairs")
        return values.view(dtype)
    if field == "half_val":
        return values.astype(np.uint16).view(dtype)
    return values.astype(dtype, copy=False)  # too large a number wraps around, as in TensorFlow


def _read(numbers: Sequence[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    count = len(numbers)
    if count <= _PIECE:
        return np.fromiter(numbers, dtype, count)
    values = np.empty(count, dtype)
    for start in range(0, count, _PIECE):  # in pieces: other threads go on in between
        values[start : start + _PIECE] = numbers[start : start + _PIECE]
    return values


def _strings_in_content(content: bytes, count: int) -> npt.NDArray[Any]:
    """TensorFlow's packing of strings (`EncodeStringList`): every length as a varint, then all the bytes."""
    lengths: list[int] = []
    position = 0
    try:
        while len(lengths) < count:
            length, position = read_varint(content, position)
            lengths.append(length)
    except IndexError:
        raise ValueError("tensor_content holds a broken string length") from None
    taken = position + sum(lengths)
    if taken != len(content):
        raise ValueError(f"tensor_content has {len(content)} bytes; its {count} strings take {taken}")
    strings = np.empty(count, object)
    for index, length in enumerate(lengths):
        strings[index] = content[position : position + length]
        position += length
    return strings


def read_varint(content: bytes, position: int) -> tuple[int, int]:
    """The number there, of up to 64 bits, and where it ends. Raises IndexError where it is cut off or too long."""
    byte = content[position]
    if byte < 0x80:
        return byte, position + 1
    value = byte & 0x7F
    for shift in range(7, 70, 7):
        position += 1
        byte = content[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
    raise IndexError


def _filled(values: npt.NDArray[Any], count: int, shape: tuple[int, ...], most: int) -> npt.NDArray[Any]:
    if len(values) > count:
        raise ValueError(f"there are {len(values)} values; shape {list(shape)} takes {count}")
    if count * values.dtype.itemsize > most:
        raise ValueError(
            f"shape {list(shape)} takes {count} values and there are {len(values)}; the last is repeated up to {most} "
            "bytes only"
        )
    filled = np.empty(count, values.dtype)
    filled[: len(values)] = values
    filled[len(values) :] = values[-1] if len(values) else b"" if values.dtype == object else 0
    return filled
