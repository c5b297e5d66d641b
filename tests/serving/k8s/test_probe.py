"""The probe script, run by bash against an HTTP server that answers as TF Serving does."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from google.protobuf import json_format
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse, ModelVersionStatus

from tests.fixtures.manifests import K8S

SCRIPT = K8S / "base" / "config" / "models_available.sh"
CONFIG = K8S / "base" / "config" / "models.config"
State = ModelVersionStatus
UNKNOWN = (404, '{"error": "Could not find any versions of model x"}')


def status(*states: int, error: str = "") -> tuple[int, str]:
    """TF Serving's answer for a model whose versions 1, 2, ... are in these states."""
    response = GetModelStatusResponse()
    for version, state in enumerate(states, start=1):
        response.model_version_status.add(version=version, state=state).status.error_message = error
    body = json_format.MessageToJson(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return 200, body


@contextmanager
def server(answers: dict[str, tuple[int, str]]) -> Iterator[int]:
    """Serves `answers` by model name; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = answers.get(self.path.removeprefix("/v1/models/"), UNKNOWN)
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield http.server_address[1]
        finally:
            http.shutdown()
            thread.join()


def probe(port: int, config: Path = CONFIG) -> subprocess.CompletedProcess[str]:
    """Runs the script as the kubelet does, in an environment where bash finds no other program."""
    return subprocess.run(
        ["/bin/bash", SCRIPT, config, str(port)], env={"PATH": "/nowhere"}, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    ("fashion_mnist", "mnist", "ready"),
    [
        (status(State.AVAILABLE), status(State.AVAILABLE), True),
        (status(State.AVAILABLE, State.LOADING), status(State.END, State.AVAILABLE), True),
        (status(State.AVAILABLE), status(State.LOADING), False),
        (status(State.START), status(State.AVAILABLE), False),
        (status(State.AVAILABLE), status(State.UNLOADING), False),
        (status(State.END, error='bad "state": "AVAILABLE" model'), status(State.AVAILABLE), False),
        (status(), status(State.AVAILABLE), False),
        (status(State.AVAILABLE), UNKNOWN, False),
        (status(State.AVAILABLE), (503, status(State.AVAILABLE)[1]), False),
    ],
)
def test_ready_if_every_model_has_an_available_version(
    fashion_mnist: tuple[int, str], mnist: tuple[int, str], ready: bool
) -> None:
    with server({"fashion_mnist": fashion_mnist, "mnist": mnist}) as port:
        run = probe(port)
    assert (run.returncode == 0) is ready, run.stdout
    assert run.stderr == ""
    assert bool(run.stdout) is not ready, "kubectl describe shows what the probe printed"


def test_says_which_model_and_why() -> None:
    with server({"fashion_mnist": status(State.AVAILABLE), "mnist": status(State.LOADING)}) as port:
        run = probe(port)
    assert run.stdout.startswith("mnist: no version is AVAILABLE: ")
    assert '"LOADING"' in run.stdout


def test_not_ready_where_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        run = probe(unused.getsockname()[1])
    assert run.returncode == 1
    assert "fashion_mnist: no answer" in run.stdout


def test_not_ready_where_the_server_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        run = probe(mute.getsockname()[1])
    assert run.returncode == 1
    assert "fashion_mnist: no answer" in run.stdout


def test_reads_the_models_from_any_layout_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    config.write_text(
        "# name: 'comment'\n"
        "model_config_list{config{name:'one' base_path: '/models/one' # name: \"another\"\n"
        '}config:{base_path:"/models/b",name :"two"\nversion_labels{key:\'stable\' value:1}}}'
    )
    with server({"one": status(State.AVAILABLE), "two": status(State.AVAILABLE)}) as port:
        assert probe(port, config).returncode == 0
    with server({"one": status(State.AVAILABLE)}) as port:
        run = probe(port, config)
    assert run.stdout.startswith("two: no answer, or not 200")


@pytest.mark.parametrize("text", ["", "model_config_list {}\n# name: 'comment'\n"])
def test_not_ready_without_a_model(tmp_path: Path, text: str) -> None:
    config = tmp_path / "models.config"
    config.write_text(text)
    run = probe(1, config)
    assert (run.returncode, run.stdout) == (1, f"no model is named in {config}\n")


def test_not_ready_without_the_file(tmp_path: Path) -> None:
    run = probe(1, tmp_path / "models.config")
    assert run.returncode == 1 and "models.config: No such file" in run.stderr
