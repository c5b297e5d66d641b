"""Puts a measured load on a server, for `mnist-tfx bench`.

With a rate, requests are sent at intended times whether or not earlier ones were answered, and latency is counted from
the intended time: a server that stalls cannot slow the measurement down and so hide the stall ("coordinated omission",
Tene 2013). Without one, each of the concurrent callers sends its next request when it has its answer.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client.client import Client
from mnist_tfx.serving.client.errors import ServingClientError


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent."""

    concurrency: int
    """The most requests at once."""
    batch: int
    """Images in a request."""
    seconds: float
    warmup_seconds: float = 1.0
    """How long the load is on before anything is counted."""
    rate: float | None = None
    """Requests a second; None for as many as the callers get answered."""


@dataclass(slots=True)
class LoadReport:
    """What came back: only requests that were due after the warm-up count."""

    load: Load
    latencies: list[float] = field(default_factory=list)
    """Seconds of each request that was answered, in ascending order."""
    errors: Counter[str] = field(default_factory=Counter)
    """How many requests failed, by status code."""
    words: dict[str, str] = field(default_factory=dict)
    """The first error of each status code."""
    seconds: float = 0.0
    """From the end of the warm-up to the last answer."""

    @property
    def requests_per_second(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    @property
    def images_per_second(self) -> float:
        return self.requests_per_second * self.load.batch

    def percentile(self, percent: float) -> float | None:
        """The latency that `percent` of the answers did not exceed (nearest rank), in seconds; None without answers."""
        if not self.latencies:
            return None
        return self.latencies[max(0, math.ceil(percent / 100 * len(self.latencies)) - 1)]


def measure(client: Client, images: npt.NDArray[Any], load: Load) -> LoadReport:
    """Sends `images` (one request's) again and again; the client should not retry, so that errors are seen."""
    report = LoadReport(load)
    numbers = itertools.count()  # next() is atomic
    begin = time.perf_counter()
    last_answers: list[float] = []

    def clock() -> float:
        return time.perf_counter() - begin

    def call() -> None:
        last = load.warmup_seconds
        while True:
            due = next(numbers) / load.rate if load.rate else clock()
            if due >= load.warmup_seconds + load.seconds:
                break
            time.sleep(max(0.0, due - clock()))
            error = _error_of(client, images)
            now = clock()
            if due < load.warmup_seconds:
                continue
            last = now
            if error is None:
                report.latencies.append(now - due)
            else:
                code = error.code.name if error.code else type(error).__name__
                report.errors[code] += 1
                report.words.setdefault(code, str(error))
        last_answers.append(last)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(load.concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.latencies.sort()
    report.seconds = max(last_answers) - load.warmup_seconds
    return report


def _error_of(client: Client, images: npt.NDArray[Any]) -> ServingClientError | None:
    try:
        client.predict(images)
    except ServingClientError as error:
        return error
    return None


def random_images(shape: Sequence[int], count: int) -> npt.NDArray[np.uint8]:
    """uint8 [count, *shape] of noise, the same every time."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
