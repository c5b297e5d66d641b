"""Which versions of which models are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.server.config import BatchingParameters


class Servable:
    """One loaded version of a model."""

    name: str
    version: int
    signatures: Mapping[str, SignatureDef]

    def run(
        self,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes `outputs`, with other requests in one batch if batching is on. Raises ServingError."""
        raise NotImplementedError

    def submit(
        self,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None = None,
    ) -> Future[dict[str, np.ndarray]]:
        """The same without waiting."""
        raise NotImplementedError


class ModelManager:
    """Loads, swaps and unloads the versions of the models of a config."""

    def __init__(
        self,
        models: ModelServerConfig,
        *,
        batching: BatchingParameters | None,
        poll_seconds: float = 1.0,
        max_load_retries: int = 5,
        load_retry_seconds: float = 60.0,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Does the first poll and begins the first loads."""
        raise NotImplementedError

    def stop(self) -> None:
        """Unloads everything."""
        raise NotImplementedError

    def reload(self, models: ModelServerConfig) -> None:
        """Replaces the whole list of models. Raises ServingError."""
        raise NotImplementedError

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> AbstractContextManager[Servable]:
        """The servable of a request, held until the context ends. Raises ServingError."""
        raise NotImplementedError

    def statuses(self, name: str, version: int | None = None) -> list[ModelVersionStatus]:
        """The versions' states, newest first. Raises ServingError."""
        raise NotImplementedError
