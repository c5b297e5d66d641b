"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client.base import BaseClient, stubs
from mnist_tfx.serving.client.channel import open_channel
from mnist_tfx.serving.client.errors import ServingClientError
from mnist_tfx.serving.client.images import EncodedImage, Rebatcher
from mnist_tfx.serving.client.operations import Pause, Steps
from mnist_tfx.serving.client.results import Classification, ModelMetadata, Predictions, VersionStatus

T = TypeVar("T")


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same options, methods, results and errors. It belongs to the loop of its first call.

    async with AsyncClient("localhost:8500", model="fashion_mnist") as client:
        print((await client.predict(images)).labels)
    """

    async def predict(
        self, images: npt.ArrayLike, *, white: float | None = None, timeout: float | None = None
    ) -> Predictions:
        """As Client.predict."""
        deadline = self._deadline(timeout)
        batch = await self._drive(self._operations.prepare(images, white, deadline))
        if len(batch) <= self._settings.batch_size:
            return await self._drive(self._operations.predict_batch(batch, deadline))
        slices = _asynchronously(self._slices(batch))
        return Predictions.concatenate([part async for part in self._stream(slices, lambda: deadline)])

    async def predict_stream(
        self,
        images: npt.NDArray[Any] | Iterable[npt.ArrayLike] | AsyncIterable[npt.ArrayLike],
        *,
        white: float | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Predictions]:
        """As Client.predict_stream; also takes an asynchronous iterable."""
        batches = self._batches(images, white, timeout)
        async for predictions in self._stream(batches, lambda: self._deadline(timeout)):
            yield predictions

    async def classify(self, *images: EncodedImage, top: int = 3, timeout: float | None = None) -> list[Classification]:
        """As Client.classify."""
        return await self._drive(self._operations.classify(images, top, self._deadline(timeout)))

    async def run(
        self,
        inputs: Mapping[str, Any],
        *,
        signature: str = "serving_default",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """As Client.run."""
        return await self._drive(self._operations.run(inputs, signature, outputs, self._deadline(timeout)))

    async def status(self, *, timeout: float | None = None) -> tuple[VersionStatus, ...]:
        """As Client.status."""
        return await self._drive(self._operations.status(self._deadline(timeout)))

    async def metadata(self, *, timeout: float | None = None) -> ModelMetadata:
        """As Client.metadata."""
        return await self._drive(self._operations.metadata(self._deadline(timeout)))

    async def wait_ready(self, timeout: float) -> int:
        """As Client.wait_ready."""
        return await self._drive(self._operations.wait_ready(timeout))

    async def close(self) -> None:
        """As Client.close."""
        self._closed = True
        if "_channel" in self.__dict__:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    @cached_property
    def _channel(self) -> Any:
        """Made at the first call: grpc.aio binds a channel to the event loop that runs where it is made."""
        self._loop = asyncio.get_running_loop()
        return open_channel(grpc.aio, self._settings.target, self._tls)

    @cached_property
    def _stubs(self) -> Mapping[str, Any]:
        return stubs(self._channel)

    async def _drive(self, steps: Steps[T]) -> T:
        """Carries out an operation's steps in this task."""
        self._check_open()
        if "_channel" in self.__dict__ and self._loop is not asyncio.get_running_loop():
            raise ServingClientError(
                "an AsyncClient belongs to the event loop of its first call: make one in each loop."
            )
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    answer = await self._stubs[step.method.path](step.request, timeout=step.timeout)
                except (grpc.RpcError, grpc.aio.UsageError) as error:  # UsageError: the channel is closed
                    self._check_open()
                    step = steps.throw(error)
                except asyncio.CancelledError:  # of this task, or grpc.aio's word for a call whose channel was closed
                    task = asyncio.current_task()
                    if task is not None and not task.cancelling():
                        self._check_open()
                    raise
                else:
                    step = steps.send(answer)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]

    async def _batches(
        self,
        images: npt.NDArray[Any] | Iterable[npt.ArrayLike] | AsyncIterable[npt.ArrayLike],
        white: float | None,
        timeout: float | None,
    ) -> AsyncIterator[npt.NDArray[Any]]:
        rebatcher = Rebatcher(self._settings.batch_size)
        given = [images] if isinstance(images, np.ndarray) else images
        async for some in given if isinstance(given, AsyncIterable) else _asynchronously(given):
            prepared = await self._drive(self._operations.prepare(some, white, self._deadline(timeout)))
            for batch in rebatcher.add(prepared):
                yield batch
        for batch in rebatcher.flush():
            yield batch

    async def _stream(
        self, batches: AsyncIterator[npt.NDArray[Any]], deadline: Callable[[], float]
    ) -> AsyncIterator[Predictions]:
        under_way: deque[asyncio.Task[Predictions]] = deque()
        try:
            async for batch in batches:
                if len(under_way) == self._in_flight:
                    yield await under_way.popleft()
                task = asyncio.create_task(self._drive(self._operations.predict_batch(batch, deadline())))
                under_way.append(task)
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)


async def _asynchronously(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
