"""The model server: a manager of models behind a gRPC and a REST port, from start to drain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
from aiohttp import web
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.serving.server.calls import Calls
from mnist_tfx.serving.server.config import MonitoringConfig, ServerOptions
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.listening import addresses_of, bracketed, listening_sockets
from mnist_tfx.serving.server.manager import ModelManager
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.repeating import repeat, say
from mnist_tfx.serving.server.request_logs import RequestLogs
from mnist_tfx.serving.server.rest import DEMO_PATH, RestServer
from mnist_tfx.serving.server.rest_thread import RestThread
from mnist_tfx.serving.server.service import MODEL_SERVICE, PREDICTION_SERVICE, GrpcServer

ModelSource = Callable[[], ModelServerConfig]
"""Says which models are to be served; asked again and again. Raises PipelineError."""

SERVICES = ("", PREDICTION_SERVICE, MODEL_SERVICE, "PredictionService", "ModelService")
"""Whose health is that of the server; TF Serving has the empty name and the short ones."""

_HEALTH_SECONDS = 0.1
_STALLED_SECONDS = 0.1  # how late a slow client is given up that others wait for
_TELL_SECONDS = 30.0  # after which a start that still waits for loads says so
_LOG_SECONDS = 0.5  # for the last records of the request log
_UNLOAD_SECONDS = 1.0  # for requests that were computed to the end of the drain
_ANY_PORT = -1


class ModelServer:
    """Everything between the sockets and the models. Use: `start()`, then `stop()` once."""

    def __init__(
        self,
        options: ServerOptions,
        *,
        source: ModelSource | None = None,
        monitoring: MonitoringConfig | None = None,
        demo: Callable[[ModelManager], web.Application] | None = None,
    ) -> None:
        """Reads the files that `options` names.

        Args:
            options: the flags.
            source: says the models instead of `options.models`.
            monitoring: instead of `options.monitoring()`.
            demo: makes a page that is served on the REST port, too.

        Raises:
            PipelineError: a file or the host cannot be used, or there is no model.
        """
        self.options = options
        self._demo = demo
        self._source = source or options.models
        self._listed = self._source()
        self._addresses = addresses_of(options.host)
        metrics = Metrics()
        self._logs = RequestLogs(metrics, **options.request_log_limits())
        self.manager = ModelManager(
            metrics=metrics,
            logs=self._logs,
            batching=options.batching(),
            loading=options.loading(),
            poll_seconds=options.file_system_poll_wait_seconds,
            max_load_retries=options.max_num_load_retries,
            load_retry_seconds=options.load_retry_interval_micros / 1e6,
            allow_labels_for_unavailable=options.allow_version_labels_for_unavailable_models,
            reload_refused=options.reload_refused(self._addresses),
        )
        as_content = options.enable_serialization_as_tensor_content
        calls = Calls(self.manager.acquire, metrics, logs=self._logs, as_content=as_content)
        self._grpc = GrpcServer(self.manager, calls, options.channel_arguments())
        monitoring = monitoring or options.monitoring()
        self._rest = RestThread(
            RestServer(
                self.manager,
                calls,
                timeout_seconds=options.rest_api_timeout_in_ms / 1000,
                metrics_path=monitoring.path if monitoring.enable else None,
                cors=options.rest_api_enable_cors_support,
                demo=demo(self.manager) if demo else None,
            )
        )
        self._stopping = threading.Event()
        self._opening = threading.Lock()
        self._reported: set[tuple[str, int]] = set()
        self._healthy: dict[str, bool] = {}
        self.grpc_port = 0
        self.rest_port = 0

    def start(self) -> None:
        """Loads, and then takes the ports: who reaches the server is answered. Returns early when it is stopped.

        It waits until each model has loaded a version or failed to once; one that has no version is not waited for.

        Raises:
            PipelineError: the list of models cannot be served, or a port cannot be had.
        """
        try:
            self.manager.take_over(self._listed)
        except ServingError as error:
            raise UsageError(f"The models cannot be served: {error.message}") from error
        if waiting := self.manager.wait_loaded(_TELL_SECONDS):
            say(f"the ports open when these models are loaded, or have failed to: {', '.join(waiting)}")
            self.manager.wait_loaded(None)
        if not self.manager.names():
            say("the list of models is empty: nothing is served until it has some")
        with self._opening:
            if self._stopping.is_set():
                return
            self._open()
        repeat(self._set_health, _HEALTH_SECONDS, self._stopping, "health is not up to date")
        repeat(self._grpc.give_up_stalled_calls, _STALLED_SECONDS, self._stopping, "stalled calls are not given up")
        if (seconds := self.options.model_config_file_poll_wait_seconds) > 0:
            repeat(self._take_over_list, seconds, self._stopping, "the new list of models is not taken over")

    def stop(self, grace_seconds: float) -> None:
        """Takes no more requests, finishes those in hand within `grace_seconds`, and unloads."""
        end = time.monotonic() + grace_seconds
        self._stopping.set()
        with self._opening:
            rest = threading.Thread(target=self._rest.stop, args=(grace_seconds,), name="stop REST", daemon=True)
            rest.start()
            self._grpc.stop(grace_seconds)
            rest.join()
        self._logs.close(_LOG_SECONDS)
        self.manager.stop(max(0.0, end - time.monotonic()) + _UNLOAD_SECONDS)

    @property
    def addresses(self) -> str:
        """Where clients find it, in words."""
        host, socket_path = bracketed(self.options.host), self.options.grpc_socket_path
        words = f"gRPC {host}:{self.grpc_port}" if self.grpc_port else f"gRPC unix:{socket_path}"
        return f"{words}, REST http://{host}:{self.rest_port}" if self.rest_port else words

    def _open(self) -> None:
        options = self.options
        credentials = options.credentials()
        if options.port or not options.grpc_socket_path:
            port = max(options.port, 0)
            for address in self._addresses:
                try:
                    port = self._grpc.listen(f"{bracketed(address)}:{port}", credentials)
                except RuntimeError as error:
                    self._check_pem_texts(credentials)
                    raise _port_taken("gRPC", address, port, "--port") from error
            self.grpc_port = port
        if options.grpc_socket_path:
            try:
                self._grpc.listen(f"unix:{options.grpc_socket_path}", credentials)
            except RuntimeError as error:
                self._check_pem_texts(credentials)
                raise PipelineError(f"cannot listen on the UNIX socket {options.grpc_socket_path}: {error}") from error
        sockets = []
        if options.rest_api_port:
            wanted = 0 if options.rest_api_port == _ANY_PORT else options.rest_api_port
            try:
                sockets = listening_sockets(self._addresses, wanted)
            except OSError as error:
                raise _port_taken("REST", options.host, wanted, "--rest_api_port") from error
            self.rest_port = sockets[0].getsockname()[1]
        self._set_health()
        self._grpc.start()
        if sockets:
            self._rest.start(sockets)
        if self._demo:
            say(f"The demo is at http://{bracketed(options.host)}:{self.rest_port}{DEMO_PATH}")

    def _check_pem_texts(self, credentials: grpc.ServerCredentials | None) -> None:
        """Raises UsageError where gRPC refuses them at a free port, too: it has one error for both."""
        path = self.options.ssl_config_file
        try:
            if path and credentials is not None:
                grpc.server(ThreadPoolExecutor(1)).add_secure_port(f"{bracketed(self._addresses[0])}:0", credentials)
        except RuntimeError as error:
            raise UsageError(
                f"{path}: gRPC cannot use these PEM texts. Each must be whole, and server_key the key of server_cert."
            ) from error

    def _take_over_list(self) -> None:
        models = self._source()
        if models != self._listed:
            self.manager.take_over(models)
            self._listed = models
            say("the list of models has changed and was taken over")

    def _set_health(self) -> None:
        """A model is SERVING while one of its versions is available; the server while all models are."""
        models = {name: self._report(name) for name in self.manager.names()}
        everything = bool(models) and all(models.values())
        health = dict.fromkeys(self._healthy, False)  # a model that was taken from the list is not served
        health |= models | dict.fromkeys(SERVICES, everything)
        for service, serving in health.items():
            if self._healthy.get(service) is not serving:  # who watches hears of changes only
                self._grpc.set_serving(service, serving)
        self._healthy = health

    def _report(self, name: str) -> bool:
        """Says on stderr which versions of a model became available since last time; whether one is."""
        with suppress(ServingError):
            statuses = self.manager.statuses(name)
            for status in statuses:
                key = (name, status.version)
                if status.state != ModelVersionStatus.AVAILABLE:
                    self._reported.discard(key)
                elif key not in self._reported:
                    self._reported.add(key)
                    say(f"{name}: version {status.version} is AVAILABLE at {self.addresses}")
            return any(status.state == ModelVersionStatus.AVAILABLE for status in statuses)
        return False


def _port_taken(what: str, host: str, port: int, flag: str) -> PipelineError:
    return PipelineError(
        f"cannot listen on {bracketed(host)}:{port} for {what}: the port is in use, or not ours to take. "
        f"Stop the other server, or choose another port with {flag}."
    )
