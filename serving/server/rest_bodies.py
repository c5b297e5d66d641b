"""The bodies of REST requests as they arrive: their size, their pace, and what all of them take together."""

from __future__ import annotations

import asyncio
import time

import grpc
from aiohttp import web

from mnist_tfx.serving.server import limits
from mnist_tfx.serving.server.errors import ServingError, TooLargeError


class Bodies:
    """The bodies that are arriving, the oldest first, and what all in hand take."""

    def __init__(self) -> None:
        self.arriving: dict[Body, None] = {}
        self.held_bytes = 0

    def make_room(self, newcomer: Body) -> None:
        """Gives up the slowest sender for another one. Raises ServingError where none is slow."""
        longest_ago = time.monotonic() - limits.SLOW_SECONDS
        for body in self.arriving:
            if body is not newcomer and body.began < longest_ago and body.give_up():
                return
        raise ServingError(grpc.StatusCode.UNAVAILABLE, "too many large requests in hand, try again later")


class Body:
    """One body. What has arrived of it is charged, if that is large, until it is left as a context."""

    def __init__(self, bodies: Bodies) -> None:
        self.data = bytearray()
        self.encoding = ""
        self.began = time.monotonic()
        self._bodies = bodies
        self._charged = 0
        self._patience: asyncio.Timeout | None = None
        self._given_up = False

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._charge(0)

    async def read(self, request: web.Request) -> None:
        """Reads it whole. Raises ServingError."""
        self.encoding = request.headers.get("Content-Encoding", "").strip().lower()
        self._check_size(request.content_length or 0)
        bodies, loop = self._bodies, asyncio.get_running_loop()
        if len(bodies.arriving) >= limits.MAX_REQUESTS:
            bodies.make_room(self)
        bodies.arriving[self] = None
        try:
            async with asyncio.timeout(limits.BODY_STALL_SECONDS) as self._patience:
                async for piece in request.content.iter_any():
                    if self._given_up:  # in the very moment in which this piece came
                        raise TimeoutError
                    self._patience.reschedule(loop.time() + limits.BODY_STALL_SECONDS)
                    self.data += piece
                    self._check_size(len(self.data))
                    if len(self.data) >= limits.LARGE_BODY_BYTES:
                        self._charge(len(self.data))
                    if bodies.held_bytes > limits.MAX_BODIES_BYTES:
                        bodies.make_room(self)
        except TimeoutError:
            if self._given_up:
                raise ServingError(grpc.StatusCode.UNAVAILABLE, "given up for others: the body came slowly") from None
            words = f"no more of the body came in {limits.BODY_STALL_SECONDS:g} s"
            raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, words) from None
        finally:
            bodies.arriving.pop(self, None)

    def give_up(self) -> bool:
        """Ends the reading; whether that had not been done before."""
        if self._given_up or self._patience is None or self._patience.expired():
            return False
        self._given_up = True
        self._patience.reschedule(asyncio.get_running_loop().time())
        self._charge(0)
        return True

    def _charge(self, size: int) -> None:
        self._bodies.held_bytes += size - self._charged
        self._charged = size

    def _check_size(self, size: int) -> None:
        if size > limits.MAX_BODY_BYTES:
            raise TooLargeError(f"the body is larger than {limits.MAX_BODY_BYTES // 2**20} MiB")
