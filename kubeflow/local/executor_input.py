"""What a backend does around a task's container: hands it an `ExecutorInput`, and reads the `ExecutorOutput` it leaves.

Both are messages of the pipeline's own format; the backends of Vertex AI and of Kubeflow Pipelines make and read the
same ones. See kfp's `pipeline_spec.proto` and TFX's `kubeflow_v2_run_executor`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from etils import epath
from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.ir import CompiledPipeline

OUTPUT_FILE = "executor_output.json"


class Values:
    """What the tasks that have run have made, and the run's own parameters."""

    def __init__(self, pipeline: CompiledPipeline) -> None:
        self._spec = pipeline.spec
        self._artifacts: dict[tuple[str, str], pb.RuntimeArtifact] = {}
        self._parameters: dict[tuple[str, str], struct_pb2.Value] = {}

    def executor_input(self, name: str, folder: str) -> pb.ExecutorInput:
        """The message for a task, all of whose producers have run.

        Args:
            name: the task.
            folder: the task's own, where its outputs go.

        Raises:
            UsageError: it takes something that only a cluster can give.
        """
        task = self._spec.root.dag.tasks[name]
        component = self._spec.components[task.component_ref.name]
        message = pb.ExecutorInput()
        for key, given in task.inputs.artifacts.items():
            if not given.HasField("task_output_artifact"):
                raise UsageError(f"task {name} takes {key!r} from outside the pipeline: run it on its cluster.")
            source = given.task_output_artifact
            artifact = self._artifacts[source.producer_task, source.output_artifact_key]
            message.inputs.artifacts[key].artifacts.add().CopyFrom(artifact)
        for key in component.input_definitions.parameters:
            value = self._parameter(name, key, task, component)
            if value is not None:
                message.inputs.parameter_values[key].CopyFrom(value)
        for key, definition in component.output_definitions.artifacts.items():
            artifact = message.outputs.artifacts[key].artifacts.add()
            artifact.name, artifact.uri = f"{name}/{key}", os.path.join(folder, key)
            artifact.type.CopyFrom(definition.artifact_type)
            artifact.metadata.CopyFrom(definition.metadata)
        for key in component.output_definitions.parameters:
            message.outputs.parameters[key].output_file = os.path.join(folder, "parameters", key)
        message.outputs.output_file = os.path.join(folder, OUTPUT_FILE)
        return message

    def take_output(self, name: str, given: pb.ExecutorInput, folder: str) -> Mapping[str, pb.ArtifactList]:
        """Reads what a finished task left in its folder, and keeps it for those that come after.

        Returns:
            Its artifacts. They lie where that task put them, also if it was one of an earlier run.
        """
        output = json_format.Parse((epath.Path(folder) / OUTPUT_FILE).read_text(), pb.ExecutorOutput())
        made: dict[str, pb.ArtifactList] = {}
        for key, expected in given.outputs.artifacts.items():
            [artifact] = expected.artifacts
            for reported in output.artifacts[key].artifacts if key in output.artifacts else ():
                artifact.metadata.update(json_format.MessageToDict(reported.metadata))
                artifact.uri = reported.uri or artifact.uri
            self._artifacts[name, key] = artifact
            made[key] = pb.ArtifactList(artifacts=[artifact])
        for key, value in output.parameter_values.items():
            self._parameters[name, key] = value
        return made

    def _parameter(
        self, name: str, key: str, task: pb.PipelineTaskSpec, component: pb.ComponentSpec
    ) -> struct_pb2.Value | None:
        definition = component.input_definitions.parameters[key]
        if key not in task.inputs.parameters:
            return definition.default_value if definition.HasField("default_value") else None
        given = task.inputs.parameters[key]
        match given.WhichOneof("kind"):
            case "runtime_value":
                return given.runtime_value.constant
            case "task_output_parameter":
                source = given.task_output_parameter
                return self._parameters[source.producer_task, source.output_parameter_key]
            case "component_input_parameter":
                of_run = self._spec.root.input_definitions.parameters[given.component_input_parameter]
                if of_run.HasField("default_value"):
                    return of_run.default_value
        raise UsageError(f"parameter {key!r} of task {name} has no value that is known here: run it on its cluster.")


def has_output(folder: str) -> bool:
    """Whether a task that ran to its end left its output in this folder of its own."""
    return (epath.Path(folder) / OUTPUT_FILE).exists()


def command_line(executor: Any, given: pb.ExecutorInput) -> list[str]:
    """A container's command and arguments, with the `ExecutorInput` in its place.

    Raises:
        UsageError: an argument asks for more than TFX's entry point does.
    """
    words = [*executor.container.command, *executor.container.args]
    unknown = [word for word in words if "{{$." in word]
    if unknown:
        raise UsageError(f"the argument {unknown[0]!r} is not one of TFX's entry point, and cannot be filled in here.")
    message = json_format.MessageToJson(given, indent=None, sort_keys=True)
    return [word.replace("{{$}}", message) for word in words]
