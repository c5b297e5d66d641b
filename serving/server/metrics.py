"""Counters and histograms with TF Serving's names, in Prometheus' text format.

`prometheus_client` cannot write them: it adds `_total` to the name of every counter, and TF Serving's
`:tensorflow:serving:request_count` has none.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LATENCY_BUCKETS = tuple(10 * 1.8**exponent for exponent in range(33))
"""Microseconds: 10 to about 24 minutes, as TF Serving has them (tensorflow_serving/servables/tensorflow/util.cc)."""

EXAMPLE_BUCKETS = tuple(float(2**exponent) for exponent in range(15))
"""Examples per request: 1 to 16,384, from the same place."""

_MAX_SERIES = 10_000  # a safety net: label values are models, methods and status codes, never what a client makes up


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

    def observe(self, values: tuple[str, ...], observed: float) -> None:
        """Adds an observation to the series of these label values."""
        bucket = bisect_left(self._bounds, observed)
        with self._lock:
            series = self._series.get(values)
            if series is None:
                if len(self._series) >= _MAX_SERIES:
                    return
                series = self._series[values] = [0.0] * (len(self._bounds) + 2)
            series[bucket] += 1
            series[-1] += observed

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


class Metrics:
    """The metrics of a server."""

    def __init__(self) -> None:
        prefix = ":tensorflow:serving:"
        latency = ("model_name", "API")
        self._request_count = Counter(f"{prefix}request_count", ("model_name", "status"))
        self._request_latency = Histogram(f"{prefix}request_latency", (*latency, "entrypoint"), LATENCY_BUCKETS)
        self._runtime_latency = Histogram(f"{prefix}runtime_latency", (*latency, "runtime"), LATENCY_BUCKETS)
        self._example_counts = Histogram(f"{prefix}request_example_counts", ("model",), EXAMPLE_BUCKETS)
        self._example_total = Counter(f"{prefix}request_example_count_total", ("model",))

    def request(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """A request was answered.

        Args:
            model: its model's name; one that is served, or empty: a client must not be able to make up series.
            api: "Predict", "Classify", "Regress" or "MultiInference".
            entrypoint: "GRPC" or "REST".
            status: the status code's name.
            seconds: from the request's arrival to its answer.
        """
        self._request_count.add((model, status))
        self._request_latency.observe((model, api, entrypoint), seconds * 1e6)

    def runtime(self, model: str, api: str, seconds: float) -> None:
        """A request was computed; `seconds` it waited for its batch and for the computation."""
        self._runtime_latency.observe((model, api, "TF1"), seconds * 1e6)

    def examples(self, model: str, count: int) -> None:
        """A request brought `count` examples (or rows)."""
        self._example_counts.observe((model,), count)
        self._example_total.add((model,), count)

    def text(self) -> str:
        """All metrics, as Prometheus reads them."""
        return "".join(
            f"{line}\n"
            for metric in (
                self._request_count,
                self._request_latency,
                self._runtime_latency,
                self._example_counts,
                self._example_total,
            )
            for line in metric.lines()
        )


def _braces(labels: Sequence[str], values: Sequence[str]) -> str:
    return "{" + ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
