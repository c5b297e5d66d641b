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
        kubernetes: what Kubernetes is told of each executor, by its label: `KubernetesExecutorConfig`s as JSON.
    """

    path: Path
    spec: pb.PipelineSpec
    executors: Mapping[str, ExecutorSpec]
    root: str
    kubernetes: Mapping[str, Mapping[str, Any]]

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

    def executed(self) -> Iterator[tuple[str, pb.PipelineTaskSpec, ExecutorSpec]]:
        """The tasks that are run, by name, and how each is."""
        for name, task in self.tasks().items():
            if (executor := self.executor(task)) is not None:
                yield name, task, executor

    def mount_paths(self, task: pb.PipelineTaskSpec) -> list[str]:
        """Where a task's container has volumes."""
        component = self.component(task)
        config = self.kubernetes.get(component.executor_label, {}) if component is not None else {}
        mounts = config.get("pvcMount")
        known = mounts if isinstance(mounts, list) else []
        return [str(mount["mountPath"]) for mount in known if isinstance(mount, dict) and "mountPath" in mount]


def read_compiled(path: Path) -> CompiledPipeline:
    """Reads a PipelineJob or a PipelineSpec, in JSON or YAML.

    Raises:
        UsageError: it is no such file.
    """
    return parse_compiled(read_content(path), path)


def read_content(path: Path) -> Mapping[str, Any]:
    """The file as it is written: a PipelineJob, whose `pipelineSpec` is the pipeline, or the pipeline alone.

    What the second YAML document of a pipeline holds, the key `platforms`, is in it, too.

    Raises:
        UsageError: it is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # JSON is YAML, but its own parser is faster.
        content, *more = [json.loads(text)] if path.suffix == ".json" else [*yaml.load_all(text, _LOADER)] or [None]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is no compiled pipeline: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, dict) or not {"pipelineSpec", "pipelineInfo"} & set(content):
        raise UsageError(f"{path} is no compiled pipeline: it has neither `pipelineSpec` nor `pipelineInfo`.")
    for document in more:
        if isinstance(document, dict) and "platforms" in document:
            content["platforms"] = document["platforms"]
    return content


def parse_compiled(content: Mapping[str, Any], path: Path) -> CompiledPipeline:
    """The same for a file's content.

    Raises:
        UsageError: it does not fit the format.
    """
    spec_json = content.get("pipelineSpec", {key: value for key, value in content.items() if key != "platforms"})
    runtime = content.get("runtimeConfig", {})
    if not isinstance(spec_json, dict) or not isinstance(runtime, dict):
        raise UsageError(f"{path} is no compiled pipeline: `pipelineSpec` and `runtimeConfig` are objects there.")
    try:
        spec = json_format.ParseDict(spec_json, pb.PipelineSpec())
        deployment = json_format.ParseDict(spec_json.get("deploymentSpec", {}), pb.PipelineDeploymentConfig())
        platform = json_format.ParseDict({"platforms": content.get("platforms", {})}, pb.PlatformSpec())
    # The parser raises the last three itself where it finds a value of another kind than it expects.
    except (json_format.ParseError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{path} is no compiled pipeline: {str(error).rstrip('.')}.") from error
    root = str(runtime.get("gcsOutputDirectory") or spec.default_pipeline_root)
    configs = platform.platforms["kubernetes"].deployment_spec.executors
    kubernetes = {label: json_format.MessageToDict(config) for label, config in configs.items()}
    return CompiledPipeline(path, spec, dict(deployment.executors), root, kubernetes)
