"""Repeats what may be repeated: an answer that was lost must neither stop a run nor begin it twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mnist_tfx.kubeflow.remote.platform import Unreachable

PAUSES_SECONDS = (0.5, 2.0)  # before the second and the third attempt

T = TypeVar("T")


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
        make: raises Unreachable where it is not known whether it was made, or somebody else was faster.
        find: the thing, if it is there.

    Raises:
        Unreachable: there was no answer, and it is not there.
    """
    for pause in PAUSES_SECONDS:
        try:
            return make()
        except Unreachable:
            time.sleep(pause)  # before looking: it may just be in the making
            if (found := read(find)) is not None:
                return found
    try:
        return make()
    except Unreachable:
        if (found := read(find)) is not None:
            return found
        raise


def delete_once(delete: Callable[[], object], exists: Callable[[], bool]) -> None:
    """Deletes something, up to three times, but after each failure looks first whether it is gone."""
    make_once(lambda: (delete(),), lambda: None if exists() else (None,))
