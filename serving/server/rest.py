"""The REST port: TF Serving's HTTP interface and its Prometheus metrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from serving.server import model_service, predict, rest_json
from serving.server.calls import Calls, as_serving_error
from serving.server.errors import ServingError
from serving.server.prometheus import CONTENT_TYPE

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 * 2**20
"""Of a request, unpacked; a larger one is 413."""

MAX_BODIES_BYTES = 256 * 2**20
"""Of all bodies in hand; more is 429."""

MAX_CONCURRENT_REQUESTS = 256
"""One more is 503."""

DEMO_PATH = "/demo/"

_THREADS = 16  # each computes one request at a time

_MODEL_PATH = re.compile(
    r"(?i:/v1/models)/(?P<name>[^/:]+)(?:/(?i:versions)/(?P<version>\d+)|/(?i:labels)/(?P<label>[^/:]+))?"
    r"(?:(?P<metadata>/(?i:metadata))|:(?P<method>(?i:predict|classify|regress)))?"
)
_HTTP_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


class RestServer:
    """The HTTP handlers over `Calls`."""

    def __init__(
        self, calls: Calls, *, timeout_seconds: float, metrics_path: str | None, demo: web.Application | None = None
    ) -> None:
        """Takes what answers the calls.

        Args:
            calls: the models.
            timeout_seconds: of a request, its body's arrival included.
            metrics_path: None for no metrics.
            demo: a page to serve beside the models.
        """
        self._calls = calls
        self._demo = demo
        self._timeout = timeout_seconds
        self._metrics_path = metrics_path
        self._in_hand = 0
        self._bodies_bytes = 0
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rest")

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        if self._demo is not None:
            application.add_subapp(DEMO_PATH, self._demo)
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    async def finish(self, grace_seconds: float) -> None:
        """Waits until no request is in hand, but no longer than that."""
        end = time.monotonic() + grace_seconds
        while self._in_hand and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Ends the threads; no request may be in hand."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == self._metrics_path and request.method in ("GET", "HEAD"):
            return web.Response(body=self._calls.metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE})
        if not request.path.lower().startswith("/v1/"):
            return _error(404, f"Not Found: {request.path}")
        if self._in_hand >= MAX_CONCURRENT_REQUESTS:
            return _error(503, f"more than {MAX_CONCURRENT_REQUESTS} requests in hand, try again later")
        self._in_hand += 1
        try:
            async with asyncio.timeout(self._timeout):
                return await self._answer(request)
        except TimeoutError:
            return _error(504, "Timed out: the request took longer than --rest_api_timeout_in_ms.")
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"the body is larger than {MAX_BODY_BYTES // 2**20} MiB")
        except web.HTTPException as error:
            return _error(error.status, error.reason)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            failure = as_serving_error(error)
            return _error(_HTTP_STATUS.get(failure.code, 500), failure.message)
        finally:
            self._in_hand -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        match = _MODEL_PATH.fullmatch(request.path)
        method = (match["method"] or "").lower() if match else ""
        if match is None or request.method != ("POST" if method else "GET"):
            raise predict.invalid(f"Malformed request: {request.method} {request.path}")
        spec = _spec(match)
        if not method:
            show = self._metadata if match["metadata"] else self._status
            return await self._in_thread(lambda: show(spec))
        respond = {"predict": self._predict, "classify": self._classify, "regress": self._regress}[method]
        deadline = time.monotonic() + self._timeout
        return await self._with_body(request, lambda body: respond(spec, body, deadline))

    async def _with_body(self, request: web.Request, respond: Callable[[bytes], bytes]) -> web.Response:
        """Reads the body and answers it in a thread; all bodies in hand together are bounded."""
        claimed = request.content_length
        packed = request.headers.get("Content-Encoding", "identity").lower() != "identity"
        size = MAX_BODY_BYTES if claimed is None or packed else claimed
        if size > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, size)
        if self._bodies_bytes + size > MAX_BODIES_BYTES:
            raise ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many large requests in hand, try again later")
        self._bodies_bytes += size
        try:
            body = await request.read()
            return await self._in_thread(lambda: respond(body))
        finally:
            self._bodies_bytes -= size

    def _in_thread(self, answer: Callable[[], bytes]) -> Awaitable[web.Response]:
        async def wait() -> web.Response:
            body = await asyncio.get_running_loop().run_in_executor(self._pool, answer)
            return web.Response(body=body, content_type="application/json")

        return wait()

    # In threads of the pool.

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes, deadline: float) -> bytes:
        def compute() -> dict[str, Any]:
            document = rest_json.parse_object(body)
            name = rest_json.signature_name(document) or predict.DEFAULT_SIGNATURE
            with predict.acquire(self._calls.manager, spec) as servable:
                signature = servable.signatures.get(name)
                if signature is None:
                    raise predict.invalid(f'Serving signature name: "{name}" not found in signature def')
                if not signature.inputs:
                    raise predict.invalid(f"Failed to get input map for signature: {name}")
                inputs, rows = rest_json.predict_inputs(document, signature.inputs)
                outputs = servable.run(name, inputs, tuple(signature.outputs), deadline)
                return rest_json.predict_answer(outputs, rows=rows)

        return rest_json.dumps(self._calls.counted("Predict", "REST", spec.name, compute))

    def _classify(self, spec: model_pb2.ModelSpec, body: bytes, deadline: float) -> bytes:
        request = classification_pb2.ClassificationRequest(model_spec=spec)
        _fill_examples(request, body)
        return rest_json.dumps(rest_json.classify_answer(self._calls.classify(request, deadline, "REST").result))

    def _regress(self, spec: model_pb2.ModelSpec, body: bytes, deadline: float) -> bytes:
        request = regression_pb2.RegressionRequest(model_spec=spec)
        _fill_examples(request, body)
        return rest_json.dumps(rest_json.regress_answer(self._calls.regress(request, deadline, "REST").result))

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return rest_json.dumps(_as_dict(model_service.status(self._calls.manager, request)))

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        field = predict.SIGNATURE_DEF_FIELD
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[field])
        answer = predict.metadata(self._calls.manager, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata[field].Unpack(signatures)
        return rest_json.dumps({"model_spec": _as_dict(answer.model_spec), "metadata": {field: _as_dict(signatures)}})


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        if int(match["version"]) >= 2**63:
            raise predict.invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    elif match["label"]:
        spec.version_label = match["label"]
    return spec


def _fill_examples(request: Any, body: bytes) -> None:
    document = rest_json.parse_object(body)
    request.model_spec.signature_name = rest_json.signature_name(document)
    request.input.CopyFrom(rest_json.examples(document))


def _as_dict(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _error(status: int, message: str) -> web.Response:
    return web.Response(status=status, body=rest_json.dumps({"error": message}), content_type="application/json")
