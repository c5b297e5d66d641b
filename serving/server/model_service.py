"""Which models there are and what they are, as plain functions from message to message."""

from __future__ import annotations

import time

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    status_pb2,
)

from mnist_tfx.serving.server.calls import Calls, spec_of
from mnist_tfx.serving.server.errors import invalid
from mnist_tfx.serving.server.manager import ModelManager
from mnist_tfx.serving.server.predict import fill_spec

SIGNATURE_DEF_FIELD = "signature_def"


def metadata(
    calls: Calls, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The signatures of a servable. Raises ServingError."""
    spec = spec_of(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != SIGNATURE_DEF_FIELD:
            raise invalid(f"Metadata field {field} is not supported")
    resolved, found = signatures(calls, spec)
    answer = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=resolved)
    answer.metadata[SIGNATURE_DEF_FIELD].Pack(found)
    return answer


def signatures(
    calls: Calls, spec: model_pb2.ModelSpec
) -> tuple[model_pb2.ModelSpec, get_model_metadata_pb2.SignatureDefMap]:
    """Which servable a model_spec means, and its signatures. Raises ServingError."""
    resolved, found = model_pb2.ModelSpec(), get_model_metadata_pb2.SignatureDefMap()
    with calls.acquire(spec) as servable:
        fill_spec(resolved, servable)
        for name, signature in servable.signatures.items():
            found.signature_def[name].CopyFrom(signature)
    return resolved, found


def status(
    manager: ModelManager, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """The states of a model's versions, or of the one that a version or a label names. Raises ServingError."""
    spec = spec_of(request)
    version = None
    if spec.WhichOneof("version_choice") == "version_label":
        with manager.acquire(spec.name, label=spec.version_label) as servable:
            version = servable.version
    elif spec.HasField("version"):
        version = spec.version.value
    answer = get_model_status_pb2.GetModelStatusResponse()
    answer.model_version_status.extend(manager.statuses(spec.name, version))
    for one in answer.model_version_status:
        one.status.SetInParent()  # OK is said, too
    return answer


def reload(
    manager: ModelManager, request: model_management_pb2.ReloadConfigRequest, deadline: float | None
) -> model_management_pb2.ReloadConfigResponse:
    """Replaces the whole list of models, and waits for them until the deadline (`time.monotonic()` seconds).

    Raises ServingError, as `ModelManager.reload` does.
    """
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )
    manager.reload(request.config, None if deadline is None else max(0.0, deadline - time.monotonic()))
    return model_management_pb2.ReloadConfigResponse(status=status_pb2.StatusProto())
