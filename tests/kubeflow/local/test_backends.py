"""What driver and launcher do to artifacts and parameters, each behaviour on its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.local.backends import Kubeflow
from mnist_tfx.kubeflow.local.bucket import Bucket, copy_objects

RUN = "minio://bucket/root/runs/1"


@pytest.fixture
def backend(tmp_path: Path) -> Kubeflow:
    return Kubeflow(RUN, tmp_path / "logs", Bucket("minio://bucket/root", tmp_path / "bucket"))


def planned(backend: Kubeflow, kind: int = pb.ParameterType.STRING) -> tuple[pb.ComponentSpec, pb.ExecutorInput]:
    """A task with an output artifact and an output parameter."""
    component, given = pb.ComponentSpec(), pb.ExecutorInput()
    component.output_definitions.parameters["verdict"].parameter_type = kind
    given.outputs.artifacts["model"].artifacts.add(name="model", uri=backend.address("Trainer", "model"))
    given.outputs.parameters["verdict"].output_file = backend.parameter_file("Trainer", "verdict")
    given.outputs.output_file = backend.output_file("Trainer")
    return component, given


def test_an_artifact_comes_back_from_ml_metadata_without_type_and_with_wrapped_values(backend: Kubeflow) -> None:
    made = pb.RuntimeArtifact(name="model", uri=f"{RUN}/Trainer/model")
    made.type.instance_schema = "title: tfx.Model"
    made.metadata.update({"text": "a", "number": 2, "truth": True, "list": [1], "struct": {"a": 1}})
    handed = backend.handed_on(made)
    assert handed.type.WhichOneof("kind") == "instance_schema" and handed.type.instance_schema == ""
    assert handed.name == "1" and handed.uri == made.uri
    assert json_format.MessageToDict(handed.metadata) == {
        "text": "a",
        "number": 2.0,
        "truth": 1.0,
        "list": {"list": [1.0]},
        "struct": {"struct": {"a": 1.0}},
        "display_name": "model",
        "store_session_info": "{}",
    }
    made.metadata["nothing"] = None
    with pytest.raises(PipelineError, match="'nothing' is null"):
        backend.handed_on(made)


def test_inputs_are_copied_into_a_new_pod_and_outputs_from_it(backend: Kubeflow, tmp_path: Path) -> None:
    component, given = planned(backend)
    examples = tmp_path / "bucket" / "runs" / "1" / "Gen" / "examples"
    (examples / "Split-train").mkdir(parents=True)
    (examples / "Split-train" / "part").write_text("data")
    given.inputs.artifacts["examples"].artifacts.add(uri=f"{RUN}/Gen/examples")
    pod = tmp_path / "logs" / "Trainer" / "pod"
    (pod / "minio").mkdir(parents=True)
    (pod / "minio" / "old").touch()
    backend.before("Trainer", given)
    here = pod / "minio" / "bucket" / "root" / "runs" / "1"
    assert (here / "Gen" / "examples" / "Split-train" / "part").read_text() == "data"
    assert not (pod / "minio" / "old").exists() and given.outputs.output_file == str(
        here / "Trainer" / "output_metadata.json"
    )
    (here / "Trainer" / "model" / "empty").mkdir(parents=True)
    (here / "Trainer" / "model" / "saved_model.pb").write_text("graph")
    Path(given.outputs.parameters["verdict"].output_file).write_text("good")
    output = backend.after("Trainer", component, given)
    assert output.parameter_values["verdict"].string_value == "good"
    model = Path(backend.place(f"{RUN}/Trainer/model"))
    assert [path.name for path in model.iterdir()] == ["saved_model.pb"] and not pod.exists()


def test_an_output_parameter_that_is_missing_fails_the_task(backend: Kubeflow) -> None:
    component, given = planned(backend)
    backend.before("Trainer", given)
    with pytest.raises(PipelineError, match="failed to read output parameter 'verdict' of task Trainer"):
        backend.after("Trainer", component, given)
    component, given = planned(backend, pb.ParameterType.NUMBER_INTEGER)
    Path(given.outputs.parameters["verdict"].output_file).write_text("7\n")
    assert backend.after("Trainer", component, given).parameter_values["verdict"].number_value == 7


def test_an_object_that_marks_a_folder_makes_the_download_fail(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("data")
    objects = [("Split-train/", tmp_path), ("Split-train/part", tmp_path / "part")]
    copy_objects("gs://b/examples", objects[1:], tmp_path / "good")
    assert (tmp_path / "good" / "Split-train" / "part").read_text() == "data"
    with pytest.raises(PipelineError, match=r"failed to download .* gs://b/examples: object 'Split-train/part'"):
        copy_objects("gs://b/examples", objects, tmp_path / "bad")
    bucket = Bucket("gs://b", tmp_path / "bucket")
    (tmp_path / "bucket" / "model" / "empty").mkdir(parents=True)
    bucket.download("gs://b/model", tmp_path / "model")
    assert (tmp_path / "model" / "empty").is_file(), "a folder with nothing in it arrives as a file"


def test_what_lies_elsewhere_is_refused(backend: Kubeflow) -> None:
    with pytest.raises(PipelineError, match="does not lie under the root"):
        backend.place("minio://bucket/rooted/x")
