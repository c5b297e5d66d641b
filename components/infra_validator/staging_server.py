"""A staging server given by its address: it gets the candidate beside what it serves, and loses it afterwards.

TF Serving's HandleReloadConfigRequest replaces the whole list of models, and nothing tells the list
(tensorflow_serving/model_servers/server_core.cc, ReloadConfig). So whoever adds a model must know the others.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import tensorflow as tf
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from mnist_tfx.components.infra_validator import checks
from mnist_tfx.components.infra_validator.model_server import ModelServer, ServerFailed
from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.contract import models_config
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.serving.client import Client, InvalidOption, ModelNotFound, ServingClientError, Tls, VersionStatus
from mnist_tfx.serving.client.channel import open_channel

_FIRST_SECONDS = 10.0  # until it answers at all
_STATUS_SECONDS = 5.0
_WITHDRAW_SECONDS = 10.0
_WHERE = "Correct infra.endpoint and the settings infra.endpoint_* of the recipe, or start the server there."


class StagingServer(ModelServer):
    """A server elsewhere that is told to serve the candidate too, by a name that no other model has."""

    max_difference = checks.MAX_DIFFERENCE_ELSEWHERE

    def __init__(self, settings: InfraSettings, model_name: str, base_path: str) -> None:
        """Looks whether it may be reloaded.

        Args:
            settings: `endpoint` and what goes with it.
            model_name: the candidate's name when it is served for good.
            base_path: a folder that the server can read, by the same path.

        Raises:
            PipelineError: it does not answer, or serves what the settings do not tell of.
        """
        self._settings, self._address = settings, settings.endpoint
        self._announced = False
        try:
            self._tls = _tls(settings)
            super().__init__(
                settings, self._address, f"{model_name}-candidate-{uuid.uuid4().hex[:12]}", base_path, self._tls
            )
        except InvalidOption as error:
            raise PipelineError(f"{error} {_WHERE}") from error
        self._check_list(model_name)

    def withdraw(self) -> None:
        """Takes the candidate off the server, if it is there. That it fails is only logged: the checks are made."""
        if not self._announced or _is_taken_off(self._statuses()):
            return
        try:
            self._reload(self._listed(), _WITHDRAW_SECONDS)
        except (grpc.RpcError, PipelineError) as error:
            words = str(error) if isinstance(error, PipelineError) else _words(error)
            logging.warning(
                "the staging server at %s may still serve %s (%s): reload its configuration, or start it again.",
                self._address,
                self.client.model,
                words,
            )

    def explain(self, error: Exception) -> str:
        if _is_taken_off(self._statuses()):
            raise PipelineError(
                f"another reload took the candidate off the staging server at {self._address}. Either another run uses "
                "it: run again. Or it polls its file: start it without --model_config_file_poll_wait_seconds."
            ) from error
        return str(error)

    def resident_bytes(self) -> int | None:
        return None

    def _announce(self, seconds: float) -> None:
        candidate = ModelConfig(name=self.client.model, base_path=self._base_path, model_platform="tensorflow")
        models = [*self._listed(), candidate]
        self._announced = True
        try:
            self._reload(models, seconds)
        except grpc.RpcError as error:
            words = _words(error)
            match error.code():
                case grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.UNKNOWN if self._statuses() == ():
                    raise PipelineError(
                        f"the staging server at {self._address} finds no model in {self._base_path}: it must be able "
                        f"to read the pipeline's root by this path ({words})."
                    ) from error
                case grpc.StatusCode.DEADLINE_EXCEEDED:
                    return  # `load` tells the time
                case grpc.StatusCode.UNKNOWN if self.client.model in words:  # did not become available, they say
                    raise ServerFailed(words) from error
                case grpc.StatusCode.UNAVAILABLE:  # it answered a moment ago
                    raise ServerFailed(words) from error
            raise PipelineError(
                f"the staging model server at {self._address} did not take the candidate: {words}. {_WHERE}"
            ) from error

    def _end(self) -> str:
        return ""

    def _check_list(self, model_name: str) -> None:
        """Raises PipelineError where the server serves what would be unloaded."""
        listed = [model.name for model in self._listed()]
        served = {name for name in {*listed, model_name} if self._serves(name)}
        if listed and not served.intersection(listed):
            raise PipelineError(
                f"the server at {self._address} serves nothing of what {self._settings.endpoint_config} lists "
                f"({', '.join(listed)}): infra.endpoint_config must be the list that this server was started with."
            )
        if model_name in served and model_name not in listed:
            raise PipelineError(
                f"the server at {self._address} serves {model_name}, which would be unloaded: it is in use. Give the "
                "file that lists all that it serves as infra.endpoint_config, or use another server."
            )

    def _serves(self, name: str) -> bool:
        with Client(self._address, name, tls=self._tls) as client:
            try:
                statuses = client.status(timeout=_FIRST_SECONDS)
            except ModelNotFound:
                return False
            except ServingClientError as error:
                raise PipelineError(
                    f"the staging model server at {self._address} does not answer: {error}. {_WHERE}"
                ) from error
        return any(status.state != "END" for status in statuses)

    def _listed(self) -> list[ModelConfig]:
        """What the server serves beside the candidate; read anew each time, since it may have changed meanwhile."""
        path = self._settings.endpoint_config
        if not path:
            return []
        try:
            with tf.io.gfile.GFile(path) as file:
                text = file.read()
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            raise PipelineError(f"infra.endpoint_config: cannot read {path}: {error}. {_WHERE}") from error
        return list(models_config.parse(text, path).model_config_list.config)

    def _reload(self, models: list[ModelConfig], seconds: float) -> None:
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.SetInParent()  # an empty list is a list, too
        request.config.model_config_list.config.extend(models)
        with open_channel(grpc, self._address, self._tls) as channel:
            model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=seconds)

    def _statuses(self) -> tuple[VersionStatus, ...] | None:
        """The states of the candidate; none where the server does not know it, None where it does not answer."""
        try:
            return self.client.status(timeout=_STATUS_SECONDS)
        except ModelNotFound:
            return ()
        except ServingClientError:
            return None


@contextmanager
def staging_server(settings: InfraSettings, model_name: str, base_path: str) -> Iterator[StagingServer]:
    """The server at `settings.endpoint`, which has the candidate as long as the context lasts; so does `base_path`."""
    server = StagingServer(settings, model_name, base_path)
    tf.io.gfile.makedirs(base_path)
    try:
        with server.client:
            try:
                yield server
            finally:
                server.withdraw()
    finally:
        tf.io.gfile.rmtree(base_path)


def _is_taken_off(statuses: tuple[VersionStatus, ...] | None) -> bool:
    """Whether it was unloaded by request: not for an error, and not by a restart, after which it is unknown."""
    return bool(statuses) and all(
        status.state in ("UNLOADING", "END") and status.error_code == "OK" for status in statuses or ()
    )


def _tls(settings: InfraSettings) -> Tls | None:
    files = {
        "ca": settings.endpoint_ca or None,
        "cert": settings.endpoint_cert or None,
        "key": settings.endpoint_key or None,
        "server_name": settings.endpoint_server_name or None,
    }
    return Tls(**files) if settings.endpoint_tls or any(files.values()) else None


def _words(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"
