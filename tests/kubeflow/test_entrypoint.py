"""The command of every container: real executors, with what a platform hands over and what it finds afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from absl.flags import FLAGS
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb
from tfx.types.artifact import Artifact
from tfx.utils import import_utils

from mnist_tfx.components.code_version import SOURCE, source_told
from mnist_tfx.components.data_gate.component import DataBlessing
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.report.artifact import HTML
from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.kubeflow import entrypoint
from mnist_tfx.kubeflow.artifact_types import OUR_TYPES
from mnist_tfx.kubeflow.ir import CompiledPipeline, read_compiled
from mnist_tfx.kubeflow.verdict import TaskVerdict, verdict_of_error, verdict_of_outputs
from tests.components.test_pusher import write_model
from tests.fixtures.compiled import GOLDEN, GOLDEN_FILES
from tests.fixtures.object_store import object_store

ROOT = "gs://bucket/runs/kmnist"
PUSHER_INPUTS = {
    "model_blessing": "blessing",
    "infra_blessing": "infra",
    "statistics": "statistics",
}  # and their folders


@pytest.fixture(scope="module")
def pipeline() -> CompiledPipeline:
    return read_compiled(GOLDEN / GOLDEN_FILES["kubeflow-gpu"])


class Pod:
    """A container of the compiled pipeline; `folder` stands for its `/`."""

    def __init__(self, pipeline: CompiledPipeline, folder: Path) -> None:
        self.folder, self._pipeline = folder, pipeline
        self.output_file = folder / "gcs" / "bucket" / "runs" / "kmnist" / "task" / "output_metadata.json"
        (folder / "dev").mkdir(parents=True)
        (folder / "dev" / "termination-log").touch()

    def copy(self, uri: str) -> Path:
        """The launcher's copy of an artifact."""
        scheme, _, rest = uri.partition("://")
        return self.folder / {"gs": "gcs"}.get(scheme, scheme) / rest

    def given(self, task: str, inputs: Mapping[str, str], **parameters: str) -> pb.ExecutorInput:
        """As Kubeflow's driver hands it over: no types of the inputs. `inputs` has their addresses."""
        spec = self._pipeline.spec
        message = pb.ExecutorInput()
        for key, uri in inputs.items():
            message.inputs.artifacts[key].artifacts.add(name="7", uri=uri)
        for key, given in spec.root.dag.tasks[task].inputs.parameters.items():
            message.inputs.parameter_values[key].CopyFrom(given.runtime_value.constant)
        for key, value in parameters.items():
            message.inputs.parameter_values[key].string_value = value
        for key, declared in spec.components[task].output_definitions.artifacts.items():
            made = message.outputs.artifacts[key].artifacts.add(name=key, uri=f"{ROOT}/task/{key}")
            made.type.CopyFrom(declared.artifact_type)
        for key in spec.components[task].output_definitions.parameters:
            message.outputs.parameters[key].output_file = f"/tmp/kfp/outputs/{key}"
        message.outputs.output_file = str(self.output_file)
        return message

    def arguments(self, task: str, given: pb.ExecutorInput) -> list[str]:
        """The command line of the compiled file, without `python -m`."""
        container = self._pipeline.executors[f"{task}_executor"].container
        assert list(container.command) == ["python", "-m", entrypoint.__name__]
        return [word.replace("{{$}}", json_format.MessageToJson(given)) for word in container.args]

    def run(self, task: str, given: pb.ExecutorInput) -> int:
        """Its exit code."""
        FLAGS.mark_as_parsed()
        return entrypoint.main(entrypoint._parse(["entrypoint", *self.arguments(task, given)]))

    def output(self) -> pb.ExecutorOutput:
        """What the launcher reads afterwards."""
        return json_format.Parse(self.output_file.read_text(), pb.ExecutorOutput())


