"""Which versions of which models are loaded: polls the files, loads, swaps and unloads."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager
from types import TracebackType

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.server import lifecycle
from serving.server.config import BatchingParameters
from serving.server.config_files import check_models
from serving.server.errors import ServingError
from serving.server.lifecycle import Actions, Model, Version
from serving.server.loader import Loader
from serving.server.metrics import Metrics
from serving.server.servable import Servable
from serving.server.servable_factory import ServableFactory
from serving.server.versions import scan

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0
"""How long `stop` waits for requests that still hold a servable."""


class ModelManager:
    """The models of a config and their versions. All methods may be called from many threads at once."""

    def __init__(
        self,
        models: ModelServerConfig,
        *,
        metrics: Metrics,
        batching: BatchingParameters | None,
        poll_seconds: float = 1.0,
        max_load_retries: int = 5,
        load_retry_seconds: float = 60.0,
        allow_labels_for_unavailable: bool = False,
    ) -> None:
        """Takes a config; nothing happens before `start`.

        Args:
            models: the models to serve.
            metrics: hears of loads, warm-ups and batches.
            batching: how requests are joined; None computes each by itself.
            poll_seconds: how often the files are looked at; 0: only at the start and at a reload.
            max_load_retries: attempts after the first for a version that fails to load.
            load_retry_seconds: time between them.
            allow_labels_for_unavailable: labels may name versions that are not loaded yet.
        """
        self._config = models
        self._poll_seconds = poll_seconds
        self._allow_labels = allow_labels_for_unavailable
        self._factory = ServableFactory(batching, metrics)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._poll_lock = threading.Lock()  # one poll at a time; taken before `_lock`
        self._reload_lock = threading.Lock()
        self._models: dict[str, Model] = {}
        self._configs: dict[str, ModelConfig] = {}
        self._loader = Loader(
            self._factory.make,
            self._reconcile,
            self._changed,
            max_retries=max_load_retries,
            retry_seconds=load_retry_seconds,
        )
        self._poller = threading.Thread(target=self._poll_loop, name="poll", daemon=True)
        self._stopped = threading.Event()

    def start(self) -> None:
        """Does the first poll and begins the first loads. Raises ServingError for a config that cannot be served."""
        self._apply(self._config)
        self._poll()
        self._poller.start()

    def stop(self) -> None:
        """Unloads everything, waiting up to `STOP_SECONDS` for the requests that are computed now."""
        self._stopped.set()
        with self._lock:
            for model in self._models.values():
                self._loader.do(model.want({}))
            self._changed.notify_all()
            self._changed.wait_for(self._all_ended, timeout=STOP_SECONDS)
        if self._poller.is_alive():
            self._poller.join(STOP_SECONDS)  # it may hang in a file system
        self._loader.close()
        self._factory.close()

    def reload(self, models: ModelServerConfig) -> None:
        """Replaces the whole list of models, and waits until each new one serves or has failed once.

        Raises:
            ServingError: INVALID_ARGUMENT or FAILED_PRECONDITION for a list that cannot be served (the old one stays),
                UNKNOWN where a new model did not become available (the new list stays, and is tried again).
        """
        with self._reload_lock:
            with self._lock:
                known = set(self._configs)
            self._apply(models)
            self._poll()
            new = [model.name for model in models.model_config_list.config if model.name not in known]
            failed = self._wait_for_first_loads(new)
        if failed:
            raise ServingError(
                grpc.StatusCode.UNKNOWN, f"Some models did not become available: {{{', '.join(failed)}}}"
            )

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> AbstractContextManager[Servable]:
        """The servable for a request: of a version, of a label, or the latest that is available.

        It stays loaded until the context ends, also when another version takes its place. Entering raises
        ServingError: NOT_FOUND, or INVALID_ARGUMENT for an unknown label.
        """
        return _Hold(self, name, version, label)

    def names(self) -> list[str]:
        """The models of the list that is being served."""
        with self._lock:
            return list(self._configs)

    def statuses(self, name: str, version: int | None = None) -> list[ModelVersionStatus]:
        """The states of a model's versions, newest first, or of one. Raises ServingError (NOT_FOUND)."""
        with self._lock:
            model = self._models.get(name)
            statuses = model.statuses() if model else []
        if not statuses:
            raise _not_found(f"Could not find any versions of model {name}")
        if version is not None:
            statuses = [status for status in statuses if status.version == version]
            if not statuses:
                raise _not_found(f"Could not find version {version} of model {name}")
        return statuses

    # Requests.

    def _hold(self, name: str, number: int | None, label: str | None) -> Version:
        with self._lock:
            model = self._models.get(name)
            if label is not None:
                number = model.labels.get(label) if model else None
                if number is None:
                    raise ServingError(
                        grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}"
                    )
            version = None
            if model is not None:
                version = model.latest if number is None else model.available.get(number)
            if version is None:
                request = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise _not_found(f"Servable not found for request: {request}")
            version.holders += 1
            return version

    def _release(self, version: Version) -> None:
        with self._lock:
            version.holders -= 1
            if not version.holders and version.state == lifecycle.UNLOADING:
                self._loader.unload(version)

    # The config.

    def _apply(self, config: ModelServerConfig) -> None:
        """Takes a list of models over, or raises ServingError and changes nothing."""
        try:
            check_models(config)
        except ValueError as error:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        with self._lock:
            for one in config.model_config_list.config:
                model = self._models.get(one.name) or Model(one.name)
                model.check_labels(one.version_labels, allow_unavailable=self._allow_labels)
            self._configs = {one.name: one for one in config.model_config_list.config}
            for name, one in self._configs.items():
                model = self._models.setdefault(name, Model(name))
                model.labels = dict(one.version_labels)
            for name, model in self._models.items():
                if name not in self._configs:
                    model.labels, model.scanned = {}, False
                    self._loader.do(model.want({}))

    def _wait_for_first_loads(self, names: list[str]) -> list[str]:
        """The models among `names` of which no version is available after the first attempt, with the reason."""
        with self._lock:
            models = [self._models[name] for name in names]
            self._changed.wait_for(lambda: self._stopped.is_set() or all(model.settled for model in models))
            failed: list[str] = []
            for model in models:
                if not model.available:
                    errors = [version.error.message for version in model.versions if version.error]
                    failed.append(f"{model.name}: {(errors or [model.problem or 'it has no versions'])[-1]}")
            return failed

    # Polling.

    def _poll_loop(self) -> None:
        """Polls the files, and begins retries when they are due."""
        next_poll = time.monotonic() + self._poll_seconds
        while not self._stopped.is_set():
            with self._lock:
                retries = [one.retry_at for model in self._models.values() for one in model.versions if one.retry_at]
                wakes = retries + ([next_poll] if self._poll_seconds > 0 else [])
                self._changed.wait(max(0.0, min(wakes) - time.monotonic()) if wakes else None)
                for version in [due for model in self._models.values() for due in model.due(time.monotonic())]:
                    self._loader.load(version)
            if self._poll_seconds > 0 and time.monotonic() >= next_poll and not self._stopped.is_set():
                self._poll()
                next_poll = time.monotonic() + self._poll_seconds

    def _poll(self) -> None:
        with self._poll_lock:
            with self._lock:
                configs = dict(self._configs)
            for name, config in configs.items():
                seen = scan(config)
                with self._lock:
                    if self._configs.get(name) is not config or self._stopped.is_set():
                        continue  # replaced meanwhile
                    model = self._models[name]
                    if seen.problem and seen.problem != model.problem:
                        logger.warning("%s", seen.problem)
                    model.problem, model.scanned = seen.problem, True
                    if seen.wanted is not None:  # a base path that is missing keeps the versions in hand
                        self._loader.do(model.want(seen.wanted))
                    self._changed.notify_all()

    def _reconcile(self, version: Version) -> Actions:
        return self._models[version.model].reconcile()

    def _all_ended(self) -> bool:
        return all(one.state == lifecycle.END for model in self._models.values() for one in model.versions)


class _Hold(AbstractContextManager[Servable]):
    """A servable in use."""

    __slots__ = ("_manager", "_request", "_version")

    def __init__(self, manager: ModelManager, name: str, number: int | None, label: str | None) -> None:
        self._manager = manager
        self._request = (name, number, label)
        self._version: Version | None = None

    def __enter__(self) -> Servable:
        self._version = version = self._manager._hold(*self._request)
        assert version.servable is not None
        return version.servable

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._version is not None:
            self._manager._release(self._version)
            self._version = None


def _not_found(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.NOT_FOUND, message)
