"""One loaded version of a model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import grpc

from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.serving.server.batching import Batcher, Outputs
from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError, check_deadline
from mnist_tfx.serving.server.rows import Arrays, is_batchable

MAX_WAITING = 1000
"""Requests that `submit` holds where there is no batching, whose queue has a bound of its own."""


class Pool:
    """Computes requests one by one, where there is no batching. Shared by all models."""

    max_rows = None

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(cpu_count(), thread_name_prefix="compute")
        self._room = threading.Semaphore(MAX_WAITING)

    def submit(
        self, engine: Engine, signature: str, inputs: Arrays, outputs: Sequence[str], deadline: float | None = None
    ) -> Future[Outputs]:
        """As `Batcher.submit`. Raises ServingError where too many wait."""

        def compute() -> Outputs:
            check_deadline(deadline)
            return engine.run(signature, inputs, outputs)

        if not self._room.acquire(blocking=False):
            raise ServingError(grpc.StatusCode.UNAVAILABLE, f"{MAX_WAITING} requests are waiting already")
        future = self._executor.submit(compute)
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
        self.path = engine.path
        self.signatures = engine.signatures
        self._engine = engine
        self._computers: dict[str, Batcher | Pool] = {
            key: batcher if batcher and is_batchable(signature) else pool
            for key, signature in engine.signatures.items()
        }

    def max_rows(self, signature_name: str) -> int | None:
        """The rows that a request to a known signature may have; None without a limit."""
        return self._computers[signature_name].max_rows

    def submit(
        self, signature_name: str, inputs: Arrays, outputs: Sequence[str], deadline: float | None = None
    ) -> Future[Outputs]:
        """Computes `outputs`, with other requests in one batch if batching is on and the signature has rows.

        The servable must be held (`ModelManager.acquire`) until the future is done.

        Args:
            signature_name: key of `signatures`.
            inputs: arrays by the signature's names; strings are arrays of bytes objects.
            outputs: the signature's names of what is wanted.
            deadline: `time.monotonic()` seconds. A request that is not begun by then is not computed.

        Raises:
            ServingError: with TF Serving's codes and words: at once, or by the future.
        """
        self._engine.check(signature_name, inputs, outputs)
        return self._computers[signature_name].submit(self._engine, signature_name, inputs, outputs, deadline)

    def close(self) -> None:
        """Frees the model's memory. Nobody may hold the servable."""
        self._engine.close()
