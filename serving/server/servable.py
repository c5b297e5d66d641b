"""One loaded version of a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol

import grpc
import numpy as np

from components.cpus import cpu_count
from serving.server.batching import Batcher
from serving.server.engine import Engine
from serving.server.errors import ServingError
from serving.server.rows import is_batchable

MAX_WAITING = 1000
"""Requests that `submit` holds where there is no batching, whose queue has a bound of its own."""


class Pool:
    """Computes requests one by one, for `submit` without batching. Shared by all models."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(cpu_count(), thread_name_prefix="compute")
        self._room = threading.Semaphore(MAX_WAITING)

    def submit(
        self,
        engine: Engine,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None,
    ) -> Future[dict[str, np.ndarray]]:
        """Computes a request. Raises ServingError where too many wait."""
        if not self._room.acquire(blocking=False):
            raise ServingError(grpc.StatusCode.UNAVAILABLE, f"{MAX_WAITING} requests are waiting already")
        future = self._executor.submit(run_alone, engine, signature_name, inputs, outputs, deadline)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        """Ends the threads, after what they compute now."""
        self._executor.shutdown(cancel_futures=True)


class Servable:
    """One loaded version of a model. All methods may be called from many threads at once."""

    def __init__(self, name: str, version: int, engine: Engine, batcher: Batcher | None, pool: Pool) -> None:
        self.name = name
        self.version = version
        self.signatures = engine.signatures
        self._engine = engine
        self._pool = pool
        self._batchers = {
            key: batcher for key, signature in engine.signatures.items() if batcher and is_batchable(signature)
        }

    def run(
        self,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes `outputs`, with other requests in one batch if batching is on and the signature has rows.

        Args:
            signature_name: key of `signatures`.
            inputs: arrays by the signature's names; strings are arrays of bytes objects.
            outputs: the signature's names of what is wanted.
            deadline: `time.monotonic()` seconds. A request that is not begun by then is not computed.

        Raises:
            ServingError: with TF Serving's codes and words.
        """
        self._engine.check(signature_name, inputs, outputs)
        batcher = self._batchers.get(signature_name)
        if batcher is None:
            return run_alone(self._engine, signature_name, inputs, outputs, deadline)
        return batcher.run(self._engine, signature_name, inputs, outputs, deadline)

    def submit(
        self,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None = None,
    ) -> Future[dict[str, np.ndarray]]:
        """The same without waiting: what is wrong at once is raised, the rest is in the future.

        The servable must be held (`ModelManager.acquire`) until the future is done.
        """
        self._engine.check(signature_name, inputs, outputs)
        batcher = self._batchers.get(signature_name)
        return (batcher or self._pool).submit(self._engine, signature_name, inputs, outputs, deadline)

    def close(self) -> None:
        """Frees the model's memory. Nobody may hold the servable."""
        self._engine.close()


class Servables(Protocol):
    """Where requests find their servable: all models, or the one that is being warmed up."""

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> AbstractContextManager[Servable]:
        """The servable of a version, of a label, or the latest; entering the context raises ServingError."""
        ...


def run_alone(
    engine: Engine, signature_name: str, inputs: dict[str, np.ndarray], outputs: Sequence[str], deadline: float | None
) -> dict[str, np.ndarray]:
    """Computes a checked request by itself, unless its deadline has passed. Raises ServingError."""
    if deadline is not None and deadline <= time.monotonic():
        raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    return engine.run(signature_name, inputs, outputs)
