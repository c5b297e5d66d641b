"""Predict: its message to arrays, and the arrays to its answer."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2

from mnist_tfx.contract.names import SERVING_DEFAULT
from mnist_tfx.serving.server.errors import ServingError, invalid
from mnist_tfx.serving.server.rows import check_keys, check_rows
from mnist_tfx.serving.server.servable import Servable
from mnist_tfx.serving.server.tensors import decode_tensor, encode_tensor


def read(servable: Servable, request: predict_pb2.PredictRequest) -> tuple[str, dict[str, np.ndarray], tuple[str, ...]]:
    """Which signature is asked, its inputs by name, and the outputs that are wanted. Raises ServingError."""
    name = request.model_spec.signature_name or SERVING_DEFAULT
    signature = servable.signatures.get(name)
    if signature is None:
        raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    outputs = tuple(request.output_filter or signature.outputs)
    if len(set(outputs)) < len(outputs):
        twice = next(alias for alias in outputs if outputs.count(alias) > 1)
        raise invalid(f"duplicate output tensor alias: {twice}")
    return name, _decode(request, servable, name, signature), outputs


def is_heavy(request: predict_pb2.PredictRequest) -> bool:
    """Whether decoding takes long: many strings, or many numbers that are not one piece of bytes."""
    return not all(tensor.tensor_content and tensor.dtype != types_pb2.DT_STRING for tensor in request.inputs.values())


def response(
    servable: Servable, signature_name: str, arrays: Mapping[str, np.ndarray], as_content: bool
) -> predict_pb2.PredictResponse:
    """The answer as a message, with the resolved model_spec. Raises ServingError."""
    answer = predict_pb2.PredictResponse()
    fill_spec(answer.model_spec, servable, signature_name)
    for name, array in arrays.items():
        try:
            encode_tensor(array, as_content, answer.outputs[name])
        except ValueError as error:
            raise ServingError(grpc.StatusCode.INTERNAL, f"output {name} cannot be sent: {error}") from error
    return answer


def request_of(
    spec: model_pb2.ModelSpec, signature_name: str, inputs: Mapping[str, np.ndarray]
) -> predict_pb2.PredictRequest:
    """The request that asks a model for all outputs of a signature. Raises ValueError."""
    request = predict_pb2.PredictRequest(model_spec=spec)
    request.model_spec.signature_name = signature_name
    for name, array in inputs.items():
        encode_tensor(array, True, request.inputs[name])
    return request


def fill_spec(spec: model_pb2.ModelSpec, servable: Servable, signature_name: str = "") -> None:
    """Writes which servable answered, and with which signature."""
    spec.name = servable.name
    spec.version.value = servable.version
    spec.signature_name = signature_name


def _decode(  # type: ignore[no-untyped-def]
    request: predict_pb2.PredictRequest, servable: Servable, name: str, signature
) -> dict[str, np.ndarray]:
    """The request's tensors, and the signature's defaults for those that are not sent."""
    known = signature.inputs
    inputs: dict[str, np.ndarray] = {}
    check_keys(request.inputs, known, signature.defaults)
    most = servable.max_rows(name)
    for key in known:
        tensor = request.inputs[key] if key in request.inputs else signature.defaults[key]
        if tensor.tensor_shape.dim:
            check_rows(tensor.tensor_shape.dim[0].size, most)
        try:
            inputs[key] = decode_tensor(tensor)
        except ValueError as error:
            raise invalid(f"tensor parsing error: {key}: {error}") from error
    return inputs
