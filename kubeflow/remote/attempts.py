"""Repeats what may be repeated: an answer that was lost must neither stop a run nor begin it twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.remote.platform import Unreachable

PAUSES_SECONDS = (0.5, 2.0)  # before the second and the third attempt

T = TypeVar("T")


class Taken(PipelineError):
    """The platform says that what was to be made is there already."""


def read(call: Callable[[], T]) -> T:
    """Calls what changes nothing, or what is the same when done twice; up to three times.

    Raises:
        Unreachable: there was no answer.
    """
    for pause in PAUSES_SECONDS:
        try:
            return call()
        except Unreachable:
            time.sleep(pause)
    return call()


def make_once(make: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Makes something, up to three times, but after each failure looks first whether it was made after all.

    Args:
        make: raises Unreachable where it is not known whether it was made, Taken where it exists.
        find: the thing, if it is there.

    Raises:
        Unreachable: there was no answer, and it is not there.
    """
    failure: Unreachable | Taken
    for pause in (*PAUSES_SECONDS, None):
        try:
            return make()
        except (Unreachable, Taken) as error:
            failure = error
        if pause is not None and isinstance(failure, Unreachable):
            time.sleep(pause)
        if (found := read(find)) is not None:
            return found
    if isinstance(failure, Taken):
        raise Unreachable(f"{failure}, and it cannot be found.\n  remedy: run the command again.") from failure
    raise failure
