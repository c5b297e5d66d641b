"""Loads TensorFlow and TFX in less time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps Python's cyclic garbage collector out of a block of imports.

    TFX and what it pulls in make millions of objects that stay; the collector walks through them again and again, which
    costs about a quarter of the start-up (`benchmarks/startup.py`).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was imported stays: later collections need not look at it
        gc.enable()
