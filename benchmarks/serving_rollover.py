"""A second version is pushed while clients call: how many calls fail, and how long they take around the swap."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import serving_servers
from benchmarks.serving_load import Answers, Generator, percentile
from mnist_tfx.serving.client import messages

_NORMAL_SECONDS = 4.0  # before the push
_AFTER_SECONDS = 2.0  # after the swap
_LIMIT_SECONDS = 30.0
_SWAP_WINDOW = 0.5  # to each side of the swap


@dataclass(frozen=True)
class Rollover:
    """What the callers saw; latencies in seconds."""

    answers: int
    errors: int  # failed calls
    late_answers: int  # from the old version, to calls begun after the new one had answered
    load_seconds: float  # from the push to the first answer of the new version
    normal_p99: float
    loading_p99: float  # from the push to the swap's second
    swap_p99: float


def measure(version: Path, work: Path, concurrency: int) -> Rollover:
    """Serves a copy of `version` as 1, pushes another copy as 2 under load, and looks on."""
    base = work / "rollover" / serving_servers.MODEL
    shutil.copytree(version, base / "1")
    shutil.copytree(version, base / ".2")
    with serving_servers.ours(base, work / "rollover.log") as server, Generator(server.method(1), _version) as load:
        load.once()
        load.run(concurrency, 1.0)
        pushed: list[float] = []

        def push() -> None:
            os.rename(base / ".2", base / "2")
            pushed.append(time.perf_counter())

        seen = _Swap(load)
        timer = threading.Timer(_NORMAL_SECONDS, push)
        timer.start()
        answers = load.run(concurrency, _LIMIT_SECONDS, until=seen.is_over)
        timer.join()
    return _summary(answers, pushed[0])


class _Swap:
    """Tells the generator when the new version has answered for long enough."""

    def __init__(self, load: Generator) -> None:
        self._load = load
        self._first: float | None = None

    def is_over(self) -> bool:
        if self._first is None:
            if self._load.last_value == 2:
                self._first = time.perf_counter()
            return False
        return time.perf_counter() > self._first + _AFTER_SECONDS


def _version(answer: bytes) -> int:
    return int(messages.PredictResponse.FromString(answer).model_spec.version.value)


def _summary(answers: Answers, pushed: float) -> Rollover:
    rows = list(zip(answers.begins, answers.latencies, answers.values, strict=True))
    ends_of_new = [begin + latency for begin, latency, version in rows if version == 2]
    if not ends_of_new:
        raise serving_servers.CannotRun(f"the new version did not answer within {_LIMIT_SECONDS:g} s")
    swap = min(ends_of_new)

    def p99(start: float, end: float) -> float:
        return percentile([latency for begin, latency, _ in rows if start <= begin < end], 99)

    return Rollover(
        answers=len(rows),
        errors=sum(answers.errors.values()),
        late_answers=sum(1 for begin, _, version in rows if version == 1 and begin > swap),
        load_seconds=swap - pushed,
        normal_p99=p99(0, pushed),
        loading_p99=p99(pushed, swap - _SWAP_WINDOW),
        swap_p99=p99(swap - _SWAP_WINDOW, swap + _SWAP_WINDOW),
    )
