"""What the server counts and times, under TF Serving's metric names.

Names, labels, units and buckets are those of tensorflow/serving's servables/tensorflow/util.cc,
batching/batching_session.cc, batching/batching_util.h, core/request_logger.cc and
servables/tensorflow/saved_model_warmup_util.cc, and of tensorflow/tensorflow's cc/saved_model/loader.cc; slashes become
colons on the way to Prometheus. Time is in microseconds, sizes are in rows. `prometheus_client` cannot write them so:
it adds `_total` to every counter's name.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from mnist_tfx.serving.server.errors import ServingError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_MAX_SERIES = 10_000  # a safety net: label values are models, methods, codes and sizes, never what a client makes up

LATENCY_BUCKETS = tuple(10 * 1.8**exponent for exponent in range(33))
"""Microseconds: 10 to about 24 minutes."""

EXAMPLE_BUCKETS = tuple(float(2**exponent) for exponent in range(15))
"""Examples per request: 1 to 16,384."""

QUEUING_BUCKETS = tuple(100 * 1.2**exponent for exponent in range(52))
"""Microseconds in the queue: 100 to about a second."""

BATCH_SIZE_BUCKETS = tuple(float(2**exponent) for exponent in range(14))
"""Rows: 1 to 8,192."""

_SERVING = ":tensorflow:serving:"
_BATCHING = f"{_SERVING}batching_session:"
_SAVED_MODEL = ":tensorflow:cc:saved_model:"

_NO_POOL = ("",)  # TF Serving gives its batching sessions no thread_pool_name


class Metrics:
    """The metrics of a server. All methods may be called from many threads at once."""

    def __init__(self) -> None:
        self.served: Collection[str] = ()
        """The models' names: what else a client makes up must not become a series."""
        latency = ("model_name", "API")
        self._request_count = Counter(f"{_SERVING}request_count", ("model_name", "status"))
        self._request_log_count = Counter(f"{_SERVING}request_log_count", ("model_name", "status_code"))
        self._request_latency = Histogram(f"{_SERVING}request_latency", (*latency, "entrypoint"), LATENCY_BUCKETS)
        self._runtime_latency = Histogram(f"{_SERVING}runtime_latency", (*latency, "runtime"), LATENCY_BUCKETS)
        self._example_counts = Histogram(f"{_SERVING}request_example_counts", ("model",), EXAMPLE_BUCKETS)
        self._example_total = Counter(f"{_SERVING}request_example_count_total", ("model",))
        self._queuing_latency = Histogram(f"{_BATCHING}queuing_latency", ("thread_pool_name",), QUEUING_BUCKETS)
        self._input_batch_size = Histogram(f"{_BATCHING}input_batch_size", (), BATCH_SIZE_BUCKETS)
        self._processed_batch_size = Histogram(f"{_BATCHING}processed_batch_size", (), BATCH_SIZE_BUCKETS)
        self._padding_size = Histogram(f"{_BATCHING}padding_size", ("execution_batch_size",), BATCH_SIZE_BUCKETS)
        self._wrapped_run_count = Counter(f"{_BATCHING}wrapped_run_count", ())
        self._load_attempts = Counter(f"{_SAVED_MODEL}load_attempt_count", ("model_path", "status"))
        self._load_latency = Counter(f"{_SAVED_MODEL}load_latency", ("model_path",))
        self._warmup_latency = Histogram(f"{_SERVING}model_warmup_latency", ("model_path", "status"), LATENCY_BUCKETS)

    def request(self, model: str, api: str, entrypoint: str, start: float, error: ServingError | None) -> None:
        """A request was answered.

        Args:
            model: its model's name. One that is not in `served` counts without its name.
            api: "Predict", "Classify" or "Regress"; over REST in small letters, and empty for what else is asked there.
            entrypoint: "GRPC" or "REST".
            start: when it came (`time.perf_counter()`).
            error: None if it succeeded; only then its latency counts.
        """
        if error is not None:
            self._request_count.add((model if model in self.served else "", error.code.name))
            return
        self._request_count.add((model, "OK"))
        self._request_latency.observe((model, api, entrypoint), (time.perf_counter() - start) * 1e6)

    def runtime(self, model: str, api: str, seconds: float) -> None:
        """A request was computed; `seconds` it waited for its batch and for the computation."""
        self._runtime_latency.observe((model, api, "TF1"), seconds * 1e6)

    def examples(self, model: str, count: int) -> None:
        """A request brought `count` examples (or rows)."""
        self._example_counts.observe((model,), count)
        self._example_total.add((model,), count)

    def dequeued(self, sizes: Sequence[int], seconds: Sequence[float]) -> None:
        """A batch left the queue: the rows of each of its requests, and how long each had waited."""
        self._input_batch_size.observe((), *sizes)
        self._queuing_latency.observe(_NO_POOL, *[one * 1e6 for one in seconds])

    def batch_processed(self, size: int, padding: int) -> None:
        """The engine computed a batch of `size` rows, `padding` of them to fill it up."""
        self._processed_batch_size.observe((), size)
        self._padding_size.observe((str(size),), padding)
        self._wrapped_run_count.add(())

    @contextmanager
    def load_attempt(self, path: str) -> Iterator[None]:
        """A SavedModel is read in this context."""
        start, status = time.perf_counter(), "fail"
        try:
            yield
            status = "success"
        finally:
            self._load_attempts.add((path, status))
            self._load_latency.add((path,), round((time.perf_counter() - start) * 1e6))

    @contextmanager
    def warmup(self, path: str) -> Iterator[None]:
        """A model's warm-up requests are replayed in this context."""
        start, status = time.perf_counter(), "OK"
        try:
            yield
        except ServingError as error:
            status = error.code.name
            raise
        finally:
            self._warmup_latency.observe((path, status), (time.perf_counter() - start) * 1e6)

    def request_logged(self, model: str, code: str, count: int) -> None:
        """So many sampled requests were written to the request log ("OK"), or dropped."""
        self._request_log_count.add((model, code), count)

    def text(self) -> str:
        """All metrics, as Prometheus reads them."""
        metrics = [metric for metric in vars(self).values() if isinstance(metric, Counter | Histogram)]
        return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


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
