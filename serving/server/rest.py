"""The REST port: TF Serving's HTTP interface and its Prometheus metrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import grpc
import numpy as np
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import get_model_status_pb2, input_pb2, model_pb2

from mnist_tfx.serving.server import limits, model_service, rest_json
from mnist_tfx.serving.server.calls import Calls, Steps, future
from mnist_tfx.serving.server.errors import ServingError, TooLargeError, as_serving_error, invalid
from mnist_tfx.serving.server.inference import CLASSIFY, REGRESS
from mnist_tfx.serving.server.json_reader import Reader
from mnist_tfx.serving.server.manager import ModelManager
from mnist_tfx.serving.server.metrics import CONTENT_TYPE
from mnist_tfx.serving.server.rest_bodies import Bodies, Body

DEMO_PATH = "/demo/"

_MODEL_PATH = re.compile(
    r"(?i:/v1/models)/(?P<name>[^/:]+)(?:/(?i:versions)/(?P<version>\d+)|/(?i:labels)/(?P<label>[^/:]+))?"
    r"(?:(?P<metadata>/(?i:metadata))|:(?P<method>(?i:predict|classify|regress)))?",
    re.ASCII,
)
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
_HTTP_STATUS = {
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
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


class RestServer:
    """The HTTP handlers over the models."""

    def __init__(
        self,
        manager: ModelManager,
        calls: Calls,
        *,
        timeout_seconds: float,
        metrics_path: str | None,
        cors: bool = False,
        demo: web.Application | None = None,
    ) -> None:
        """Takes what answers.

        Args:
            manager: the models.
            calls: the methods on them.
            timeout_seconds: of a request, its body's arrival included.
            metrics_path: None for no metrics.
            cors: pages from elsewhere may call.
            demo: a page to serve beside the models.
        """
        self._manager = manager
        self._calls = calls
        self._demo = demo
        self._timeout = timeout_seconds
        self._metrics_path = metrics_path
        self._headers = _CORS if cors else {}
        self._in_hand = 0
        self._answering = 0
        self._bodies = Bodies()
        self._one_by_one = ThreadPoolExecutor(1, thread_name_prefix="rest-large")
        self._reader = Reader()  # used in that thread only

    def runner(self, **timeouts: Any) -> web.AppRunner:
        """The application, for an event loop; `timeouts` are aiohttp's, in seconds."""
        application = web.Application()
        if self._demo is not None:
            application.add_subapp(DEMO_PATH, self._demo)
        application.router.add_route("*", "/{path:.*}", self._handle)
        return web.AppRunner(
            application,
            access_log=None,
            logger=_logger_without_bad_requests(),
            auto_decompress=False,  # which would be done in the event loop, and before it is known how large it is
            **timeouts,
        )

    async def finish(self, grace_seconds: float) -> None:
        """Waits until no request is in hand, but no longer than that."""
        end = time.monotonic() + grace_seconds
        while self._in_hand and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Ends the threads; no request may be in hand."""
        self._one_by_one.submit(self._reader.close)
        self._one_by_one.shutdown(wait=False)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path == self._metrics_path and request.method in ("GET", "HEAD"):
            return web.Response(body=self._calls.metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE})
        if not path.lower().startswith("/v1/"):
            return self._error(404, f"Not Found: {path}")
        self._in_hand += 1
        try:
            response = await self._respond(request, path)
            with suppress(ConnectionError):  # it is in hand until the client has it, and a drain waits for that
                await response.prepare(request)
                if request.transport is not None:
                    request.transport.set_write_buffer_limits(0)
                await response.write_eof()
            return response
        finally:
            self._in_hand -= 1

    async def _respond(self, request: web.Request, path: str) -> web.Response:
        start = time.perf_counter()
        asked = _Asked()
        failure: ServingError | None = None
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._answer(request, path, asked)
            return web.Response(body=body, content_type="application/json", headers=self._headers)
        except TimeoutError:
            words = "Timed out: the request took longer than --rest_api_timeout_in_ms."
            failure = ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, words)
        except ConnectionError:
            failure = ServingError(grpc.StatusCode.CANCELLED, "the client went away")
        except (HttpProcessingError, web.RequestPayloadError) as error:
            failure = invalid(f"the body is no HTTP: {error}")
        except Exception as error:
            failure = as_serving_error(error)
        finally:
            self._calls.metrics.request(asked.spec.name, asked.method, "REST", start, failure)
        status = 413 if isinstance(failure, TooLargeError) else _HTTP_STATUS.get(failure.code, 500)
        return self._error(status, failure.message)

    def _error(self, status: int, message: str) -> web.Response:
        body = rest_json.dumps({"error": message})
        return web.Response(status=status, body=body, content_type="application/json", headers=self._headers)

    async def _answer(self, request: web.Request, path: str, asked: _Asked) -> bytes:
        if request.method == "OPTIONS":  # what a browser asks before it lets a page of another origin call
            if re.search("https?://", request.headers.get("Origin", "")):
                return b""
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, "Origin header is missing in CORS preflight")
        match = _MODEL_PATH.fullmatch(path)
        method = (match["method"] or "").lower() if match else ""
        if match is None or request.method != ("POST" if method else "GET"):
            raise invalid(f"Malformed request: {request.method} {path}")
        asked.spec, asked.method = _spec(match), method
        if not method:
            show = self._metadata if match["metadata"] else self._status
            return await asyncio.to_thread(show, asked.spec)
        deadline = time.monotonic() + self._timeout
        with Body(self._bodies) as body:
            await body.read(request)
            if self._answering >= limits.MAX_REQUESTS:
                raise ServingError(grpc.StatusCode.UNAVAILABLE, "too many requests in hand, try again later")
            self._answering += 1
            try:
                respond = self._predict if method == "predict" else self._infer
                return await respond(asked, bytes(body.data), body.encoding, deadline)
            finally:
                self._answering -= 1

    async def _json(self, large: bool, deadline: float, function: str, *arguments: Any) -> Any:
        """Calls a function of `rest_json`."""
        if large:
            return await _in(self._one_by_one, self._reader.call, deadline, function, *arguments)
        return _read_small(deadline, function, *arguments)

    async def _answer_of(self, large: bool, steps: Steps[Any]) -> Any:
        computing = await _in(self._one_by_one, future, steps) if large else future(steps)
        return await asyncio.wrap_future(computing)

    async def _predict(self, asked: _Asked, body: bytes, encoding: str, deadline: float) -> bytes:
        large = _is_large(body, encoding)

        def steps() -> Steps[tuple[dict[str, np.ndarray], bool]]:
            with self._calls.acquire(asked.spec, deadline) as servable:
                signatures = {
                    name: ({key: info.dtype for key, info in signature.inputs.items()}, servable.max_rows(name))
                    for name, signature in servable.signatures.items()
                }
                read = self._reader.call if large else _read_small
                name, inputs, in_rows = read(deadline, "read_predict", body, encoding, signatures)
                outputs = tuple(servable.signatures[name].outputs)
                arrays = yield from self._calls.run("Predict", servable, name, inputs, outputs, deadline)
                self._calls.log_arrays(asked.spec, servable, name, inputs, arrays)
                return arrays, in_rows

        arrays, in_rows = await self._answer_of(large, steps())
        large = sum(array.size for array in arrays.values()) > limits.LARGE_ANSWER_VALUES
        answer: bytes = await self._json(large, deadline, "write_predict", arrays, in_rows)
        return answer

    async def _infer(self, asked: _Asked, body: bytes, encoding: str, deadline: float) -> bytes:
        large = _is_large(body, encoding)
        name, serialized = await self._json(large, deadline, "read_examples", body, encoding)
        asked.spec.signature_name = name
        form = CLASSIFY if asked.method == "classify" else REGRESS
        request = form.request(model_spec=asked.spec, input=input_pb2.Input.FromString(serialized))
        answer = await self._answer_of(large, self._calls.infer(form, request, deadline))
        write = rest_json.classify_answer if form is CLASSIFY else rest_json.regress_answer
        return rest_json.dumps(write(answer.result))

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return rest_json.dumps(_as_dict(model_service.status(self._manager, request)))

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        name = model_service.SIGNATURE_DEF_FIELD
        resolved, signatures = model_service.signatures(self._calls, spec)
        return rest_json.dumps({"model_spec": _as_dict(resolved), "metadata": {name: _as_dict(signatures)}})


@dataclass
class _Asked:
    """What a request turns out to ask; empty until that is known."""

    spec: model_pb2.ModelSpec = field(default_factory=model_pb2.ModelSpec)
    method: str = ""


def _logger_without_bad_requests() -> logging.Logger:
    """For aiohttp, which logs a stack trace for whatever is no HTTP: a client could fill the disk with them."""

    def is_ours(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))

    logger = logging.Logger(f"{__name__}.http")
    logger.parent = logging.getLogger(__name__)
    logger.addFilter(is_ours)
    return logger


async def _in(executor: Executor, function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)


def _is_large(body: bytes, encoding: str) -> bool:
    return len(body) >= limits.LARGE_BODY_BYTES or encoding not in ("", "identity")


def _read_small(_deadline: float, function: str, *arguments: Any) -> Any:
    return getattr(rest_json, function)(*arguments)


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec()
    try:
        spec.name = unquote(match["name"], errors="strict")
        if match["label"]:
            spec.version_label = unquote(match["label"], errors="strict")
    except ValueError as error:
        raise invalid(f"Failed to decode model name or label: {match[0]}") from error
    if match["version"]:
        try:
            spec.version.value = int(match["version"])
        except ValueError as error:  # more than an int64, or than Python reads
            raise invalid(f"Failed to convert version: {match['version']} to numeric.") from error
    return spec


def _as_dict(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
