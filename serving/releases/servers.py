"""What a running server says of a model, and waiting until it says what was asked for. No TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from components.errors import PipelineError
from serving.client import messages
from serving.client.channel import Tls, open_channel

_AVAILABLE = "AVAILABLE"
_STATES = {number: name for name, number in messages.enum_values("tensorflow.serving.ModelVersionStatus.State").items()}
_CALL_SECONDS = 5.0
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 5.0  # in which a server looks at its files again; both look every second unless told otherwise


@dataclass(frozen=True)
class VersionState:
    """What a server says of one version: a name of TF Serving's `ModelVersionStatus.State`, and its error if any."""

    state: str
    error: str = ""

    @property
    def is_available(self) -> bool:
        """Whether it answers requests."""
        return self.state == _AVAILABLE


class RunningServer:
    """The gRPC port of TF Serving, or of our own server."""

    def __init__(self, address: str, tls: Tls | None = None) -> None:
        """Connects at the first call. Raises serving.client.InvalidOption for an address or a file that is none."""
        self.address = address
        self.problem = ""  # of the last call, if it was not answered
        self._channel = open_channel(address, tls)

    def states(self, model: str) -> dict[int, VersionState] | None:
        """By version, ascending; None where nothing answers or the model is unknown: `problem` says which."""
        request = messages.GetModelStatusRequest(model_spec=messages.ModelSpec(name=model))
        answer = self._call("ModelService/GetModelStatus", request, messages.GetModelStatusResponse)
        if answer is None:
            return None
        return {
            one.version: VersionState(_STATES.get(one.state, str(one.state)), one.status.error_message)
            for one in sorted(answer.model_version_status, key=lambda one: one.version)
        }

    def labelled(self, model: str, label: str) -> int | None:
        """The version that a label leads to; None where it leads to none."""
        spec = messages.ModelSpec(name=model, version_label=label)
        request = messages.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        answer = self._call("PredictionService/GetModelMetadata", request, messages.GetModelMetadataResponse)
        return None if answer is None else int(answer.model_spec.version.value)

    def _call(self, method: str, request: Any, answer: Any) -> Any:
        call = self._channel.unary_unary(
            f"/tensorflow.serving.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            response = call(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            nobody = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            words = error.details() or ""
            last_words = words.rsplit(": ", 1)[-1]  # gRPC puts the reason behind the addresses it tried
            self.problem = f"no server answers ({last_words})" if nobody else f"{error.code().name}: {words}"
            return None
        self.problem = ""
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()


def available(servers: Sequence[RunningServer], model: str) -> set[int] | None:
    """The versions that every server which answers has available; None where none answers."""
    answers = [states for server in servers if (states := server.states(model)) is not None]
    if not answers:
        return None
    return set.intersection(*(_available(states) for states in answers))


def wait_available(servers: Sequence[RunningServer], model: str, versions: Collection[int], timeout: float) -> None:
    """Returns when every server that answers has these versions available.

    Raises:
        PipelineError: one cannot load them, or it takes longer than `timeout` seconds.
    """
    for server in servers:
        _wait(server, model, versions, timeout, lambda states: set(versions) <= _available(states))


def wait_served(
    servers: Sequence[RunningServer],
    model: str,
    versions: Collection[int],
    labels: Mapping[str, int],
    timeout: float,
) -> None:
    """Returns when every server that answers has these versions available and no others, under these labels.

    Raises:
        PipelineError: one cannot load them, or it takes longer than `timeout` seconds.
    """
    for server in servers:

        def is_served(states: Mapping[int, VersionState], server: RunningServer = server) -> bool:
            return set(versions) == _available(states) and all(
                server.labelled(model, label) == version for label, version in labels.items()
            )

        _wait(server, model, versions, timeout, is_served)


def _available(states: Mapping[int, VersionState]) -> set[int]:
    return {version for version, state in states.items() if state.is_available}


def _wait(
    server: RunningServer,
    model: str,
    versions: Collection[int],
    timeout: float,
    is_reached: Callable[[Mapping[int, VersionState]], bool],
) -> None:
    begun = time.monotonic()
    before: Mapping[int, VersionState] | None = None
    while (states := server.states(model)) is not None and not is_reached(states):
        before = before or states
        has_looked = time.monotonic() > begun + _LOOK_SECONDS
        for version in sorted(versions):
            # What it says at first may be from before the change, of files that have been mended since.
            if version in states and states[version].error and (has_looked or states[version] != before.get(version)):
                raise PipelineError(
                    f"the server at {server.address} cannot load version {version}: {states[version].error}"
                )
        if time.monotonic() > begun + timeout:
            said = ", ".join(f"{version} {state.state} {state.error}".rstrip() for version, state in states.items())
            wanted = ", ".join(map(str, sorted(versions)))
            raise PipelineError(
                f"after {timeout:g} s the server at {server.address} does not serve version {wanted} of {model} as the "
                f"files say; it has {said or 'no version'}. Does it watch this folder, and poll its models.config? "
                "(--no-wait asks no server, --timeout SECONDS waits longer.)"
            )
        time.sleep(_POLL_SECONDS)
