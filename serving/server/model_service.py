"""TF Serving's ModelService, as plain functions from message to message: states of versions, and the list of models."""

from __future__ import annotations

import time

from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, status_pb2

from mnist_tfx.serving.server.errors import invalid
from mnist_tfx.serving.server.manager import ModelManager
from mnist_tfx.serving.server.predict import acquire, spec_of


def status(
    manager: ModelManager, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """The states of a model's versions, or of the one that a version or a label names. Raises ServingError."""
    spec = spec_of(request)
    version = None
    if spec.WhichOneof("version_choice") == "version_label":
        with acquire(manager, spec) as servable:
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
