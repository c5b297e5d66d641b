"""Unary calls without a thread for each, at one and a half to two times the throughput.

grpcio's public servers cost more than the model does: the threaded one hands each call from its polling thread to a
pool and back (two to four changes of threads), the asyncio one goes through an event loop and a second thread. Here
the polling thread reads the request itself, hands it to the batcher, and the batcher's thread sends the answer.
(One image per request, concurrency 16, 2 cores shared with the client: 3,400 to 5,200 requests/s with this, 2,200 to
2,500 with the threaded server around the same batching, 1,700 to 2,600 with the asyncio one.)

And a call holds no thread before its message is there: grpcio's own handlers wait for it in one, so that a few
clients that send headers only stop the whole server.

This stands on two points of grpcio's threaded server that are not public: its completion queue calls a tag that is
callable with the event, and a method can be registered with its core server. Where a release of grpcio has them no
more, `UnaryCalls` says so once and stays away, and the calls go through ordinary handlers.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from mnist_tfx.serving.server import limits
from mnist_tfx.serving.server.calls import Steps, drive, future
from mnist_tfx.serving.server.errors import ServingError, as_serving_error
from mnist_tfx.serving.server.weight import check_weight

try:
    from grpc import _server as _grpc_server
    from grpc._cython import cygrpc
except ImportError:  # another grpcio
    cygrpc = None

logger = logging.getLogger(__name__)

_FOREVER = 10 * 365 * 86400.0  # gRPC says "no deadline" as a time far away
_OK = grpc.StatusCode.OK.value[0]
_DONE: tuple[None, tuple[()]] = (None, ())


@dataclass(frozen=True)
class Method:
    """A unary method."""

    path: str
    request: type[Message]
    answer: Callable[[Any, float | None], Steps[Message]]
    """The steps to the answer to a request with a deadline (`time.monotonic()` seconds, None: none)."""
    is_heavy: Callable[[Any], bool] = lambda _: False
    """Whether a parsed request of `LARGE_VALUES_BYTES` takes too long to decode for the polling thread."""

    def parse(self, data: bytes) -> Any:
        """The request. Raises ServingError, with the code that gRPC itself gives to bytes that are none."""
        if len(data) >= limits.LARGE_MESSAGE_BYTES:
            check_weight(data, self.request.DESCRIPTOR)
        try:
            return self.request.FromString(data)
        except DecodeError as error:
            name = self.request.DESCRIPTOR.full_name
            raise ServingError(grpc.StatusCode.INTERNAL, f"the bytes are not a {name}: {error}") from error


@dataclass(eq=False, slots=True)
class _Call:
    """One call: what the server's state must know of it, and how many bytes of request it holds."""

    core: Any
    method: Method
    deadline: float | None
    held: int = 0


