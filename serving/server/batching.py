"""Requests of many clients, computed together.

Who computes: the thread of a waiting request. The first to find a free slot (there are `num_batch_threads`) leads: it
takes the oldest batch, computes it, wakes the others of the batch, and hands the slot to a request still waiting. So a
lone request never changes threads, and under load one hand-off is paid per batch, not per request. Threads of our own
exist only for `submit`, which does not wait.

Bit for bit: a row's answer must not depend on who its neighbours are. Matrix kernels give the same bits wherever
in a batch a row lies, and for every batch size but one: a single row takes another kernel (measured on CPU, 2 to 600
rows through dense layers). Therefore a single row is computed as two. Where a kernel depends on the size still, one
entry in `allowed_batch_sizes` makes all executions alike.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from queue import Empty

import grpc
import numpy as np

from serving.server.batch_queue import Batch, BatchQueue, Outputs, Signal, Task
from serving.server.config import BatchingParameters
from serving.server.engine import Engine
from serving.server.errors import ServingError
from serving.server.metrics import Metrics
from serving.server.rows import join, split


class Batcher:
    """The queue of all models, with TF Serving's parameters: its slots are shared, its bound is per signature."""

    def __init__(self, parameters: BatchingParameters, metrics: Metrics) -> None:
        """`metrics` hears how long requests waited, and of what size the batches are."""
        self._parameters = parameters
        self._metrics = metrics
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # for leaders that wait for a batch to fill
        self._waiting_leaders = 0
        self._queue = BatchQueue(parameters)
        self._free_slots = parameters.num_batch_threads
        self._work = threading.Semaphore(0)
        self._workers: list[threading.Thread] = []
        self._closed = False

    def run(
        self,
        engine: Engine,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None = None,
    ) -> Outputs:
        """Computes a request (it must have passed `Engine.check`), in the calling thread or while it waits.

        Args:
            engine, signature, inputs, outputs: as `Engine.run` takes them; all inputs share their first dimension.
            deadline: `time.monotonic()` seconds. A request that is not begun by then is not computed.

        Raises:
            ServingError: INVALID_ARGUMENT for more rows than `max_batch_size`, UNAVAILABLE where the queue is full,
                DEADLINE_EXCEEDED, or what the engine says of this request.
        """
        task = Task(inputs, deadline, None)
        with self._lock:
            if self._queue.add(task, engine, signature, tuple(outputs)):
                self._tell_waiting_leaders()
            lead = self._take_slot()
            task.may_lead = not lead
        if lead or self._wait(task) is Signal.LEAD:
            self._lead(task)
            self._wait(task)
        return task.outcome()

    def submit(
        self,
        engine: Engine,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None = None,
    ) -> Future[Outputs]:
        """The same without waiting; a full queue or too large a request raises here, the rest is in the future."""
        task = Task(inputs, deadline, Future())
        with self._lock:
            if self._queue.add(task, engine, signature, tuple(outputs)):
                self._tell_waiting_leaders()
            if self._take_slot():
                self._wake_worker()
        assert task.future is not None
        return task.future

    def close(self) -> None:
        """Computes what is in the queue, without waiting for more, and ends the worker threads."""
        with self._lock:
            self._closed = True
            self._queue.close_all()
            self._tell_waiting_leaders()
            workers = self._workers
        for _ in workers:
            self._work.release()
        for worker in workers:
            worker.join()

    # Threads; in these three the caller holds the lock.

    def _take_slot(self) -> bool:
        if not self._free_slots:
            return False
        self._free_slots -= 1
        return True

    def _hand_over(self) -> None:
        """Gives this thread's slot to a request that waits, to a worker, or back."""
        task = self._queue.next_leader()
        if task is not None:
            task.may_lead = False
            task.signal.put(Signal.LEAD)
        elif self._queue:
            self._wake_worker()
        else:
            self._free_slots += 1

    def _next_batch(self, task: Task | None) -> Batch | None:
        """Removes the oldest batch that is due; waits for one while `task` (or, without it, anything) is queued.

        None: there is nothing more to wait for, or the deadline of `task` has passed.
        """
        while self._queue and not (task and task.taken):
            now = time.monotonic()
            batch = self._queue.take_due(now)
            if batch is not None:
                self._tell_waiting_leaders()  # one of them may wait for this very batch
                return batch
            wake = self._queue.next_due
            if task and task.deadline is not None:
                if task.deadline <= now:
                    return None
                wake = min(wake, task.deadline)
            self._waiting_leaders += 1
            self._changed.wait(min(wake - now, threading.TIMEOUT_MAX))
            self._waiting_leaders -= 1
        return None

    def _tell_waiting_leaders(self) -> None:
        if self._waiting_leaders:
            self._changed.notify_all()

    # Without the lock.

    def _wait(self, task: Task) -> Signal:
        """Waits until the task is done or is to lead. Raises ServingError at its deadline."""
        try:
            return task.signal.get(timeout=_remaining(task))
        except Empty:
            with self._lock:
                task.may_lead = False
            try:
                signal = task.signal.get_nowait()  # between the deadline and the lock
            except Empty:
                raise _expired() from None
            return signal

    def _lead(self, task: Task | None) -> None:
        """Computes batches until `task` is taken (without one: until the queue is empty), then passes the slot on."""
        while True:
            with self._lock:
                batch = self._next_batch(task)
                if batch is None:
                    self._hand_over()
                    return
            self._compute(batch)

    def _wake_worker(self) -> None:
        if len(self._workers) < self._parameters.num_batch_threads:
            worker = threading.Thread(target=self._work_loop, name=f"batch-{len(self._workers)}", daemon=True)
            self._workers.append(worker)
            worker.start()
        self._work.release()

    def _work_loop(self) -> None:
        while True:
            self._work.acquire()
            if self._queue or not self._closed:
                self._lead(None)
            if self._closed:
                return

    # Arrays.

    def _compute(self, batch: Batch) -> None:
        now = time.monotonic()
        self._metrics.dequeued([task.rows for task in batch.tasks], [now - task.queued_at for task in batch.tasks])
        tasks: list[Task] = []
        for task in batch.tasks:
            if task.future is not None and not task.future.set_running_or_notify_cancel():
                continue
            if task.deadline is not None and task.deadline <= now:
                task.finish(None, _expired())
            else:
                tasks.append(task)
        if not tasks:
            return
        results, error = self._try(batch, tasks)
        if error is not None and len(tasks) > 1:  # one bad request must not fail its neighbours
            for task in tasks:
                results, error = self._try(batch, [task])
                task.finish(results[0] if results else None, error)
            return
        for index, task in enumerate(tasks):
            task.finish(results[index] if results else None, error)

    def _try(self, batch: Batch, tasks: Sequence[Task]) -> tuple[list[Outputs], ServingError | None]:
        sizes = [task.rows for task in tasks]
        rows = self._padded(sum(sizes))
        try:
            joined = join([task.inputs for task in tasks], rows, self._parameters.pad_variable_length_inputs)
            self._metrics.batch_processed(rows, rows - sum(sizes))
            return split(batch.engine.run(batch.signature, joined, batch.outputs), sizes, rows), None
        except ServingError as error:
            return [], error
        except Exception as error:  # whatever it is, the requests that wait must hear of it
            return [], ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    def _padded(self, rows: int) -> int:
        if not rows:
            return 0
        rows = max(rows, min(2, self._parameters.max_batch_size))  # see the module's text
        return next((size for size in self._parameters.allowed_batch_sizes if size >= rows), rows)


def _remaining(task: Task) -> float | None:
    """Seconds to wait for a task; None is forever."""
    if task.deadline is None:
        return None
    return min(max(0.0, task.deadline - time.monotonic()), threading.TIMEOUT_MAX)


def _expired() -> ServingError:
    return ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
