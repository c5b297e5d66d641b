"""What running servers say of a model, and waiting until they say what was asked for. No TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.serving.client import (
    Client,
    DeadlineExceeded,
    Retry,
    ServingClientError,
    Tls,
    Unavailable,
    VersionStatus,
)

_CALL_SECONDS = 5.0
_POLL_SECONDS = 0.1
LOOK_SECONDS = 3.0
"""In which a server that looks at its files each second has seen a change, its own list's and the folders'."""

States = Mapping[int, VersionStatus]


class RunningServer:
    """One model at the gRPC port of TF Serving, or of our own server."""

    def __init__(self, address: str, model: str, tls: Tls | None = None) -> None:
        """Connects at the first call. Raises serving.client.InvalidOption for an address or a file that is none."""
        self.address = address
        self.problem = ""  # of the last call, if it was not answered
        self._model, self._tls = model, tls
        self._stack = ExitStack()
        self._clients: dict[str | None, Client] = {}  # by label
        self._client(None)

    def states(self) -> States | None:
        """By version; None where nothing answers or the model is unknown: `problem` says which."""
        try:
            statuses = self._client(None).status()
        except ServingClientError as error:
            nobody = isinstance(error, Unavailable | DeadlineExceeded)
            last_words = error.details.rsplit(": ", 1)[-1]  # gRPC puts the reason behind the addresses it tried
            code = error.code.name if error.code else type(error).__name__
            self.problem = f"no server answers ({last_words})" if nobody else f"{code}: {error.details or error}"
            return None
        self.problem = ""
        return {status.version: status for status in statuses}

    def leads_to(self, label: str, version: int) -> bool:
        """Whether a label leads to a version."""
        try:
            return self._client(label).metadata().version == version
        except ServingClientError:
            return False

    def _client(self, label: str | None) -> Client:
        if label not in self._clients:
            options = {"label": label, "tls": self._tls, "timeout": _CALL_SECONDS, "retry": Retry(attempts=1)}
            self._clients[label] = self._stack.enter_context(Client(self.address, self._model, **options))
        return self._clients[label]

    def close(self) -> None:
        """Ends the connections."""
        self._stack.close()


class Followers:
    """The servers that answer before a change: each is to follow it, also after a restart on the way."""

    def __init__(self, servers: Sequence[RunningServer], timeout: float) -> None:
        """Asks each; `timeout` is for each wait, in seconds."""
        answers = {server: states for server in servers if (states := server.states()) is not None}
        self.available = set.intersection(*map(_available, answers.values())) if answers else None
        """The versions that each of them had available before the change; None where there is none of them."""
        self._last = {server: dict(states) for server, states in answers.items()}
        self._timeout = timeout

    def let_look(self, versions: Collection[int], changed_at: float) -> None:
        """Waits until servers have looked at the last change, at `changed_at` (`time.time()`), where that matters.

        A version that could not be loaded, and was put back, is tried again only by a server that saw it gone.
        """
        if any(last[version].error_message for last in self._last.values() for version in versions if version in last):
            time.sleep(min(LOOK_SECONDS, max(0.0, changed_at + LOOK_SECONDS - time.time())))

    def wait(self, versions: Collection[int], labels: Mapping[str, int] | None = None) -> None:
        """Returns when these versions are available; with `labels`, also under these and no others.

        Where no label is in use, older versions may be served beside them, but no newer one.

        Raises:
            PipelineError: a server cannot load one, or takes longer than the timeout.
        """
        for server, last in self._last.items():
            begin = time.monotonic()
            deadline = begin + self._timeout
            while (states := server.states()) is None or not _is_reached(server, states, set(versions), labels):
                for version in versions:
                    status = (states or {}).get(version)
                    # What it said before the change, too, is no answer to it while it may not have looked again yet.
                    looked = time.monotonic() > begin + LOOK_SECONDS
                    if status is not None and status.error_message and (looked or status != last.get(version)):
                        raise PipelineError(
                            f"the server at {server.address} cannot load version {version}: {status.error_message}"
                        )
                if time.monotonic() > deadline:
                    words = ", ".join(str(status) for _, status in sorted((states or {}).items()))
                    raise PipelineError(
                        f"after {self._timeout:g} s the server at {server.address} does not serve version "
                        f"{', '.join(map(str, sorted(versions)))} as the files say: "
                        f"{server.problem or words or 'it has no version'}. Does it watch this folder, and poll its "
                        "models.config? A version that it gave up is tried again after a restart. (--no-wait asks no "
                        "server, --timeout SECONDS waits longer.)"
                    )
                last.clear()
                last.update(states or {})
                time.sleep(_POLL_SECONDS)


def _is_reached(server: RunningServer, states: States, wanted: set[int], labels: Mapping[str, int] | None) -> bool:
    available = _available(states)
    if not labels:
        is_newest = max(available, default=None) == max(wanted, default=None)
        return wanted <= available and (labels is None or is_newest)
    return wanted == available and all(server.leads_to(label, version) for label, version in labels.items())


def _available(states: States) -> set[int]:
    return {version for version, status in states.items() if status.available}
