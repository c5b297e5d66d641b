"""How versions are loaded: their servables, and the threads that load and unload."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import grpc

from mnist_tfx.serving.server import lifecycle
from mnist_tfx.serving.server.batching import Batcher
from mnist_tfx.serving.server.config import BatchingParameters, LoadOptions
from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.lifecycle import Version
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.servable import Pool, Servable
from mnist_tfx.serving.server.warmup import warm_up

logger = logging.getLogger(__name__)


class Loader:
    """Carries out what `Model.reconcile` asks for, and asks again after each step.

    Each version has a thread of its own, from its first attempt to its last: a load that hangs, as on a dead network
    mount, keeps nobody waiting. The threads are daemons, for the same reason.
    """

    def __init__(
        self,
        load: Callable[[Version], Servable],
        reconcile: Callable[[Version], None],
        changed: threading.Condition,
        *,
        max_retries: int,
        retry_seconds: float,
    ) -> None:
        """Starts no thread yet.

        Args:
            load: makes the servable of a version; any exception is a failed load.
            reconcile: called with the lock held after the version's state changed.
            changed: the lock of all versions; notified of each change.
            max_retries: attempts after the first.
            retry_seconds: time between attempts.
        """
        self._load_servable = load
        self._reconcile = reconcile
        self._changed = changed
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds

    def load(self, version: Version) -> None:
        """Begins to load a version. The lock is held."""
        self._begin(self._load, version)

    def unload(self, version: Version) -> None:
        """Begins to unload a version that nobody holds. The lock is held."""
        self._begin(self._unload, version)

    def _begin(self, job: Callable[[Version], None], version: Version) -> None:
        name = f"{job.__name__.strip('_')} {version.model} {version.number}"
        threading.Thread(target=job, args=(version,), name=name, daemon=True).start()

    def _load(self, version: Version) -> None:
        while self._begins_attempt(version):
            logger.info("loading version %d of model %s from %s", version.number, version.model, version.path)
            self._attempt(version)

    def _begins_attempt(self, version: Version) -> bool:
        """Whether the version is to be loaded (again); if not, it gets the state that it stays in."""
        with self._changed:
            if again := version.servable is None and version.wanted and version.attempts <= self._max_retries:
                version.state = lifecycle.LOADING
                version.attempts += 1
            elif version.servable is None:
                version.state = lifecycle.END
            elif version.wanted:
                version.state = lifecycle.AVAILABLE
                logger.info("version %d of model %s is available", version.number, version.model)
            else:
                version.state = lifecycle.UNLOADING
                self.unload(version)
            self._tell(version)
            return again

    def _attempt(self, version: Version) -> None:
        """Loads; after a failure, waits until it is time for the next attempt, if there is one."""
        servable, error = None, None
        try:
            servable = self._load_servable(version)
        except ServingError as raised:
            error = raised
        except Exception as raised:
            error = ServingError(grpc.StatusCode.INTERNAL, f"{type(raised).__name__}: {raised}")
        with self._changed:
            version.servable, version.error = servable, error
            if error is None:
                return
            again = version.wanted and version.attempts <= self._max_retries
            plan = f"next attempt in {self._retry_seconds:g} s" if again else "given up"
            logger.warning("version %d of model %s failed to load (%s): %s", version.number, version.model, plan, error)
            if again:
                self._tell(version)
                self._changed.wait_for(lambda: not version.wanted, self._retry_seconds)

    def _unload(self, version: Version) -> None:
        try:
            if version.servable is not None:
                version.servable.close()
        except Exception:
            logger.exception("version %d of model %s: unforeseen error", version.number, version.model)
        logger.info("version %d of model %s is unloaded", version.number, version.model)
        with self._changed:
            version.servable, version.state = None, lifecycle.END
            self._tell(version)

    def _tell(self, version: Version) -> None:
        """The lock is held."""
        self._reconcile(version)
        self._changed.notify_all()


class ServableFactory:
    """Makes servables, and owns the threads that they compute in."""

    def __init__(self, batching: BatchingParameters | None, metrics: Metrics, loading: LoadOptions) -> None:
        """`batching`: how requests are joined; None computes each by itself."""
        self._metrics = metrics
        self._loading = loading
        self._batcher = Batcher(batching, metrics) if batching else None
        self._engine_threads = batching.threads_per_batch if batching else 0
        self._pool = Pool()

    def make(self, version: Version) -> Servable:
        """Loads a version and replays its warm-up requests. Raises ServingError."""
        with self._metrics.load_attempt(version.path):
            engine = Engine(version.path, self._engine_threads, self._loading.session, self._loading.tags)
        servable = Servable(version.model, version.number, engine, self._batcher, self._pool)
        try:
            if self._loading.warm_up:
                warm_up(servable, version.path, self._loading.warm_up_iterations, self._metrics)
        except BaseException:
            servable.close()
            raise
        return servable

    def close(self) -> None:
        """Ends the threads. No servable may be in use any more."""
        self._pool.close()
        if self._batcher:
            self._batcher.close()
