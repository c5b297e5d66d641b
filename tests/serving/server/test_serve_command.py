"""`mnist-tfx serve`: a home's models, the choice of the engine, signals, and errors that say what to do."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from mnist_tfx.pipeline.cli import main
from mnist_tfx.pipeline.commands.serve import ServingFolder
from mnist_tfx.serving.server import main as server_main
from mnist_tfx.serving.server import process
from mnist_tfx.serving.server.flags import FLAGS, WITHOUT_EFFECT
from tests.fixtures.command import mnist_tfx
from tests.fixtures.ordinary_user import ORDINARY
from tests.fixtures.server_process import server_processes
from tests.serving.conftest import PATIENCE_SECONDS, predict_request, scale_request, taken_up_calls, wait_until

CHECKOUT = Path(__file__).resolve().parents[3]
MNIST_TFX = [sys.executable, "-c", "import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main())"]
SLOW = predict_request("slow", {"steps": np.array([400_000], np.int64)})  # about a second
TENSORFLOWS_LINES = re.compile(r"^[IWE]\d{4} |oneDNN|absl::InitializeLog|CPU instructions", re.MULTILINE)
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Command:
    """A running `mnist-tfx serve`; its stderr is read as it comes."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*ORDINARY, *MNIST_TFX, "serve", *map(str, arguments)], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.said or self.process.poll() is not None, words)
        assert words in self.said, self.said

    @property
    def ports(self) -> tuple[str, str]:
        """Of gRPC and REST, as it says them."""
        match = re.search(r"gRPC 127\.0\.0\.1:(\d+), REST http://127\.0\.0\.1:(\d+)", self.said)
        assert match, self.said
        return match[1], match[2]

    def end(self) -> int:
        """The exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join()
        return code


@contextmanager
def serving(*arguments: str | Path) -> Iterator[Command]:
    command = Command(*arguments, "--port=0", "--rest_api_port=-1")
    try:
        yield command
    finally:
        command.process.kill()
        command.end()


@pytest.fixture
def home(served_models: Path, tmp_path: Path) -> Path:
    """A home that holds scale (2 and 3) and slow."""
    (tmp_path / "serving" / "scale").mkdir(parents=True)
    for version in "23":
        (tmp_path / "serving" / "scale" / version).symlink_to(served_models / "scale" / version)
    (tmp_path / "serving" / "slow").symlink_to(served_models / "slow")
    return tmp_path


def test_a_home_is_served_followed_and_drained(home: Path, served_models: Path) -> None:
    """Start, a new model, models.config, SIGTERM: one process, for each start takes seconds."""
    (home / "serving" / "lost+found").mkdir(mode=0)  # on a fresh ext4 volume, for root alone
    with serving("--home", home) as command:
        command.wait_for("scale: version 3 is AVAILABLE at gRPC 127.0.0.1:")
        command.wait_for("slow: version 1 is AVAILABLE")
        grpc_port, rest_port = command.ports
        with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/monitoring/prometheus/metrics") as response:
            assert b":tensorflow:serving:" in response.read()
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}", [("grpc.enable_retries", 0)]) as channel:
            stub = PredictionServiceStub(channel)
            assert stub.Predict(scale_request()).model_spec.version.value == 3

            (home / "serving" / "counter").symlink_to(served_models / "counter")
            command.wait_for("counter: version 1 is AVAILABLE")

            incoming = home / "models.config"
            incoming.write_text(
                f'model_config_list {{ config {{ name: "scale" base_path: "{home}/serving/scale" '
                'model_platform: "tensorflow" model_version_policy { specific { versions: 2 versions: 3 } } '
                'version_labels { key: "stable" value: 2 } } '
                f'config {{ name: "slow" base_path: "{home}/serving/slow" model_platform: "tensorflow" }} }}'
            )
            incoming.rename(home / "serving" / "models.config")
            command.wait_for("scale: version 2 is AVAILABLE")
            wait_until(lambda: label_works(stub), "the label")

            (home / "serving" / "models.config").write_text("model_config_list {\n  config { nonsense: 1 } }")
            command.wait_for("error: the new list of models is not taken over")
            assert "2:" in command.said.rpartition("not taken over")[2]

            (home / "serving" / "models.config").unlink()  # as an editor does, for a moment
            command.wait_for("models.config is gone")
            assert label_works(stub)
            (home / "serving" / "models.config").write_text("")
            command.wait_for("It is only legal to transition from one ModelConfigList")
            assert label_works(stub)

            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
            in_hand = taken_up_calls(channel, [SLOW] * 3)
            command.process.send_signal(signal.SIGTERM)
            assert next(watched).status == NOT_SERVING
            command.wait_for("draining")
            assert all(call.code() is grpc.StatusCode.OK for call in in_hand)
        assert command.end() == 0
        assert "Traceback" not in command.said
        assert not TENSORFLOWS_LINES.search(command.said), command.said
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", int(grpc_port)), 5):
            pass


def label_works(stub: PredictionServiceStub) -> bool:
    try:
        return stub.Predict(scale_request(label="stable")).model_spec.version.value == 2
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        return False


def test_a_second_signal_stops_at_once(home: Path) -> None:
    with serving("--home", home) as command:
        command.wait_for("slow: version 1 is AVAILABLE")
        with grpc.insecure_channel(f"127.0.0.1:{command.ports[0]}") as channel:
            [call] = taken_up_calls(channel, [predict_request("slow", {"steps": np.array([100_000_000], np.int64)})])
            command.process.send_signal(signal.SIGINT)
            command.wait_for("a second signal stops at once")
            command.process.send_signal(signal.SIGTERM)
            assert command.end() == 128 + signal.SIGTERM
            assert call.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.fresh
@pytest.mark.parametrize("legacy_keras", ["0", "1"])  # TensorFlow Transform sets it, for all that a pipeline starts
def test_the_server_by_itself_is_as_quiet_and_loads_no_keras(
    served_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy_keras: str
) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", legacy_keras)
    log = tmp_path / "stderr"
    with server_processes("scale", served_models / "scale", log, 1) as [server]:
        assert "scale: version 3 is AVAILABLE" in log.read_text()
        assert not TENSORFLOWS_LINES.search(log.read_text()), log.read_text()
        mapped = {part for each in psutil.Process(server.process.pid).memory_maps() for part in Path(each.path).parts}
    assert mapped & {"tensorflow", "sklearn", "pandas", "matplotlib"} == {"tensorflow"}  # Keras imports the others


@pytest.mark.parametrize("to_main_thread", [True, False], ids=["main thread", "another thread"])
def test_ctrl_c(home: Path, to_main_thread: bool) -> None:
    """In this process: a real signal, whichever thread the system gives it to; the handlers that were are put back."""
    before = signal.getsignal(signal.SIGINT)

    def press_when_it_serves() -> None:
        wait_until(lambda: "version 3 is AVAILABLE" in getattr(sys.stderr, "getvalue", str)(), "the model")
        thread = threading.main_thread() if to_main_thread else threading.current_thread()
        signal.pthread_kill(thread.ident or 0, signal.SIGINT)

    presser = threading.Thread(target=press_when_it_serves)
    presser.start()
    answer = mnist_tfx("serve", "--home", home, "--port=0", "--rest_api_port=0", "--engine=python")
    presser.join()
    assert answer.code == 130
    assert "scale: version 3 is AVAILABLE at gRPC 127.0.0.1:" in answer.err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_folder_is_a_model_where_a_server_finds_a_version_in_it(tmp_path: Path) -> None:
    for folder in ("scale/1", "photos/\u0663", "huge/9223372036854775808", "notes/1.5"):
        (tmp_path / folder).mkdir(parents=True)
    assert [model.name for model in ServingFolder(tmp_path).models().model_config_list.config] == ["scale"]


def test_errors_say_what_to_do(home: Path, tmp_path: Path, served_models: Path) -> None:
    python = "--engine=python"
    empty = mnist_tfx("serve", "--home", tmp_path / "empty", python)
    assert empty.code == 1 and "no model has been pushed" in empty.err and "make run" in empty.err

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"--port={taken.getsockname()[1]}"
        answer = mnist_tfx("serve", "--home", home, port, "--rest_api_port=0", python)
    assert answer.code == 1 and "in use" in answer.err and "--port" in answer.err

    config = tmp_path / "broken.config"
    config.write_text("model_config_list {\n  config { nme: 'x' }\n}\n")
    answer = mnist_tfx("serve", "--model_config_file", config, python)
    assert answer.code == 2 and f"{config}" in answer.err and "2:" in answer.err

    with pytest.raises(SystemExit, match="2"):
        mnist_tfx("serve", "--enable_batching=perhaps")


FAKE = "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"


@pytest.fixture
def tf_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands on the PATH where TF Serving's binary would; prints what it is given."""
    binary = tmp_path / "bin" / "tensorflow_model_server"
    binary.parent.mkdir()
    binary.write_text(FAKE)
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}{os.environ['PATH']}")
    return binary


