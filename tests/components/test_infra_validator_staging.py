"""The infra validator at a staging server: what else is served there stays, and nothing of the candidate does."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from mnist_tfx.components.infra_validator import executor, model_server
from mnist_tfx.components.infra_validator import staging_server as module
from mnist_tfx.components.infra_validator.model_server import ModelServer as Validated
from mnist_tfx.components.infra_validator.report import failed_checks, read_report
from mnist_tfx.components.infra_validator.requests import Request
from mnist_tfx.components.infra_validator.staging_server import staging_server
from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.components.trainer.export import read_weights
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.serving.client import Client, Tls
from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.main import ModelServer
from tests.fixtures.certificates import CertificateAuthority
from tests.fixtures.infra_validation import blessed, save_python_inside, validate
from tests.fixtures.server_process import server_processes
from tests.fixtures.tiny_run import TinyRun
from tests.serving.conftest import wait_until

_load_saved_model = tf.saved_model.load
AVAILABLE, END = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END


@dataclass(frozen=True)
class Staging:
    """A server that speaks mutual TLS and serves kmnist and another model, as its list says."""

    server: ModelServer
    settings: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """What it serves."""
        return self.server.manager.names()

    def state(self, name: str) -> int:
        """The state of the model's only version."""
        [status] = self.server.manager.statuses(name)
        return int(status.state)


@pytest.fixture(scope="module")
def staging(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staging]:
    folder = tmp_path_factory.mktemp("staging")
    authority = CertificateAuthority()
    server, client = authority.issue("server"), authority.issue("client")
    pems = {"server_key": server.key, "server_cert": server.certificate, "custom_ca": authority.certificate}
    lines = [f"{field}: {json.dumps(pem.decode())}" for field, pem in pems.items()]
    (folder / "ssl.config").write_text("\n".join([*lines, "client_verify: true"]))
    files = {"ca": authority.certificate, "cert": client.certificate, "key": client.key}
    for name, pem in files.items():
        (folder / name).write_bytes(pem)
    config = _write_config(folder / "models.config", kmnist=tiny_run, other=tiny_run)
    running = ModelServer(
        ServerOptions(port=0, model_config_file=str(config), ssl_config_file=str(folder / "ssl.config"))
    )
    running.start()
    address = f"localhost:{running.grpc_port}"
    with Client(address, "other", tls=Tls(**{name: folder / name for name in files})) as one:
        one.wait_ready(60)
    settings = {f"endpoint_{name}": str(folder / name) for name in files}
    yield Staging(running, {"endpoint": address, "endpoint_config": str(config), **settings})
    running.stop(0)


def _write_config(path: Path, **models: TinyRun) -> Path:
    entries = [
        f'config {{ name: "{name}" base_path: "{run.home.serving("kmnist")}" model_platform: "tensorflow" }}'
        for name, run in models.items()
    ]
    path.write_text("model_config_list {\n" + "\n".join(entries) + "\n}\n")
    return path


def _seen_from(monkeypatch: pytest.MonkeyPatch, staging: Staging) -> list[list[str]]:
    """What the server serves while latency is measured."""
    seen, measure = [], executor._latencies

    def look_and_measure(server: Validated, request: Request) -> list[float]:
        seen.append([name for name in staging.names if staging.state(name) == AVAILABLE])
        return measure(server, request)

    monkeypatch.setattr(executor, "_latencies", look_and_measure)
    return seen


