"""Classify, Regress and MultiInference: requests of tf.Examples to signatures of TF Serving's fixed forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, regression_pb2

from mnist_tfx.contract.names import SERVING_DEFAULT
from mnist_tfx.serving.server.errors import ServingError, invalid
from mnist_tfx.serving.server.servable import Servable
from mnist_tfx.serving.server.tensors import enum_of, type_name

INPUT = "inputs"
_CLASSES, _SCORES, _REGRESSIONS = "classes", "scores", "outputs"


class Form(NamedTuple):
    """What a signature must look like, and how its outputs become a result."""

    api: str
    method: str
    request: Any
    answer: Any
    """The classes of the messages."""
    result: str
    """The field of an `InferenceResult`."""
    wanted: Callable[[SignatureDef], tuple[str, ...]]
    fill: Callable[[Any, dict[str, np.ndarray], int], None]
    """Writes the outputs for so many examples into a result. Raises ServingError where they have another form."""

    def outputs(self, servable: Servable, name: str) -> tuple[str, ...]:
        """The outputs to ask of a signature. Raises ServingError where the signature has not this form."""
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid(f"No signature was found with the name: {name}")
        if len(signature.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        if INPUT not in signature.inputs:
            kind = self.result.removesuffix("_result")
            raise invalid(
                f"No {kind} inputs found in SignatureDef: {name} has {sorted(signature.inputs)}, not {INPUT!r}"
            )
        return self.wanted(signature)


def forms(servable: Servable, tasks: Iterable[inference_pb2.InferenceTask]) -> dict[str, tuple[Form, tuple[str, ...]]]:
    """What a MultiInferenceRequest asks of each signature: its form, and its outputs. Raises ServingError."""
    found: dict[str, tuple[Form, tuple[str, ...]]] = {}
    for task in tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != servable.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or SERVING_DEFAULT
        if name in found:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        form = next((one for one in (CLASSIFY, REGRESS) if one.method == task.method_name), None)
        if form is None:
            raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        found[name] = form, form.outputs(servable, name)
    return found


def examples(given: input_pb2.Input) -> np.ndarray:
    """What is fed to `INPUT` of every signature of these forms: the serialized examples. Raises ServingError."""
    kind = given.WhichOneof("kind")
    listed = getattr(given, kind).examples if kind else ()
    if not listed:
        raise invalid("Input is empty.")
    serialized = [example.SerializeToString() for example in listed]
    if kind == "example_list_with_context":
        # Messages joined as bytes are merged when they are read: the example's own features win.
        context = given.example_list_with_context.context.SerializeToString()
        try:
            serialized = [Example.FromString(context + example).SerializeToString() for example in serialized]
        except DecodeError as error:
            raise invalid(f"the context and an example cannot be merged: {error}") from error
    array = np.empty(len(serialized), object)
    array[:] = serialized
    return array


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


CLASSIFY = Form(
    "Classify",
    "tensorflow/serving/classify",
    classification_pb2.ClassificationRequest,
    classification_pb2.ClassificationResponse,
    "classification_result",
    _classify_outputs,
    _fill_classifications,
)
REGRESS = Form(
    "Regress",
    "tensorflow/serving/regress",
    regression_pb2.RegressionRequest,
    regression_pb2.RegressionResponse,
    "regression_result",
    _regress_outputs,
    _fill_regressions,
)
