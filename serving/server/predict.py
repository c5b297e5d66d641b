"""Predict and GetModelMetadata, from message to message; no gRPC and no HTTP in here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass

import grpc
import numpy as np
from google.protobuf.message import Message
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from mnist_tfx.serving.server.errors import ServingError, as_serving_error, check_deadline, invalid
from mnist_tfx.serving.server.replies import Reply
from mnist_tfx.serving.server.rows import check_rows
from mnist_tfx.serving.server.servable import Servable, Servables
from mnist_tfx.serving.server.tensors import decode_tensor, encode_tensor

DEFAULT_SIGNATURE = "serving_default"
SIGNATURE_DEF_FIELD = "signature_def"

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Predicted:
    """What came out, and of which servable."""

    model: str
    version: int
    signature_name: str
    arrays: Arrays
    seconds: float
    """In the queue and in the computation."""


Read = Callable[[Servable], tuple[str, Arrays, Sequence[str]]]
"""Which signature is asked, its inputs by name, and the outputs that are wanted. Raises ServingError."""


def submit(servables: Servables, spec: model_pb2.ModelSpec, read: Read, deadline: float | None, reply: Reply) -> None:
    """Computes a Predict request without waiting; the one way to do it. The servable is held until it is done.

    Args:
        servables: all models.
        spec: which one.
        read: decodes the request; may take its time, in this thread.
        deadline: `time.monotonic()` seconds.
        reply: gets `Predicted`, perhaps before this returns.
    """
    held = None
    try:
        check_deadline(deadline)
        entered = acquire(servables, spec)
        servable = entered.__enter__()
        held = entered
        name, inputs, outputs = read(servable)
        start = time.perf_counter()
        future = servable.submit(name, inputs, outputs, deadline)
    except Exception as error:
        if held is not None:
            held.__exit__(None, None, None)
        reply(None, as_serving_error(error))
        return

    def computed(done: Future[dict[str, np.ndarray]]) -> None:
        held.__exit__(None, None, None)
        error = done.exception()
        if error is not None:
            reply(None, as_serving_error(error))
        else:
            seconds = time.perf_counter() - start
            reply(Predicted(servable.name, servable.version, name, done.result(), seconds), None)

    future.add_done_callback(computed)


def submit_request(
    servables: Servables, request: predict_pb2.PredictRequest, deadline: float | None, reply: Reply
) -> None:
    """The same for gRPC's message."""

    def read(servable: Servable) -> tuple[str, Arrays, Sequence[str]]:
        name = spec.signature_name or DEFAULT_SIGNATURE
        signature = servable.signatures.get(name)
        if signature is None:
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        return name, _decode(request, servable, name, signature), _wanted(request.output_filter, signature.outputs)

    try:
        spec = spec_of(request)
    except ServingError as error:
        reply(None, error)
        return
    submit(servables, spec, read, deadline, reply)


def is_heavy(request: predict_pb2.PredictRequest) -> bool:
    """Whether decoding takes long: many strings, or many numbers that are not one piece of bytes."""
    return not all(tensor.tensor_content and tensor.dtype != types_pb2.DT_STRING for tensor in request.inputs.values())


def response(predicted: Predicted, as_content: bool) -> predict_pb2.PredictResponse:
    """The answer as a message, with the resolved model_spec. Raises ServingError."""
    answer = predict_pb2.PredictResponse()
    answer.model_spec.name = predicted.model
    answer.model_spec.version.value = predicted.version
    answer.model_spec.signature_name = predicted.signature_name
    for name, array in predicted.arrays.items():
        try:
            answer.outputs[name].CopyFrom(encode_tensor(array, as_content))
        except ValueError as error:
            raise ServingError(grpc.StatusCode.INTERNAL, f"output {name} cannot be sent: {error}") from error
    return answer


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


def _decode(  # type: ignore[no-untyped-def]
    request: predict_pb2.PredictRequest, servable: Servable, name: str, signature
) -> dict[str, np.ndarray]:
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
