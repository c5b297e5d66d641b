"""Predict and GetModelMetadata, as plain functions from message to message; no gRPC and no HTTP in here."""

from __future__ import annotations

from contextlib import AbstractContextManager

import grpc
import numpy as np
from google.protobuf.message import Message
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from serving.server.errors import ServingError
from serving.server.servable import Servable, Servables
from serving.server.tensors import decode_tensor, encode_tensor

DEFAULT_SIGNATURE = "serving_default"
SIGNATURE_DEF_FIELD = "signature_def"


def invalid(message: str) -> ServingError:
    """INVALID_ARGUMENT with a message."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def spec_of(request: Message) -> model_pb2.ModelSpec:
    """The request's model_spec, which must name a model. Raises ServingError."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec: model_pb2.ModelSpec = request.model_spec  # type: ignore[attr-defined]
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    return spec


def acquire(servables: Servables, spec: model_pb2.ModelSpec) -> AbstractContextManager[Servable]:
    """The servable of a model_spec: by version, by label, or the latest. Raises ServingError."""
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return servables.acquire(spec.name, version=spec.version.value)
    if choice == "version_label":
        return servables.acquire(spec.name, label=spec.version_label)
    return servables.acquire(spec.name)


def fill_spec(spec: model_pb2.ModelSpec, servable: Servable, signature_name: str = "") -> None:
    """Writes which servable answered, and with which signature."""
    spec.name = servable.name
    spec.version.value = servable.version
    spec.signature_name = signature_name


class Prediction:
    """A Predict request, decoded. It holds its servable until `release`."""

    def __init__(self, servables: Servables, request: predict_pb2.PredictRequest) -> None:
        """Raises ServingError, and holds nothing then."""
        spec = spec_of(request)
        self._held = acquire(servables, spec)
        self.servable = self._held.__enter__()
        try:
            self.signature_name = spec.signature_name or DEFAULT_SIGNATURE
            signature = self.servable.signatures.get(self.signature_name)
            if signature is None:
                raise ServingError(
                    grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{self.signature_name}" not found.'
                )
            self.outputs = _wanted(request.output_filter, signature.outputs)
            self.inputs = _decode(request, signature)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Lets go of the servable; to be called once."""
        self._held.__exit__(None, None, None)

    def response(self, arrays: dict[str, np.ndarray], as_content: bool) -> predict_pb2.PredictResponse:
        """The answer, with the resolved model_spec. Raises ServingError."""
        answer = predict_pb2.PredictResponse()
        fill_spec(answer.model_spec, self.servable, self.signature_name)
        for name, array in arrays.items():
            try:
                answer.outputs[name].CopyFrom(encode_tensor(array, as_content))
            except ValueError as error:
                raise ServingError(grpc.StatusCode.INTERNAL, f"output {name} cannot be sent: {error}") from error
        return answer


def predict(
    servables: Servables, request: predict_pb2.PredictRequest, deadline: float | None, *, as_content: bool = False
) -> predict_pb2.PredictResponse:
    """Computes a request and waits for it. `deadline`: `time.monotonic()` seconds. Raises ServingError."""
    prediction = Prediction(servables, request)
    try:
        arrays = prediction.servable.run(prediction.signature_name, prediction.inputs, prediction.outputs, deadline)
        return prediction.response(arrays, as_content)
    finally:
        prediction.release()


def metadata(
    servables: Servables, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The signatures of a servable. Raises ServingError."""
    spec = spec_of(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != SIGNATURE_DEF_FIELD:
            raise invalid(f"Metadata field {field} is not supported")
    answer = get_model_metadata_pb2.GetModelMetadataResponse()
    with acquire(servables, spec) as servable:
        fill_spec(answer.model_spec, servable)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    answer.metadata[SIGNATURE_DEF_FIELD].Pack(signatures)
    return answer


def _wanted(output_filter, outputs) -> tuple[str, ...]:  # type: ignore[no-untyped-def]
    """The outputs to compute: those of the filter, or all."""
    if not output_filter:
        return tuple(outputs)
    wanted: dict[str, None] = {}
    for alias in output_filter:
        if alias not in outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(sorted(outputs))}}}."
            )
        if alias in wanted:
            raise invalid(f"duplicate output tensor alias: {alias}")
        wanted[alias] = None
    return tuple(wanted)


def _decode(request: predict_pb2.PredictRequest, signature) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    """The request's tensors, and the signature's defaults for those that are not sent."""
    known = signature.inputs
    inputs: dict[str, np.ndarray] = {}
    extra = [key for key in request.inputs if key not in known]
    missing = [key for key in known if key not in request.inputs and key not in signature.defaults]
    if extra or missing:
        raise invalid(
            f"input size does not match signature: {len(request.inputs)}!={len(known)} "
            f"len({{{','.join(sorted(request.inputs))}}}) != len({{{','.join(sorted(known))}}}). "
            f"Sent extra: {{{','.join(sorted(extra))}}}. Missing but required: {{{','.join(sorted(missing))}}}."
        )
    for key in known:
        tensor = request.inputs[key] if key in request.inputs else signature.defaults[key]
        try:
            inputs[key] = decode_tensor(tensor)
        except ValueError as error:
            raise invalid(f"tensor parsing error: {key}: {error}") from error
    return inputs
