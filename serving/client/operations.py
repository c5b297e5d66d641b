"""What the client does, written once for the synchronous and the asynchronous client.

An operation is a generator that yields the steps which take time, a `Call` or a `Pause`, is sent each call's answer (or
thrown its grpc.RpcError) and returns the result. The two clients differ only in how they carry out a step.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import grpc
import numpy.typing as npt

from mnist_tfx.serving.client import answers, images, messages, tensors
from mnist_tfx.serving.client.channel import Retry, proxy_variable
from mnist_tfx.serving.client.errors import (
    DeadlineExceeded,
    InvalidInput,
    InvalidOption,
    ModelNotFound,
    SignatureNotFound,
    Unavailable,
    checked_seconds,
    from_rpc_error,
)
from mnist_tfx.serving.client.request_log import RequestLog
from mnist_tfx.serving.client.results import Classification, ModelMetadata, Predictions, Signature, VersionStatus
from mnist_tfx.serving.client.signatures import as_tensor, check_inputs, image_input

IMAGES, ENCODED_IMAGES = "images", "encoded_images"  # signatures, and the name of each one's input

_POLL_SECONDS = 0.2
_POLL_TIMEOUT = 2.0  # a hanging server may not use up all of wait_ready's time
_KNOWN_VERSIONS = 8


class Method(NamedTuple):
    """A unary gRPC method."""

    path: str
    request: Any
    response: Any


PREDICT = Method("/tensorflow.serving.PredictionService/Predict", messages.PredictRequest, messages.PredictResponse)
METADATA = Method(
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    messages.GetModelMetadataRequest,
    messages.GetModelMetadataResponse,
)
STATUS = Method(
    "/tensorflow.serving.ModelService/GetModelStatus", messages.GetModelStatusRequest, messages.GetModelStatusResponse
)
METHODS = (PREDICT, METADATA, STATUS)


class Call(NamedTuple):
    """Call a method; the step's result is the response."""

    method: Method
    request: Any
    timeout: float


class Pause(NamedTuple):
    """Wait."""

    seconds: float


