"""Counters and histograms in Prometheus' text format.

`prometheus_client` cannot write them as TF Serving does: it adds `_total` to the name of every counter.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_MAX_SERIES = 10_000  # a safety net: label values are models, methods, codes and sizes, never what a client makes up


class Counter:
    """A number that grows, for each set of label values."""

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self._name, self._labels = name, tuple(labels)
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, values: tuple[str, ...], amount: float = 1) -> None:
        """Adds to the series of these label values."""
        with self._lock:
            if values in self._values or len(self._values) < _MAX_SERIES:
                self._values[values] = self._values.get(values, 0) + amount

    def lines(self) -> Iterator[str]:
        """The text format's lines."""
        yield f"# TYPE {self._name} counter"
        with self._lock:
            series = sorted(self._values.items())
        for values, number in series:
            yield f"{self._name}{_braces(self._labels, values)} {_number(number)}"


class Histogram:
    """How observations are distributed, for each set of label values."""

    def __init__(self, name: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name, self._labels, self._bounds = name, tuple(labels), tuple(bounds)
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], list[float]] = {}  # a count for each bucket, one for +Inf, and the sum

    def observe(self, values: tuple[str, ...], *observations: float) -> None:
        """Adds observations to the series of these label values."""
        buckets = [bisect_left(self._bounds, one) for one in observations]
        with self._lock:
            series = self._series.get(values)
            if series is None:
                if len(self._series) >= _MAX_SERIES:
                    return
                series = self._series[values] = [0.0] * (len(self._bounds) + 2)
            for bucket in buckets:
                series[bucket] += 1
            series[-1] += sum(observations)

    def lines(self) -> Iterator[str]:
        """The text format's lines."""
        yield f"# TYPE {self._name} histogram"
        with self._lock:
            copied = sorted((values, list(series)) for values, series in self._series.items())
        labels = (*self._labels, "le")
        for values, series in copied:
            total = 0.0
            for bound, count in zip((*self._bounds, float("inf")), series, strict=False):
                total += count
                yield f"{self._name}_bucket{_braces(labels, (*values, _number(bound)))} {_number(total)}"
            yield f"{self._name}_sum{_braces(self._labels, values)} {_number(series[-1])}"
            yield f"{self._name}_count{_braces(self._labels, values)} {_number(total)}"


def _braces(labels: Sequence[str], values: Sequence[str]) -> str:
    return "{" + ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
