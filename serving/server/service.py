"""The gRPC port: TF Serving's two services, health and reflection."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server import model_service, predict
from serving.server.calls import Calls, as_serving_error, check_deadline
from serving.server.errors import ServingError
from serving.server.fast_predict import FastPredict

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of a request; a larger one is RESOURCE_EXHAUSTED. `--grpc_channel_arguments=grpc.max_receive_message_length=...`."""

MAX_CONCURRENT_RPCS = 1024
"""Calls in hand or waiting for a thread; one more is RESOURCE_EXHAUSTED. Predict has its own bound of this size."""

_THREADS = 32

Method = Callable[[Any, float | None], Message]
"""An answer to a request with a deadline (`time.monotonic()` seconds, None: none). Raises ServingError."""


class GrpcServer:
    """A gRPC server over `Calls`, not listening yet."""

    def __init__(self, calls: Calls, options: Sequence[tuple[str, str | int]] = ()) -> None:
        """`options`: gRPC's channel arguments; they win over ours."""
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc")
        ours: dict[str, str | int] = {
            "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": 0,  # two servers on one port would each get some of the requests
            "grpc.max_connection_idle_ms": 10 * 60_000,  # the client connects again when it has something to ask
            "grpc.keepalive_time_ms": 5 * 60_000,  # a client that went without a word leaves no descriptor behind
        }
        self._server = grpc.server(
            self._pool,
            options=list((ours | dict(options)).items()),
            maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS,
        )
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        _describe_services()
        names = (PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._server.add_generic_rpc_handlers(tuple(_handlers(calls)))
        self._fast = FastPredict(self._server, calls, self._pool, MAX_CONCURRENT_RPCS)

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Binds an address ("host:port", "unix:path"); returns the port. Raises RuntimeError where it cannot."""
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    def start(self) -> None:
        """Serves from now on."""
        self._server.start()
        self._fast.start()

    def set_serving(self, service: str, serving: bool) -> None:
        """Sets a service's health; the empty name is the server's."""
        states = health_pb2.HealthCheckResponse
        self.health.set(service, states.SERVING if serving else states.NOT_SERVING)

    def give_up_stalled_calls(self) -> None:
        """To be called now and then: see `FastPredict`."""
        self._fast.give_up_stalled_calls()

    def stop(self, grace_seconds: float) -> None:
        """Says NOT_SERVING, takes no more calls, lets those in hand finish for so long, then cancels them."""
        self.health.enter_graceful_shutdown()
        self._server.stop(grace_seconds).wait()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _describe_services() -> None:
    """Puts the services into the pool of descriptors, where reflection looks.

    The modules generated for them are older than this protobuf: their import fails, after it has done just that.
    """
    for module in ("model_service_pb2", "prediction_service_pb2"):
        with suppress(AttributeError, TypeError):
            importlib.import_module(f"tensorflow_serving.apis.{module}")


def parse(message: type[Message], data: bytes) -> Any:
    """A request from its bytes. Raises ServingError, with the code that gRPC itself gives to such bytes."""
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise ServingError(
            grpc.StatusCode.INTERNAL, f"the bytes are not a {message.DESCRIPTOR.full_name}: {error}"
        ) from error


def _handlers(calls: Calls) -> list[grpc.GenericRpcHandler]:
    manager = calls.manager
    methods: dict[str, dict[str, tuple[type[Message], Method]]] = {
        PREDICTION_SERVICE: {
            "Predict": (predict_pb2.PredictRequest, lambda r, deadline: calls.predict(r, deadline, "GRPC")),
            "Classify": (
                classification_pb2.ClassificationRequest,
                lambda r, deadline: calls.classify(r, deadline, "GRPC"),
            ),
            "Regress": (regression_pb2.RegressionRequest, lambda r, deadline: calls.regress(r, deadline, "GRPC")),
            "MultiInference": (
                inference_pb2.MultiInferenceRequest,
                lambda r, deadline: calls.multi_inference(r, deadline, "GRPC"),
            ),
            "GetModelMetadata": (
                get_model_metadata_pb2.GetModelMetadataRequest,
                lambda r, _: predict.metadata(manager, r),
            ),
        },
        MODEL_SERVICE: {
            "GetModelStatus": (
                get_model_status_pb2.GetModelStatusRequest,
                lambda r, _: model_service.status(manager, r),
            ),
            "HandleReloadConfigRequest": (
                model_management_pb2.ReloadConfigRequest,
                lambda r, deadline: model_service.reload(manager, r, deadline),
            ),
        },
    }
    return [
        grpc.method_handlers_generic_handler(
            service, {name: _handler(message, method) for name, (message, method) in table.items()}
        )
        for service, table in methods.items()
    ]


def _handler(message: type[Message], method: Method) -> grpc.RpcMethodHandler:
    """A handler that parses by itself, so that bytes that do not parse get a clear message."""

    def respond(data: bytes, context: grpc.ServicerContext) -> bytes:
        error: ServingError
        try:
            remaining = context.time_remaining()
            deadline = None if remaining is None or remaining > _FOREVER else time.monotonic() + remaining
            check_deadline(deadline)
            return method(parse(message, data), deadline).SerializeToString()
        except Exception as raised:
            error = as_serving_error(raised)
        context.abort(error.code, error.message)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(respond)


_FOREVER = 10 * 365 * 86400.0  # gRPC says "no deadline" as a time far away