def flags_given(*arguments: str | Path) -> list[str]:
    done = subprocess.run(
        [*MNIST_TFX, "serve", *map(str, arguments)], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_tf_serving_takes_over_with_the_same_flags(tf_serving: Path, home: Path) -> None:
    flags = flags_given("--model_name=m", "--model_base_path=/models/m", "--port=9", "--enable_batching")
    expected = ["--port=9", "--rest_api_port=8501", "--model_name=m", "--model_base_path=/models/m"]
    assert flags == [*expected, "--enable_batching=true"]

    flags = flags_given("--home", home)
    [config] = [flag.partition("=")[2] for flag in flags if flag.startswith("--model_config_file=")]
    assert [*re.findall(r'base_path: "(.*)"', Path(config).read_text())] == [
        f"{home}/serving/scale",
        f"{home}/serving/slow",
    ]
    assert "--model_config_file_poll_wait_seconds=1" in flags


def test_our_server_looks_at_a_home_anew_as_often_as_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = []
    monkeypatch.setattr(
        server_main, "ModelServer", lambda options, **_: seconds.append(options.model_config_file_poll_wait_seconds)
    )
    monkeypatch.setattr(process, "run", lambda server: 0)
    for given in ([], ["--model_config_file_poll_wait_seconds=0"], ["--model_config_file_poll_wait_seconds=3"]):
        assert main(["serve", "--home", str(home), "--engine", "python", *given]) == 0
    assert seconds == [1, 0, 3]


def test_tf_serving_gets_all_of_its_flags(tf_serving: Path) -> None:
    values = {str: "x", int: "3", float: "2"}
    kinds = {name: entry[0] for name, entry in (FLAGS | WITHOUT_EFFECT).items() if name != "version"}
    given = [f"--{name}={values.get(kind, 'true')}" for name, kind in kinds.items()]
    assert sorted(flags_given(*given)) == sorted(given)
    assert len(given) == 47  # and --version: as many as tensorflow_serving/model_servers/main.cc of 2.20 has
    assert flags_given("--version") == ["--version=true"]


def test_the_engine_can_be_chosen(tf_serving: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = mnist_tfx("serve", "--home", home, "--engine=tensorflow_model_server", "--host=127.0.0.1")
    assert answer.code == 2 and "--host" in answer.err
    answer = mnist_tfx("serve", "--home", home, "--engine=tensorflow_model_server", "--enable_reload_config=false")
    assert answer.code == 2 and "--enable_reload_config" in answer.err
    tf_serving.unlink()
    answer = mnist_tfx("serve", "--home", home, "--engine=tensorflow_model_server")
    assert answer.code == 2 and "not on the PATH" in answer.err
