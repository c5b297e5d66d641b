"""From a version's folder to a servable that takes requests: loaded, warmed up, and measured on the way."""

from __future__ import annotations

import logging
import time

import grpc

from mnist_tfx.serving.server.batching import Batcher
from mnist_tfx.serving.server.config import BatchingParameters, LoadOptions
from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.lifecycle import Version
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.servable import Pool, Servable
from mnist_tfx.serving.server.warmup import warm_up

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
        engine = self._load(version.path)
        servable = Servable(version.model, version.number, engine, self._batcher, self._pool)
        try:
            count = self._warm_up(servable, version.path)
        except BaseException:
            servable.close()
            raise
        if count:
            logger.info("version %d of model %s: %d warm-up requests replayed", version.number, version.model, count)
        return servable

    def close(self) -> None:
        """Ends the threads. No servable may be in use any more."""
        self._pool.close()
        if self._batcher:
            self._batcher.close()

    def _load(self, path: str) -> Engine:
        start = time.perf_counter()
        loaded = False
        try:
            engine = Engine(path, self._engine_threads, self._loading.session, self._loading.tags)
            loaded = True
        finally:
            self._metrics.load_attempt(path, time.perf_counter() - start, loaded=loaded)
        return engine

    def _warm_up(self, servable: Servable, path: str) -> int:
        if not self._loading.warm_up:
            return 0
        start = time.perf_counter()
        code = grpc.StatusCode.OK
        count = 0
        try:
            count = warm_up(servable, path, self._loading.warm_up_iterations)
        except ServingError as error:
            code = error.code
            raise
        finally:
            if count or code is not grpc.StatusCode.OK:
                self._metrics.warmup(path, time.perf_counter() - start, code.name)
        return count
