"""`mnist-tfx serve --log-requests` and `mnist-tfx monitor`: from requests to a server to exit codes, pages, metrics."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.cli import build_parser
from mnist_tfx.pipeline.commands.run import _drifting
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.recipes import load_recipe
from mnist_tfx.serving.client import Client, RequestLog
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.pages import parse
from tests.fixtures.server_process import CHECKOUT
from tests.fixtures.tiny_run import TinyRun, decode, read_split
from tests.serving.conftest import wait_until

MNIST_TFX = [sys.executable, "-c", "import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def home(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """With the model of the tiny run, asked for split test as it is, which the client logs, too, and inverted."""
    root = tmp_path_factory.mktemp("home")
    (root / "serving").symlink_to(tiny_run.home.serving_root)
    encoded, _ = zip(*read_split(tiny_run.examples, "test"), strict=True)
    images = decode(list(encoded))
    log = RequestLog(root / "clean")
    with serving("--home", root, "--log-requests") as address:
        with Client(address, "kmnist", log=log) as client:
            client.predict(images)
        with Client(address, "kmnist") as client:
            client.predict(255 - images)
    log.close()
    return Home(root)


@contextmanager
def serving(*arguments: str | Path) -> Iterator[str]:
    command = [*MNIST_TFX, "serve", *map(str, arguments), "--port=0", "--rest_api_port=-1"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"is AVAILABLE at gRPC ([\d.]+:\d+)", line):
                yield found[1]
                break
        else:
            raise AssertionError(said)
    finally:
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        process.wait()
        process.stderr.close()


def clean(home: Home) -> tuple[str | Path, ...]:
    return "--home", home.root, "--logs", home.root / "clean" / "requests"


def test_what_is_in_order_ends_with_0(home: Home) -> None:
    answer = mnist_tfx("monitor", "kmnist", *clean(home))
    assert answer.code == 0, answer.out + answer.err
    assert "200 images" in answer.out and re.search(r"entropy .* in order .* Jensen-Shannon", answer.out)
    assert answer.out.splitlines()[-1].startswith("in order: what kmnist is asked")
    assert not home.cache("schemas").exists()


def test_drift_ends_with_3_and_is_told_to_people_programs_and_prometheus(home: Home, tmp_path: Path) -> None:
    page, metrics = tmp_path / "drift.html", tmp_path / "drift.prom"
    answer = mnist_tfx("monitor", "kmnist", "--home", home.root, "--page", page, "--textfile", metrics, "--json")
    assert answer.code == 3, answer.err
    told = json.loads(answer.out)
    [version] = told["versions"]
    assert told["drift"] and version["images"] == 400 and told["says"].startswith("drift: ")
    drifting = {check["name"] for check in version["checks"] if check["drift"]}
    assert "layout" in drifting
    families = {each.name: each for each in text_string_to_metric_families(metrics.read_text())}
    assert all(each.type == "gauge" and each.documentation for each in families.values())
    samples = {each.labels["check"]: each.value for each in families["mnist_tfx_monitor_drift"].samples}
    assert {check for check, value in samples.items() if value} == drifting
    [images] = families["mnist_tfx_monitor_images"].samples
    assert images.value == 400 and images.labels == {"model": "kmnist", "version": str(version["version"])}
    assert abs(families["mnist_tfx_monitor_timestamp_seconds"].samples[0].value - time.time()) < 300
    text = page.read_text()
    parse(text)
    assert text.count('class="pixels"') == 24 and "drift: what kmnist is asked" in text


def test_bounds_are_the_recipes(home: Home) -> None:
    patient = mnist_tfx("monitor", "kmnist", "--home", home.root, "--set", "monitoring.min_images=500")
    assert patient.code == 0 and "too few to say" in patient.out
    assert mnist_tfx("monitor", "kmnist", *clean(home), "--set", "monitoring.max_unreadable=2").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("kmnist", "--logs", "/nowhere/log"), 1, "serve --log-requests"),
        (("kmnits",), 2, "Did you mean 'kmnist'"),
        (("kmnist", "--version", "7"), 2, "unknown version '7'"),
        (("kmnist", "--page", "/no/such/folder/page.html"), 2, "cannot write"),
    ],
)
def test_what_cannot_be_done_is_told(home: Home, arguments: tuple[str, ...], code: int, words: str) -> None:
    answer = mnist_tfx("monitor", *arguments, "--home", home.root)
    assert answer.code == code and words in answer.err, answer.err


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("0.5d", timedelta(hours=12)),
    ],
)
def test_a_span_of_time_is_in_minutes_hours_or_days(text: str, span: timedelta) -> None:
    assert build_parser().parse_args(["monitor", "kmnist", "--since", text]).since == span


def test_a_version_that_is_named_is_looked_at_alone(home: Home, tiny_run: TinyRun, tmp_path: Path) -> None:
    """The logs hold what one of the two was asked."""
    [asked] = tiny_run.versions()
    for version in (asked, "7"):
        shutil.copytree(tiny_run.home.serving("kmnist") / asked, tmp_path / "serving" / "kmnist" / version)
    options = ("--home", tmp_path, "--logs", home.root / "clean" / "requests", "--json")
    for version, images in ((asked, [200]), ("7", [])):
        answer = mnist_tfx("monitor", "kmnist", *options, "--version", version)
        assert answer.code == 0, answer.err
        assert [each["images"] for each in json.loads(answer.out)["versions"]] == images


def run_after_drift(home: Home, tiny_run: TinyRun, folder: Path, logs: Path) -> Answer:
    """In a home of its own, which has the model and the data of others."""
    (folder / "serving").symlink_to(home.serving_root)
    (folder / "datasets").symlink_to(tiny_run.home.datasets)
    options = ("--recipe", tiny_run.recipe_file, "--home", folder, "--set", f"monitoring.logs={logs}")
    return mnist_tfx("run", "--dataset", "kmnist", *options, "--after-drift")


def test_a_run_after_drift_is_left_out_where_there_is_none(home: Home, tiny_run: TinyRun, tmp_path: Path) -> None:
    answer = run_after_drift(home, tiny_run, tmp_path, home.root / "clean" / "requests")
    assert answer.code == 0 and "in order: what kmnist is asked" in answer.err and "nothing was run" in answer.err
    assert not (tmp_path / "metadata.db").exists()


def test_before_several_seeds_it_is_looked_once(home: Home, tiny_run: TinyRun, tmp_path: Path) -> None:
    for folder, place in (("serving", home.serving_root), ("datasets", tiny_run.home.datasets)):
        (tmp_path / folder).symlink_to(place)
    options = ("--recipe", tiny_run.recipe_file, "--home", tmp_path, "--after-drift", "--seeds", "2", "--json")
    logs = f"monitoring.logs={home.root / 'clean' / 'requests'}"
    answer = mnist_tfx("run", "--dataset", "kmnist", *options, "--set", logs)
    assert (answer.code, json.loads(answer.out)) == (0, {"runs": [], "seeds": []})
    assert answer.err.count("in order: what kmnist is asked") == 1


def test_a_dataset_that_cannot_be_looked_at_keeps_no_other_from_running(
    home: Home, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = [load_recipe("mnist", "default"), load_recipe("kmnist", str(tiny_run.recipe_file))]
    assert _drifting(recipes, home) == (recipes[1:], UsageError.exit_code)
    err = capsys.readouterr().err
    assert "error: unknown model 'mnist'" in err and "drift: what kmnist is asked" in err


def test_a_run_after_drift_is_begun_where_there_is_some(home: Home, tiny_run: TinyRun, tmp_path: Path) -> None:
    """It asks for the home, which is taken: so nothing is trained here."""
    with Home(tmp_path).lock():
        answer = run_after_drift(home, tiny_run, tmp_path, home.requests("kmnist"))
    assert answer.code == 1 and "another run is using" in answer.err
    assert "drift: what kmnist is asked" in answer.err and "nothing was run" not in answer.err


def test_prometheus_is_answered_while_it_listens(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
    command = [*MNIST_TFX, "monitor", "kmnist", "--home", str(home.root), f"--listen={port}", "--every=1"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.DEVNULL)

    def answered() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
                return b'check="layout"} 1' in response.read()
        except urllib.error.URLError:
            return False

    try:
        wait_until(answered, "metrics")
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait() == 130


def test_a_log_is_refused_where_there_can_be_none(home: Home, tmp_path: Path) -> None:
    for arguments, words in (
        (("--engine", "tensorflow_model_server"), "has no request log"),
        (("--model_base_path", "/models/mnist"), "write logging_config"),
    ):
        answer = mnist_tfx("serve", "--home", home.root, "--log-requests", *arguments)
        assert answer.code == 2 and words in answer.err


def test_what_the_config_says_of_a_log_stays(tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    from mnist_tfx.pipeline.commands.serve import logged

    text = """model_config_list { config { name: "a" logging_config { sampling_config { sampling_rate: 0.5 } } }
      config { name: "b" } }"""
    home = Home(tmp_path)
    models = text_format.Parse(text, ModelServerConfig())
    a, b = logged(models, home, 0.25).model_config_list.config
    assert a.logging_config.sampling_config.sampling_rate == 0.5
    assert b.logging_config.log_collector_config.filename_prefix == os.path.join(tmp_path, "requests", "b", "requests")
    assert b.logging_config.sampling_config.sampling_rate == 0.25
    for model in logged(text_format.Parse(text, ModelServerConfig()), home, None).model_config_list.config:
        assert model.HasField("logging_config") == (model.name == "a")


@pytest.mark.parametrize("target", [pytest.param("vertex", marks=pytest.mark.slow), "kubeflow"])
def test_the_compiled_monitor_pipeline_fails_on_drift(
    home: Home, tiny_run: TinyRun, tmp_path: Path, target: str
) -> None:
    """Run here as the platform would, with the home's logs and model in the place of the bucket's."""
    bucket = tmp_path / "bucket"
    shutil.copytree(home.root / "requests", bucket / "requests")
    (bucket / "serving").symlink_to(home.serving_root)
    arguments = ("--target", target, "--profile", f"{target}-cpu", "--dataset", "kmnist", "--pipeline", "monitor")
    place = ("--recipe", tiny_run.recipe_file, "--home", tiny_run.home.root, "-o", tmp_path / "monitor.yaml")
    answer = mnist_tfx("compile", *arguments, *place, "--run-local", bucket)
    assert answer.code == 3 and "drift: what kmnist is asked" in answer.err, answer.err
    parse((bucket / "requests" / "kmnist" / "requests.html").read_text())
    patient = mnist_tfx("compile", *arguments, *place, "--run-local", bucket, "--set", "monitoring.min_images=500")
    assert patient.code == 0, patient.err
