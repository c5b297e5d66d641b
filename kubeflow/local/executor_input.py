"""What a backend does around a task's container: hands it an `ExecutorInput`, and reads the `ExecutorOutput` it leaves.

Both are messages of the pipeline's own format; the backends of Vertex AI and of Kubeflow Pipelines make and read the
same ones (kfp's `pipeline_spec.proto`). What they do each in its own way is in `backends`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.ir import CompiledPipeline
from mnist_tfx.kubeflow.local.backends import Vertex


class Values:
    """What the tasks that have run have made, and the run's own parameters."""

    def __init__(self, pipeline: CompiledPipeline, backend: Vertex, here: Callable[[str], str]) -> None:
        """`here` puts into a text what takes the place of the profile's root."""
        self._spec, self._backend, self._here = pipeline.spec, backend, here
        self._made: dict[str, pb.ExecutorOutput] = {}

    def executor_input(self, name: str) -> pb.ExecutorInput:
        """The message for a task, all of whose producers have run.

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
            [made] = self._made[source.producer_task].artifacts[source.output_artifact_key].artifacts
            message.inputs.artifacts[key].artifacts.append(self._backend.handed_on(made))
        for key in component.input_definitions.parameters:
            value = self._parameter(name, key, task, component)
            if value is not None:
                message.inputs.parameter_values[key].CopyFrom(value)
                if value.WhichOneof("kind") == "string_value":
                    message.inputs.parameter_values[key].string_value = self._here(value.string_value)
        for key, definition in component.output_definitions.artifacts.items():
            artifact = message.outputs.artifacts[key].artifacts.add(name=key, uri=self._backend.address(name, key))
            artifact.type.CopyFrom(definition.artifact_type)
            artifact.metadata.CopyFrom(definition.metadata)
        for key in component.output_definitions.parameters:
            message.outputs.parameters[key].output_file = self._backend.parameter_file(name, key)
        message.outputs.output_file = self._backend.output_file(name)
        return message

    def take(self, name: str, made: pb.ExecutorOutput) -> None:
        """Keeps what a finished task left, for those that come after."""
        self._made[name] = made

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
                return self._made[source.producer_task].parameter_values[source.output_parameter_key]
            case "component_input_parameter":
                of_run = self._spec.root.input_definitions.parameters[given.component_input_parameter]
                if of_run.HasField("default_value"):
                    return of_run.default_value
        raise UsageError(f"parameter {key!r} of task {name} has no value that is known here: run it on its cluster.")


def command_line(executor: Any, given: pb.ExecutorInput, here: Callable[[str], str]) -> list[str]:
    """A container's command and arguments, with the `ExecutorInput` in its place.

    Raises:
        UsageError: an argument asks for more than our entry point does.
    """
    words = [*executor.container.command, *executor.container.args]
    unknown = [word for word in words if "{{$." in word]
    if unknown:
        raise UsageError(f"the argument {unknown[0]!r} is not one of our entry point, and cannot be filled in here.")
    message = json_format.MessageToJson(given, indent=None, sort_keys=True)
    return [here(word).replace("{{$}}", message) for word in words]


def kept(given: pb.ExecutorInput, output: pb.ExecutorOutput) -> pb.ExecutorOutput:
    """What a backend keeps of a finished task: its outputs as they were planned, with what the executor says of them.

    `mergeRuntimeArtifacts`, backend/src/v2/component/launcher_v2.go.
    """
    made = pb.ExecutorOutput()
    for key, value in output.parameter_values.items():
        made.parameter_values[key].CopyFrom(value)
    for key, planned in given.outputs.artifacts.items():
        artifact = made.artifacts[key].artifacts.add()
        artifact.CopyFrom(planned.artifacts[0])
        for told in output.artifacts[key].artifacts if key in output.artifacts else ():
            artifact.metadata.update(json_format.MessageToDict(told.metadata))
            artifact.uri = told.uri or artifact.uri
    return made
