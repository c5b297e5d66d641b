from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.pipeline.commands import runs, show
from tests.fixtures.command import mnist_tfx
from tests.pipeline.small_pipelines import run_small_pipeline


def call(command: ModuleType, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return int(command.run(parser.parse_args(arguments)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a pushed run of mnist and a failed one of fashion_mnist."""
    folder = tmp_path_factory.mktemp("home")
    run_small_pipeline(folder)
    with pytest.raises(PipelineError):
        run_small_pipeline(folder, name="fashion-mnist", behavior="fail")
    return folder


def test_runs_lists_every_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(runs, "--home", str(home)) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines() if "mnist" in line]
    assert [line[1] for line in lines] == ["fashion_mnist", "mnist"]
    assert "failed: Trainer" in out and "pushed version 7" in out
    assert err == ""


def test_runs_of_one_dataset_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(runs, "--home", str(home), "--dataset", "mnist", "--json") == 0
    [run] = json.loads(capsys.readouterr().out)
    assert set(run) == {"run_id", "pipeline", "dataset", "started", "seconds", "verdict", "report"}
    assert (run["dataset"], run["verdict"]) == ("mnist", "pushed version 7")


def test_runs_in_an_empty_home_says_how_to_make_one(tmp_path: Path) -> None:
    answer = mnist_tfx("runs", "--home", tmp_path)
    assert answer.code == 0 and "Make one: mnist-tfx run --dataset mnist" in answer.out
    answer = mnist_tfx("runs", "--home", tmp_path, "--json")
    assert answer.code == 0 and json.loads(answer.out) == []


def test_show_prints_lineage_parameters_and_the_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(show, "latest", "--home", str(home)) == 0
    out = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "Trainer: ValueError: NaN in the weights" in rows
    assert any(re.search(r"Trainer FAILED [\d.]+ examples \d+$", row) for row in rows)
    assert "Trainer behavior fail" in rows
    assert any("Examples" in row and str(home) in row for row in rows)


def test_show_as_json_has_everything(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(show, "latest", "--json", "--home", str(home)) == 0
    detail = json.loads(capsys.readouterr().out)
    assert detail["summary"]["verdict"] == "failed: Trainer"
    assert [execution["component"] for execution in detail["executions"]] == ["TfdsExampleGen", "DataGate", "Trainer"]
    assert detail["executions"][0]["outputs"][0]["type"] == "Examples"


def test_show_of_an_unknown_run_is_wrong_usage(home: Path) -> None:
    with pytest.raises(UsageError, match="unknown run 'yesterday'"):
        call(show, "yesterday", "--home", str(home))


def test_reading_the_history_loads_neither_tensorflow_nor_tfx(home: Path) -> None:
    code = (
        "import argparse, sys; from mnist_tfx.pipeline.commands import runs, show;"
        f"runs.run(argparse.Namespace(home={str(home)!r}, dataset=None, json=False));"
        f"show.run(argparse.Namespace(home={str(home)!r}, run_id='latest', json=False));"
        "sys.exit(bool({'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
