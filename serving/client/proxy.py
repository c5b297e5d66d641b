"""A gRPC proxy in front of TF Serving that logs a sample of its requests, for the builds that have no log collector.

    python -m mnist_tfx.serving.client.proxy --listen 0.0.0.0:8500 --server 127.0.0.1:8502 --folder /requests

Every method goes through, health and reflection among them, as bytes: nothing is decoded on the way. Metadata,
deadlines, cancellations and errors go with it. Records are put together in a thread of their own, after the answer is
on its way, and written as the client's `RequestLog` does. Needs what the client needs, and google-crc32c. Speaks plain
text.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from mnist_tfx.serving.client.channel import RECONNECT, is_loopback
from mnist_tfx.serving.client.errors import InvalidOption
from mnist_tfx.serving.client.record_files import MAX_QUEUED_BYTES
from mnist_tfx.serving.client.request_log import DEFAULT_KEEP_DAYS, DEFAULT_MAX_BYTES, RequestLog, resolved_spec

_LOGGED = {
    f"/tensorflow.serving.PredictionService/{method}": kind
    for method, kind in (
        ("Predict", "predict_log"),
        ("Classify", "classify_log"),
        ("Regress", "regress_log"),
        ("MultiInference", "multi_inference_log"),
    )
}
_UNARY = (
    *_LOGGED,
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    "/grpc.health.v1.Health/Check",
)
# The server limits what it takes; what it answers is to arrive. A call is never tried twice.
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_OF_THE_CONNECTION = ("user-agent", "te", "content-type")  # and what begins with "grpc-" or ":"


class Recorder:
    """Adds calls to a log, in a thread beside the calls."""

    def __init__(self, log: RequestLog) -> None:
        self._log = log
        self._thread = ThreadPoolExecutor(1, "record")
        self._held = 0  # bytes that wait; changed by the event loop and the thread, each change by one step

    def record(self, kind: str, request: bytes, response: bytes) -> None:
        """Returns at once. By chance, or where too much waits, the call is not logged."""
        if not self._log.is_sampled():
            return
        size = len(request) + len(response)
        if self._held + size > MAX_QUEUED_BYTES:
            self._log.drop("")
            return
        self._held += size
        self._thread.submit(self._add, kind, request, response, size)

    def _add(self, kind: str, request: bytes, response: bytes, size: int) -> None:
        self._log.add(kind, "", lambda: (resolved_spec(kind, response), request, response))
        self._held -= size

    def close(self) -> None:
        """Writes all that waits."""
        self._thread.shutdown()
        self._log.close()


class Proxy(grpc.GenericRpcHandler):
    """Sends each call on to one server."""

    def __init__(self, server: str, recorder: Recorder) -> None:
        # gRPC itself sends even calls to this machine to an http_proxy of the environment.
        through_proxy = ("grpc.enable_http_proxy", int(not is_loopback(server)))
        self._channel = grpc.aio.insecure_channel(server, [*_OPTIONS, *RECONNECT, through_proxy])
        self._recorder = recorder
        self._unary = {path: self._handler(path) for path in _UNARY}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """What gRPC asks for each call."""
        path = handler_call_details.method
        return self._unary.get(path) or grpc.stream_stream_rpc_method_handler(self._stream(path))

    async def close(self) -> None:
        """Ends the connection to the server."""
        await self._channel.close()

    def _handler(self, path: str) -> grpc.RpcMethodHandler:
        call_server, kind, recorder = self._channel.unary_unary(path), _LOGGED.get(path), self._recorder

        async def forward(request: bytes, context: Any) -> bytes:
            call = call_server(request, timeout=context.time_remaining(), metadata=_metadata(context))
            try:
                response: bytes = await call
            except grpc.aio.AioRpcError as error:
                await _fail(context, error)
            # TF Serving has none: each step that is not made saves time.
            if initial := await call.initial_metadata():
                await context.send_initial_metadata(tuple(initial))
            if trailing := await call.trailing_metadata():
                context.set_trailing_metadata(tuple(trailing))
            if kind is not None:
                recorder.record(kind, request, response)
            return response

        return grpc.unary_unary_rpc_method_handler(forward)

    def _stream(self, path: str) -> Any:
        """A watch on health, reflection, or what is not known here."""

        async def forward(requests: Any, context: Any) -> Any:
            call = self._channel.stream_stream(path)(
                requests, timeout=context.time_remaining(), metadata=_metadata(context)
            )
            try:
                async for response in call:
                    yield response
            except grpc.aio.AioRpcError as error:
                await _fail(context, error)
            context.set_trailing_metadata(tuple(await call.trailing_metadata() or ()))

        return forward


def _metadata(context: Any) -> tuple[Any, ...]:
    given = context.invocation_metadata() or ()
    return tuple(
        (key, value) for key, value in given if key not in _OF_THE_CONNECTION and not key.startswith(("grpc-", ":"))
    )


async def _fail(context: Any, error: grpc.aio.AioRpcError) -> None:
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))


async def serve(proxy: Proxy, recorder: Recorder, listen: str, arguments: list[tuple[str, Any]], drain: float) -> None:
    """Serves until SIGTERM or SIGINT, and then finishes the calls in hand within `drain` seconds.

    Raises:
        InvalidOption: the address cannot be had.
    """
    server = grpc.aio.server(options=[*_OPTIONS, ("grpc.so_reuseport", 0), *arguments])
    server.add_generic_rpc_handlers((proxy,))
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise InvalidOption(f"cannot listen at {listen}: {error}") from error
    await server.start()
    print(f"listening on port {port}", file=sys.stderr, flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await server.stop(drain)
    await proxy.close()
    await asyncio.to_thread(recorder.close)


async def _run(args: argparse.Namespace) -> None:
    log = RequestLog(
        args.folder,
        sampling=args.sampling,
        max_bytes=args.max_megabytes * 2**20,
        keep_days=args.keep_days,
        pixels=args.pixels,
    )
    recorder = Recorder(log)
    pairs = [pair.split("=", 1) for pair in filter(None, args.grpc_channel_arguments.split(","))]
    try:
        arguments = [(name, int(value)) for name, value in pairs]
    except ValueError as error:
        raise InvalidOption(
            f"--grpc-channel-arguments: give NAME=NUMBER,..., not {args.grpc_channel_arguments!r}."
        ) from error
    await serve(Proxy(args.server, recorder), recorder, args.listen, arguments, args.drain)
    print(f"{log.written} records written, {log.dropped} dropped", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m mnist_tfx.serving.client.proxy", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--listen", default="127.0.0.1:8500", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--server", default="127.0.0.1:8502", metavar="HOST:PORT", help="TF Serving (%(default)s)")
    parser.add_argument("--folder", required=True, metavar="DIR", help="for the files of the log")
    parser.add_argument("--sampling", type=float, default=1.0, metavar="SHARE", help="0 to 1 (default: %(default)s)")
    parser.add_argument("--max-megabytes", type=int, default=DEFAULT_MAX_BYTES >> 20, metavar="MB")
    parser.add_argument("--keep-days", type=float, default=DEFAULT_KEEP_DAYS, metavar="DAYS")
    parser.add_argument("--pixels", default="full", metavar="full|hash|N", help="what is kept of images")
    parser.add_argument("--grpc-channel-arguments", default="", metavar="K=N,...", help="of the server side")
    parser.add_argument("--drain", type=float, default=10.0, metavar="S", help="for calls in hand at SIGTERM")
    return parser


def main() -> int:
    """Serves as the options say; returns the exit code."""
    try:
        asyncio.run(_run(build_parser().parse_args()))
    except InvalidOption as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
