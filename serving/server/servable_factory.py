"""From a version's folder to a servable that takes requests: loaded, warmed up, and measured on the way."""

from __future__ import annotations

import logging

from serving.server.batching import Batcher
from serving.server.config import BatchingParameters, LoadOptions
from serving.server.engine import Engine
from serving.server.lifecycle import Version
from serving.server.metrics import Metrics
from serving.server.servable import Pool, Servable
from serving.server.warmup import has_requests, warm_up

logger = logging.getLogger(__name__)


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
            if self._loading.warm_up and has_requests(version.path):
                with self._metrics.warmup(version.path):
                    count = warm_up(servable, version.path, self._loading.warm_up_iterations)
                logger.info(
                    "version %d of model %s: %d warm-up requests replayed", version.number, version.model, count
                )
        except BaseException:
            servable.close()
            raise
        return servable

    def close(self) -> None:
        """Ends the threads. No servable may be in use any more."""
        self._pool.close()
        if self._batcher:
            self._batcher.close()
