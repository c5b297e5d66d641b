"""Model servers that load a candidate: a fresh process on this machine, or a staging server given by its address."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from components.errors import PipelineError
from serving.client import Client, DeadlineExceeded, ServingClientError, Unavailable

_TF_SERVING = "tensorflow_model_server"
_STOP_SECONDS = 10.0
_LOG_LINES = 5


class LoadFailed(Exception):
    """The server ended, or says that it cannot load the model; the message has its words."""


class NotInTime(Exception):
    """The model did not become AVAILABLE in time; the message has the last that was seen of it."""


class ModelServer(ABC):
    """A server that was told to load the candidate."""

    def __init__(self, address: str, model_name: str) -> None:
        self.client = Client(address, model_name)

    def wait_ready(self, seconds: float) -> float:
        """Waits until the model answers; returns how long that took.

        Raises:
            NotInTime: it does not within `seconds`.
            LoadFailed: it never will.
        """
        started = time.monotonic()
        while True:
            left = started + seconds - time.monotonic()
            try:
                self.client.wait_ready(min(1.0, max(left, 0.01)))
                return time.monotonic() - started
            except (DeadlineExceeded, Unavailable) as error:
                if why := self.end() or self._load_error():
                    raise LoadFailed(why) from error
                if left <= 0:
                    raise NotInTime(str(error)) from error
            except ServingClientError as error:
                raise LoadFailed(str(error)) from error

    def _load_error(self) -> str:
        """What the server says of a version that it gave up; empty if it has given up none."""
        try:
            statuses = self.client.status(timeout=1.0)
        except ServingClientError:
            return ""
        return "; ".join(str(status) for status in statuses if status.state == "END" and status.error_code != "OK")

    @abstractmethod
    def end(self) -> str:
        """Why the server is no longer there; empty while it is."""

    @abstractmethod
    def resident_bytes(self) -> int | None:
        """The memory of the server's process; None where it is not on this machine."""


class LocalServer(ModelServer):
    """A process of its own on this machine, reached through a Unix socket: no port is taken."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path, model_name: str, log: Path) -> None:
        super().__init__(f"unix:{socket}", model_name)
        self._process, self._log = process, log

    def end(self) -> str:
        if self._process.poll() is None:
            return ""
        tail = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return f"the model server ended with status {self._process.returncode}: " + " | ".join(tail)

    def resident_bytes(self) -> int | None:
        process = psutil.Process(self._process.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


class StagingServer(ModelServer):
    """A server elsewhere that was told by HandleReloadConfigRequest to serve the candidate, and nothing else."""

    def end(self) -> str:
        return ""

    def resident_bytes(self) -> int | None:
        return None


@contextmanager
def local_server(engine: str, base_path: Path, model_name: str) -> Iterator[LocalServer]:
    """Starts a server of the model whose versions lie in `base_path`; it is stopped at the end.

    Args:
        engine: `python` (ours), `tensorflow_model_server`, or `auto`: the latter where it is on the PATH.
        base_path: holds a folder per version.
        model_name: the name to serve it by.

    Raises:
        PipelineError: the engine asked for is not there.
    """
    # Short: the path of a Unix socket may have about 100 characters.
    with tempfile.TemporaryDirectory(prefix="infra-") as folder:
        socket, log = Path(folder) / "grpc.sock", Path(folder) / "log"
        command = [*_server_command(engine), f"--grpc_socket_path={socket}", "--port=0", "--rest_api_port=0"]
        command += [f"--model_name={model_name}", f"--model_base_path={base_path}", "--max_num_load_retries=0"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            server = LocalServer(process, socket, model_name, log)
            with server.client:
                yield server
        finally:
            _stop(process)


@contextmanager
def staging_server(address: str, base_path: str, model_name: str) -> Iterator[StagingServer]:
    """Has the server at `address` load the model; it must be able to read `base_path`.

    Raises:
        PipelineError: it cannot be reached, or refuses.
    """
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name=model_name, base_path=base_path, model_platform="tensorflow")
    try:
        with grpc.insecure_channel(address) as channel:
            answer = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=60)
        words = answer.status.error_message if answer.status.error_code else ""
    except grpc.RpcError as error:
        words = f"{error.code().name}: {error.details()}"
    if words:
        raise PipelineError(
            f"the staging model server at {address} did not take the candidate: {words}. "
            "Correct infra.endpoint in the recipe, or start the server there."
        )
    server = StagingServer(address, model_name)
    with server.client:
        yield server


def _server_command(engine: str) -> list[str]:
    binary = shutil.which(_TF_SERVING)
    if engine == _TF_SERVING and not binary:
        raise PipelineError(
            f"infra.engine asks for {_TF_SERVING}, which is not on the PATH: install it, or use 'auto'."
        )
    return [binary] if binary and engine != "python" else [sys.executable, "-m", "serving.server"]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """TF Serving ignores SIGTERM; nothing of value is lost by a kill."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
