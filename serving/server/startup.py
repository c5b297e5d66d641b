"""How the server's process loads gRPC and TensorFlow; imports neither itself."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def load_libraries() -> None:
    """Imports the server, and with it gRPC and TensorFlow, fast and quietly. To be called before anything does so.

    TensorFlow writes a dozen lines to file descriptor 2 when it is imported, before its own level of logging counts,
    and an error where there is no GPU driver. They are dropped; errors of the import are raised as ever, and what
    TensorFlow warns of later is seen. TF_CPP_MIN_LOG_LEVEL=0 in the environment shows everything.
    """
    _read_in_polling_thread()
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1") == "0":
        _import_server()
    else:
        with _stderr_dropped():
            _import_server()
            if not _NVIDIA_DRIVER.exists():  # where there is one, a GPU that cannot be used must be heard of
                import tensorflow as tf

                tf.config.list_physical_devices()  # else the first model would; TensorFlow complains only once


def _read_in_polling_thread() -> None:
    """Has the thread that polls for events read the sockets itself.

    By default gRPC reads in threads of its own, which hand what they read to the polling thread. Without these
    hand-overs a lone caller's request takes the server a sixth less CPU time, and one of 16 callers' a tenth less.
    gRPC knows the choice as the experiment `event_engine_listener`, takes it from the environment only, and looks
    there once, when it is imported. A GRPC_EXPERIMENTS that is set already stays; a release that knows the experiment
    no more says so in its log and goes on.
    """
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")


def _import_server() -> None:
    gc.disable()  # it would walk again and again through what stays: a fifth of the time of TensorFlow's import
    try:
        with _without_keras():
            importlib.import_module("mnist_tfx.serving.server.process")
        gc.freeze()
    finally:
        gc.enable()


@contextmanager
def _without_keras() -> Iterator[None]:
    """Keeps TensorFlow from importing Keras, and with it scikit-learn, pandas and matplotlib.

    That is two fifths of the import's time, and 180 MiB, for nothing that a SavedModel needs. TensorFlow goes on
    without where it is not installed (the end of tensorflow/__init__.py), which None says to the import statement.
    """
    hidden = [package for package in ("keras", "tf_keras") if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


@contextmanager
def _stderr_dropped() -> Iterator[None]:
    """Lets nothing through to file descriptor 2, where C++ writes."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