def test_the_candidate_is_served_beside_what_else_is_there_and_is_gone_afterwards(
    staging: Staging, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _seen_from(monkeypatch, staging)
    before = [staging.server.manager.acquire(name) for name in ("kmnist", "other")]
    with before[0] as kmnist, before[1] as other:
        blessing = validate(tmp_path, tiny_run, tiny_run.model, **staging.settings)
        assert blessed(blessing), failed_checks(blessing.uri)
        for name, servable in (("kmnist", kmnist), ("other", other)):  # they were not even loaded anew
            with staging.server.manager.acquire(name) as now:
                assert now is servable
    [[kmnist_name, other_name, candidate]] = seen
    assert (kmnist_name, other_name) == ("kmnist", "other") and candidate.startswith("kmnist-candidate-")
    assert staging.names == ["kmnist", "other"]
    wait_until(lambda: staging.state(candidate) == END, "the candidate to be unloaded")
    assert "memory of the model server" not in [check["name"] for check in read_report(blessing.uri)["checks"]]
    assert not any((tmp_path / "tmp").rglob("saved_model.pb"))


def _as_on_a_gpu(model_dir: str) -> Any:
    """The model with weights of TF32's precision: 10 bits after the point, as a GPU's tensor cores take them."""
    model = _load_saved_model(model_dir)
    for weights in read_weights(model):
        bits = np.asarray(weights.numpy(), np.float32).view(np.uint32)
        weights.assign(((bits + 0x1000) & 0xFFFFE000).view(np.float32))
    return model


def test_a_server_elsewhere_may_round_as_a_gpu_does_and_one_on_this_machine_may_not(
    staging: Staging, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor.tf.saved_model, "load", _as_on_a_gpu)  # the servers load in another way
    assert blessed(validate(tmp_path / "elsewhere", tiny_run, tiny_run.model, **staging.settings))
    blessing = validate(tmp_path / "here", tiny_run, tiny_run.model)
    assert not blessed(blessing)
    assert all("largest difference" in failure for failure in failed_checks(blessing.uri))


def _with_larger_weights(model_dir: str) -> Any:
    """Another model than the one that is served."""
    model = _load_saved_model(model_dir)
    for weights in read_weights(model):
        weights.assign(weights * 1.5)
    return model


def test_a_server_elsewhere_that_answers_as_another_model_would_is_a_failed_check(
    staging: Staging, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor.tf.saved_model, "load", _with_larger_weights)
    blessing = validate(tmp_path, tiny_run, tiny_run.model, **staging.settings)
    failures = failed_checks(blessing.uri)
    assert not blessed(blessing) and len(failures) == 3  # one of each signature
    assert all("largest difference" in failure and "allowed at most 0.01" in failure for failure in failures)


@dataclass(frozen=True)
class Elsewhere:
    """A server in a process of its own, which serves one model."""

    process: subprocess.Popen[str]
    settings: dict[str, str]


@pytest.fixture(scope="module")
def elsewhere(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")
    config = _write_config(folder / "models.config", other=tiny_run)
    with server_processes("other", tiny_run.home.serving("kmnist"), folder / "log", 1) as [server]:
        yield Elsewhere(server.process, {"endpoint": server.address, "endpoint_config": str(config)})


def test_a_candidate_that_staging_cannot_load_is_a_failed_check_and_is_gone_afterwards(
    elsewhere: Elsewhere, tiny_run: TinyRun, tmp_path: Path
) -> None:
    blessing = validate(tmp_path, tiny_run, save_python_inside(tmp_path / "model"), **elsewhere.settings)
    [failure] = failed_checks(blessing.uri)
    [candidate] = set(re.findall(r"kmnist-candidate-\w+", failure))
    assert failure.startswith("loading the model: errors: 1") and "did not become available" in failure
    with Client(elsewhere.settings["endpoint"], candidate) as client:
        assert [status.state for status in client.status()] == ["END"]  # and is not tried again
    with Client(elsewhere.settings["endpoint"], "other") as client:
        assert client.wait_ready(5)


def test_a_server_that_cannot_read_the_pipelines_root_says_nothing_of_the_model(
    elsewhere: Elsewhere, tiny_run: TinyRun
) -> None:
    root = "ram://only/this/process"
    settings = InfraSettings(**elsewhere.settings)
    with (
        pytest.raises(PipelineError, match=f"finds no model in {root}.*must be able to read the pipeline's root"),
        staging_server(settings, "kmnist", root) as server,
    ):
        server.load(str(tiny_run.model), 30.0)


def test_a_server_that_hangs_while_it_loads_is_not_in_time(
    elsewhere: Elsewhere, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STATUS_SECONDS", 1.0)
    with staging_server(InfraSettings(**elsewhere.settings), "kmnist", str(tmp_path / "candidate")) as server:
        elsewhere.process.send_signal(signal.SIGSTOP)
        try:
            seconds, words = server.load(str(tiny_run.model), 1.0)
        finally:
            elsewhere.process.send_signal(signal.SIGCONT)
    assert seconds > 1.0 and "was not ready" in words


def test_a_reload_by_someone_else_says_nothing_of_the_model(
    staging: Staging, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = executor._latencies

    def reload_and_measure(server: Validated, request: Request) -> list[float]:
        staging.server.manager.reload(staging.server.options.models())
        return measure(server, request)

    monkeypatch.setattr(executor, "_latencies", reload_and_measure)
    with pytest.raises(PipelineError, match=r"another reload took the candidate off .* run again"):
        validate(tmp_path, tiny_run, tiny_run.model, **staging.settings)


def test_a_server_of_candidates_only_is_empty_before_and_after(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _write_config(tmp_path / "models.config")
    server = ModelServer(ServerOptions(port=0, model_config_file=str(config)))
    server.start()
    try:
        settings = {"endpoint": f"localhost:{server.grpc_port}", "endpoint_for_candidates_only": True}
        seen = _seen_from(monkeypatch, Staging(server, {}))
        assert blessed(validate(tmp_path, tiny_run, tiny_run.model, **settings))
        assert len(seen[0]) == 1 and server.manager.names() == []
    finally:
        server.stop(0)


def test_a_server_that_dies_meanwhile_is_a_failed_check(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _write_config(tmp_path / "models.config")
    server = ModelServer(ServerOptions(port=0, model_config_file=str(config)))
    server.start()
    measure = executor._latencies

    def stop_and_measure(staging: Validated, request: Request) -> list[float]:
        server.stop(0)
        return measure(staging, request)

    monkeypatch.setattr(executor, "_latencies", stop_and_measure)
    monkeypatch.setattr(model_server, "DEFAULT_TIMEOUT", 5.0)
    for patience in ("_STATUS_SECONDS", "_WITHDRAW_SECONDS"):
        monkeypatch.setattr(module, patience, 1.0)
    settings = {"endpoint": f"localhost:{server.grpc_port}", "endpoint_for_candidates_only": True}
    blessing = validate(tmp_path, tiny_run, tiny_run.model, **settings)
    [failure] = failed_checks(blessing.uri)
    assert failure.startswith("requests of one image: errors: 1") and "UNAVAILABLE" in failure


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"endpoint_config": "", "endpoint_for_candidates_only": True}, r"serves kmnist, which would be unloaded"),
        ({"endpoint_config": "{folder}/else.config"}, r"serves nothing of what .*else\.config lists \(elsewhere\)"),
        ({"endpoint_config": "{folder}/other.config"}, r"serves kmnist, which would be unloaded"),
        ({"endpoint_config": "{folder}/absent.config"}, r"infra\.endpoint_config: cannot read .*absent\.config"),
        ({"endpoint_config": "{folder}"}, r"infra\.endpoint_config: cannot read"),
        ({"endpoint_config": "{folder}/bad.config"}, r"bad\.config is no ModelServerConfig"),
        ({"endpoint": "127.0.0.1:1"}, r"127\.0\.0\.1:1 does not answer.*infra\.endpoint"),
        ({"endpoint": "grpc://127.0.0.1:1"}, r"no address of a gRPC server.*infra\.endpoint"),
        ({"endpoint_ca": "{folder}/absent.pem"}, r"cannot read .*absent\.pem.*infra\.endpoint_\*"),
        ({"endpoint_ca": "{folder}/bad.config"}, r"bad\.config is no PEM file.*infra\.endpoint_\*"),
        ({"endpoint_cert": "", "endpoint_key": ""}, r"does not answer.*infra\.endpoint_\*"),
        ({"endpoint_ca": "", "endpoint_cert": "", "endpoint_key": ""}, r"does not answer.*infra\.endpoint_\*"),
        ({"endpoint_server_name": "elsewhere"}, r"does not answer.*infra\.endpoint_\*"),
    ],
)
def test_a_server_that_cannot_or_must_not_be_used_says_nothing_of_the_model(
    staging: Staging,
    tiny_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    words: str,
) -> None:
    if "does not answer" in words:
        monkeypatch.setattr(module, "_FIRST_SECONDS", 1.0)
    _write_config(tmp_path / "else.config", elsewhere=tiny_run)
    _write_config(tmp_path / "other.config", other=tiny_run)
    (tmp_path / "bad.config").write_text("model_config_list { config { nom: 'x' } }")
    filled = {key: value.format(folder=tmp_path) if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(PipelineError, match=words):
        validate(tmp_path, tiny_run, tiny_run.model, **{**staging.settings, **filled})
    assert staging.names == ["kmnist", "other"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"endpoint": "a:1"}, "either endpoint_config.* or endpoint_for_candidates_only=true"),
        ({"endpoint": "a:1", "endpoint_config": "f", "endpoint_for_candidates_only": True}, "either endpoint_config"),
        ({"endpoint_config": "f", "endpoint_tls": True}, "endpoint_config, endpoint_tls without endpoint"),
        ({"endpoint": "a:1", "endpoint_config": "f", "endpoint_cert": "c"}, "endpoint_cert and endpoint_key"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        InfraSettings.model_validate(settings)
