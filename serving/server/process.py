"""The server as a process: from its start to the signal that ends it, in bounded time."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType

from mnist_tfx.serving.server.main import ModelServer
from mnist_tfx.serving.server.repeating import say

DRAIN_SECONDS = 20.0
"""So long after SIGTERM the process is gone; Kubernetes kills after 30 seconds."""

_LOOK_SECONDS = 0.5  # a signal that the system gives to another thread is handled once the main thread wakes
_THREADS_SECONDS = 1.0  # for threads that have nothing to do any more
_REQUESTS_SECONDS = DRAIN_SECONDS - 2 * _THREADS_SECONDS  # for those in hand; then the models are unloaded


def run(server: ModelServer) -> int:
    """Serves until a signal comes, from the main thread; returns the exit code.

    SIGTERM drains and gives 0, Ctrl-C (SIGINT) drains and gives 130; a second signal ends the process at once. What
    does not end with the drain (a load, a computation) is cut off.

    Raises:
        PipelineError: it cannot be started.
    """
    events: SimpleQueue[int | BaseException] = SimpleQueue()  # its put is safe in a signal handler
    received: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        events.put(number)

    def start() -> None:
        try:
            server.start()
        except BaseException as error:
            events.put(error)

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of the loader, which we chose
    others = set(threading.enumerate())
    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # Only a main thread that waits for nothing else hears a signal while a first load hangs.
        threading.Thread(target=start, name="start", daemon=True).start()
        event: int | BaseException | None = None
        while event is None:
            with suppress(Empty):
                event = events.get(timeout=_LOOK_SECONDS)
        if isinstance(event, BaseException):
            server.stop(0)
            raise event
        say("draining: no new requests are taken; a second signal stops at once")
        code = 130 if event == signal.SIGINT else 0
        _stop(server, others, code)
        return code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop(server: ModelServer, others: set[threading.Thread], code: int) -> None:
    """Stops the server; ends the process where not all of its threads have ended in time.

    An interpreter that ends by itself would wait for some of them, and others would crash it.
    """
    stopper = threading.Thread(target=server.stop, args=(_REQUESTS_SECONDS,), name="stop", daemon=True)
    stopper.start()
    end = time.monotonic() + DRAIN_SECONDS - _THREADS_SECONDS
    while stopper.is_alive() and time.monotonic() < end:
        stopper.join(_LOOK_SECONDS)
    end = time.monotonic() + _THREADS_SECONDS
    ours = [thread for thread in threading.enumerate() if thread not in others]
    for thread in ours:
        thread.join(max(0.0, end - time.monotonic()))
    if left := [thread.name for thread in ours if thread.is_alive()]:
        say(f"cut off, for it did not end: {', '.join(left)}")
        sys.stdout.flush()
        os._exit(code)
