"""Arrays to tensors and back, against TensorFlow's own reading and writing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from mnist_tfx.serving.client import tensors
from mnist_tfx.serving.client.messages import TensorProto

NUMBERS = [
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
    "complex64", "complex128",
]  # fmt: skip
SHAPES: list[tuple[int, ...]] = [(), (0,), (3,), (2, 0, 4), (2, 3, 4)]
TYPED = {
    "float16": "half_val", "float32": "float_val", "float64": "double_val", "int64": "int64_val", "bool": "bool_val",
    "uint32": "uint32_val", "uint64": "uint64_val",
}  # fmt: skip


def sample(dtype: str, shape: tuple[int, ...]) -> Any:
    values = np.random.default_rng(3).integers(0, 100, shape)
    return (values + 1j * values[..., ::-1] if dtype.startswith("complex") and shape else values).astype(dtype)


def official(tensor: Any) -> Any:
    return tensor_pb2.TensorProto.FromString(tensor.SerializeToString())


def ours(tensor: Any) -> Any:
    return TensorProto.FromString(tensor.SerializeToString())


def typed(array: Any) -> Any:
    """The array in its typed field, as TF Serving answers by default."""
    dtype = array.dtype.name
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(dtype).as_datatype_enum)
    proto.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    flat = array.ravel()
    if dtype == "float16":
        flat = flat.view(np.uint16)
    if dtype == "complex64":
        proto.scomplex_val.extend(flat.view(np.float32).tolist())
    elif dtype == "complex128":
        proto.dcomplex_val.extend(flat.view(np.float64).tolist())
    else:
        getattr(proto, TYPED.get(dtype, "int_val")).extend(flat.tolist())
    return proto


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers(dtype: str, shape: tuple[int, ...]) -> None:
    array = sample(dtype, shape)
    sent = official(tensors.encode(array))
    np.testing.assert_array_equal(tf.make_ndarray(sent), array, strict=True)
    for answer in (sent, typed(array)):
        np.testing.assert_array_equal(tf.make_ndarray(answer), array, strict=True)
        np.testing.assert_array_equal(tensors.decode(ours(answer)), array, strict=True)


def test_arrays_in_any_memory_order() -> None:
    array = np.arange(24, dtype=">i4").reshape(2, 3, 4)[:, ::-1].T
    np.testing.assert_array_equal(tf.make_ndarray(official(tensors.encode(array))), array)


@pytest.mark.parametrize("shape", [(), (0,), (2, 2)], ids=str)
def test_strings(shape: tuple[int, ...]) -> None:
    values = [b"", b"zero at the end\0", "gr\u00fcn".encode(), b"\xff"][: int(np.prod(shape))]
    array = np.empty(len(values), object)
    array[:] = values
    array = array.reshape(shape)
    sent = official(tensors.encode(array))
    np.testing.assert_array_equal(tf.make_ndarray(sent), array)
    decoded = tensors.decode(ours(sent))
    assert decoded.shape == shape and decoded.tolist() == array.tolist()


def test_text_travels_as_utf8() -> None:
    sent = official(tensors.encode(np.array(["T-shirt", "gr\u00fcn"])))
    assert list(sent.string_val) == [b"T-shirt", "gr\u00fcn".encode()]


def test_strings_packed_into_content() -> None:
    strings = [b"", b"a" * 300, b"\0"]
    packed = bytes([0, 300 & 0x7F | 0x80, 300 >> 7, 1]) + b"".join(strings)
    tensor = tensor_pb2.TensorProto(dtype=tf.string.as_datatype_enum, tensor_content=packed)
    tensor.tensor_shape.dim.add(size=3)
    assert tf.io.parse_tensor(tensor.SerializeToString(), tf.string).numpy().tolist() == strings  # TensorFlow agrees
    assert tensors.decode(ours(tensor)).tolist() == strings
    for damaged in (packed[:-1], packed + b"x", packed[:2], b"\x80" * 9):
        tensor.tensor_content = damaged
        with pytest.raises(ValueError, match=r"tensor_content (has .* 3 strings|holds a broken string length)"):
            tensors.decode(ours(tensor))


def test_fewer_values_than_elements() -> None:
    tensor = TensorProto(dtype=1, float_val=[1.0, 2.0])
    tensor.tensor_shape.dim.add(size=4)
    assert tensors.decode(tensor).tolist() == tf.make_ndarray(official(tensor)).tolist() == [1, 2, 2, 2]
    tensor.ClearField("float_val")
    assert tensors.decode(tensor).tolist() == [0, 0, 0, 0]


def described(dtype: int, sizes: list[int], **fields: Any) -> Any:
    tensor = TensorProto(dtype=dtype, **fields)
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (described(1, [2], tensor_content=b"12345"), "has 5 bytes"),
        (described(1, [1], float_val=[1, 2]), r"2 values; shape \[1\] takes 1"),
        (described(1, [-1], float_val=[1]), "negative dimension"),
        (described(1, [1 << 20, 1 << 20], float_val=[1]), "repeated up to"),
        (described(14, [1], half_val=[1]), "type bfloat16"),
        (described(999, [1]), "type 999"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_tensors(tensor: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tensors.decode(tensor)


@pytest.mark.parametrize("array", [np.array([b"S"]), np.array([None], object), np.array(["2020"], "M8[Y]")], ids=repr)
def test_arrays_that_no_tensor_holds(array: Any) -> None:
    with pytest.raises(ValueError, match=r"object|bytes or str"):
        tensors.encode(array)
