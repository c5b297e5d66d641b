from __future__ import annotations

import io
import shutil
import socket
import sys
import time
from functools import partial
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2 as pb
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types.channel import Channel
from tfx.types.standard_artifacts import Model

from mnist_tfx.contract.errors import DataRejected, PipelineError
from mnist_tfx.pipeline.running.live_view import PlainLines
from mnist_tfx.pipeline.running.local_runner import run_pipeline
from mnist_tfx.pipeline.runs.ids import claim_run_id
from tests.pipeline.small_pipelines import NODE_IDS, Evaluator, describe, log_file, run_small_pipeline, small_pipeline


def states(home: Path) -> list[str]:
    """The states of all executions, the oldest first."""
    store = mlmd.MetadataStore(metadata.sqlite_metadata_connection_config(str(home / "metadata.db")))
    executions = sorted(store.get_executions(), key=lambda execution: execution.id)
    return [pb.Execution.State.Name(execution.last_known_state) for execution in executions]


def test_every_node_runs_and_its_outputs_are_returned(tmp_path: Path) -> None:
    result = run_small_pipeline(tmp_path)
    assert [node.node_id for node in result.nodes] == list(NODE_IDS)
    assert not any(node.cached for node in result.nodes)
    [model] = result.nodes[2].outputs["model"]
    assert Path(model.uri, "saved_model.pb").exists()
    assert model.uri.startswith(str(tmp_path / "runs" / "mnist" / result.run_id))
    assert 0 < sum(node.seconds for node in result.nodes) <= result.seconds


def test_what_components_print_goes_to_the_log_and_streams_are_restored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_small_pipeline(tmp_path)
    print("after the run")
    out, err = capfd.readouterr()
    assert (out, err) == ("after the run\n", "")
    log = log_file(tmp_path, result.run_id).read_text()
    for line in ("printed by the trainer\n", "written to descriptor 2\n", "INFO mnist_tfx.progress: epoch 1/2"):
        assert line in log


def test_a_second_run_is_cached_and_returns_the_first_ones_artifacts(tmp_path: Path) -> None:
    first, second = run_small_pipeline(tmp_path), run_small_pipeline(tmp_path)
    assert all(node.cached for node in second.nodes)
    assert second.run_id > first.run_id
    for before, after in zip(first.nodes, second.nodes, strict=True):
        assert {key: [a.id for a in artifacts] for key, artifacts in before.outputs.items()} == {
            key: [a.id for a in artifacts] for key, artifacts in after.outputs.items()
        }


def test_a_changed_parameter_runs_from_there_on(tmp_path: Path) -> None:
    run_small_pipeline(tmp_path)
    result = run_small_pipeline(tmp_path, blessed=0)
    assert [node.cached for node in result.nodes] == [True, True, True, False, False]


def test_what_shall_come_after_a_node_comes_only_when_it_was_run(tmp_path: Path) -> None:
    calls: list[str] = []
    after = {name: partial(calls.append, name) for name in ("Trainer", "Pusher")}
    run_small_pipeline(tmp_path, after=after)
    assert calls == ["Trainer", "Pusher"]
    run_small_pipeline(tmp_path, blessed=0, after=after)  # the Trainer is answered from the cache
    assert calls == ["Trainer", "Pusher", "Pusher"]


def test_a_deleted_run_folder_is_no_cache(tmp_path: Path) -> None:
    first = run_small_pipeline(tmp_path)
    shutil.rmtree(tmp_path / "runs" / "mnist" / first.run_id)
    time.sleep(1)  # the folder was what claimed the run id
    second = run_small_pipeline(tmp_path)
    assert not any(node.cached for node in second.nodes)
    [model] = second.nodes[2].outputs["model"]
    assert Path(model.uri, "saved_model.pb").exists()


def test_a_failure_names_component_exception_log_lines_and_log(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        run_small_pipeline(tmp_path, behavior="fail")
    message = str(caught.value)
    assert message.startswith("Trainer failed: ValueError: NaN in the weights (at ")
    assert "WARNING trainer: the loss is not finite" in message
    assert "ExecutionInfo(" not in message  # TFX's bookkeeping
    [log] = tmp_path.glob("runs/mnist/*/run.log")
    assert str(log) in message
    assert "Traceback" in log.read_text()
    assert isinstance(caught.value.__cause__, ValueError)
    assert states(tmp_path) == ["COMPLETE", "COMPLETE", "FAILED"]
    assert not list(tmp_path.glob("runs/mnist/*/Trainer/model/*"))
    assert [node.cached for node in run_small_pipeline(tmp_path).nodes] == [True, True, False, False, False]


def test_sys_exit_in_a_component_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="Trainer failed: SystemExit: no more"):
        run_small_pipeline(tmp_path, behavior="exit")
    assert states(tmp_path)[-1] == "FAILED"


def test_our_own_errors_come_through_unwrapped(tmp_path: Path) -> None:
    with pytest.raises(DataRejected) as caught:
        run_small_pipeline(tmp_path, limit=1)
    assert str(caught.value) == "3 characters, 1 are allowed"
    assert caught.value.exit_code == 3


def test_a_node_without_its_inputs_fails_the_run(tmp_path: Path) -> None:
    resolver = Resolver(strategy_class=LatestArtifactStrategy, model=Channel(type=Model)).with_id("Latest")
    evaluator = Evaluator(model=resolver.outputs["model"], blessed=1)
    pipeline = Pipeline(
        pipeline_name="mnist",
        pipeline_root=str(tmp_path / "run"),
        components=[resolver, evaluator],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db")),
    )
    stream = io.StringIO()
    with (
        pytest.raises(PipelineError, match=r"Latest was not run, for want of inputs. .*InputResolutionError"),
        PlainLines("mnist", ["Latest", "Evaluator"], describe, stream) as observer,
    ):
        run_pipeline(pipeline, run_id="a-run", log_file=tmp_path / "run.log", observer=observer)
    assert "[mnist] Latest     failed" in stream.getvalue()


def test_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
    asked: list[object] = []

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            asked.append(args)

    sys.addaudithook(hook)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    assert asked  # the hook works
    asked.clear()
    run_small_pipeline(tmp_path)
    assert [args for args in asked if "localhost" not in str(args) and "127.0.0.1" not in str(args)] == []


def test_a_run_id_is_used_once(tmp_path: Path) -> None:
    run_id = run_small_pipeline(tmp_path).run_id
    with (
        pytest.raises(ValueError, match="used before"),
        PlainLines("mnist", NODE_IDS, describe, io.StringIO()) as observer,
    ):
        pipeline = small_pipeline(tmp_path, run_id)
        run_pipeline(pipeline, run_id=run_id, log_file=log_file(tmp_path, run_id), observer=observer)


def test_run_ids_are_unique_within_a_second_and_sort_by_time(tmp_path: Path) -> None:
    ids = [claim_run_id(tmp_path, "mnist") for _ in range(3)]
    assert len(set(ids)) == 3
    assert ids == sorted(ids)
    assert all(run_id.endswith("-mnist") for run_id in ids)
