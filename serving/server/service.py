"""The gRPC port: TF Serving's two services, health and reflection."""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
)

from mnist_tfx.serving.server import limits, model_service, predict
from mnist_tfx.serving.server.calls import Calls, Steps
from mnist_tfx.serving.server.errors import ServingError, as_serving_error
from mnist_tfx.serving.server.inference import CLASSIFY, REGRESS
from mnist_tfx.serving.server.manager import ModelManager
from mnist_tfx.serving.server.unary import Method, UnaryCalls

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

_SWITCH_SECONDS = 0.0005  # Python's own 5 ms are what the polling thread waits again and again beside a busy thread
_THREADS = 32  # for reflection, and who watches health
_LOOK_SECONDS = 0.05  # how often a drain looks whether it is over
_RELOADS = 8  # that wait at the same time


class GrpcServer:
    """A gRPC server over the models, not listening yet."""

    def __init__(self, manager: ModelManager, calls: Calls, options: Sequence[tuple[str, str | int]] = ()) -> None:
        """`options`: gRPC's channel arguments; they win over ours."""
        self._reloads = ThreadPoolExecutor(_RELOADS, "grpc-reload")
        ours: dict[str, str | int] = {
            "grpc.max_receive_message_length": limits.MAX_MESSAGE_BYTES,
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": 0,  # two servers on one port would each get some of the requests
            "grpc.max_connection_idle_ms": 10 * 60_000,  # the client connects again when it has something to ask
            "grpc.keepalive_time_ms": 5 * 60_000,  # a client that went without a word leaves no descriptor behind
        }
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, "grpc"),
            options=list((ours | dict(options)).items()),
            maximum_concurrent_rpcs=limits.MAX_CALLS,
        )
        self._health = health.HealthServicer()
        self._states: dict[str, health_pb2.HealthCheckResponse.ServingStatus] = {}
        watch = grpc.unary_stream_rpc_method_handler(
            self._health.Watch,
            health_pb2.HealthCheckRequest.FromString,
            health_pb2.HealthCheckResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(health.SERVICE_NAME, {"Watch": watch}),)
        )
        _describe_services()
        names = (PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        check = Method(f"/{health.SERVICE_NAME}/Check", health_pb2.HealthCheckRequest, _at_once(self._check))
        self._unary = UnaryCalls(self._server, [check, *_methods(manager, calls, self._reloads)])
        self.give_up_stalled_calls = self._unary.give_up_stalled_calls

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Binds an address ("host:port", "unix:path"); returns the port. Raises RuntimeError where it cannot."""
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    def start(self) -> None:
        """Serves from now on."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._server.start()
        self._unary.start()

    def set_serving(self, service: str, serving: bool) -> None:
        """Sets a service's health; the empty name is the server's."""
        states = health_pb2.HealthCheckResponse
        self._states[service] = state = states.SERVING if serving else states.NOT_SERVING
        self._health.set(service, state)

    def stop(self, grace_seconds: float) -> None:
        """Says NOT_SERVING, takes no more calls, lets those in hand finish for so long, then cancels them.

        Streams (who watches health, or asks reflection) have no end of their own, and are not waited for.
        """
        self._states = dict.fromkeys(self._states, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace_seconds)
        while not stopped.wait(_LOOK_SECONDS) and not self._unary.is_drained():
            pass
        self._server.stop(None).wait()
        self._unary.close()
        self._reloads.shutdown(wait=False, cancel_futures=True)

    def _check(self, request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        if request.service not in self._states:
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"no such service: {request.service!r}")
        return health_pb2.HealthCheckResponse(status=self._states[request.service])


def _describe_services() -> None:
    """Puts the services into the pool of descriptors, where reflection looks.

    The modules generated for them are older than this protobuf: their import fails, after it has done just that.
    """
    for module in ("model_service_pb2", "prediction_service_pb2"):
        with suppress(AttributeError, TypeError):
            importlib.import_module(f"tensorflow_serving.apis.{module}")


def _at_once(call: Callable[[Any], Message]) -> Callable[[Any, float | None], Steps[Message]]:
    def answer(request: Any, _deadline: float | None) -> Steps[Message]:
        yield from ()  # it waits for nothing
        return call(request)

    return answer


def _methods(manager: ModelManager, calls: Calls, reloads: Executor) -> list[Method]:
    def counted(api: str, call: Callable[[Any, float | None], Steps[Message]]) -> Callable[..., Steps[Message]]:
        def answer(request: Any, deadline: float | None) -> Steps[Message]:
            start, model = time.perf_counter(), request.model_spec.name
            try:
                found = yield from call(request, deadline)
            except Exception as error:
                failure = as_serving_error(error)
                calls.metrics.request(model, api, "GRPC", start, failure)
                raise failure from None
            calls.metrics.request(model, api, "GRPC", start, None)
            return found

        return answer

    def reload(request: Any, deadline: float | None) -> Steps[Message]:
        return (yield reloads.submit(model_service.reload, manager, request, deadline))

    prediction, models = f"/{PREDICTION_SERVICE}", f"/{MODEL_SERVICE}"
    heavy = functools.partial(Method, is_heavy=lambda _: True)
    return [
        Method(
            f"{prediction}/Predict",
            predict_pb2.PredictRequest,
            counted("Predict", calls.predict),
            is_heavy=predict.is_heavy,
        ),
        *(
            heavy(f"{prediction}/{form.api}", form.request, counted(form.api, functools.partial(calls.infer, form)))
            for form in (CLASSIFY, REGRESS)
        ),
        heavy(  # which TF Serving does not count
            f"{prediction}/MultiInference", inference_pb2.MultiInferenceRequest, calls.multi_inference
        ),
        Method(
            f"{prediction}/GetModelMetadata",
            get_model_metadata_pb2.GetModelMetadataRequest,
            _at_once(functools.partial(model_service.metadata, calls)),
        ),
        Method(
            f"{models}/GetModelStatus",
            get_model_status_pb2.GetModelStatusRequest,
            _at_once(functools.partial(model_service.status, manager)),
        ),
        Method(f"{models}/HandleReloadConfigRequest", model_management_pb2.ReloadConfigRequest, reload),
    ]
