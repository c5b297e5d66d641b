"""The states of a model's versions, and what is to be done next. No threads, no files: the manager has those."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.servable import Servable

START = ModelVersionStatus.START
LOADING = ModelVersionStatus.LOADING
AVAILABLE = ModelVersionStatus.AVAILABLE
UNLOADING = ModelVersionStatus.UNLOADING
END = ModelVersionStatus.END

MAX_ENDED = 100
"""Ended versions that a model's status still tells of."""


@dataclass(eq=False)
class Version:
    """One version of a model on its way from START to END; it never goes back."""

    model: str
    number: int
    path: str
    state: ModelVersionStatus.State = START
    wanted: bool = True
    attempts: int = 0  # loads begun
    error: ServingError | None = None  # of the last attempt; the state stays LOADING until the next
    servable: Servable | None = None  # while AVAILABLE and UNLOADING
    holders: int = 0  # requests that use the servable

    def status(self) -> ModelVersionStatus:
        """The state as GetModelStatus tells it. A load that is to be retried tells what went wrong."""
        status = ModelVersionStatus(version=self.number, state=self.state)
        if self.error is not None:
            status.status.error_code = self.error.code.value[0]
            status.status.error_message = self.error.message
        return status


class Model:
    """A model's versions. All methods are called with the manager's lock held."""

    def __init__(self, name: str, load: Callable[[Version], None], unload: Callable[[Version], None]) -> None:
        """`load` and `unload` begin to, and return at once."""
        self.name = name
        self._load, self._unload = load, unload
        self.labels: dict[str, int] = {}
        self.wanted: dict[int, str] = {}
        self.scanned = False  # whether `wanted` comes from the files yet
        self.problem = ""  # why the last scan failed
        self.versions: list[Version] = []  # oldest entry first
        self.available: dict[int, Version] = {}
        self.latest: Version | None = None

    def want(self, wanted: Mapping[int, str]) -> None:
        """Sets which versions are to be served, by number, with their paths."""
        self.wanted = dict(wanted)
        self.reconcile()

    def reconcile(self) -> None:
        """Moves towards the wanted versions, and never from one that serves to none while one is wanted."""
        for version in self.versions:
            wanted = self.wanted.get(version.number) == version.path
            version.wanted = wanted and (version.wanted or version.state != END)  # one that ended stays so
        for number, path in sorted(self.wanted.items(), reverse=True):
            if not any(one.number == number and one.path == path and self._occupies(one) for one in self.versions):
                version = Version(self.name, number, path)
                self.versions = [one for one in self.versions if one.number != number or one.state != END]
                self.versions.append(version)
                self._load(version)
        self._index()
        if not self.wanted or any(version.wanted for version in self.available.values()):
            for version in self.versions:
                if version.state == AVAILABLE and not version.wanted:
                    version.state = UNLOADING
                    if not version.holders:
                        self._unload(version)
            self._index()
        self._forget()

    def check_labels(self, labels: Mapping[str, int], *, allow_unavailable: bool) -> None:
        """Raises ServingError for a label on a version that is not available.

        With `allow_unavailable` a new label may be on one; a label that has a version never moves to one.
        """
        for label, number in labels.items():
            moved = self.labels.get(label, number) != number
            if number not in self.available and (moved or not allow_unavailable):
                raise ServingError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {self.name}, which is not currently "
                    f"available for inference (label {label!r}). Load the version first, then label it; a label that "
                    "is new may go first with --allow_version_labels_for_unavailable_models",
                )

    def statuses(self) -> list[ModelVersionStatus]:
        """Of each version, newest first."""
        by_number = {version.number: version for version in self.versions}
        return [by_number[number].status() for number in sorted(by_number, reverse=True)]

    @property
    def settled(self) -> bool:
        """Whether a version serves, or nothing is left to wait for but a retry."""
        pending = any(one.state in (START, LOADING) and one.error is None for one in self.versions if one.wanted)
        return bool(self.available) or (self.scanned and not pending)

    def _occupies(self, version: Version) -> bool:
        """Whether this entry keeps its number from being loaded anew: a load that failed for good is not repeated."""
        return version.state != END or (version.wanted and version.error is not None)

    def _index(self) -> None:
        serving = [version for version in self.versions if version.state == AVAILABLE]
        # A number can be there twice for a moment, when the base path changes: the wanted one counts.
        serving.sort(key=lambda version: (version.number, version.wanted))
        self.available = {version.number: version for version in serving}
        self.latest = serving[-1] if serving else None

    def _forget(self) -> None:
        ended = [version for version in self.versions if version.state == END]
        for version in ended[:-MAX_ENDED]:
            self.versions.remove(version)
