"""The model server: a manager of models behind a gRPC and a REST port, from start to drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from aiohttp import web
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.errors import PipelineError, UsageError
from serving.demo.pages import application as demo_pages
from serving.server.calls import Calls
from serving.server.config import MonitoringConfig, ServerOptions
from serving.server.errors import ServingError
from serving.server.manager import ModelManager
from serving.server.metrics import Metrics
from serving.server.rest import DEMO_PATH, RestServer
from serving.server.service import MODEL_SERVICE, PREDICTION_SERVICE, GrpcServer

logger = logging.getLogger(__name__)

ModelSource = Callable[[], ModelServerConfig]
"""Says which models are to be served; asked again and again. Raises PipelineError."""

DRAIN_SECONDS = 20.0
"""Requests in hand have so long after SIGTERM; Kubernetes kills after 30 seconds."""

_WATCH_SECONDS = 0.1
_ANY_PORT = -1
_CLOSE_SECONDS = 0.5  # for connections on which nothing is asked any more


class ModelServer:
    """Everything between the sockets and the models. Use: `start()`, then `stop()` once."""

    def __init__(
        self,
        options: ServerOptions,
        *,
        source: ModelSource | None = None,
        monitoring: MonitoringConfig | None = None,
        demo: bool = False,
    ) -> None:
        """Reads the files that `options` names.

        Args:
            options: the flags.
            source: says the models instead of `options.models`.
            monitoring: instead of `options.monitoring()`.
            demo: serve the page of serving/demo on the REST port.

        Raises:
            PipelineError: a file cannot be used, or there is no model.
        """
        self.options = options
        self._demo = demo
        self._source = source or options.models
        self._listed = self._source()
        metrics = Metrics()
        self.manager = ModelManager(
            self._listed,
            metrics=metrics,
            batching=options.batching(),
            poll_seconds=options.file_system_poll_wait_seconds,
            max_load_retries=options.max_num_load_retries,
            load_retry_seconds=options.load_retry_interval_micros / 1e6,
            allow_labels_for_unavailable=options.allow_version_labels_for_unavailable_models,
        )
        calls = Calls(self.manager, metrics, as_content=options.enable_serialization_as_tensor_content)
        self._grpc = GrpcServer(calls, options.channel_arguments())
        monitoring = monitoring or options.monitoring()
        self._rest = _RestThread(
            RestServer(
                calls,
                timeout_seconds=options.rest_api_timeout_in_ms / 1000,
                metrics_path=monitoring.path if monitoring.enable else None,
                cors=options.rest_api_enable_cors_support,
                demo=demo_pages(self.manager, self._base_paths) if demo else None,
            )
        )
        self._watcher = threading.Thread(target=self._watch, name="watch-models", daemon=True)
        self._stopping = threading.Event()
        self._reported: set[tuple[str, int]] = set()
        self._healthy: dict[str, bool] = {}
        self.grpc_port = 0
        self.rest_port = 0

    def start(self) -> None:
        """Takes the ports, then loads. Raises PipelineError where a port cannot be had."""
        options = self.options
        try:
            self.grpc_port = self._grpc.listen(f"{_bracketed(options.host)}:{options.port}", options.ssl())
        except RuntimeError as error:
            raise _port_taken("gRPC", options.host, options.port, "--port") from error
        if options.grpc_socket_path:
            try:
                self._grpc.listen(f"unix:{options.grpc_socket_path}")
            except RuntimeError as error:
                raise PipelineError(f"cannot listen on the UNIX socket {options.grpc_socket_path}: {error}") from error
        if options.rest_api_port:
            wanted = 0 if options.rest_api_port == _ANY_PORT else options.rest_api_port
            try:
                self.rest_port = self._rest.start(options.host, wanted)
            except OSError as error:
                raise _port_taken("REST", options.host, wanted, "--rest_api_port") from error
        try:
            self.manager.start()
        except ServingError as error:
            raise UsageError(f"The models cannot be served: {error.message}") from error
        if self._demo:
            _say(f"The demo is at http://{_bracketed(options.host)}:{self.rest_port}{DEMO_PATH}")
        self._set_health()
        self._grpc.start()
        self._watcher.start()

    def stop(self, grace_seconds: float = DRAIN_SECONDS) -> None:
        """Takes no more requests, finishes those in hand within `grace_seconds`, and unloads."""
        self._stopping.set()
        rest = threading.Thread(target=self._rest.stop, args=(grace_seconds,))
        rest.start()
        self._grpc.stop(grace_seconds)
        rest.join()
        if self._watcher.ident is not None:
            self._watcher.join()
        self.manager.stop()

    @property
    def addresses(self) -> str:
        """Where clients find it, in words."""
        host = _bracketed(self.options.host)
        words = f"gRPC {host}:{self.grpc_port}"
        return f"{words}, REST http://{host}:{self.rest_port}" if self.rest_port else words

    def _base_paths(self) -> dict[str, str]:
        return {model.name: model.base_path for model in self._listed.model_config_list.config}

    def _watch(self) -> None:
        """Follows the states of the models, stalled calls, and the source."""
        poll = self.options.model_config_file_poll_wait_seconds
        waited = 0.0
        last_error = ""
        while not self._stopping.wait(_WATCH_SECONDS):
            self._set_health()
            self._grpc.give_up_stalled_calls()
            waited += _WATCH_SECONDS
            if poll <= 0 or waited < poll:
                continue
            waited = 0.0
            try:
                models = self._source()
                if models != self._listed:
                    self.manager.reload(models)
                    self._listed = models
                    _say("the list of models has changed and was taken over")
                last_error = ""
            except (PipelineError, ServingError) as error:
                if str(error) != last_error:  # say it once; what is served stays
                    last_error = str(error)
                    _say(f"error: the new list of models is not taken over: {error}")

    def _set_health(self) -> None:
        """A model is SERVING while one of its versions is available; the server while all models are."""
        models = {name: self._report(name) for name in self.manager.names()}
        everything = bool(models) and all(models.values())
        health = dict.fromkeys(self._healthy, False)  # a model that was taken from the list is not served
        health |= models | dict.fromkeys(("", PREDICTION_SERVICE, MODEL_SERVICE), everything)
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
                    _say(f"{name}: version {status.version} is AVAILABLE at {self.addresses}")
            return any(status.state == ModelVersionStatus.AVAILABLE for status in statuses)
        return False


def run(server: ModelServer) -> int:
    """Serves until a signal comes, from the main thread; returns the exit code.

    SIGTERM drains and gives 0, Ctrl-C (SIGINT) drains and gives 130; a second signal ends the process at once.
    """
    received: list[int] = []
    wake = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        wake.set()

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of the loader, which we chose
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.start()
        wake.wait()
        _say("draining: no new requests are taken; a second signal stops at once")
        server.stop()
    except PipelineError:
        server.stop(0)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 130 if received[0] == signal.SIGINT else 0


class _RestThread:
    """An event loop of its own for the REST port."""

    def __init__(self, server: RestServer) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest-loop", daemon=True)
        self._runner: web.AppRunner | None = None

    def start(self, host: str, port: int) -> int:
        """Listens; returns the port. Raises OSError."""
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._listen(host, port), self._loop).result()

    async def _listen(self, host: str, port: int) -> int:
        self._runner = self._server.runner(_CLOSE_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    def stop(self, grace_seconds: float) -> None:
        """Closes the port, lets the requests in hand finish, ends the loop."""
        if self._thread.ident is None:
            self._loop.close()
            self._server.close()
            return
        asyncio.run_coroutine_threadsafe(self._close(grace_seconds), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._server.close()

    async def _close(self, grace_seconds: float) -> None:
        if self._runner is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        await self._server.finish(grace_seconds)
        await self._runner.cleanup()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _port_taken(what: str, host: str, port: int, flag: str) -> PipelineError:
    return PipelineError(
        f"cannot listen on {_bracketed(host)}:{port} for {what}: the port is in use, or not ours to take. "
        f"Stop the other server, or choose another port with {flag}."
    )
