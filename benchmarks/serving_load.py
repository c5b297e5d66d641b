"""The load generator of benchmarks.serving: a closed loop of unary gRPC calls with ready-made request bytes.

The same for every server, and as light as grpcio allows, since it shares the cores with what it measures: requests are
serialized once, answers are handed on as bytes, and each answer's callback sends the caller's next request, so one
thread drives all callers.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Method:
    """What is called: a server's method and requests to send in turn."""

    address: str
    path: str
    requests: Sequence[bytes]


@dataclass
class Answers:
    """What came back."""

    begins: list[float] = field(default_factory=list)  # time.perf_counter() at the sending
    latencies: list[float] = field(default_factory=list)  # seconds
    values: list[Any] = field(default_factory=list)  # what `read` made of each answer, where there is a `read`
    errors: Counter[str] = field(default_factory=Counter)  # by status code
    words: dict[str, str] = field(default_factory=dict)  # the first error of each code
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def percentile(latencies: Sequence[float], percent: float) -> float:
    """The nearest rank; NaN without latencies."""
    if not latencies:
        return math.nan
    return sorted(latencies)[max(0, math.ceil(percent / 100 * len(latencies)) - 1)]


class Generator:
    """Calls one method over one connection."""

    def __init__(self, method: Method, read: Callable[[bytes], Any] | None = None) -> None:
        self._channel = grpc.insecure_channel(method.address, [("grpc.max_receive_message_length", -1)])
        self._call = self._channel.unary_unary(method.path)
        self._requests = itertools.cycle(method.requests)
        self._read = read
        self.last_value: Any = None  # what `read` made of the newest answer

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def once(self) -> bytes:
        """One call with the next request; its answer. Raises grpc.RpcError."""
        answer: bytes = self._call(next(self._requests), timeout=TIMEOUT_SECONDS, wait_for_ready=True)
        return answer

    def run(self, concurrency: int, seconds: float, until: Callable[[], bool] = lambda: False) -> Answers:
        """`concurrency` callers, each always with one call under way, until the time is over or `until` says so."""
        answers = Answers()
        finished = threading.Semaphore(0)
        started = time.perf_counter()
        end = started + seconds

        def send() -> None:
            begin = time.perf_counter()
            if begin >= end or until():
                finished.release()
                return
            future = self._call.future(next(self._requests), timeout=TIMEOUT_SECONDS)
            future.add_done_callback(lambda done: arrived(begin, done))

        def arrived(begin: float, done: Any) -> None:
            now = time.perf_counter()
            code = done.code()
            if code is grpc.StatusCode.OK:
                answers.begins.append(begin)
                answers.latencies.append(now - begin)
                if self._read is not None:
                    self.last_value = self._read(done.result())
                    answers.values.append(self.last_value)
            else:
                answers.errors[code.name] += 1
                answers.words.setdefault(code.name, done.details())
            send()

        for _ in range(concurrency):
            send()
        for _ in range(concurrency):
            finished.acquire()
        answers.seconds = time.perf_counter() - started
        return answers
