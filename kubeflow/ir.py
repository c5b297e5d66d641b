"""A compiled pipeline, read from its file (the IR, as Vertex AI and Kubeflow Pipelines call it)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.contract.errors import UsageError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # where libyaml is there, ten times as fast
ExecutorSpec: TypeAlias = pb.PipelineDeploymentConfig.ExecutorSpec


@dataclass(frozen=True)
class CompiledPipeline:
    """The parsed file.

    Attributes:
        path: the file.
        spec: the pipeline.
        executors: how each task is run, by the label that its component names.
        root: where the run keeps its artifacts; empty if the file does not say.
    """

    path: Path
    spec: pb.PipelineSpec
    executors: Mapping[str, ExecutorSpec]
    root: str

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline_info.name

    def dags(self) -> Iterator[pb.DagSpec]:
        """The root's graph, and those of components that are graphs themselves."""
        yield self.spec.root.dag
        yield from (component.dag for component in self.spec.components.values() if component.HasField("dag"))

    def tasks(self) -> dict[str, pb.PipelineTaskSpec]:
        """All tasks by name, of all graphs."""
        return {name: task for dag in self.dags() for name, task in dag.tasks.items()}

    def component(self, task: pb.PipelineTaskSpec) -> pb.ComponentSpec | None:
        """The component of a task; None where the file lacks it."""
        return self.spec.components.get(task.component_ref.name)

    def executor(self, task: pb.PipelineTaskSpec) -> ExecutorSpec | None:
        """How a task is run; None where its component is a graph, or the file lacks it."""
        component = self.component(task)
        return self.executors.get(component.executor_label) if component is not None else None


def read_compiled(path: Path) -> CompiledPipeline:
    """Reads a PipelineJob or a PipelineSpec, in JSON or YAML.

    Raises:
        UsageError: it is no such file.
    """
    return parse_compiled(read_content(path), path)


def read_content(path: Path) -> Mapping[str, Any]:
    """The file as it is written: a PipelineJob, whose `pipelineSpec` is the pipeline, or the pipeline alone.

    Raises:
        UsageError: it is neither.
    """
    try:
        text = path.read_text()
        # JSON is YAML, but its own parser is faster. A second YAML document is for Kubernetes alone.
        content = json.loads(text) if path.suffix == ".json" else next(iter(yaml.load_all(text, _LOADER)), None)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is no compiled pipeline: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, dict) or not {"pipelineSpec", "pipelineInfo"} & set(content):
        raise UsageError(f"{path} is no compiled pipeline: it has neither `pipelineSpec` nor `pipelineInfo`.")
    return content


def parse_compiled(content: Mapping[str, Any], path: Path) -> CompiledPipeline:
    """The same for a file's content.

    Raises:
        UsageError: it does not fit the format.
    """
    spec_json = content.get("pipelineSpec", content)
    runtime = content.get("runtimeConfig", {})
    if not isinstance(spec_json, dict) or not isinstance(runtime, dict):
        raise UsageError(f"{path} is no compiled pipeline: `pipelineSpec` and `runtimeConfig` are objects there.")
    try:
        spec = json_format.ParseDict(spec_json, pb.PipelineSpec())
        deployment = json_format.ParseDict(spec_json.get("deploymentSpec", {}), pb.PipelineDeploymentConfig())
    # The parser raises the last three itself where it finds a value of another kind than it expects.
    except (json_format.ParseError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{path} is no compiled pipeline: {str(error).rstrip('.')}.") from error
    root = str(runtime.get("gcsOutputDirectory") or spec.default_pipeline_root)
    return CompiledPipeline(path, spec, dict(deployment.executors), root)
