"""Classify, Regress and MultiInference: requests of tf.Examples to signatures of TF Serving's fixed forms."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, regression_pb2

from mnist_tfx.serving.server.errors import ServingError, invalid
from mnist_tfx.serving.server.predict import DEFAULT_SIGNATURE, acquire, fill_spec, spec_of
from mnist_tfx.serving.server.servable import Servable, Servables
from mnist_tfx.serving.server.tensors import enum_of, type_name

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"
_INPUT = "inputs"
_CLASSES, _SCORES, _REGRESSIONS = "classes", "scores", "outputs"


@dataclass(frozen=True)
class _Task:
    """A signature and what is asked of it."""

    signature_name: str
    method: str
    outputs: tuple[str, ...]


def classify(
    servables: Servables, request: classification_pb2.ClassificationRequest, deadline: float | None
) -> classification_pb2.ClassificationResponse:
    """Classes and scores of each example. `deadline`: `time.monotonic()` seconds. Raises ServingError."""
    answer = classification_pb2.ClassificationResponse()
    with acquire(servables, spec_of(request)) as servable:
        task = _task(servable, request.model_spec.signature_name, CLASSIFY_METHOD)
        arrays = _run(servable, task, request.input, deadline)
        _fill_classifications(answer.result, arrays, count_examples(request.input))
        fill_spec(answer.model_spec, servable, task.signature_name)
    return answer


def regress(
    servables: Servables, request: regression_pb2.RegressionRequest, deadline: float | None
) -> regression_pb2.RegressionResponse:
    """One value for each example. `deadline`: `time.monotonic()` seconds. Raises ServingError."""
    answer = regression_pb2.RegressionResponse()
    with acquire(servables, spec_of(request)) as servable:
        task = _task(servable, request.model_spec.signature_name, REGRESS_METHOD)
        arrays = _run(servable, task, request.input, deadline)
        _fill_regressions(answer.result, arrays, count_examples(request.input))
        fill_spec(answer.model_spec, servable, task.signature_name)
    return answer


def multi_inference(
    servables: Servables, request: inference_pb2.MultiInferenceRequest, deadline: float | None
) -> inference_pb2.MultiInferenceResponse:
    """Several signatures of one model on the same examples. Raises ServingError."""
    if not request.tasks:
        raise invalid("ModelSpec has no name specified.")
    answer = inference_pb2.MultiInferenceResponse()
    with acquire(servables, spec_of(request.tasks[0])) as servable:
        tasks: list[_Task] = []
        for one in request.tasks:
            if not one.model_spec.name:
                raise invalid("Found ModelSpec with an empty model name.")
            if one.model_spec.name != servable.name:
                raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            name = one.model_spec.signature_name or DEFAULT_SIGNATURE
            if any(name == task.signature_name for task in tasks):
                raise invalid(f"Duplicate evaluation of signature: {name}")
            if one.method_name not in (CLASSIFY_METHOD, REGRESS_METHOD):
                raise ServingError(
                    grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {one.method_name}"
                )
            tasks.append(_task(servable, name, one.method_name))
        for task in tasks:
            arrays = _run(servable, task, request.input, deadline)
            result = answer.results.add()
            fill_spec(result.model_spec, servable, task.signature_name)
            if task.method == CLASSIFY_METHOD:
                _fill_classifications(result.classification_result, arrays, count_examples(request.input))
            else:
                _fill_regressions(result.regression_result, arrays, count_examples(request.input))
    return answer


def _task(servable: Servable, signature_name: str, method: str) -> _Task:
    """Checks that a signature has the method's form."""
    name = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    kind = "classification" if method == CLASSIFY_METHOD else "regression"
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if _INPUT not in signature.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {name} has {sorted(signature.inputs)}, not {_INPUT!r}")
    outputs = _classify_outputs(signature) if method == CLASSIFY_METHOD else _regress_outputs(signature)
    return _Task(name, method, outputs)


def _classify_outputs(signature: SignatureDef) -> tuple[str, ...]:
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    outputs = tuple(name for name in (_CLASSES, _SCORES) if name in signature.outputs)
    if not outputs:
        raise invalid(
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            f"Signature has: {', '.join(sorted(signature.outputs))}"
        )
    return outputs


def _regress_outputs(signature: SignatureDef) -> tuple[str, ...]:
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if _REGRESSIONS not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: it has {', '.join(signature.outputs)}")
    return (_REGRESSIONS,)


def _run(servable: Servable, task: _Task, given: input_pb2.Input, deadline: float | None) -> dict[str, np.ndarray]:
    examples = _serialized(given)
    inputs = np.empty(len(examples), object)
    inputs[:] = examples
    return servable.run(task.signature_name, {_INPUT: inputs}, task.outputs, deadline)


def count_examples(given: input_pb2.Input) -> int:
    """How many examples a request brings."""
    kind = given.WhichOneof("kind")
    return len(getattr(given, kind).examples) if kind else 0


def _serialized(given: input_pb2.Input) -> list[bytes]:
    """The examples as bytes, the context's features in each."""
    if not count_examples(given):
        raise invalid("Input is empty.")
    if given.WhichOneof("kind") == "example_list":
        return [example.SerializeToString() for example in given.example_list.examples]
    # Messages joined as bytes are merged when they are read: the example's own features win.
    context = given.example_list_with_context.context.SerializeToString()
    try:
        return [
            Example.FromString(context + example.SerializeToString()).SerializeToString()
            for example in given.example_list_with_context.examples
        ]
    except DecodeError as error:
        raise invalid(f"the context and an example cannot be merged: {error}") from error


def _fill_classifications(
    result: classification_pb2.ClassificationResult, arrays: dict[str, np.ndarray], examples: int
) -> None:
    for name, array in arrays.items():
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes], but got {list(array.shape)} for {name}")
        _check_type(name, array, types_pb2.DT_STRING if name == _CLASSES else types_pb2.DT_FLOAT)
        _check_rows(array, examples)
    classes, scores = arrays.get(_CLASSES), arrays.get(_SCORES)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            f"Tensors class and score should match in shape. Got {list(classes.shape)} vs. {list(scores.shape)}"
        )
    rows, columns = next(iter(arrays.values())).shape
    for row in range(rows):
        one = result.classifications.add()
        for column in range(columns):
            item = one.classes.add()
            if classes is not None:
                item.label = classes[row, column].decode("utf-8", "replace")
            if scores is not None:
                item.score = scores[row, column]


def _fill_regressions(result: regression_pb2.RegressionResult, arrays: dict[str, np.ndarray], examples: int) -> None:
    values = arrays[_REGRESSIONS]
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
        )
    _check_type(_REGRESSIONS, values, types_pb2.DT_FLOAT)
    _check_rows(values, examples)
    for value in values.reshape(-1).tolist():
        result.regressions.add(value=value)


def _check_type(name: str, array: np.ndarray, expected: int) -> None:
    given = enum_of(array.dtype)
    if given != expected:
        raise invalid(f"Expected {name} Tensor of {type_name(expected)}. Got: {type_name(given)}")


def _check_rows(array: np.ndarray, examples: int) -> None:
    if len(array) != examples:
        raise invalid(f"Expected output batch size to be {examples}. Got: {len(array)}")
