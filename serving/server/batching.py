"""Requests of many clients, computed together by a few threads.

Bit for bit: a row's answer must not depend on who its neighbours are. Matrix kernels give the same bits wherever
in a batch a row lies, and, with AVX-512, for every batch size but one: a single row takes another kernel (measured on
CPU, 2 to 600 rows through dense layers). Therefore a single row is computed as two. Where a kernel depends on the size
still, as with AVX2 (1e-7 apart), one entry in `allowed_batch_sizes` makes all executions alike.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import grpc
import numpy as np

from mnist_tfx.serving.server.config import BatchingParameters
from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError, as_serving_error, deadline_exceeded
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.rows import Arrays, check_rows, count_rows, join, split

Outputs = dict[str, np.ndarray]


class _Task(Future[Outputs]):
    """A request; the future is its answer's. `deadline`: `time.monotonic()` seconds."""

    def __init__(self, inputs: Arrays, deadline: float | None) -> None:
        super().__init__()
        self.inputs = inputs
        self.rows = count_rows(inputs)
        self.deadline = deadline
        self.queued_at = time.monotonic()


@dataclass(eq=False, slots=True)
class _Batch:
    """Requests that can be computed together: same engine, signature, outputs, dtypes and dimensions of a row."""

    engine: Engine
    signature: str
    outputs: tuple[str, ...]
    key: tuple
    due: float  # `time.monotonic()` seconds; 0: nothing more is added to it
    rows: int = 0
    tasks: list[_Task] = field(default_factory=list)


