"""A finished run in MLflow's own SQLite store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.report.collect import measured
from mnist_tfx.components.report.run import Plan, Run
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs.store import load_run
from mnist_tfx.pipeline.runs.tracking import Tracking
from tests.fixtures.command import mnist_tfx
from tests.fixtures.tiny_run import TinyRun

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No second try where no server answers."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield


def test_a_run_is_recorded_with_its_report(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    run = measured(load_run(tiny_run.home.metadata_db, tiny_run.run_id))
    for _ in range(2):
        Tracking(uri, Home(tiny_run.home.root)).leave(run)
    assert f"{run.run_id}: recorded in MLflow as" in capsys.readouterr().err
    client = mlflow.MlflowClient(uri, registry_uri="file:")
    experiment = client.get_experiment_by_name("kmnist")
    recorded, _ = client.search_runs([experiment.experiment_id])
    outcome, data = tiny_run.answer.outcome, recorded.data
    assert recorded.info.run_name == run.run_id and recorded.info.status == "FINISHED"
    assert data.tags["dataset"] == "kmnist" and data.tags["pushed_version"] == outcome["pushed_version"]
    assert data.params["model.hidden_layers"] == "(16,)" or json.loads(data.params["model.hidden_layers"]) == [16]
    assert data.metrics["test_accuracy"] == outcome["accuracy"]
    assert data.metrics["test_worst_class_accuracy"] == outcome["worst_class_accuracy"]
    history = json.loads((tiny_run.model.parent / "training.json").read_text())["history"]
    found = client.get_metric_history(recorded.info.run_id, "val_loss")
    assert [(each.step, each.value) for each in found] == [(row["epoch"], row["val_loss"]) for row in history]
    names = {each.path for each in client.list_artifacts(recorded.info.run_id)}
    assert names == {f"{run.run_id}.html", "MODEL_CARD.md"}


def test_what_was_over_before_a_stop_is_told_and_recorded(
    tiny: PreparedDataset, tiny_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = iter([Run("a-run", "kmnist", end="failed", error=PipelineError("it failed"))])

    def run_one(planned: object, home: Home) -> Run:
        if run := next(ended, None):
            return run
        raise KeyboardInterrupt

    monkeypatch.setattr("mnist_tfx.pipeline.run_recipe._run_one", run_one)
    home, uri = Home(tmp_path), f"sqlite:///{tmp_path / 'runs.db'}"
    home.datasets.symlink_to(tiny.data_dir)
    seeds = ("--seeds", "3", "--json", "--mlflow", uri)
    answer = mnist_tfx("run", "--dataset", "kmnist", "--recipe", tiny_recipe_file, "--home", tmp_path, *seeds)
    told = json.loads(answer.out)
    assert answer.code == 130 and [run["run"] for run in told["runs"]] == ["a-run"] and told["seeds"] == []
    assert "a-run: recorded in MLflow as" in answer.err and answer.err.endswith("error: it failed\nstopped\n")


def test_a_recipe_of_any_size_and_classes_of_any_name_are_recorded(tmp_path: Path) -> None:
    """MLflow takes a hundred parameters at once, and not every sign in their names."""
    data = {"classes": {"T-shirts & tops": ["0", "6"]}, "splits": {"test": "test"}}
    plan = Plan(recipe={"data": data, "training": {f"setting_{number}": number for number in range(150)}})
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    run_id = Tracking(uri, Home(tmp_path)).record(Run("a-run", "mnist", plan=plan, end="failed"))
    recorded = mlflow.MlflowClient(uri, registry_uri="file:").get_run(run_id)
    params = recorded.data.params
    assert params.pop("data.classes") == "{'T-shirts & tops': ['0', '6']}" and params.pop("data.splits.test") == "test"
    assert params == {f"training.setting_{number}": str(number) for number in range(150)}
    assert recorded.info.status == "FAILED" and recorded.data.tags["verdict"] == "failed"


def test_what_cannot_be_recorded_whole_is_not_left_going_on(tmp_path: Path) -> None:
    (tmp_path / "mlflow").write_text("a file where the artifacts' folder is to be")
    report = tmp_path / "report.html"
    report.write_text("<p>")
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    with pytest.raises(OSError, match="mlflow"):
        Tracking(uri, Home(tmp_path)).record(Run("a-run", "mnist", end="failed", report=report))
    client = mlflow.MlflowClient(uri, registry_uri="file:")
    [recorded] = client.search_runs([client.get_experiment_by_name("mnist").experiment_id])
    assert recorded.info.status == "FAILED"


def test_a_server_that_does_not_answer_is_known_before_the_run(tmp_path: Path, patience: None) -> None:
    secret = "http://me:secret@127.0.0.1:9"
    answer = mnist_tfx("run", "--dataset", "digits", "--mlflow", secret, "--home", tmp_path)
    assert answer.code == UsageError.exit_code
    assert "nothing can be recorded at 127.0.0.1:9" in answer.err and "secret" not in answer.err
    assert not (tmp_path / "runs").exists()
