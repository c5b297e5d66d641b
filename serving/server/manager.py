"""Which versions of which models are loaded: polls the files, loads, swaps and unloads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from mnist_tfx.serving.server import lifecycle
from mnist_tfx.serving.server.config import BatchingParameters, LoadOptions
from mnist_tfx.serving.server.config_files import check_models
from mnist_tfx.serving.server.errors import ServingError, invalid
from mnist_tfx.serving.server.lifecycle import Model, Version
from mnist_tfx.serving.server.loader import Loader, ServableFactory
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.request_logs import RequestLogs
from mnist_tfx.serving.server.servable import Servable
from mnist_tfx.serving.server.versions import scan

logger = logging.getLogger(__name__)


class ModelManager:
    """The models of a list and their versions. All methods may be called from many threads at once."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        batching: BatchingParameters | None,
        logs: RequestLogs | None = None,
        loading: LoadOptions | None = None,
        poll_seconds: float = 1.0,
        max_load_retries: int = 5,
        load_retry_seconds: float = 60.0,
        allow_labels_for_unavailable: bool = False,
        reload_refused: str = "",
    ) -> None:
        """Serves nothing before `take_over`.

        Args:
            metrics: hears of loads, warm-ups and batches.
            batching: how requests are joined; None computes each by itself.
            logs: hears of the models that are listed.
            loading: how versions are loaded.
            poll_seconds: how often the files are looked at; 0: only at the start and at a reload.
            max_load_retries: attempts after the first for a version that fails to load.
            load_retry_seconds: time between them.
            allow_labels_for_unavailable: labels may name versions that are not loaded yet.
            reload_refused: why clients may not replace the list; empty where they may.
        """
        self._metrics = metrics
        self._logs = logs
        self._poll_seconds = poll_seconds
        self._allow_labels = allow_labels_for_unavailable
        self._reload_refused = reload_refused
        self._factory = ServableFactory(batching, metrics, loading or LoadOptions())
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._models: dict[str, Model] = {}
        self._configs: dict[str, ModelConfig] = {}
        self._loader = Loader(
            self._factory.make,
            self._reconcile,
            self._changed,
            max_retries=max_load_retries,
            retry_seconds=load_retry_seconds,
        )
        self._stopped = False

    def wait_loaded(self, timeout: float | None) -> list[str]:
        """Waits until each model serves or has failed once, or the manager stops; returns those still waited for."""
        with self._lock:
            self._changed.wait_for(lambda: self._stopped or not self._unsettled(list(self._configs)), timeout)
            return [] if self._stopped else self._unsettled(list(self._configs))

    def stop(self, seconds: float) -> None:
        """Unloads everything, waiting up to so long for the requests that are computed now; a load is left alone."""
        with self._lock:
            self._stopped = True
            for model in self._models.values():
                model.want({})
            self._changed.notify_all()
            versions = [version for model in self._models.values() for version in model.versions]
            self._changed.wait_for(lambda: all(one.servable is None for one in versions), seconds)
        self._factory.close()

    def take_over(self, config: ModelServerConfig) -> list[str]:
        """Replaces the whole list of models, and returns the names of those that are new.

        What is new is loaded from now on, what is not listed any more is unloaded.

        Raises:
            ServingError: INVALID_ARGUMENT, FAILED_PRECONDITION or, for an unknown log collector, NOT_FOUND: the list
                cannot be served; the old one stays.
        """
        try:
            check_models(config)
        except ValueError as error:
            raise invalid(str(error)) from None
        except LookupError as error:
            raise _not_found(str(error)) from None
        with self._lock:
            if config.WhichOneof("config") is None:  # an empty file, as a full disk leaves it, is no order to unload
                if self._configs:
                    raise ServingError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        "Cannot transition to requested config. It is only legal to transition from one "
                        "ModelConfigList to another: it is empty. What is served stays "
                        "(model_config_list {} serves nothing)",
                    )
                return []
            listed = config.model_config_list.config
            new = {one.name: Model(one.name, self._loader.load, self._loader.unload) for one in listed}
            models = new | self._models
            for one in listed:
                models[one.name].check_labels(one.version_labels, allow_unavailable=self._allow_labels)
            self._models = models
            before, self._configs = self._configs, {}
            for one in listed:
                models[one.name].labels = dict(one.version_labels)
                known = before.get(one.name)
                is_followed = known == one and self._poll_seconds > 0  # else it is looked at anew
                self._configs[one.name] = known if is_followed else one
            for name in before.keys() - self._configs.keys():
                model = self._models[name]
                model.labels, model.scanned = {}, False
                model.want({})
            for name, one in self._configs.items():
                if one is not before.get(name):
                    threading.Thread(target=self._follow, args=(one,), name=f"poll {name}", daemon=True).start()
            self._metrics.served = frozenset(self._configs)
            if self._logs is not None:
                self._logs.update(listed)
            self._changed.notify_all()
            return [name for name in self._configs if name not in before]

    def reload(self, models: ModelServerConfig, timeout: float | None = None) -> None:
        """Replaces the whole list of models for a client, and waits until each new one serves or has failed once.

        Raises:
            ServingError: PERMISSION_DENIED where clients may not; as `take_over` does; UNKNOWN where a new model did
                not become available, DEADLINE_EXCEEDED after `timeout` seconds (the new list then stays, and what it
                lists is tried again).
        """
        if self._reload_refused:
            raise ServingError(grpc.StatusCode.PERMISSION_DENIED, self._reload_refused)
        new = self.take_over(models)
        with self._lock:
            if not self._changed.wait_for(lambda: self._stopped or not self._unsettled(new), timeout):
                words = f"Still loading: {{{', '.join(self._unsettled(new))}}}"
                raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, words)
            failed = [self._failure(self._models[name]) for name in new if not self._models[name].available]
        if failed:
            raise ServingError(
                grpc.StatusCode.UNKNOWN, f"Some models did not become available: {{{', '.join(failed)}}}"
            )

    @contextmanager
    def acquire(self, name: str, *, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """The servable for a request: of a version, of a label, or the latest that is available.

        It stays loaded until the context ends, also when another version takes its place. Entering raises
        ServingError: NOT_FOUND, or INVALID_ARGUMENT for an unknown label.
        """
        with self._lock:
            held = self._find(name, version, label)
            held.holders += 1
        try:
            assert held.servable is not None
            yield held.servable
        finally:
            with self._lock:
                held.holders -= 1
                if not held.holders and held.state == lifecycle.UNLOADING:
                    self._loader.unload(held)

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

    # Polling.

    def _follow(self, config: ModelConfig) -> None:
        """Looks for versions of a model again and again, until its config is replaced.

        Each model has a thread for this: a file system that hangs keeps back only what lies on it.
        """
        while True:
            seen = scan(config)
            with self._lock:
                if self._is_over(config):
                    return
                model = self._models[config.name]
                if seen.problem and seen.problem != model.problem:
                    logger.warning("%s", seen.problem)
                model.problem, model.scanned = seen.problem, True
                if seen.wanted is not None:  # a base path that is missing keeps the versions in hand
                    model.want(seen.wanted)
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._is_over(config), self._poll_seconds if self._poll_seconds > 0 else None
                )
                if self._is_over(config):
                    return

    # The lock is held.

    def _find(self, name: str, number: int | None, label: str | None) -> Version:
        model = self._models.get(name)
        if label is not None:
            number = model.labels.get(label) if model else None
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        version = None
        if model is not None:
            version = model.latest if number is None else model.available.get(number)
        if version is None:
            request = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise _not_found(f"Servable not found for request: {request}")
        return version

    def _is_over(self, config: ModelConfig) -> bool:
        return self._stopped or self._configs.get(config.name) is not config

    def _unsettled(self, names: list[str]) -> list[str]:
        return [name for name in names if name in self._configs and not self._models[name].settled]

    def _failure(self, model: Model) -> str:
        errors = [version.error.message for version in model.versions if version.error]
        return f"{model.name}: {(errors or [model.problem or 'it has no versions'])[-1]}"

    def _reconcile(self, version: Version) -> None:
        self._models[version.model].reconcile()


def _not_found(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.NOT_FOUND, message)
