from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mnist_tfx.components.report.run import Run
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.names import plain_name
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs.store import list_runs, load_run
from tests.fixtures.recorded_runs import Node, record_run
from tests.pipeline.small_pipelines import run_small_pipeline


def newest(home: Path) -> Run:
    return list_runs(home / "metadata.db")[0]


def test_runs_are_listed_newest_first_with_their_verdicts(tmp_path: Path) -> None:
    pushed = run_small_pipeline(tmp_path)
    cached = run_small_pipeline(tmp_path)
    refused = run_small_pipeline(tmp_path, blessed=0)
    with pytest.raises(PipelineError):
        run_small_pipeline(tmp_path, limit=1)
    with pytest.raises(PipelineError):
        run_small_pipeline(tmp_path, behavior="fail", name="fashion-mnist")
    runs = list_runs(tmp_path / "metadata.db")
    assert [str(run.verdict()) for run in runs] == [
        "failed: Trainer",
        "data rejected",
        "not blessed",
        "pushed version 7 (cached)",
        "pushed version 7",
    ]
    assert [run.run_id for run in runs[2:]] == [refused.run_id, cached.run_id, pushed.run_id]
    assert (runs[0].pipeline, runs[0].dataset) == ("fashion-mnist", "fashion_mnist")
    assert runs[-1].seconds == pytest.approx(pushed.seconds, abs=0.5)
    assert abs(runs[-1].started.timestamp() - time.time()) < 300


@pytest.mark.parametrize("dataset", ["my__flowers", "flowers_", "emnist_By_Class", "mnist"])
def test_the_dataset_of_a_run_is_the_one_that_its_id_names(tmp_path: Path, dataset: str) -> None:
    run_id = f"20261122-143000-{dataset}"
    record_run(tmp_path / "metadata.db", run_id, [Node("Trainer")], plain_name(dataset))
    run = load_run(tmp_path / "metadata.db", run_id)
    assert (run.dataset, run.log) == (dataset, tmp_path / "runs" / dataset / run_id / "run.log")


def test_a_run_has_its_executions_with_artifacts_and_parameters(tmp_path: Path) -> None:
    result = run_small_pipeline(tmp_path)
    detail = load_run(tmp_path / "metadata.db", result.run_id)
    assert [execution.component for execution in detail.executions] == [node.node_id for node in result.nodes]
    assert {execution.state for execution in detail.executions} == {"COMPLETE"}
    trainer, evaluator = detail.executions[2], detail.executions[3]
    assert trainer.parameters == {"behavior": "train"}
    [model] = trainer.outputs
    assert (model.name, model.type) == ("model", "Model")
    assert Path(model.uri, "saved_model.pb").exists()
    assert evaluator.inputs == (model,)
    assert evaluator.outputs[0].properties == {"blessed": 1}
    assert trainer.seconds is not None and trainer.seconds < 10


def test_a_failed_execution_says_why(tmp_path: Path) -> None:
    with pytest.raises(PipelineError):
        run_small_pipeline(tmp_path, behavior="fail")
    failed = load_run(tmp_path / "metadata.db", "latest").executions[-1]
    assert (failed.component, failed.state) == ("Trainer", "FAILED")
    assert (failed.error_type, failed.error, failed.exit_code) == ("ValueError", "NaN in the weights", 1)
    assert failed.parameters == {"behavior": "fail"}


def test_a_run_is_named_by_id_by_a_unique_beginning_or_latest(tmp_path: Path) -> None:
    database = tmp_path / "metadata.db"
    first, second = run_small_pipeline(tmp_path), run_small_pipeline(tmp_path)
    assert load_run(database, first.run_id).run_id == first.run_id
    assert load_run(database, second.run_id.removesuffix("-mnist")).run_id == second.run_id
    assert load_run(database, "latest").run_id == second.run_id
    with pytest.raises(UsageError, match="begins the names of 2 runs"):
        load_run(database, first.run_id[:4])
    with pytest.raises(UsageError, match=f"Did you mean '{first.run_id}'"):
        load_run(database, f"{first.run_id}x")


def test_a_run_can_be_read_while_it_goes_on(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    with Home(tmp_path).lock():
        run = threading.Thread(target=run_small_pipeline, args=(tmp_path,), kwargs={"behavior": f"wait:{flag}"})
        run.start()
        while not (tmp_path / "flag.reached").exists():
            assert run.is_alive()
            time.sleep(0.02)
        try:
            assert str(newest(tmp_path).verdict()) == "running"
            trainer = load_run(tmp_path / "metadata.db", "latest").executions[-1]
            assert (trainer.component, trainer.state, trainer.seconds) == ("Trainer", "RUNNING", None)
        finally:
            flag.unlink()
            run.join()
    assert str(newest(tmp_path).verdict()) == "pushed version 7"


def test_without_runs_there_is_nothing_to_list_and_a_hint_to_show(tmp_path: Path) -> None:
    database = tmp_path / "metadata.db"
    assert list_runs(database) == []
    with pytest.raises(UsageError, match="Make one: mnist-tfx run"):
        load_run(database, "latest")
    assert not database.exists()
    database.touch()  # a run that is only just making it
    assert list_runs(database) == []


def test_a_damaged_database_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    database = tmp_path / "metadata.db"
    database.write_text("not a database, " * 100)
    with pytest.raises(PipelineError, match="move it away"):
        list_runs(database)