class Batcher:
    """The queue of all models, with TF Serving's parameters: its threads are shared, its bound is per signature."""

    def __init__(self, parameters: BatchingParameters, metrics: Metrics) -> None:
        """`metrics` hears how long requests waited, and of what size the batches are."""
        self.max_rows = parameters.max_batch_size
        self._parameters = parameters
        self._metrics = metrics
        self._changed = threading.Condition()  # guards what follows
        self._queue: deque[_Batch] = deque()  # oldest first
        self._open: dict[tuple, _Batch] = {}  # by key, those with room
        self._enqueued: Counter[tuple[Engine, str]] = Counter()  # batches of a signature
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(
        self, engine: Engine, signature: str, inputs: Arrays, outputs: Sequence[str], deadline: float | None = None
    ) -> Future[Outputs]:
        """Queues a request (it must have passed `Engine.check`).

        Args:
            engine, signature, inputs, outputs: as `Engine.run` takes them; all inputs share their first dimension.
            deadline: `time.monotonic()` seconds. A request that is not begun by then is not computed.

        Raises:
            ServingError: INVALID_ARGUMENT for more rows than `max_batch_size`, UNAVAILABLE where the queue is full.
                The rest (DEADLINE_EXCEEDED, what the engine says of this request) is in the future.
        """
        task = _Task(inputs, deadline)
        check_rows(task.rows, self.max_rows)
        with self._changed:
            is_first = not self._threads
            if is_first:  # before anything is queued, which nobody would compute where no thread can be had
                self._start_thread()
            if self._add(task, engine, signature, tuple(outputs)) and not is_first:
                if self._idle:
                    self._changed.notify()
                elif len(self._threads) < self._parameters.num_batch_threads:
                    with suppress(RuntimeError):  # no more can be had: those that there are compute it
                        self._start_thread()
        return task

    def close(self) -> None:
        """Computes what is in the queue, without waiting for more, and ends the threads."""
        with self._changed:
            self._closed = True
            for batch in self._queue:
                self._close(batch)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # The queue; the caller holds the lock.

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"batch-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _add(self, task: _Task, engine: Engine, signature: str, outputs: tuple[str, ...]) -> bool:
        """Puts a request into a batch; returns whether a thread should look: one is due, or is to be waited for."""
        limit = self._parameters.execution_rows
        key = (engine, signature, outputs, self._form(task.inputs))
        batch = self._open.get(key)
        look = False
        if batch is None or batch.rows + task.rows > limit:
            if self._enqueued[engine, signature] >= self._parameters.max_enqueued_batches:
                raise ServingError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"max_enqueued_batches is {self._parameters.max_enqueued_batches}",
                )
            if batch is not None:
                self._close(batch)
            due = time.monotonic() + self._parameters.batch_timeout_micros / 1e6
            batch = self._open[key] = _Batch(engine, signature, outputs, key, due)
            self._queue.append(batch)
            self._enqueued[engine, signature] += 1
            look = True
        batch.tasks.append(task)
        batch.rows += task.rows
        if batch.rows >= limit:
            self._close(batch)
            look = True
        return look

    def _form(self, inputs: Arrays) -> tuple:
        """What the inputs of one batch have in common."""
        variable = self._parameters.pad_variable_length_inputs
        return tuple([(n, a.dtype, a.ndim if variable else a.shape[1:]) for n, a in sorted(inputs.items())])

    def _close(self, batch: _Batch) -> None:
        self._open.pop(batch.key, None)
        batch.due = 0.0

    def _next(self) -> _Batch | None:
        """Removes the oldest batch that is due, waiting for one; None where there will be none."""
        while True:
            now = time.monotonic()
            batch = next((one for one in self._queue if one.due <= now), None)
            if batch is not None:
                break
            if self._closed:
                return None
            due = min((one.due for one in self._queue), default=None)
            self._idle += 1
            self._changed.wait(None if due is None else min(due - now, threading.TIMEOUT_MAX))
            self._idle -= 1
        self._queue.remove(batch)
        if self._open.get(batch.key) is batch:
            del self._open[batch.key]
        self._enqueued[batch.engine, batch.signature] -= 1
        if not self._enqueued[batch.engine, batch.signature]:
            del self._enqueued[batch.engine, batch.signature]
        return batch

    # The threads.

    def _work(self) -> None:
        while True:
            with self._changed:
                batch = self._next()
            if batch is None:
                return
            self._compute(batch)
            del batch  # waiting for the next, it would keep arrays and engine alive

    def _compute(self, batch: _Batch) -> None:
        now = time.monotonic()
        self._metrics.dequeued([task.rows for task in batch.tasks], [now - task.queued_at for task in batch.tasks])
        tasks: list[_Task] = []
        for task in batch.tasks:
            if not task.set_running_or_notify_cancel():
                continue
            if task.deadline is not None and task.deadline <= now:
                task.set_exception(deadline_exceeded())
            else:
                tasks.append(task)
        if not tasks:
            return
        try:
            results = self._run(batch, tasks)
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].set_exception(_bare(error))
                return
        else:
            for task, result in zip(tasks, results, strict=True):
                task.set_result(result)
            return
        for task in tasks:  # one bad request must not fail its neighbours
            try:
                [result] = self._run(batch, [task])
            except Exception as error:
                task.set_exception(_bare(error))
            else:
                task.set_result(result)

    def _run(self, batch: _Batch, tasks: Sequence[_Task]) -> list[Outputs]:
        sizes = [task.rows for task in tasks]
        total, limit = sum(sizes), self._parameters.execution_rows
        if total > limit:  # one large request, alone in its batch
            inputs = tasks[0].inputs
            parts = [{name: a[at : at + limit] for name, a in inputs.items()} for at in range(0, total, limit)]
            done = [self._execute(batch, [part], [min(limit, total - n * limit)]) for n, part in enumerate(parts)]
            return [{name: np.concatenate([part[name] for [part] in done]) for name in batch.outputs}]
        return self._execute(batch, [task.inputs for task in tasks], sizes)

    def _execute(self, batch: _Batch, inputs: Sequence[Arrays], sizes: Sequence[int]) -> list[Outputs]:
        rows = self._padded(sum(sizes))
        joined = join(inputs, rows, self._parameters.pad_variable_length_inputs)
        self._metrics.batch_processed(rows, rows - sum(sizes))
        return split(batch.engine.run(batch.signature, joined, batch.outputs), sizes, rows)

    def _padded(self, rows: int) -> int:
        if not rows:
            return 0
        rows = max(rows, min(2, self._parameters.execution_rows))  # see the module's text
        return next((size for size in self._parameters.allowed_batch_sizes if size >= rows), rows)


def _bare(error: Exception) -> ServingError:
    """Without the traceback, whose frames would keep the whole batch alive as long as its future."""
    return as_serving_error(error).with_traceback(None)
