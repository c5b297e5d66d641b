"""The one error that reaches a client."""

from __future__ import annotations

import logging
import time
from concurrent.futures import CancelledError

import grpc

logger = logging.getLogger(__name__)

MAX_MESSAGE = 1024
"""TF Serving cuts its messages here, so that they fit into an HTTP/2 header."""


class ServingError(Exception):
    """A request that cannot be answered: the status code and the words that go to the client."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message[:MAX_MESSAGE]

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class TooLargeError(ServingError):
    """RESOURCE_EXHAUSTED because of the request's own size: it is of no use to try again."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        self.args = (message,)


def invalid(message: str) -> ServingError:
    """INVALID_ARGUMENT with a message."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def deadline_exceeded() -> ServingError:
    """DEADLINE_EXCEEDED."""
    return ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def check_deadline(deadline: float | None) -> None:
    """Raises ServingError where a deadline (`time.monotonic()` seconds) has passed: nobody waits for the answer."""
    if deadline is not None and deadline <= time.monotonic():
        raise deadline_exceeded()


def as_serving_error(error: BaseException) -> ServingError:
    """What a client hears of any error; one that nobody foresaw is logged."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, CancelledError):
        return ServingError(grpc.StatusCode.UNAVAILABLE, "the server stopped before this request was computed")
    if isinstance(error, MemoryError):
        return ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "not enough memory for this request")
    logger.error("a request failed in an unforeseen way", exc_info=error)
    return ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
