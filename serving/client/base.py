"""What the synchronous and the asynchronous client are set up with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from mnist_tfx.serving.client.channel import Retry, Tls, resolve_target
from mnist_tfx.serving.client.errors import InvalidInput, InvalidOption, ServingClientError, checked_seconds
from mnist_tfx.serving.client.operations import METHODS, Operations, Settings
from mnist_tfx.serving.client.request_log import RequestLog

DEFAULT_TIMEOUT = 10.0
DEFAULT_BATCH_SIZE = 128
DEFAULT_IN_FLIGHT = 4


class BaseClient:
    """The options of both clients, checked."""

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: Retry = Retry(),  # noqa: B008 (it is immutable)
        tls: Tls | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        in_flight: int = DEFAULT_IN_FLIGHT,
        class_names: Sequence[str] | None = None,
        log: RequestLog | None = None,
    ) -> None:
        """Checks the options; connects at the first call.

        Args:
            address: `host`, `host:port` (default port 8500), or a gRPC target: `dns:///name:8500` for all addresses of
                a name in turn (a headless Service), `ipv4:10.0.0.1:8500,10.0.0.2:8500` for a list, `unix:/path`.
            model: the model's name on the server.
            version: answer from this version only. Default: the latest.
            label: answer from the version that carries this label, such as `stable`; not together with `version`.
            timeout: seconds for a whole method call, retries included, where the method is not told otherwise.
            retry: what to do about UNAVAILABLE, and about CANCELLED by a server that stops. By default a call is tried
                until its time is over.
            tls: TLS or mTLS; None for plain text.
            batch_size: the most images in one call; larger inputs are divided.
            in_flight: the most batches of one large input that are under way at once.
            class_names: the names of all classes in order, for the labels in `top`; a model tells only the likeliest
                one's.
            log: takes a sample of the predictions with their answers.

        Raises:
            InvalidOption: an option that cannot be used; nothing was sent.
        """
        if not model:
            raise InvalidOption("the model's name is empty.")
        if version is not None and label is not None:
            raise InvalidOption(f"a version ({version}) and a label ({label!r}) exclude each other: give one.")
        for name, value in (("batch_size", batch_size), ("in_flight", in_flight)):
            if value < 1:
                raise InvalidOption(f"{name} must be at least 1, got {value}.")
        self._settings = Settings(
            target=resolve_target(address),
            model=model,
            version=version,
            label=label,
            timeout=checked_seconds(timeout, InvalidOption),
            retry=retry,
            batch_size=batch_size,
            class_names=None if class_names is None else tuple(class_names),
            log=log,
        )
        self.model = model
        self._tls = tls
        if tls is not None:
            tls.credentials()  # a file that is none is told here, and not by the first call
        self._in_flight = in_flight
        self._operations = Operations(self._settings)
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise ServingClientError("the client is closed.")

    def _deadline(self, timeout: float | None) -> float:
        """When a call that begins now has to be over, by time.monotonic. Raises InvalidInput."""
        return time.monotonic() + (
            self._settings.timeout if timeout is None else checked_seconds(timeout, InvalidInput)
        )

    def _slices(self, batch: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, len(batch), self._settings.batch_size):
            yield batch[start : start + self._settings.batch_size]


def stubs(channel: Any) -> MappingProxyType[str, Any]:
    """The callables of a channel, grpc's or grpc.aio's, by the method's path."""
    return MappingProxyType(
        {
            method.path: channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            for method in METHODS
        }
    )
