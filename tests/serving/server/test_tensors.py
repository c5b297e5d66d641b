from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto

from mnist_tfx.serving.server.tensors import MAX_REPEATED_BYTES, decode_tensor, encode_tensor

DTYPES = [
    *(np.float16, ml_dtypes.bfloat16, np.float32, np.float64),
    *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.bool_, np.complex64, np.complex128),
]


def tensor(dtype: int, dims: list[int], **fields) -> TensorProto:
    proto = TensorProto(dtype=dtype, **fields)
    for size in dims:
        proto.tensor_shape.dim.add().size = size
    return proto


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3, 1)], ids=str)
def test_every_type_goes_both_ways_and_reads_as_tensorflow_reads_it(dtype: type, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 2 if dtype is np.bool_ else 100, shape)
    array = np.asarray(values).astype(dtype)
    if array.dtype.kind in "fic":
        array = -array
    for proto in (encode_tensor(array, False), encode_tensor(array, True), tf.make_tensor_proto(array)):
        decoded = decode_tensor(proto)
        assert decoded.dtype == array.dtype
        np.testing.assert_array_equal(decoded, array, strict=True)
        np.testing.assert_array_equal(tf.make_ndarray(proto), array)


@pytest.mark.parametrize("shape", [(), (0,), (2, 2)], ids=str)
def test_strings_go_both_ways(shape: tuple[int, ...]) -> None:
    values = [b"", b"\x00\xff", "ä".encode(), b"x" * 300][: int(np.prod(shape))]
    array = np.array(values, object).reshape(shape)
    for proto in (encode_tensor(array, False), encode_tensor(array, True), tf.make_tensor_proto(array, tf.string)):
        assert decode_tensor(proto).tolist() == array.tolist()
        assert decode_tensor(proto).shape == shape


def test_strings_in_tensor_content() -> None:
    """As TensorFlow's C++ writes them: the lengths as varints, then the bytes."""
    long = b"y" * 300
    proto = tensor(types_pb2.DT_STRING, [3], tensor_content=b"\x02\x00\xac\x02" + b"ab" + long)
    assert decode_tensor(proto).tolist() == [b"ab", b"", long]
    for broken in (b"\x02\x00\xac\x02ab", b"\x02\x00", b"\xff\xff\xff", b"\xff" * 30, b"\x01\x01\x01abcd"):
        with pytest.raises(ValueError, match="tensor_content"):
            decode_tensor(tensor(types_pb2.DT_STRING, [3], tensor_content=broken))


def test_the_last_value_is_repeated_and_none_means_zero() -> None:
    assert decode_tensor(tensor(types_pb2.DT_FLOAT, [2, 2], float_val=[1, 5])).tolist() == [[1, 5], [5, 5]]
    assert decode_tensor(tensor(types_pb2.DT_INT64, [3])).tolist() == [0, 0, 0]
    assert decode_tensor(tensor(types_pb2.DT_STRING, [3], string_val=[b"a"])).tolist() == [b"a"] * 3
    assert decode_tensor(tensor(types_pb2.DT_STRING, [1])).tolist() == [b""]
    assert decode_tensor(tensor(types_pb2.DT_HALF, [2], half_val=[0x3C00])).tolist() == [1, 1]


def test_repetition_is_bounded() -> None:
    allowed = MAX_REPEATED_BYTES // 4
    assert decode_tensor(tensor(types_pb2.DT_FLOAT, [allowed], float_val=[1])).nbytes == MAX_REPEATED_BYTES
    for dtype in (types_pb2.DT_FLOAT, types_pb2.DT_STRING, types_pb2.DT_COMPLEX128, types_pb2.DT_BOOL):
        with pytest.raises(ValueError, match="repeated up to"):
            decode_tensor(tensor(dtype, [2**20, 2**20]))


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (tensor(types_pb2.DT_FLOAT, [-1], float_val=[1]), "negative dimension"),
        (tensor(types_pb2.DT_FLOAT, [2, -3, 0]), "negative dimension"),
        (tensor(types_pb2.DT_FLOAT, [2**62, 2**62], float_val=[1]), "too many elements"),
        (tensor(types_pb2.DT_FLOAT, [0, 2**62, 2**62]), "too many elements"),
        (tensor(types_pb2.DT_FLOAT, [1] * 300, float_val=[1]), "300 dimensions"),
        (tensor(types_pb2.DT_FLOAT, [2], float_val=[1, 2, 3]), "3 values; shape \\[2\\] takes 2"),
        (tensor(types_pb2.DT_STRING, [0], string_val=[b"x"]), "1 values; shape \\[0\\] takes 0"),
        (tensor(types_pb2.DT_FLOAT, [2], tensor_content=b"1234567"), "7 bytes; shape \\[2\\] of float32 takes 8"),
        (tensor(types_pb2.DT_UINT8, [2**40], tensor_content=b"1"), "1 bytes"),
        (tensor(types_pb2.DT_COMPLEX64, [1], scomplex_val=[1, 2, 3]), "pairs"),
        (tensor(types_pb2.DT_INVALID, [1]), "invalid are not supported"),
        (tensor(types_pb2.DT_VARIANT, [1]), "variant are not supported"),
        (tensor(types_pb2.DT_RESOURCE, [1]), "resource are not supported"),
        (tensor(9999, [1]), "unknown dtype enum \\(9999\\)"),
    ],
)
def test_what_is_no_tensor_is_refused(proto: TensorProto, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_tensor(proto)


def test_an_unknown_rank_is_refused() -> None:
    proto = TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1])
    proto.tensor_shape.unknown_rank = True
    with pytest.raises(ValueError, match="unknown rank"):
        decode_tensor(proto)


def test_booleans_are_zero_or_one() -> None:
    decoded = decode_tensor(tensor(types_pb2.DT_BOOL, [3], tensor_content=b"\x00\x01\x7f"))
    assert decoded.view(np.uint8).tolist() == [0, 1, 1]


def test_arrays_without_a_tensor_type_are_refused() -> None:
    with pytest.raises(ValueError, match="no tensor type"):
        encode_tensor(np.array(["text"]), False)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_give_an_array_or_an_error(data: bytes) -> None:
    try:
        proto = TensorProto.FromString(data)
    except DecodeError:
        return
    check_bounded(proto, len(data))


@settings(max_examples=300, deadline=None)
@given(
    dtype=st.integers(0, 30),
    dims=st.lists(st.one_of(st.integers(0, 5), st.integers(-(2**63), 2**63 - 1)), max_size=4),
    content=st.binary(max_size=40),
    floats=st.lists(st.floats(width=32), max_size=5),
    ints=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
)
def test_any_fields_give_an_array_or_an_error(
    dtype: int, dims: list[int], content: bytes, floats: list[float], ints: list[int]
) -> None:
    fields = {"float_val": floats, "double_val": floats, "scomplex_val": floats, "int_val": ints, "half_val": ints}
    check_bounded(tensor(dtype, dims, tensor_content=content, int64_val=ints, **fields), 1000)


def check_bounded(proto: TensorProto, size: int) -> None:
    try:
        array = decode_tensor(proto)
    except ValueError:
        return
    assert array.nbytes <= max(MAX_REPEATED_BYTES, 8 * size)
    assert array.shape == tuple(dim.size for dim in proto.tensor_shape.dim)
