"""Large JSON, read and written in a process of its own.

Python's parser holds the interpreter's lock from a document's first byte to its last: 32 MiB of it, which 32 KiB of
gzip can hold, would stop every other caller for seconds and leave a gigabyte of memory behind. The process has a limit
of memory of its own, is ended at the caller's deadline, and ends with the server, however that does.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import resource
import signal
import subprocess
import sys
import time
import types
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc

from mnist_tfx.serving.server.errors import ServingError, TooLargeError, as_serving_error, deadline_exceeded
from mnist_tfx.serving.server.limits import READER_BYTES

_GROWN_BYTES = READER_BYTES // 4  # what it leaves in memory, it takes along


class Reader:
    """Calls functions of `rest_json` in the process. One thread at a time may use it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_ready = False

    def call(self, deadline: float, function: str, *arguments: Any) -> Any:
        """What the function returns. `deadline`: `time.monotonic()` seconds.

        Raises:
            ServingError: the function's own; RESOURCE_EXHAUSTED where the memory does not suffice, UNAVAILABLE where
                the process cannot be had just now, DEADLINE_EXCEEDED.
        """
        try:
            connection = self._connection or self._start()
            if not self._is_ready:
                if not connection.poll(max(0.0, deadline - time.monotonic())):
                    raise deadline_exceeded()  # it starts on, for the next call
                self._is_ready = connection.recv()
            connection.send((function, arguments))
        except (EOFError, OSError) as error:  # too many files or processes are open, or somebody ended it
            self.close()
            words = f"large requests cannot be read now ({str(error) or 'the process ended'}), try again later"
            raise ServingError(grpc.StatusCode.UNAVAILABLE, words) from error
        try:
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                self.close()
                raise deadline_exceeded()
            answer, last = connection.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise TooLargeError("reading the request took more memory than it may") from error
        if last:
            self.close()
        if isinstance(answer, ServingError):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None and self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None
        self._is_ready = False

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
            )
        self._connection = ours
        return ours


def main() -> None:
    """Answers calls until the other end is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to both; the server ends this one
    resource.setrlimit(resource.RLIMIT_AS, (READER_BYTES, READER_BYTES))
    gc.disable()  # it would walk over millions of lists again and again; none of them forms a cycle
    _leave_out_tensorflow()
    from mnist_tfx.serving.server import rest_json

    connection = Connection(int(sys.argv[1]))
    connection.send(True)  # ready
    last = False
    while not last:
        try:
            function, arguments = connection.recv()
            answer = getattr(rest_json, function)(*arguments)
        except EOFError:
            return
        except Exception as error:
            answer = as_serving_error(error).with_traceback(None)
        last = _resident_bytes() > _GROWN_BYTES
        connection.send((answer, last))
        del answer


def _resident_bytes() -> int:
    """0 where /proc does not tell; what getrusage tells counts the process that this one was forked from."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def _leave_out_tensorflow() -> None:
    """Its modules of messages, which is all that is needed, are found without importing the rest of it."""
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None and spec.submodule_search_locations is not None
    package = types.ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["tensorflow"] = package


if __name__ == "__main__":
    main()
