"""A model server in a process of its own on this machine, which never outlives this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self

import psutil

from mnist_tfx.components.infra_validator.model_server import ModelServer, ServerFailed
from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.contract.errors import PipelineError

_TF_SERVING = "tensorflow_model_server"
_LOG_LINES = 5
# Bytes of the folder for temporary files: the path of a Unix socket in it may have about 100 (unix(7)).
_LONGEST_FOLDER = 75
# A process of this program becomes the server. It has the kernel (prctl's PR_SET_PDEATHSIG, 1) kill it when the thread
# that started it is gone, also by SIGKILL; that survives exec, so any server will do. It is a program of its own since
# no Python may run between fork and exec of a process with threads. A parent that has gone before is not told of.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class LocalServer(ModelServer):
    """A process of its own on this machine, reached through a Unix socket: no port is taken."""

    def __init__(self, settings: InfraSettings, model_name: str) -> None:
        """Starts it; it looks for versions of the model from now on.

        Raises:
            PipelineError: the engine asked for is not there.
        """
        engine = _server_command(settings.engine)
        too_long = len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER
        self._folder = tempfile.TemporaryDirectory(prefix="infra-", dir="/tmp" if too_long else None)
        folder = Path(self._folder.name)
        base_path, socket = folder / "model", folder / "grpc.sock"
        base_path.mkdir()
        super().__init__(settings, f"unix:{socket}", model_name, str(base_path))
        self._log = folder / "log"
        command = [*engine, f"--grpc_socket_path={socket}", "--port=0", "--rest_api_port=0"]
        command += [f"--model_name={model_name}", f"--model_base_path={base_path}", "--max_num_load_retries=0"]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def close(self) -> None:
        """Ends it at once, for no request is left and TF Serving ignores SIGTERM; its files go, too."""
        self.client.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def ended(self) -> bool:
        """Whether its process is no longer there."""
        return self._process.poll() is not None

    def resident_bytes(self) -> int | None:
        try:
            process = psutil.Process(self._process.pid)
            resident = sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
        except psutil.Error as error:
            raise ServerFailed(str(error)) from error
        if why := self._end():  # of one that ended but now, the system tells 0
            raise ServerFailed(why)
        return resident

    def _announce(self, seconds: float) -> None:
        """It polls the folder, if it is there at all: one that ended before says nothing of the model."""
        if why := self._end():
            raise PipelineError(f"{why}. That was before it had a model: mend it, or choose another infra.engine.")

    def _end(self) -> str:
        if not self.ended():
            return ""
        tail = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return f"the model server ended with status {self._process.returncode}: " + " | ".join(tail)


class EarlyStart:
    """Starts the server that InfraValidator is going to ask for in this process, while other components run.

    A server takes seconds to start and needs one core, the Evaluator another. Leaving the context ends a server that
    nobody has asked for.
    """

    def __init__(self, settings: InfraSettings, model_name: str) -> None:
        """Starts nothing yet; the arguments are those of `local_server`."""
        self._wanted = (settings, model_name)

    def start(self) -> None:
        """Starts it, if a local one is wanted. What goes wrong is for InfraValidator to meet, and to tell."""
        settings, model_name = self._wanted
        if not settings.endpoint:
            with suppress(PipelineError, OSError):
                _started[self._wanted] = LocalServer(settings, model_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if server := _started.pop(self._wanted, None):
            server.close()


_started: dict[tuple[InfraSettings, str], LocalServer] = {}  # by EarlyStart, and not yet asked for


@contextmanager
def local_server(settings: InfraSettings, model_name: str) -> Iterator[LocalServer]:
    """A server in a process of its own, which ends with the context, or with the thread that started it.

    Args:
        settings: `engine` is `python` (ours), `tensorflow_model_server`, or `auto`: the latter where it is on the PATH.
        model_name: the name to serve the model by.

    Raises:
        PipelineError: the engine asked for is not there.
    """
    server = _started.pop((settings, model_name), None)
    if server and server.ended():
        server.close()
        server = None
    with closing(server or LocalServer(settings, model_name)) as running:
        yield running


def foreign_server(settings: InfraSettings) -> str:
    """Which program that is not ours `local_server` would start on this machine: path, size and time; empty for none.

    It belongs to the cache key: with another server the answer may be another.
    """
    binary = None if settings.endpoint or settings.engine == "python" else shutil.which(_TF_SERVING)
    if not binary:
        return ""
    path = os.path.realpath(binary)
    file = os.stat(path)
    return f"{path} {file.st_size} {file.st_mtime_ns}"


def _server_command(engine: str) -> list[str]:
    binary = shutil.which(_TF_SERVING)
    if engine == _TF_SERVING and not binary:
        raise PipelineError(
            f"infra.engine asks for {_TF_SERVING}, which is not on the PATH: install it, or use 'auto'."
        )
    return [binary] if binary and engine != "python" else [sys.executable, "-m", "mnist_tfx.serving.server"]