class UnaryCalls:
    """Answers methods on a `grpc.server`. All accounting is done in the server's polling thread, without a lock."""

    def __init__(self, server: grpc.Server, methods: Sequence[Method]) -> None:
        """Before `server.start()`."""
        self._methods = methods
        self._one_by_one = ThreadPoolExecutor(1, thread_name_prefix="grpc-large")
        self._requested = 0  # calls that are asked for
        self._in_hand = 0  # calls whose message has arrived
        self._held_bytes = 0
        # Calls by since when (`time.monotonic()`) their client is to send, or to take; oldest first.
        self._receiving: dict[_Call, float] = {}
        self._sending: dict[_Call, float] = {}
        self.active = cygrpc is not None and _has_what_it_takes(server)
        if not self.active:
            logger.warning(
                "grpcio %s is not built as this server expects it: calls are answered by grpcio's own handlers, "
                "correctly and more slowly",
                grpc.__version__,
            )
            for method in methods:
                _, service, name = method.path.split("/")
                handlers = {name: _ordinary_handler(method)}
                server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            return
        self._state = server._state  # type: ignore[attr-defined]
        for method in methods:
            self._state.server.register_method(method.path)

    def start(self) -> None:
        """After `server.start()`."""
        if self.active:
            with self._state.lock:
                for method in self._methods:
                    self._request_call(method)

    def close(self) -> None:
        """Ends the thread; no call may be in hand."""
        self._one_by_one.shutdown(wait=False, cancel_futures=True)

    def is_drained(self) -> bool:
        """Whether, after `server.stop()`, no call is in hand or on its way any more.

        Until then each method has asked for its next call, and hears of the stop in its place. Where grpcio's own
        handlers answer, this is not known.
        """
        return self.active and not (self._requested or self._in_hand or self._receiving)

    def give_up_stalled_calls(self) -> None:
        """Cancels calls of clients that stall; to be called now and then, from any thread.

        Those that go on neither sending nor taking for `STALL_SECONDS`; and where many are slow, the oldest at once,
        since what has arrived of their messages is in memory.
        """
        now = time.monotonic()
        for waiting in (self._receiving, self._sending):
            slow = [(call, since) for call, since in list(waiting.items()) if since < now - limits.SLOW_SECONDS]
            too_many = len(slow) - limits.MAX_SLOW_CALLS
            for index, (call, since) in enumerate(slow):
                if since < now - limits.STALL_SECONDS:
                    words = (
                        f"the client took more than {limits.STALL_SECONDS:g} s to send its request or take its answer"
                    )
                    call.core.cancel(grpc.StatusCode.DEADLINE_EXCEEDED.value[0], words)
                elif index < too_many:
                    self._give_up_for_others(call)

    def _give_up_for_others(self, call: _Call) -> None:
        words = "too many clients send, or take their answers, slowly; try again later"
        call.core.cancel(grpc.StatusCode.UNAVAILABLE.value[0], words)

    def _request_call(self, method: Method) -> None:
        """Asks for the next call; the caller holds the state's lock."""
        tag = functools.partial(self._on_call, method)
        queue = self._state.completion_queue
        self._state.server.request_registered_call(queue, queue, method.path, tag)
        self._state.due.add(tag)
        self._requested += 1

    # Callbacks of the polling thread. Each returns what grpcio's loop expects: a call that is over, and callbacks.

    def _on_call(self, method: Method, event: Any) -> tuple[Any, tuple[()]]:
        with self._state.lock:
            self._state.due.discard(event.tag)
            if not event.success:  # the server stops; a call that is over makes the loop look whether it can end
                self._requested -= 1
                over = object()
                self._state.rpc_states.add(over)
                return over, ()
            call = _Call(event.call, method, _deadline(event.call_details.deadline - time.time()))
            self._state.rpc_states.add(call)
            if self._state.stage is _grpc_server._ServerStage.STARTED:
                self._request_call(method)
        if len(self._receiving) >= limits.MAX_CALLS:
            self._give_up_for_others(next(iter(self._receiving)))
        self._receiving[call] = time.monotonic()
        self._requested -= 1
        call.core.start_server_batch((cygrpc.ReceiveMessageOperation(0),), lambda event: self._on_message(call, event))
        return _DONE

    def _on_message(self, call: _Call, event: Any) -> tuple[None, tuple[()]]:
        self._in_hand += 1
        self._receiving.pop(call, None)
        data = event.batch_operations[0].message()
        if data is None:  # the client went away, sent nothing, or too much: then gRPC has answered already
            words = f"{call.method.path} takes exactly one request message."
            self._fail(call, ServingError(grpc.StatusCode.UNIMPLEMENTED, words))
        elif self._in_hand > limits.MAX_CALLS:
            self._fail(call, ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"))
        elif len(data) < limits.LARGE_MESSAGE_BYTES:
            self._respond(call, data)
        elif self._held_bytes + len(data) > limits.MAX_HELD_BYTES:
            words = "too many large requests in hand, try again later"
            self._fail(call, ServingError(grpc.StatusCode.UNAVAILABLE, words))
        else:
            call.held = len(data)
            self._held_bytes += call.held
            self._one_by_one.submit(self._respond, call, data)
        return _DONE

    def _on_sent(self, call: _Call) -> tuple[_Call, tuple[()]]:
        self._sending.pop(call, None)
        self._in_hand -= 1
        self._held_bytes -= call.held
        return call, ()

    # Any thread.

    def _respond(self, call: _Call, data: bytes) -> None:
        method = call.method
        try:
            request = method.parse(data)
            if not call.held and len(data) >= limits.LARGE_VALUES_BYTES and method.is_heavy(request):
                self._one_by_one.submit(self._answer, call, request)
            else:
                self._answer(call, request)
        except Exception as error:
            self._fail(call, as_serving_error(error))

    def _answer(self, call: _Call, request: Any) -> None:
        def reply(answer: Message | None, error: ServingError | None) -> None:
            if answer is None or error is not None:
                self._fail(call, error or ServingError(grpc.StatusCode.INTERNAL, "no answer"))
                return
            try:
                payload = answer.SerializeToString()
            except Exception as raised:  # an answer of more than 2 GiB
                self._fail(call, as_serving_error(raised))
                return
            self._send(call, (cygrpc.SendMessageOperation(payload, 0),), _OK, b"")

        drive(call.method.answer(request, call.deadline), reply)

    def _fail(self, call: _Call, error: ServingError) -> None:
        self._send(call, (), error.code.value[0], error.message.encode("utf-8", "replace"))

    def _send(self, call: _Call, message: tuple[Any, ...], code: int, details: bytes) -> None:
        operations = (
            cygrpc.SendInitialMetadataOperation(None, 0),
            *message,
            cygrpc.SendStatusFromServerOperation(None, code, details, 0),
            cygrpc.ReceiveCloseOnServerOperation(0),
        )
        self._sending[call] = time.monotonic()
        call.core.start_server_batch(operations, lambda _event: self._on_sent(call))


def _has_what_it_takes(server: grpc.Server) -> bool:
    state: Any = getattr(server, "_state", None)
    kinds = ("ReceiveMessage", "SendInitialMetadata", "SendMessage", "SendStatusFromServer", "ReceiveCloseOnServer")
    return (
        all(hasattr(state, name) for name in ("completion_queue", "server", "lock", "due", "rpc_states", "stage"))
        and all(hasattr(state.server, name) for name in ("register_method", "request_registered_call"))
        and all(hasattr(cygrpc, f"{name}Operation") for name in kinds)
        and hasattr(_grpc_server, "_ServerStage")
    )


def _ordinary_handler(method: Method) -> grpc.RpcMethodHandler:
    """A handler that parses by itself, so that bytes that do not parse get a clear message."""

    def respond(data: bytes, context: grpc.ServicerContext) -> bytes:
        deadline = _deadline(context.time_remaining())
        try:
            return future(method.answer(method.parse(data), deadline)).result().SerializeToString()
        except Exception as raised:
            error = as_serving_error(raised)
        context.abort(error.code, error.message)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(respond)


def _deadline(remaining: float | None) -> float | None:
    return None if remaining is None or remaining > _FOREVER else time.monotonic() + remaining