T = TypeVar("T")
Steps: TypeAlias = Generator[Call | Pause, Any, T]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a client calls which model."""

    target: str
    model: str
    version: int | None
    label: str | None
    timeout: float
    retry: Retry
    batch_size: int
    class_names: tuple[str, ...] | None
    log: RequestLog | None = None


class Operations:
    """The operations of one client. Safe for use by several threads: what they share is replaced as a whole."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidOption for a model, version or label that no message can hold."""
        self._settings = settings
        try:
            self._spec = messages.ModelSpec(name=settings.model, version_label=settings.label)
            if settings.version is not None:
                self._spec.version.value = settings.version
        except (TypeError, ValueError) as error:
            chosen = settings.label if settings.version is None else settings.version
            raise InvalidOption(
                f"model {settings.model!r} with version or label {chosen!r} cannot be asked for ({error}): a version "
                "is a 64-bit integer, a name and a label are text."
            ) from error
        self._proxy = proxy_variable(settings.target)
        self._known: dict[int, ModelMetadata] = {}
        self._current: ModelMetadata | None = None

    def metadata(self, deadline: float, attempts: int | None = None) -> Steps[ModelMetadata]:
        """The signatures of the version that answers, asked anew."""
        request = messages.GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])
        metadata = answers.read_metadata((yield from self._call(METADATA, request, deadline, attempts)))
        newest = dict(list(self._known.items())[1 - _KNOWN_VERSIONS :])
        self._known = {**newest, metadata.version: metadata}
        self._current = metadata
        return metadata

    def status(self, deadline: float, attempts: int | None = None) -> Steps[tuple[VersionStatus, ...]]:
        """The state of every version of the model (of the pinned one, if one is), the newest first."""
        request = messages.GetModelStatusRequest()
        request.model_spec.name = self._settings.model
        if self._settings.version is not None:
            request.model_spec.version.value = self._settings.version
        return answers.read_statuses((yield from self._call(STATUS, request, deadline, attempts)))

    def wait_ready(self, timeout: float) -> Steps[int]:
        """Waits until the model (the pinned version or label, if any) answers; returns the version."""
        deadline = time.monotonic() + checked_seconds(timeout, InvalidInput)
        seen = "it was not asked"
        while True:
            poll = min(deadline, time.monotonic() + _POLL_TIMEOUT)
            try:
                if self._settings.label is not None:  # the states of a model do not tell its labels
                    return (yield from self.metadata(poll, attempts=1)).version
                statuses = yield from self.status(poll, attempts=1)
                ready = [status.version for status in statuses if status.available]
                if ready:
                    return ready[0]
                seen = ", ".join(map(str, statuses)) or "it has no versions"
            except (Unavailable, ModelNotFound, DeadlineExceeded) as error:
                # A poll that the last moments cut short tells less than the one before it.
                if not (isinstance(error, DeadlineExceeded) and poll == deadline and seen != "it was not asked"):
                    seen = str(error)
            if deadline - time.monotonic() <= _POLL_SECONDS:
                raise DeadlineExceeded(
                    f"model {self._settings.model!r} at {self._settings.target} was not ready after {timeout:g} s: "
                    + seen
                )
            yield Pause(_POLL_SECONDS)

    def run(
        self,
        inputs: Mapping[str, Any],
        signature: str,
        outputs: Sequence[str] | None,
        deadline: float,
    ) -> Steps[dict[str, npt.NDArray[Any]]]:
        """Calls any signature with arrays; returns its outputs."""
        arrays = {name: as_tensor(value) for name, value in inputs.items()}
        yield from self._checked(signature, lambda found: check_inputs(signature, found, arrays), deadline)
        response = yield from self._predict(signature, arrays, deadline, outputs)
        return answers.read_outputs(response)

    def prepare(self, given: npt.ArrayLike, white: float | None, deadline: float) -> Steps[npt.NDArray[Any]]:
        """The images as a batch that fits the signature `images`."""
        return (
            yield from self._checked(
                IMAGES, lambda found: images.as_batch(given, image_input(IMAGES, found), white), deadline
            )
        )

    def predict_batch(self, batch: npt.NDArray[Any], deadline: float, signature: str = IMAGES) -> Steps[Predictions]:
        """Classifies one prepared batch in one call."""
        response = yield from self._predict(signature, {signature: batch}, deadline)
        return answers.read_predictions(response, len(batch), self._settings.class_names)

    def classify(self, given: Iterable[images.EncodedImage], top: int, deadline: float) -> Steps[list[Classification]]:
        """Classifies PNG, JPEG, BMP and GIF images, batch by batch."""
        if top < 1:
            raise InvalidInput(f"`top` is how many classes to tell, at least 1; got {top}.")
        found: list[Classification] = []
        for batch in images.encoded_batches(given, self._settings.batch_size):
            predictions = yield from self._predict_files(batch, deadline)
            found += [predictions.classification(row, top) for row in range(len(predictions))]
        return found

    def _predict_files(self, batch: Sequence[tuple[images.EncodedImage, bytes]], deadline: float) -> Steps[Predictions]:
        """One call; if the server rejects it, one call an image: it does not say which one it cannot decode."""
        contents = as_tensor([content for _, content in batch])
        try:
            yield from self._checked(
                ENCODED_IMAGES,
                lambda found: check_inputs(ENCODED_IMAGES, found, {ENCODED_IMAGES: contents}),
                deadline,
            )
            return (yield from self.predict_batch(contents, deadline, ENCODED_IMAGES))
        except InvalidInput as error:
            if error.code is None:
                raise
            if len(batch) == 1:
                named = f"{images.name_of(batch[0][0])}: {error}"
                raise InvalidInput(named, code=error.code, details=error.details) from error
        parts = []
        for one in batch:
            parts.append((yield from self._predict_files([one], deadline)))
        return Predictions.concatenate(parts)

    def _predict(
        self,
        signature: str,
        arrays: Mapping[str, npt.NDArray[Any]],
        deadline: float,
        outputs: Sequence[str] | None = None,
    ) -> Steps[Any]:
        request = messages.PredictRequest(model_spec=self._spec)
        name = None
        try:
            request.model_spec.signature_name = signature
            request.output_filter.extend(outputs or ())
            for name, array in arrays.items():
                tensors.encode(array, request.inputs[name])
        except (TypeError, ValueError) as error:
            what = f"signature {signature!r} with outputs {outputs!r}" if name is None else f"input {name!r}"
            raise InvalidInput(f"{what} cannot be sent: {error}.") from error
        try:
            response = yield from self._call(PREDICT, request, deadline)
        except (InvalidInput, SignatureNotFound):
            self._current = None  # perhaps a version with other signatures has come
            raise
        log = self._settings.log
        if log is not None and log.is_sampled():
            log.add("predict_log", self._settings.model, lambda: (response.model_spec, request, response))
        version = response.model_spec.version.value
        if self._current is None or self._current.version != version:
            self._current = self._known.get(version)
        return response

    def _checked(self, signature: str, check: Callable[[Signature], T], deadline: float) -> Steps[T]:
        """The result of `check` on the signature; what it raises counts only by fresh metadata."""
        known = self._current
        if known is not None:
            with suppress(InvalidInput, SignatureNotFound):
                return check(self._signature(known, signature))
        fresh = yield from self.metadata(deadline)
        return check(self._signature(fresh, signature))

    def _signature(self, metadata: ModelMetadata, name: str) -> Signature:
        if name not in metadata.signatures:
            raise SignatureNotFound(
                f"model {metadata.name!r}, version {metadata.version}, at {self._settings.target} has no signature "
                f"{name!r}; it has: {', '.join(metadata.signatures)}."
            )
        return metadata.signatures[name]

    def _call(self, method: Method, request: Any, deadline: float, attempts: int | None = None) -> Steps[Any]:
        """One call with its retries, all before `deadline` (by time.monotonic)."""
        retry = self._settings.retry
        attempts = retry.attempts if attempts is None else attempts
        attempt = 1
        while True:
            try:
                return (yield Call(method, request, max(deadline - time.monotonic(), 0.0)))
            except grpc.RpcError as error:
                failed = from_rpc_error(error, self._settings.model, self._settings.target, attempt, self._proxy)
                pause = retry.backoff(attempt) * random.uniform(0.5, 1.5)
                in_time = time.monotonic() + pause < deadline
                if not isinstance(failed, Unavailable) or attempt == attempts or not in_time:
                    raise failed from error
            yield Pause(pause)
            attempt += 1
