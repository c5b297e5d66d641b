"""Answers that come later: a method takes a `Reply` and calls it once, from whatever thread has the answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mnist_tfx.serving.server.errors import ServingError, as_serving_error

Reply = Callable[[Any, ServingError | None], None]
"""Takes the answer, or the error."""


def future(call: Callable[[Reply], None]) -> Future[Any]:
    """Where the answer of a call will be. Cancelled, it drops the answer."""
    found: Future[Any] = Future()

    def reply(answer: Any, error: ServingError | None) -> None:
        if not found.set_running_or_notify_cancel():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(answer)

    call(reply)
    return found


def waiting(call: Callable[[Any, float | None], Any]) -> Callable[[Any, float | None, Reply], None]:
    """A method that returns its answer, as one that replies."""

    def answer(request: Any, deadline: float | None, reply: Reply) -> None:
        try:
            found = call(request, deadline)
        except Exception as error:
            reply(None, as_serving_error(error))
        else:
            reply(found, None)

    return answer
