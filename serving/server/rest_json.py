"""TF Serving's JSON: requests to arrays and tf.Examples, answers to JSON.

https://www.tensorflow.org/tfx/serving/api_rest describes the format.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from mnist_tfx.contract.names import SERVING_DEFAULT
from mnist_tfx.serving.server.errors import TooLargeError, invalid
from mnist_tfx.serving.server.limits import MAX_BODY_BYTES, MAX_JSON_DEPTH, MAX_JSON_VALUES
from mnist_tfx.serving.server.rows import check_rows
from mnist_tfx.serving.server.tensors import TYPES, type_name

Inputs = Mapping[str, int]
"""A signature's inputs, with the `DataType` of each."""

# By dtype.kind; V: bfloat16.
_ALLOWED: dict[str, set[type]] = {"f": {float, int}, "V": {float, int}, "i": {int}, "u": {int}, "b": {bool}}
_KINDS = {bool: "Bool", int: "Number", float: "Number", str: "String", list: "Array", dict: "Object"}
_SHORT_FLOATS = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
_WHITE_SPACE = dict.fromkeys(map(ord, " \t\n\v\f\r"))
_BASE64 = re.compile("[A-Za-z0-9+/]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]", re.ASCII)


def read_predict(
    body: bytes, encoding: str, signatures: Mapping[str, tuple[Inputs, int | None]]
) -> tuple[str, dict[str, np.ndarray], bool]:
    """The signature that a predict request asks, its arrays, and whether it is in rows. Raises ServingError.

    Args:
        body: as it came.
        encoding: its Content-Encoding.
        signatures: the inputs of each, and how many rows it takes at most (None: any number).
    """
    document = _parse(body, encoding)
    name = _signature_name(document) or SERVING_DEFAULT
    if name not in signatures:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    inputs, most = signatures[name]
    if not inputs:
        raise invalid(f"Failed to get input map for signature: {name}")
    rows, columns = "instances" in document, "inputs" in document
    if rows and columns:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if rows:
        return name, _from_instances(document["instances"], inputs, most), True
    if columns:
        return name, _from_columns(document["inputs"], inputs, most), False
    raise invalid("Missing 'inputs' or 'instances' key")


def read_examples(body: bytes, encoding: str) -> tuple[str, bytes]:
    """The signature that a classify or regress request names, if any, and its `Input`. Raises ServingError."""
    document = _parse(body, encoding)
    return _signature_name(document), _examples(document).SerializeToString()


def _parse(body: bytes, encoding: str) -> dict[str, Any]:
    """The object that a body must be; NaN, Infinity and -Infinity are numbers."""
    body = _unpacked(body, encoding)
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_JSON_VALUES:
        raise TooLargeError(f"the body holds more than {MAX_JSON_VALUES} values")
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # pairs have become one character each
    except UnicodeEncodeError as error:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from error
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(value, dict):
        raise invalid("JSON Value: the document is not an object")
    return value


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise invalid(f"Content-Encoding {encoding!r} is not supported: send gzip, deflate or none")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either's header
    try:
        unpacked = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise invalid(f"the body is not {encoding}, as its Content-Encoding says: {error}") from error
    if len(unpacked) > MAX_BODY_BYTES:
        raise TooLargeError(f"the body, unpacked, is larger than {MAX_BODY_BYTES // 2**20} MiB")
    if not unpacker.eof:
        raise invalid(f"the body is not {encoding}, as its Content-Encoding says: it is cut off")
    if unpacker.unused_data:  # as TF Serving does: ZLib::UncompressAtMostOrAll in gzip_zlib.cc
        raise invalid(f"the body is not {encoding}, as its Content-Encoding says: it goes on behind its end")
    return unpacked


def _signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    return name


