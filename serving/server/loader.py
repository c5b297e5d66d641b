"""Threads that load and unload versions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from serving.server import lifecycle
from serving.server.errors import ServingError
from serving.server.lifecycle import Actions, Version
from serving.server.servable import Servable

logger = logging.getLogger(__name__)

LOAD_THREADS = 2


class Loader:
    """Carries out what `Model.reconcile` asks for, and asks again after each step."""

    def __init__(
        self,
        load: Callable[[Version], Servable],
        reconcile: Callable[[Version], Actions],
        changed: threading.Condition,
        *,
        max_retries: int,
        retry_seconds: float,
    ) -> None:
        """Starts no thread yet.

        Args:
            load: makes the servable of a version, in one of the loader's threads; any exception is a failed load.
            reconcile: called with the lock held after the version's state changed.
            changed: the lock of all versions; notified of each change.
            max_retries: attempts after the first.
            retry_seconds: time between attempts; `Model.due` tells when it is over.
        """
        self._load_servable = load
        self._reconcile = reconcile
        self._changed = changed
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._threads = ThreadPoolExecutor(LOAD_THREADS, thread_name_prefix="load")
        self._closed = False

    def do(self, actions: Actions) -> None:
        """Begins loads and unloads. The lock is held, here and in the next two."""
        for version in actions.load:
            self.load(version)
        for version in actions.unload:
            self.unload(version)

    def load(self, version: Version) -> None:
        """Begins an attempt to load a version."""
        self._submit(self._load, version)

    def unload(self, version: Version) -> None:
        """Begins to unload a version that nobody holds."""
        self._submit(self._unload, version)

    def close(self) -> None:
        """Begins nothing more, and waits for what is being done."""
        with self._changed:
            self._closed = True
        self._threads.shutdown(cancel_futures=True)

    def _submit(self, job: Callable[[Version], None], version: Version) -> None:
        if not self._closed:
            self._threads.submit(self._guarded, job, version)

    def _guarded(self, job: Callable[[Version], None], version: Version) -> None:
        try:
            job(version)
        except Exception:
            logger.exception("version %d of model %s: unforeseen error", version.number, version.model)

    def _load(self, version: Version) -> None:
        with self._changed:
            if not version.wanted:
                version.state = lifecycle.END
                self._changed.notify_all()
                return
            version.state = lifecycle.LOADING
            version.attempts += 1
        logger.info("loading version %d of model %s from %s", version.number, version.model, version.path)
        servable, error = None, None
        try:
            servable = self._load_servable(version)
        except ServingError as raised:
            error = raised
        except Exception as raised:
            error = ServingError(grpc.StatusCode.INTERNAL, f"{type(raised).__name__}: {raised}")
        with self._changed:
            version.servable, version.error = servable, error
            if error is not None:
                self._failed(version, error)
            elif version.wanted:
                version.state = lifecycle.AVAILABLE
                logger.info("version %d of model %s is available", version.number, version.model)
            else:
                version.state = lifecycle.UNLOADING
                self.unload(version)
            self.do(self._reconcile(version))
            self._changed.notify_all()

    def _failed(self, version: Version, error: ServingError) -> None:
        again = version.wanted and version.attempts <= self._max_retries
        if again:
            version.retry_at = time.monotonic() + self._retry_seconds
        else:
            version.state = lifecycle.END
        plan = f"next attempt in {self._retry_seconds:g} s" if again else "given up"
        logger.warning("version %d of model %s failed to load (%s): %s", version.number, version.model, plan, error)

    def _unload(self, version: Version) -> None:
        if version.servable is not None:
            version.servable.close()
        logger.info("version %d of model %s is unloaded", version.number, version.model)
        with self._changed:
            version.servable, version.state = None, lifecycle.END
            self.do(self._reconcile(version))
            self._changed.notify_all()
