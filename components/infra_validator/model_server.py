"""Model servers that load a candidate: a fresh process on this machine, or a staging server given by its address."""

from __future__ import annotations

import os
import shutil
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
import tensorflow as tf
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc
from tfx.utils import io_utils

from components.errors import PipelineError
from serving.client import Client, DeadlineExceeded, ServingClientError, Unavailable

_TF_SERVING = "tensorflow_model_server"
_LOG_LINES = 5
_RELOAD_SECONDS = 60.0


class LoadFailed(Exception):
    """The server ended, or says that it cannot load the model; the message has its words."""


class NotInTime(Exception):
    """The model did not become AVAILABLE in time; the message has the last that was seen of it."""


class ModelServer(ABC):
    """A server that loads the candidate that it is offered."""

    def __init__(self, address: str, model_name: str, base_path: str) -> None:
        self.client = Client(address, model_name)
        self._base_path = base_path

    def offer(self, model_dir: str) -> None:
        """Has the server load a copy of the SavedModel, as version 1. Raises PipelineError where it refuses to."""
        incoming = os.path.join(self._base_path, "incoming")
        io_utils.copy_dir(model_dir, incoming)
        tf.io.gfile.rename(incoming, os.path.join(self._base_path, "1"))

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

    def __init__(self, engine: str, model_name: str, folder: Path) -> None:
        """Starts it, with its files in `folder`; it looks for versions of the model from now on."""
        base_path, socket = folder / "model", folder / "grpc.sock"
        base_path.mkdir()
        super().__init__(f"unix:{socket}", model_name, str(base_path))
        self._log = folder / "log"
        command = [*_server_command(engine), f"--grpc_socket_path={socket}", "--port=0", "--rest_api_port=0"]
        command += [f"--model_name={model_name}", f"--model_base_path={base_path}", "--max_num_load_retries=0"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def kill(self) -> None:
        """Ends it at once: no request is left, and TF Serving ignores SIGTERM."""
        self._process.kill()
        self._process.wait()

    def end(self) -> str:
        if self._process.poll() is None:
            return ""
        tail = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return f"the model server ended with status {self._process.returncode}: " + " | ".join(tail)

    def resident_bytes(self) -> int | None:
        process = psutil.Process(self._process.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


class StagingServer(ModelServer):
    """A server elsewhere that is told by HandleReloadConfigRequest to serve the candidate, and nothing else."""

    def __init__(self, address: str, model_name: str, base_path: str) -> None:
        """The server must be able to read `base_path`."""
        super().__init__(address, model_name, base_path)
        self._address, self._model_name = address, model_name

    def offer(self, model_dir: str) -> None:
        super().offer(model_dir)
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.config.add(
            name=self._model_name, base_path=self._base_path, model_platform="tensorflow"
        )
        try:
            with grpc.insecure_channel(self._address) as channel:
                stub = model_service_pb2_grpc.ModelServiceStub(channel)
                answer = stub.HandleReloadConfigRequest(request, timeout=_RELOAD_SECONDS)
            words = answer.status.error_message if answer.status.error_code else ""
        except grpc.RpcError as error:
            words = f"{error.code().name}: {error.details()}"
        if words:
            raise PipelineError(
                f"the staging model server at {self._address} did not take the candidate: {words}. "
                "Correct infra.endpoint in the recipe, or start the server there."
            )

    def end(self) -> str:
        return ""

    def resident_bytes(self) -> int | None:
        return None


@contextmanager
def local_server(engine: str, model_name: str) -> Iterator[LocalServer]:
    """A server in a fresh process, which ends with the context.

    Args:
        engine: `python` (ours), `tensorflow_model_server`, or `auto`: the latter where it is on the PATH.
        model_name: the name to serve the model by.

    Raises:
        PipelineError: the engine asked for is not there.
    """
    # Short: the path of a Unix socket may have about 100 characters.
    with tempfile.TemporaryDirectory(prefix="infra-") as folder:
        server = LocalServer(engine, model_name, Path(folder))
        try:
            with server.client:
                yield server
        finally:
            server.kill()


@contextmanager
def staging_server(address: str, model_name: str, base_path: str) -> Iterator[StagingServer]:
    """The server at `address`; what it is offered lies under `base_path` as long as the context lasts."""
    tf.io.gfile.makedirs(base_path)
    try:
        server = StagingServer(address, model_name, base_path)
        with server.client:
            yield server
    finally:
        tf.io.gfile.rmtree(base_path)


def _server_command(engine: str) -> list[str]:
    binary = shutil.which(_TF_SERVING)
    if engine == _TF_SERVING and not binary:
        raise PipelineError(
            f"infra.engine asks for {_TF_SERVING}, which is not on the PATH: install it, or use 'auto'."
        )
    return [binary] if binary and engine != "python" else [sys.executable, "-m", "serving.server"]