@pytest.fixture
def pod(pipeline: CompiledPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    """Of Kubeflow Pipelines."""
    monkeypatch.setenv("KFP_POD_NAME", "pusher-123")
    monkeypatch.setenv(entrypoint.POD_ROOT, str(tmp_path / "pod"))
    return Pod(pipeline, tmp_path / "pod")


def pusher(pod: Pod, scheme: str, blessed: int = 1, **parameters: str) -> pb.ExecutorInput:
    """The Pusher's input, downloaded from a store of this scheme."""
    root = ROOT.replace("gs", scheme, 1)
    inputs = {key: f"{root}/{folder}" for key, folder in PUSHER_INPUTS.items()}
    write_model(pod.copy(root))
    given = pod.given("Pusher", inputs, serving_dir=str(pod.folder.parent / "serving"), **parameters)
    given.inputs.artifacts["model_blessing"].artifacts[0].metadata["blessed"] = blessed
    given.inputs.artifacts["infra_blessing"].artifacts[0].metadata.update({"blessed": 1, "has_model": 1})
    given.outputs.artifacts["pushed_model"].artifacts[0].uri = f"{root}/task/pushed_model"
    return given


@pytest.mark.parametrize("scheme", ["gs", "s3", "minio"])
def test_kubeflow_s_copies_are_read_and_written(pod: Pod, scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    given = pusher(pod, scheme)
    assert pod.run("Pusher", given) == 0
    uri = given.outputs.artifacts["pushed_model"].artifacts[0].uri
    assert uri.startswith(f"{scheme}://") and (pod.copy(uri) / "saved_model.pb").read_text() == "graph"
    [version] = [path.name for path in (pod.folder.parent / "serving").iterdir()]
    output = pod.output()
    [pushed] = output.artifacts["pushed_model"].artifacts
    assert pushed.uri == uri and pushed.metadata["pushed_version"] == version
    told = output.parameter_values["verdict"].string_value
    assert TaskVerdict.from_text(told) == TaskVerdict(pushed_version=version)
    assert pushed.metadata["verdict"] == told and capfd.readouterr().out.endswith(f"verdict: {told}\n")
    assert (pod.folder / "dev" / "termination-log").read_text() == ""


def test_a_path_that_the_launcher_chose_is_taken(pod: Pod, tmp_path: Path) -> None:
    given = pusher(pod, "gs")
    [pushed] = given.outputs.artifacts["pushed_model"].artifacts
    pushed.custom_path = str(tmp_path / "elsewhere")
    assert pod.run("Pusher", given) == 0
    assert (tmp_path / "elsewhere" / "saved_model.pb").is_file() and not pod.copy(pushed.uri).exists()
    assert pod.output().artifacts["pushed_model"].artifacts[0].uri == pushed.uri


@pytest.mark.parametrize(
    ("blessed", "withheld", "says"), [(0, "", "a blessing is wanting"), (1, "a study recipe", "a study recipe")]
)
def test_why_nothing_was_pushed(pod: Pod, blessed: int, withheld: str, says: str) -> None:
    assert pod.run("Pusher", pusher(pod, "gs", blessed, withheld=withheld)) == 0
    told = TaskVerdict.from_text(pod.output().parameter_values["verdict"].string_value)
    assert told == TaskVerdict(says=says)


def test_on_vertex_the_addresses_themselves_are_used(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFP_POD_NAME")
    write_model(tmp_path)
    given = pusher(pod, "gs")
    for key, folder in PUSHER_INPUTS.items():
        given.inputs.artifacts[key].artifacts[0].uri = str(tmp_path / folder)
    given.outputs.artifacts["pushed_model"].artifacts[0].uri = str(tmp_path / "pushed")
    given.outputs.output_file = str(tmp_path / "executor_output.json")
    assert pod.run("Pusher", given) == 0
    output = json_format.Parse((tmp_path / "executor_output.json").read_text(), pb.ExecutorOutput())
    assert output.artifacts["pushed_model"].artifacts[0].uri == str(tmp_path / "pushed")
    assert (tmp_path / "pushed" / "saved_model.pb").is_file()


def test_rejected_data_are_told_by_exit_code_and_termination_message(
    pod: Pod, tiny: PreparedDataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    missing, others = str(tmp_path / "none"), str(tiny.data_dir)  # their fingerprint is not the compiled file's
    for code, data_dir in ((1, missing), (3, others)):
        assert pod.run("TfdsExampleGen", pod.given("TfdsExampleGen", {}, data_dir=data_dir)) == code
        last = capfd.readouterr().out.splitlines()[-1]
        told = TaskVerdict.from_text((pod.folder / "dev" / "termination-log").read_text())
        assert told is not None and told.exit_code == code and last == f"verdict: {told.to_text()}"
        assert not pod.output_file.exists()
    error = DataRejected("the data gate rejected kmnist: 1 anomaly\n  train: " + "long " * 2000)
    rejected = verdict_of_error(error)
    assert rejected.exit_code == 3 and isinstance(rejected.error(), DataRejected)
    assert len(rejected.to_text().encode()) < 4096 and "\n" not in rejected.to_text()
    cut = TaskVerdict.from_text(rejected.to_text())
    assert cut is not None and cut.says.startswith("the data gate rejected kmnist") and cut.says.endswith("...")


def test_an_image_of_other_code_than_the_pipeline_was_compiled_with_runs_nothing(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = pusher(pod, "gs")
    module = "mnist_tfx.components.pusher.component"
    for compiled_with, code in ((source_told(module), 0), (f"sha256:0123456789ab {module}", 1)):
        monkeypatch.setenv(SOURCE, compiled_with)
        assert pod.run("Pusher", given) == code
    told = TaskVerdict.from_text((pod.folder / "dev" / "termination-log").read_text())
    assert (
        told is not None
        and f"this image holds other code of {module} than" in told.says
        and "under a new tag" in told.says
    )


def test_a_try_after_one_that_wrote_its_output_is_like_the_first(pod: Pod) -> None:
    """TFX takes an output file that is there already for a driver's, and its parameters for the executor's own."""
    given = pusher(pod, "gs")
    assert pod.run("Pusher", given) == 0
    first = pod.output()
    assert pod.run("Pusher", given) == 0
    assert pod.output() == first


def test_failed_checks_are_told_in_words(tmp_path: Path) -> None:
    checks = [{"name": "latency", "measured": 9.0, "limit": 5.0, "unit": "ms", "detail": "", "passed": False}]
    (tmp_path / "infra_validation.json").write_text(json.dumps({"checks": checks, "latency_ms": []}))
    blessing = pb.RuntimeArtifact(uri=str(tmp_path))
    blessing.metadata["blessed"] = 0
    verdict = verdict_of_outputs({"blessing": blessing})
    assert verdict.exit_code == 4 and "latency" in verdict.says and "9" in verdict.says
    blessing.metadata["blessed"] = 1
    assert verdict_of_outputs({"blessing": blessing}) == TaskVerdict()


@pytest.mark.parametrize("text", ["", "OOMKilled", "{}x", "[]", '{"exit": 3}'])
def test_what_is_no_verdict(text: str) -> None:
    assert TaskVerdict.from_text(text) is None


def test_our_types_have_their_classes() -> None:
    found: dict[str, type[Artifact]] = {
        name: import_utils.import_class_by_path(path) for name, path in OUR_TYPES.items()
    }
    assert found == {DataBlessing.TYPE_NAME: DataBlessing, HTML.TYPE_NAME: HTML}


def test_a_backup_has_a_place_of_its_run_and_task() -> None:
    """The same in each try, whose outputs have the same addresses; nothing else of the configuration changes."""
    given = pb.ExecutorInput()
    given.inputs.parameter_values["custom_config"].string_value = '{"backup_dir": "", "dataset": "kmnist"}'
    entrypoint._keep_backup(given, "gs://data/backups/kmnist", "s3://artifacts/kmnist/run-1/Trainer/7/model_run")
    assert json.loads(given.inputs.parameter_values["custom_config"].string_value) == {
        "backup_dir": "gs://data/backups/kmnist/artifacts/kmnist/run-1/Trainer/7/model_run",
        "dataset": "kmnist",
    }


def test_with_workers_elsewhere_the_bucket_is_read_and_written_and_keeps_no_markers(pod: Pod, tmp_path: Path) -> None:
    """So is TFX's output file, beside which it has what the workers need; the Pusher has no use for any.

    Kubeflow's launcher would make files of the objects that stand for folders: `DownloadBlob`.
    """
    given = pusher(pod, "gs")
    words = [*pod.arguments("Pusher", given), "--runner=FlinkRunner"]
    with object_store(tmp_path / "store") as (store, environment):
        store.upload(pod.copy(ROOT), ROOT)
        shutil.rmtree(pod.copy(ROOT))
        # A process of its own: TensorFlow looks at this environment once.
        command = [sys.executable, "-m", entrypoint.__name__, *words]
        subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=120)
    [pushed] = pod.output().artifacts["pushed_model"].artifacts
    assert pushed.uri == f"{ROOT}/task/pushed_model" and pushed.metadata["pushed"] == 1
    assert not pod.copy(pushed.uri).exists()
    assert {"executor_output.json", "pushed_model/saved_model.pb"} <= set(store.names(f"{ROOT}/task"))
    kept = [key for key in store.objects if key.startswith(pushed.uri.removeprefix("gs://"))]
    assert any("/variables/" in key for key in kept) and not [key for key in kept if key.endswith("/")]
