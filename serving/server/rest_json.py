"""TF Serving's JSON: requests to arrays and tf.Examples, answers to JSON.

https://www.tensorflow.org/tfx/serving/api_rest describes the format.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.server.predict import invalid

Inputs = Mapping[str, TensorInfo]

_NUMBERS: dict[int, tuple[Any, frozenset[type]]] = {
    types_pb2.DT_FLOAT: (np.float32, frozenset({float, int})),
    types_pb2.DT_DOUBLE: (np.float64, frozenset({float, int})),
    types_pb2.DT_HALF: (np.float16, frozenset({float, int})),
    types_pb2.DT_BFLOAT16: (ml_dtypes.bfloat16, frozenset({float, int})),
    types_pb2.DT_INT8: (np.int8, frozenset({int})),
    types_pb2.DT_INT16: (np.int16, frozenset({int})),
    types_pb2.DT_INT32: (np.int32, frozenset({int})),
    types_pb2.DT_INT64: (np.int64, frozenset({int})),
    types_pb2.DT_UINT8: (np.uint8, frozenset({int})),
    types_pb2.DT_UINT16: (np.uint16, frozenset({int})),
    types_pb2.DT_UINT32: (np.uint32, frozenset({int})),
    types_pb2.DT_UINT64: (np.uint64, frozenset({int})),
    types_pb2.DT_BOOL: (np.bool_, frozenset({bool})),
}
_KINDS = {bool: "Bool", int: "Number", float: "Number", str: "String", list: "Array", dict: "Object"}
_SHORT_FLOATS = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def parse_object(body: bytes) -> dict[str, Any]:
    """The object that a body must be; NaN, Infinity and -Infinity are numbers. Raises ServingError."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(value, dict):
        raise invalid("JSON Value: the document is not an object")
    return value


def signature_name(document: Mapping[str, Any]) -> str:
    """The optional `signature_name`. Raises ServingError."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    return name


def predict_inputs(document: Mapping[str, Any], inputs: Inputs) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays of a predict request, and whether it is in rows (`instances`; else `inputs`). Raises ServingError."""
    rows, columns = "instances" in document, "inputs" in document
    if rows and columns:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if rows:
        return _from_instances(document["instances"], inputs), True
    if columns:
        return _from_columns(document["inputs"], inputs), False
    raise invalid("Missing 'inputs' or 'instances' key")


def predict_answer(arrays: Mapping[str, np.ndarray], *, rows: bool) -> dict[str, Any]:
    """The answer: `predictions`, one entry for each row, or `outputs`. Raises ServingError."""
    values = {name: to_json(name, array) for name, array in arrays.items()}
    if not rows:
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    sizes = {name: array.shape[0] if array.ndim else None for name, array in arrays.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise invalid(f"outputs have no common batch size, ask with 'inputs' instead of 'instances': {shapes}")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def examples(document: Mapping[str, Any]) -> input_pb2.Input:
    """The examples of a classify or regress request, with their common `context`. Raises ServingError."""
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
    for size in reversed(array.shape[1:]):
        flat = [flat[i : i + size] for i in range(0, len(flat), size)] if size else [[]] * _rows_of_nothing(array.shape)
    return flat if array.ndim else flat[0]


def _rows_of_nothing(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[: shape.index(0)]))


def _bytes_to_json(value: bytes | str, as_base64: bool) -> Any:
    raw = value.encode() if isinstance(value, str) else value
    if not as_base64:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            pass  # text it is not
    return {"b64": base64.b64encode(raw).decode()}


def _short(value: float) -> float:
    return float(str(np.float32(value)))


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and "b64" in value


def _decode_base64(value: Mapping[str, Any]) -> bytes:
    text = value["b64"]
    if not isinstance(text, str):
        raise invalid("JSON Value: 'b64' must be a string.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("JSON Value: unable to base64 decode the value of 'b64'.") from error


def _from_instances(instances: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    if not isinstance(instances, list):
        raise invalid("Expecting 'instances' to be a list/array")
    if not instances:
        raise invalid("No values in 'instances' array")
    named = isinstance(instances[0], dict) and not _is_base64(instances[0])
    if not named:
        if len(inputs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required: "
                f"{', '.join(sorted(inputs))}"
            )
        (name, info), *_ = inputs.items()
        return {name: _array(name, info, instances)}
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


def _from_columns(value: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or _is_base64(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required: "
                f"{', '.join(sorted(inputs))}"
            )
        (name, info), *_ = inputs.items()
        return {name: _array(name, info, value)}
    for name in inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(name, info, value[name]) for name, info in inputs.items()}


def _array(name: str, info: TensorInfo, value: Any) -> np.ndarray:
    """A dense array of nested lists, of the signature's type. Raises ServingError."""
    flat, shape = _flatten(name, value)
    if info.dtype == types_pb2.DT_STRING:
        strings = np.empty(len(flat), object)
        strings[:] = [_string(name, leaf) for leaf in flat]
        return strings.reshape(shape)
    if info.dtype not in _NUMBERS:
        raise invalid(f"input {name} is of type {types_pb2.DataType.Name(info.dtype)}, which JSON cannot carry")
    dtype, allowed = _NUMBERS[info.dtype]
    wrong = set(map(type, flat)) - allowed
    if wrong:
        raise invalid(
            f"JSON Value of input {name}, Type: {_KINDS.get(wrong.pop(), 'Null')} is not of expected type: "
            f"{types_pb2.DataType.Name(info.dtype).removeprefix('DT_').lower()}"
        )
    try:
        with np.errstate(over="ignore"):  # beyond a float32 is Infinity
            return np.array(flat, dtype=dtype).reshape(shape)
    except OverflowError as error:
        raise invalid(f"input {name}: a number is out of the range of {np.dtype(dtype)}") from error


def _flatten(name: str, value: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The leaves of nested lists in order, and the shape; every level must be even."""
    level: list[Any] = [value]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(item, list) or len(item) != size for item in level):
            raise invalid(f"input {name}: lists of different sizes or depths at level {len(shape)}")
        shape.append(size)
        level = list(chain.from_iterable(level))
    if not level:
        shape = shape or [0]
    return level, tuple(shape)


def _string(name: str, leaf: Any) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode("utf-8", "surrogatepass")
    if _is_base64(leaf):
        return _decode_base64(leaf)
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
            kind, plain = "bytes_list", value.encode("utf-8", "surrogatepass")
        elif _is_base64(value):
            kind, plain = "bytes_list", _decode_base64(value)
        else:
            raise invalid(f"Feature: {name} has element with unexpected JSON type: {_KINDS.get(type(value), 'Null')}")
        present = feature.WhichOneof("kind")
        if present not in (None, kind):
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {present.removesuffix('_list')}")
        try:
            getattr(feature, kind).value.append(plain)
        except (ValueError, OverflowError) as error:
            raise invalid(f"Feature: {name} has a number out of range") from error
