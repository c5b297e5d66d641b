"""What the client itself costs: from an array to a request's bytes, and from an answer's bytes to predictions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.serving_servers import MODEL
from mnist_tfx.serving.client import Retry, messages
from mnist_tfx.serving.client.operations import Call, Operations, Settings

_REPEATS = 15
_SECONDS = 0.05  # of each repeat


@dataclass(frozen=True)
class CodecTimes:
    """Microseconds of one request, whatever number of images it has."""

    encode: float
    decode: float


def measure(answer: bytes, batch: int) -> CodecTimes:
    """Times the client's own steps of `Client.predict`, without a connection.

    Args:
        answer: a server's answer to `batch` images.
        batch: how many images a request has.
    """
    operations = Operations(
        Settings(
            target="localhost:1",
            model=MODEL,
            version=None,
            label=None,
            timeout=10.0,
            retry=Retry(),
            batch_size=batch,
            class_names=None,
        )
    )
    images = np.random.default_rng(0).integers(0, 256, (batch, 28, 28, 1), np.uint8)

    def encode() -> Any:
        steps = operations.predict_batch(images, time.monotonic() + 10)
        call = next(steps)
        assert isinstance(call, Call)
        call.request.SerializeToString()
        return steps

    def decode(steps: Any) -> None:
        try:
            steps.send(messages.PredictResponse.FromString(answer))
        except StopIteration:
            return
        raise AssertionError("one call is one answer")

    encoded = _microseconds(encode)
    return CodecTimes(encoded, _microseconds(lambda: decode(encode())) - encoded)


def _microseconds(work: Callable[[], Any]) -> float:
    """The median of repeats."""
    means = []
    for _ in range(_REPEATS):
        count = 0
        started = time.perf_counter()
        while (taken := time.perf_counter() - started) < _SECONDS:
            for _ in range(100):
                work()
            count += 100
        means.append(taken / count * 1e6)
    return statistics.median(means)