def write_predict(arrays: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """The answer: `predictions`, one entry for each row, or `outputs`. Raises ServingError."""
    values = {name: to_json(name, array) for name, array in arrays.items()}
    if not rows:
        return dumps({"outputs": next(iter(values.values())) if len(values) == 1 else values})
    sizes = {name: array.shape[0] if array.ndim else None for name, array in arrays.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise invalid(f"outputs have no common batch size, ask with 'inputs' instead of 'instances': {shapes}")
    if len(values) == 1:
        return dumps({"predictions": next(iter(values.values()))})
    rows_ = zip(*values.values(), strict=True)
    return dumps({"predictions": [dict(zip(values, row, strict=True)) for row in rows_]})


def _examples(document: Mapping[str, Any]) -> input_pb2.Input:
    listed = document.get("examples")
    if not isinstance(listed, list) or not listed:
        raise invalid("When method is classify or regress, key 'examples' is expected and must be a non-empty list.")
    given = input_pb2.Input()
    if "context" in document:
        given.example_list_with_context.context.CopyFrom(_example(document["context"]))
        target = given.example_list_with_context.examples
    else:
        target = given.example_list.examples
    for one in listed:
        target.append(_example(one))
    return given


def classify_answer(result: classification_pb2.ClassificationResult) -> dict[str, Any]:
    """`results`: for each example a list of [label, score]."""
    return {"results": [[[one.label, _short(one.score)] for one in each.classes] for each in result.classifications]}


def regress_answer(result: regression_pb2.RegressionResult) -> dict[str, Any]:
    """`results`: a value for each example."""
    return {"results": [_short(one.value) for one in result.regressions]}


def dumps(value: Any) -> bytes:
    """JSON as TF Serving writes it: NaN, Infinity and -Infinity as such."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def to_json(name: str, array: np.ndarray) -> Any:
    """An array as nested lists: floats with as many digits as tell them apart, bytes as text.

    Bytes of an output whose name ends in `_bytes` are `{"b64": ...}`, as are those that are not UTF-8.
    """
    if array.dtype.kind in "SO":
        flat: list[Any] = [_bytes_to_json(value, name.endswith("_bytes")) for value in array.ravel().tolist()]
    elif array.dtype in _SHORT_FLOATS:
        flat = [float(text) for text in array.astype(np.float32).ravel().astype("U").tolist()]
    elif array.dtype.kind == "c":
        raise invalid(f"output {name} is complex, which JSON cannot carry; ask over gRPC, or for other outputs")
    else:
        return array.tolist()
    items = np.empty(array.size, object)
    items[:] = flat
    return items.reshape(array.shape).tolist()


def _bytes_to_json(value: bytes, as_base64: bool) -> Any:
    if not as_base64:
        with suppress(UnicodeDecodeError):
            return value.decode()
    return {"b64": base64.b64encode(value).decode()}


def _short(value: float) -> float:
    return float(str(np.float32(value)))


def _is_base64(value: Any) -> bool:
    """`{"b64": "..."}`; what has no string there is an object of an input that is named b64."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _decode_base64(text: str) -> bytes:
    """As absl's `Base64Unescape`: white space anywhere; `=` or `.` at the end, as many as there must be or none."""
    packed = text.translate(_WHITE_SPACE)
    data = packed.rstrip("=.")
    padding = -len(data) % 4
    if padding == 3 or len(packed) - len(data) not in (0, padding) or not _BASE64.fullmatch(data):
        raise invalid("Unable to base64 decode")
    return base64.b64decode(data + "=" * padding)


def _from_instances(instances: Any, inputs: Inputs, most: int | None) -> dict[str, np.ndarray]:
    if not isinstance(instances, list):
        raise invalid("Expecting 'instances' to be a list/array")
    if not instances:
        raise invalid("No values in 'instances' array")
    check_rows(len(instances), most)
    named = isinstance(instances[0], dict) and not _is_base64(instances[0])
    if not named:
        if len(inputs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required: "
                f"{', '.join(sorted(inputs))}"
            )
        (name, data_type), *_ = inputs.items()
        return {name: _array(name, data_type, instances)}
    columns: dict[str, list[Any]] = {name: [] for name in inputs}
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict) or instance.keys() != columns.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. "
                f"Its keys must be equal to: {','.join(sorted(inputs))}"
            )
        for name, column in columns.items():
            column.append(instance[name])
    return {name: _array(name, inputs[name], column) for name, column in columns.items()}


