"""The batches that requests are gathered in. No threads in here: the caller holds a lock."""

from __future__ import annotations

import enum
import time
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future
from queue import SimpleQueue

import grpc
import numpy as np

from serving.server.config import BatchingParameters
from serving.server.engine import Engine
from serving.server.errors import ServingError
from serving.server.rows import count_rows

Outputs = dict[str, np.ndarray]


class Signal(enum.Enum):
    """What the thread of a waiting request hears."""

    LEAD = enum.auto()
    DONE = enum.auto()


class Task:
    """A request. Its thread, where one waits, hears through `signal` that it is to lead (first) and that it is done."""

    __slots__ = ("deadline", "error", "future", "inputs", "may_lead", "queued_at", "result", "rows", "signal", "taken")

    def __init__(
        self, inputs: Mapping[str, np.ndarray], deadline: float | None, future: Future[Outputs] | None
    ) -> None:
        """`deadline`: `time.monotonic()` seconds; `future`: where the answer goes, if no thread waits for it."""
        self.inputs = inputs
        self.rows = count_rows(inputs)
        self.deadline = deadline
        self.future = future
        self.signal: SimpleQueue[Signal] = SimpleQueue()
        self.may_lead = future is None  # a thread waits for it that can be given a slot
        self.queued_at = time.monotonic()
        self.taken = False  # no longer in the queue
        self.result: Outputs | None = None
        self.error: ServingError | None = None

    def finish(self, result: Outputs | None, error: ServingError | None) -> None:
        """Hands over the answer, or the error; called once."""
        self.result, self.error = result, error
        if self.future is None:
            self.signal.put(Signal.DONE)
        elif error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result or {})

    def outcome(self) -> Outputs:
        """The answer, after `Signal.DONE`. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.result or {}


class Batch:
    """Requests that can be computed together: same engine, signature, outputs, dtypes and dimensions of a row."""

    __slots__ = ("due", "engine", "key", "outputs", "rows", "signature", "tasks")

    def __init__(self, engine: Engine, signature: str, outputs: tuple[str, ...], key: tuple, due: float) -> None:
        self.engine = engine
        self.signature = signature
        self.outputs = outputs
        self.key = key
        self.due = due  # `time.monotonic()` seconds; 0: nothing more is added to it
        self.rows = 0
        self.tasks: list[Task] = []

    @property
    def lane(self) -> tuple[Engine, str]:
        """What `max_enqueued_batches` bounds the batches of."""
        return self.engine, self.signature


class BatchQueue:
    """The batches that wait, oldest first."""

    def __init__(self, parameters: BatchingParameters) -> None:
        self._parameters = parameters
        self._timeout = parameters.batch_timeout_micros / 1e6
        self._queue: deque[Batch] = deque()
        self._open: dict[tuple, Batch] = {}  # by key, those with room
        self._enqueued: Counter[tuple[Engine, str]] = Counter()  # batches by lane

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def next_due(self) -> float:
        """When the oldest batch is due. The queue must not be empty."""
        return self._queue[0].due

    def add(self, task: Task, engine: Engine, signature: str, outputs: tuple[str, ...]) -> bool:
        """Puts a request into a batch; returns whether one is due because of that.

        Raises:
            ServingError: INVALID_ARGUMENT for more rows than `max_batch_size`, UNAVAILABLE where the queue is full.
        """
        limit = self._parameters.max_batch_size
        if task.rows > limit:
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Task size {task.rows} is larger than maximum input batch size {limit}",
            )
        key = (engine, signature, outputs, self._form(task.inputs))
        closed = False
        batch = self._open.get(key)
        if batch is None or batch.rows + task.rows > limit:
            if self._enqueued[engine, signature] >= self._parameters.max_enqueued_batches:
                raise ServingError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"max_enqueued_batches is {self._parameters.max_enqueued_batches}",
                )
            if batch is not None:
                self._close(batch)
                closed = True
            batch = Batch(engine, signature, outputs, key, time.monotonic() + self._timeout)
            self._queue.append(batch)
            self._open[key] = batch
            self._enqueued[batch.lane] += 1
        batch.tasks.append(task)
        batch.rows += task.rows
        if batch.rows >= limit:
            self._close(batch)
            closed = True
        return closed

    def close_all(self) -> None:
        """Makes everything due now."""
        for batch in self._queue:
            self._close(batch)

    def take_due(self, now: float) -> Batch | None:
        """Removes the oldest batch that is due."""
        batch = next((one for one in self._queue if one.due <= now), None)
        if batch is None:
            return None
        self._queue.remove(batch)
        if self._open.get(batch.key) is batch:
            del self._open[batch.key]
        self._enqueued[batch.lane] -= 1
        if not self._enqueued[batch.lane]:
            del self._enqueued[batch.lane]
        for task in batch.tasks:
            task.taken = True
        return batch

    def next_leader(self) -> Task | None:
        """The oldest request whose thread waits and could lead."""
        return next((task for batch in self._queue for task in batch.tasks if task.may_lead), None)

    def _form(self, inputs: Mapping[str, np.ndarray]) -> tuple:
        """What the inputs of one batch have in common."""
        variable = self._parameters.pad_variable_length_inputs
        return tuple([(n, a.dtype, a.ndim if variable else a.shape[1:]) for n, a in sorted(inputs.items())])

    def _close(self, batch: Batch) -> None:
        self._open.pop(batch.key, None)
        batch.due = 0.0
