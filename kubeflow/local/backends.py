"""What the two backends do each in its own way around a task: where things lie, and in which state they are handed on.

Of Vertex AI nobody but Google has the sources; it hands on what a task made as it made it, in the bucket. What Kubeflow
Pipelines does is cited by file and function of github.com/kubeflow/pipelines, version 2.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path

from etils import epath
from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.entrypoint import COPIES
from mnist_tfx.kubeflow.local.bucket import Bucket


class Vertex:
    """Tasks read and write the bucket, or the folder that stands for it."""

    def __init__(self, outputs: str) -> None:
        """`outputs` gets a folder per task: a path, or an address in a bucket."""
        self._outputs = outputs

    def address(self, task: str, key: str) -> str:
        """Of an output artifact."""
        return f"{self._outputs}/{task}/{key}"

    def output_file(self, task: str) -> str:
        """Where the container leaves its `ExecutorOutput`."""
        return f"{self._outputs}/{task}/executor_output.json"

    def parameter_file(self, task: str, key: str) -> str:
        """Where the container may leave an output parameter."""
        return f"{self._outputs}/{task}/parameters/{key}"

    def handed_on(self, made: pb.RuntimeArtifact) -> pb.RuntimeArtifact:
        """An artifact as a later task gets it."""
        return made

    def before(self, task: str, given: pb.ExecutorInput) -> Mapping[str, str]:
        """Prepares a task; what it adds to its environment. Raises PipelineError where an input cannot be had."""
        return {}

    def after(self, task: str, component: pb.ComponentSpec, given: pb.ExecutorInput) -> pb.ExecutorOutput:
        """What the container left. Raises FileNotFoundError or json_format.ParseError where that is nothing usable."""
        return json_format.Parse(epath.Path(given.outputs.output_file).read_text(), pb.ExecutorOutput())

    def place(self, address: str) -> str:
        """Where an artifact can be read on this machine."""
        return address


class Kubeflow(Vertex):
    """The driver, which plans a task, and the launcher, which runs inside of its pod and copies."""

    def __init__(self, root: str, logs: Path, bucket: Bucket) -> None:
        """`root` is the run's own address; each task's pod has a folder under `logs`."""
        super().__init__(root)
        self._logs, self._bucket = logs, bucket
        self._ids = itertools.count(1)  # of artifacts, in ML Metadata

    def output_file(self, task: str) -> str:
        """In the launcher's copy of the task's folder: `provisionOutputs`, backend/src/v2/driver/driver.go."""
        return str(self._copy(task, f"{self._outputs}/{task}") / "output_metadata.json")

    def parameter_file(self, task: str, key: str) -> str:
        """The same function."""
        return str(self._pod(task) / "tmp" / "kfp" / "outputs" / key)

    def handed_on(self, made: pb.RuntimeArtifact) -> pb.RuntimeArtifact:
        """By way of ML Metadata, which keeps neither type nor name.

        `RecordArtifact` and `GetOutputArtifactsByExecutionId` (its schema is empty), backend/src/v2/metadata/client.go;
        `toMLMDArtifact` and `toRuntimeArtifact`, converter.go beside it.
        """
        artifact = pb.RuntimeArtifact(name=str(next(self._ids)), uri=made.uri)
        artifact.type.instance_schema = ""
        for key, value in made.metadata.fields.items():
            artifact.metadata.fields[key].CopyFrom(_from_mlmd(key, value))
        artifact.metadata.update({"display_name": made.name, "store_session_info": "{}"})
        return artifact

    def before(self, task: str, given: pb.ExecutorInput) -> Mapping[str, str]:
        """`downloadArtifacts` and `prepareOutputFolders`, backend/src/v2/component/launcher_v2.go, in a new pod."""
        shutil.rmtree(self._pod(task), ignore_errors=True)
        for artifacts in given.inputs.artifacts.values():
            for artifact in artifacts.artifacts:
                self._bucket.download(artifact.uri, self._copy(task, artifact.uri))
        for parameter in given.outputs.parameters.values():
            Path(parameter.output_file).parent.mkdir(parents=True, exist_ok=True)
        for artifacts in given.outputs.artifacts.values():
            for artifact in artifacts.artifacts:
                self._copy(task, artifact.uri).parent.mkdir(parents=True, exist_ok=True)
        return {"KFP_POD_NAME": f"{task.lower()}-pod"}  # backend/src/v2/compiler/argocompiler/common.go

    def after(self, task: str, component: pb.ComponentSpec, given: pb.ExecutorInput) -> pb.ExecutorOutput:
        """`getExecutorOutputFile`, `collectOutputParameters` and `uploadOutputArtifacts` of the launcher."""
        file = Path(given.outputs.output_file)
        output = json_format.Parse(file.read_text() if file.exists() else "{}", pb.ExecutorOutput())
        for key, parameter in given.outputs.parameters.items():
            if key not in output.parameter_values:
                kind = component.output_definitions.parameters[key].parameter_type
                output.parameter_values[key].CopyFrom(_read_parameter(task, key, Path(parameter.output_file), kind))
        for key, artifacts in given.outputs.artifacts.items():
            told = output.artifacts[key].artifacts if key in output.artifacts else ()
            address = next((artifact.uri for artifact in told if artifact.uri), artifacts.artifacts[0].uri)
            self._bucket.upload(self._copy(task, address), address)
        shutil.rmtree(self._pod(task))
        return output

    def place(self, address: str) -> str:
        return str(self._bucket.path(address))

    def _pod(self, task: str) -> Path:
        return self._logs / task / "pod"

    def _copy(self, task: str, uri: str) -> Path:
        """`LocalPathForURI`, launcher_v2.go."""
        scheme, _, rest = uri.partition("://")
        return self._pod(task) / COPIES[f"{scheme}://"] / rest


def _from_mlmd(key: str, value: struct_pb2.Value) -> struct_pb2.Value:
    """`StructValueToMLMDValue`, and back by `toRuntimeArtifact`, backend/src/v2/metadata/converter.go."""
    match value.WhichOneof("kind"):
        case "null_value":
            raise PipelineError(f"artifact property {key!r} is null, which Kubeflow's launcher refuses.")
        case "bool_value":
            return struct_pb2.Value(number_value=int(value.bool_value))
        case "list_value" | "struct_value" as kind:
            wrapped = struct_pb2.Struct()
            wrapped.fields[kind.removesuffix("_value")].CopyFrom(value)
            return struct_pb2.Value(struct_value=wrapped)
    return value


def _read_parameter(task: str, key: str, file: Path, kind: int) -> struct_pb2.Value:
    """`collectOutputParameters` of the launcher, and `TextToPbValue`, backend/src/v2/metadata/converter.go."""
    try:
        text = file.read_text()
        if kind == pb.ParameterType.STRING:
            return struct_pb2.Value(string_value=text)
        return json_format.Parse(text, struct_pb2.Value())
    except (OSError, json_format.ParseError) as error:
        raise PipelineError(f"failed to read output parameter {key!r} of task {task}: {error}") from error
