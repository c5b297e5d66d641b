"""What can go wrong with a call, by kind. Each error carries the server's own words in `details`."""

from __future__ import annotations

from typing import Any

import grpc


class ServingClientError(Exception):
    """A call failed. The base of all errors of this package, and itself the error for status codes without a class.

    Attributes:
        code: the gRPC status code; None where the client itself found the fault.
        details: what the server said; empty where the client itself found the fault.
    """

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class InvalidOption(ServingClientError, ValueError):
    """The client was set up with something it cannot use: an address, a certificate, a number out of range."""


class InvalidInput(ServingClientError, ValueError):
    """The input does not fit the model's signature; the client or the server (INVALID_ARGUMENT) says why."""


class SignatureNotFound(ServingClientError, LookupError):
    """The model has no signature of this name, or it lacks the outputs asked for (FAILED_PRECONDITION)."""


class ModelNotFound(ServingClientError, LookupError):
    """The server has no such model, version or label (NOT_FOUND)."""


class DeadlineExceeded(ServingClientError, TimeoutError):
    """There was no answer in time (DEADLINE_EXCEEDED)."""


class Unavailable(ServingClientError, ConnectionError):
    """No server answers, it has no room for the request now (UNAVAILABLE), or it stops (CANCELLED).

    The retries did not help.
    """


class ResourceExhausted(ServingClientError):
    """A message is larger than the server or the client takes, or a quota is used up (RESOURCE_EXHAUSTED)."""


class MalformedAnswer(ServingClientError):
    """The answer is not what the model's signature promises."""


_CLASSES: dict[grpc.StatusCode, type[ServingClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.FAILED_PRECONDITION: SignatureNotFound,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    # gRPC's word for a call that had come and that nobody had taken up when the server stopped (gRPC core,
    # src/core/server/server.cc, Server::KillPendingWorkLocked); the client's own cancelling does not come here.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
}
_UNKNOWN_LABEL = "Unrecognized servable version label"  # TF Serving's words; it comes as INVALID_ARGUMENT
_UNKNOWN_SIGNATURE = "Serving signature"
_MAX_SECONDS = 1e9


def checked_seconds(value: Any, kind: type[ServingClientError]) -> float:
    """A timeout as a number; raises `kind` for what is none. gRPC takes far longer ones for times in the past."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = 0.0
    if not 0 < seconds <= _MAX_SECONDS:
        raise kind(f"a timeout is a number of seconds above 0, at most {_MAX_SECONDS:.0e}; got {value!r}.")
    return seconds


def from_rpc_error(
    error: grpc.RpcError, model: str, target: str, attempts: int, proxy: str | None
) -> ServingClientError:
    """The typed error for what a gRPC call raised, after `attempts` attempts.

    Args:
        proxy: the environment variable that may send the calls elsewhere.
    """
    code: grpc.StatusCode = error.code()
    details: str = error.details() or ""
    kind = _CLASSES.get(code, ServingClientError)
    if kind is InvalidInput and details.startswith(_UNKNOWN_LABEL):
        kind = ModelNotFound
    if kind is SignatureNotFound and not details.startswith(_UNKNOWN_SIGNATURE):
        kind = ServingClientError
    hint = ""
    if proxy is not None and kind in (Unavailable, DeadlineExceeded):
        hint = f". The environment has {proxy}: calls go through that proxy unless no_proxy names the host"
    tries = f" after {attempts} attempts" if attempts > 1 else ""
    return kind(
        f"{details or 'no details'} ({code.name} from {target}{tries}, model {model!r}){hint}",
        code=code,
        details=details,
    )
