"""The synchronous client."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client.base import BaseClient, stubs
from mnist_tfx.serving.client.channel import open_channel
from mnist_tfx.serving.client.images import EncodedImage, Rebatcher
from mnist_tfx.serving.client.operations import Pause, Steps
from mnist_tfx.serving.client.results import Classification, ModelMetadata, Predictions, VersionStatus

T = TypeVar("T")


class Client(BaseClient):
    """Calls one model on TensorFlow Serving or `mnist-tfx serve`. Safe for use by several threads.

        with Client("localhost:8500", model="fashion_mnist") as client:
            print(client.predict(images).labels)

    All errors are ServingClientErrors. A `timeout` is in seconds for the whole method call, with all that it asks the
    server and all retries: a server that is away for less is waited for. `predict_stream` has it for each batch.
    """

    def __init__(self, address: str, model: str, **options: Any) -> None:
        super().__init__(address, model, **options)
        self._channel = open_channel(grpc, self._settings.target, self._tls)
        self._stubs = stubs(self._channel)

    def predict(
        self, images: npt.ArrayLike, *, white: float | None = None, timeout: float | None = None
    ) -> Predictions:
        """Classifies images.

        Args:
            images: [28, 28], [28, 28, 1], [N, 28, 28] or [N, 28, 28, 1] (the model's own size), uint8 or whole numbers
                from 0 to 255; or floats, with `white`. More than `batch_size` images go in several calls.
            white: for floats, the value of a white pixel: 1.0 or 255.0. There is no default: an image of zeros and ones
                would fit both.
            timeout: see the class.

        Returns:
            N predictions, in order.

        Raises:
            InvalidInput: the images do not fit the model; the message says what would.
        """
        deadline = self._deadline(timeout)
        batch = self._drive(self._operations.prepare(images, white, deadline))
        if len(batch) <= self._settings.batch_size:
            return self._drive(self._operations.predict_batch(batch, deadline))
        return Predictions.concatenate(list(self._stream(self._slices(batch), lambda: deadline)))

    def predict_stream(
        self,
        images: npt.NDArray[Any] | Iterable[npt.ArrayLike],
        *,
        white: float | None = None,
        timeout: float | None = None,
    ) -> Iterator[Predictions]:
        """Classifies any number of images in bounded memory: at most `in_flight` + 1 batches are held at once.

        Args:
            images: what `predict` takes, or an iterable of it; it is read as far as batches are needed.
            white: as for `predict`.
            timeout: see the class.

        Yields:
            The predictions of `batch_size` images after the other, in order; the last may be fewer.
        """
        yield from self._stream(self._batches(images, white, timeout), lambda: self._deadline(timeout))

    def classify(
        self,
        *images: EncodedImage,
        top: int = 3,
        timeout: float | None = None,
    ) -> list[Classification]:
        """Classifies PNG, JPEG, BMP or GIF images of any size, each a path or the bytes.

        Returns:
            One Classification an image, in order, with its `top` likeliest classes.

        Raises:
            InvalidInput: a file cannot be read or decoded; the message names it.
        """
        return self._drive(self._operations.classify(images, top, self._deadline(timeout)))

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        signature: str = "serving_default",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Calls any signature of any model, in one call.

        Args:
            inputs: an array (or a list of bytes or str) for each input, of the signature's dtype and shape.
            signature: the signature's name.
            outputs: the outputs wanted. Default: all.
            timeout: see the class.

        Returns:
            An array for each output; strings as bytes in arrays of objects.
        """
        return self._drive(self._operations.run(inputs, signature, outputs, self._deadline(timeout)))

    def status(self, *, timeout: float | None = None) -> tuple[VersionStatus, ...]:
        """The state of each version of the model (of the pinned one, if one is), the newest first."""
        return self._drive(self._operations.status(self._deadline(timeout)))

    def metadata(self, *, timeout: float | None = None) -> ModelMetadata:
        """The signatures of the version that answers, asked anew."""
        return self._drive(self._operations.metadata(self._deadline(timeout)))

    def wait_ready(self, timeout: float) -> int:
        """Waits until the model (the pinned version or label, if any) answers requests; returns the version.

        Raises:
            DeadlineExceeded: after `timeout` seconds in all; the message has the last state seen.
        """
        return self._drive(self._operations.wait_ready(timeout))

    def close(self) -> None:
        """Ends the connection; calls under way fail. A second call does nothing."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _drive(self, steps: Steps[T]) -> T:
        """Carries out an operation's steps in this thread."""
        self._check_open()
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    answer = self._stubs[step.method.path](step.request, timeout=step.timeout)
                except (grpc.RpcError, ValueError) as error:  # ValueError: grpc's word for a closed channel
                    self._check_open()
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]

    def _batches(
        self, images: npt.NDArray[Any] | Iterable[npt.ArrayLike], white: float | None, timeout: float | None
    ) -> Iterator[npt.NDArray[Any]]:
        rebatcher = Rebatcher(self._settings.batch_size)
        for some in [images] if isinstance(images, np.ndarray) else images:
            yield from rebatcher.add(self._drive(self._operations.prepare(some, white, self._deadline(timeout))))
        yield from rebatcher.flush()

    def _stream(self, batches: Iterable[npt.NDArray[Any]], deadline: Callable[[], float]) -> Iterator[Predictions]:
        under_way: deque[Future[Predictions]] = deque()
        with ThreadPoolExecutor(self._in_flight) as pool:
            try:
                for batch in batches:
                    if len(under_way) == self._in_flight:
                        yield under_way.popleft().result()
                    under_way.append(pool.submit(self._drive, self._operations.predict_batch(batch, deadline())))
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for future in under_way:
                    future.cancel()