def _from_columns(value: Any, inputs: Inputs, most: int | None) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or _is_base64(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required: "
                f"{', '.join(sorted(inputs))}"
            )
        value = {next(iter(inputs)): value}
    for name in inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        if isinstance(value[name], list):
            check_rows(len(value[name]), most)
    return {name: _array(name, data_type, value[name]) for name, data_type in inputs.items()}


def _array(name: str, data_type: int, value: Any) -> np.ndarray:
    """A dense array of nested lists, of the signature's type. Raises ServingError."""
    flat, shape = _flatten(name, value)
    if data_type == types_pb2.DT_STRING:
        strings = np.empty(len(flat), object)
        strings[:] = [_string(name, leaf) for leaf in flat]
        return strings.reshape(shape)
    dtype = TYPES[data_type][0] if data_type in TYPES else None
    if dtype is None or dtype.kind not in _ALLOWED:
        raise invalid(f"input {name} is of type {types_pb2.DataType.Name(data_type)}, which JSON cannot carry")
    wrong = set(map(type, flat)) - _ALLOWED[dtype.kind]
    if wrong:
        raise invalid(
            f"JSON Value of input {name}, Type: {_KINDS.get(wrong.pop(), 'Null')} is not of expected type: "
            f"{type_name(data_type)}"
        )
    try:
        with np.errstate(over="ignore"):  # beyond a float32 is Infinity
            return np.array(flat, dtype=dtype).reshape(shape)
    except (OverflowError, TypeError) as error:  # TypeError: what bfloat16 says
        raise invalid(f"input {name}: a number is out of the range of {dtype}") from error


def _flatten(name: str, value: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The leaves of nested lists in order, and the shape; every level must be even."""
    level: list[Any] = [value]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(item, list) or len(item) != size for item in level):
            raise invalid(f"input {name}: lists of different sizes or depths at level {len(shape)}")
        shape.append(size)
        if len(shape) > MAX_JSON_DEPTH:
            raise invalid(f"input {name}: lists nested deeper than {MAX_JSON_DEPTH} levels")
        level = list(chain.from_iterable(level))
    if not level:
        shape = shape or [0]
    return level, tuple(shape)


def _string(name: str, leaf: Any) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode()
    if _is_base64(leaf):
        return _decode_base64(leaf["b64"])
    if isinstance(leaf, dict):
        raise invalid(f"JSON Value of input {name}: an object that is not formatted correctly for base64 data")
    raise invalid(f"JSON Value of input {name}, Type: {_KINDS.get(type(leaf), 'Null')} is not of expected type: string")


def _example(value: Any) -> Example:
    if not isinstance(value, dict):
        raise invalid("Example must be JSON object.")
    example = Example()
    for name, feature in value.items():
        _fill_feature(example.features.feature[name], name, feature if isinstance(feature, list) else [feature])
    return example


def _fill_feature(feature: Any, name: str, values: Iterable[Any]) -> None:
    for value in values:
        plain: Any = value
        if isinstance(value, bool | int):
            kind = "int64_list"
        elif isinstance(value, float):
            kind = "float_list"
        elif isinstance(value, str):
            kind, plain = "bytes_list", value.encode()
        elif _is_base64(value):
            kind, plain = "bytes_list", _decode_base64(value["b64"])
        else:
            raise invalid(f"Feature: {name} has element with unexpected JSON type: {_KINDS.get(type(value), 'Null')}")
        present = feature.WhichOneof("kind")
        if present not in (None, kind):
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {present.removesuffix('_list')}")
        try:
            getattr(feature, kind).value.append(plain)
        except (ValueError, OverflowError) as error:
            raise invalid(f"Feature: {name} has a number out of range") from error
