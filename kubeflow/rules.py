"""The rules that decide whether a compiled pipeline runs at its target, each by its name.

Kubeflow's parser of packages (kfp's own) accepts files that break some of them; its backend then refuses the run, or a
task fails an hour later. Each rule is a function from the compiled pipeline to what breaks it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias

import yaml
from google.protobuf import json_format

from mnist_tfx.components.beam_arguments import workers_elsewhere
from mnist_tfx.contract.names import TARGETS
from mnist_tfx.kubeflow.artifact_types import OUR_TYPES
from mnist_tfx.kubeflow.ir import CompiledPipeline
from mnist_tfx.kubeflow.machines import KUBERNETES_RESOURCE
from mnist_tfx.kubeflow.profiles import Target

COMMAND = ("python", "-m", "mnist_tfx.kubeflow.entrypoint")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_TYPE_TITLE = re.compile(r"[a-z][a-z0-9_-]{2,20}\.[A-Z][A-Za-z0-9_-]{2,49}")
_VERTEX_ACCELERATOR = re.compile(r"(NVIDIA|TPU)_[A-Z0-9_]+")
# kubernetes_platform/proto/kubernetes_executor_config.proto in github.com/kubeflow/pipelines, as of version 2.17.
_KUBERNETES_FIELDS = re.compile(
    "secretAs(Volume|Env)|pvcMount|nodeSelector|podMetadata|imagePull(Secret|Policy)|configMapAs(Volume|Env)|"
    "activeDeadlineSeconds|fieldPathAsEnv|tolerations|genericEphemeralVolume|(node|pod)Affinity|enabledSharedMemory|"
    "emptyDirMounts|securityContext"
)
_CLASS_NAMES = ("class_names", "classes")  # keys of what holds them: Open Images' /m/01g317 is no path
_INPUT_IN_CONDITION = re.compile(r"inputs\.artifacts\['([^']+)'\]")


@dataclass(frozen=True)
class Breach:
    """One place where a rule is broken."""

    rule: str
    node: str  # a task; empty: the whole pipeline
    found: str
    remedy: str

    def __str__(self) -> str:
        where = f"task {self.node}" if self.node else "the pipeline"
        return f"{self.rule}: {where}: {self.found}. Remedy: {self.remedy}"


_Broken: TypeAlias = Iterator[tuple[str, str, str]]  # node, what was found, and the remedy


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what it says, and the targets it holds for."""

    name: str
    says: str
    targets: tuple[str, ...]
    judge: Callable[[CompiledPipeline, Target], _Broken]

    def breaches(self, pipeline: CompiledPipeline, target: Target) -> list[Breach]:
        """Where it is broken."""
        return [Breach(self.name, *broken) for broken in self.judge(pipeline, target)]


def _schema_version(pipeline: CompiledPipeline, target: Target) -> _Broken:
    taken = ("2.1.0",) if target == "kubeflow" else ("2.0.0", "2.1.0")
    if pipeline.spec.schema_version not in taken:
        found = f"schemaVersion is {pipeline.spec.schema_version!r}, {' or '.join(taken)} is wanted"
        yield "", found, "compile with use_pipeline_spec_2_1=True."


def _file_ending(pipeline: CompiledPipeline, target: Target) -> _Broken:
    endings = (".yaml",) if target == "kubeflow" else (".json", ".yaml")
    if pipeline.path.suffix not in endings:
        yield "", f"the file is {pipeline.path.name!r}", f"compile into a file ending in {' or '.join(endings)}."


def _no_resolver(pipeline: CompiledPipeline, target: Target) -> _Broken:
    for name, _, executor in pipeline.executed():
        if executor.HasField("resolver"):
            remedy = "look the artifact up in an ordinary component, as Baseline does."
            yield name, "it is a Resolver node, which the backend refuses", remedy


def _no_condition_on_importer(pipeline: CompiledPipeline, target: Target) -> _Broken:
    importers = {name for name, _, executor in pipeline.executed() if executor.HasField("importer")}
    remedy = "take the condition away, or let an ordinary component make the artifact."
    for name, task in pipeline.tasks().items():
        condition = task.trigger_policy.condition
        if condition and name in importers:
            yield name, f"it is an Importer with the condition {condition!r}", remedy
        for key in _INPUT_IN_CONDITION.findall(condition):
            # TFX names an artifact by the task's own key, or as `_PRODUCER.KEY`, which is no key of the task.
            producer = (
                task.inputs.artifacts[key].task_output_artifact.producer_task
                if key in task.inputs.artifacts
                else key.removeprefix("_").rpartition(".")[0]
            )
            if producer in importers:
                yield name, f"its condition {condition!r} hangs on the Importer {producer}", remedy


def _no_custom_driver(pipeline: CompiledPipeline, target: Target) -> _Broken:
    for name, _, executor in pipeline.executed():
        if executor.container.HasField("lifecycle"):
            found = "it needs a driver of its own (lifecycle.preCacheCheck), which never runs there"
            yield name, found, "use a component without one: TfdsExampleGen rather than a file-based ExampleGen."


def _readable_root(pipeline: CompiledPipeline, target: Target) -> _Broken:
    schemes = ("gs://", "s3://", "minio://") if target == "kubeflow" else ("gs://",)
    if not pipeline.root.startswith(schemes):
        found = f"its root is {pipeline.root!r}" if pipeline.root else "it names no root"
        remedy = 'set root = "gs://BUCKET/FOLDER" in the profile.'
        yield "", f"{found}; it must begin with {' or '.join(schemes)}", remedy
    for name, task in pipeline.tasks().items():
        for key, parameter in task.inputs.parameters.items():
            # Kubeflow's launcher copies artifacts; what a parameter names, the task reads and writes by itself.
            if (address := parameter.runtime_value.constant.string_value).startswith(("s3://", "minio://")):
                found = f"parameter {key!r} holds {address!r}, and TensorFlow in the image reads gs:// only"
                yield name, found, 'set shared = "gs://BUCKET/FOLDER" in the profile.'
    for name, task, executor in pipeline.executed():
        if workers_elsewhere(executor.container.args):
            remedy = 'keep artifacts and data in gs://, or set beam.runner = "direct", in the profile.'
            volumes = pipeline.mount_paths(task)
            for place in volumes if pipeline.root.startswith("gs://") else [pipeline.root, *volumes]:
                yield name, f"Beam's workers elsewhere cannot read {place!r}", remedy


def _accelerator_name(pipeline: CompiledPipeline, target: Target) -> _Broken:
    for name, _, executor in pipeline.executed():
        accelerator = executor.container.resources.accelerator
        kind = accelerator.type or accelerator.resource_type
        if not kind:
            continue
        if target == "vertex" and not _VERTEX_ACCELERATOR.fullmatch(kind):
            yield name, f"accelerator {kind!r}", "use Vertex AI's word, as in NVIDIA_TESLA_T4, or a profile for it."
        if target == "kubeflow" and not KUBERNETES_RESOURCE.fullmatch(kind):
            yield name, f"accelerator {kind!r}", "use Kubernetes' resource name, nvidia.com/gpu, or a profile for it."
        if not (accelerator.count or accelerator.resource_count):
            yield name, f"accelerator {kind!r} has no count", "set accelerator_count in the profile."


def _artifact_types(pipeline: CompiledPipeline, target: Target) -> _Broken:
    remedy = "give the artifact's class a TYPE_NAME of the form `package.Class` that can be imported so."
    for name, task in pipeline.tasks().items():
        component = pipeline.component(task)
        if component is None:
            continue
        for definitions in (component.input_definitions, component.output_definitions):
            for key, artifact in definitions.artifacts.items():
                title = _type_title(artifact.artifact_type)
                if title not in OUR_TYPES and (not _TYPE_TITLE.fullmatch(title) or title.startswith("system.")):
                    found = f"artifact {key!r} has the type {title!r}, from which TFX cannot make its class"
                    yield name, found, remedy


def _type_title(schema: Any) -> str:
    if schema.WhichOneof("kind") == "instance_schema":
        try:
            parsed = yaml.safe_load(schema.instance_schema)
        except yaml.YAMLError:
            return ""
        return str(parsed.get("title", "")) if isinstance(parsed, dict) else ""
    return str(schema.schema_title)


def _pipeline_name(pipeline: CompiledPipeline, target: Target) -> _Broken:
    if not _NAME.fullmatch(pipeline.name):
        remedy = "lower case letters, digits and '-', 128 at most: fashion-mnist, not fashion_mnist."
        yield "", f"its name is {pipeline.name!r}", remedy


def _container_command(pipeline: CompiledPipeline, target: Target) -> _Broken:
    for name, _, executor in pipeline.executed():
        if not executor.HasField("container"):
            continue
        command, image = list(executor.container.command), executor.container.image
        if command != list(COMMAND):
            yield name, f"its command is {command}", f"it must be {' '.join(COMMAND)}."
        if not image or "tfx-oss-public" in image:
            remedy = "build kubeflow/Dockerfile, and name that image in the profile."
            yield name, f"its image is {image!r}, which lacks our code", remedy


def _no_local_paths(pipeline: CompiledPipeline, target: Target) -> _Broken:
    remedy = (
        "take every path from pipeline.dag.Paths, which a cluster fills with addresses in its bucket, or on the volume "
        "that the task mounts."
    )
    for name, task in pipeline.tasks().items():
        for key, parameter in task.inputs.parameters.items():
            value = json_format.MessageToDict(parameter.runtime_value)
            constant = value.get("constant", value.get("constantValue", {}).get("stringValue"))
            for path in _local_paths({key: constant}):
                if not any(path.startswith(f"{mounted}/") for mounted in pipeline.mount_paths(task)):
                    yield name, f"parameter {key!r} holds {path!r}, a path of the machine that compiled it", remedy


def _retry_policy(pipeline: CompiledPipeline, target: Target) -> _Broken:
    """Argo reads the factor as a whole number, and no longest time as one of 0 seconds (`processNodeRetries`)."""
    for name, task in pipeline.tasks().items():
        policy = task.retry_policy
        if task.HasField("retry_policy") and policy.backoff_max_duration.seconds <= 0:
            found = "its retry policy has no longest time (backoffMaxDuration), and so it is never tried again"
            yield name, found, "set retries.backoff_max_seconds in the profile, longer than all tries together take."
        if policy.backoff_factor != int(policy.backoff_factor):
            found = f"its retry policy has the factor {policy.backoff_factor:g}"
            yield name, found, "set retries.backoff_factor in the profile to a whole number."


def _kubernetes_config(pipeline: CompiledPipeline, target: Target) -> _Broken:
    """The backend unmarshals it strictly (`unmarshalKubernetesExecutorConfig`, argocompiler/spec_patch.go)."""
    for label, config in pipeline.kubernetes.items():
        task = label.removesuffix("_executor")
        if label not in pipeline.executors:
            found = f"the second document speaks of the executor {label!r}, which is not there"
            yield task, found, "compile it anew; the file was edited, or put together."
        for field in sorted(key for key in config if not _KUBERNETES_FIELDS.fullmatch(key)):
            found = f"Kubernetes is told {field!r}, which no KubernetesExecutorConfig has"
            yield task, found, "write it as kubernetes_executor_config.proto has it."


def _local_paths(value: Any) -> Iterator[str]:
    """Absolute paths anywhere in a parameter, whose value is often JSON in a string; names of classes are none."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key not in _CLASS_NAMES:
                yield from _local_paths(each)
    elif isinstance(value, list):
        for each in value:
            yield from _local_paths(each)
    elif isinstance(value, str):
        if re.match(r"/[^/\s]+/", value):
            yield value
        elif value[:1] in ("{", "["):
            try:
                yield from _local_paths(json.loads(value))
            except ValueError:
                return


def _whole_graph(pipeline: CompiledPipeline, target: Target) -> _Broken:
    remedy = "compile it anew; the file was edited, or cut off."
    for dag in pipeline.dags():
        if not dag.tasks:
            yield "", "a graph has no tasks", remedy
        waits: dict[str, list[str]] = {}
        for name, task in dag.tasks.items():
            component = pipeline.component(task)
            if component is None:
                yield name, f"its component {task.component_ref.name!r} is not there", remedy
            elif not component.HasField("dag") and pipeline.executor(task) is None:
                yield name, f"its executor {component.executor_label!r} is not there", remedy
            producers = {
                given.task_output_artifact.producer_task
                for given in task.inputs.artifacts.values()
                if given.HasField("task_output_artifact")
            }
            waits[name] = sorted({*task.dependent_tasks, *producers})
            for other in waits[name]:
                if other not in dag.tasks:
                    yield name, f"it waits for {other!r}, which is not there", remedy
            for other in sorted(producers - set(task.dependent_tasks)):
                yield name, f"it takes an artifact from {other!r} and does not wait for it", remedy
        try:
            TopologicalSorter(waits).prepare()
        except CycleError as error:
            yield error.args[1][0], f"the tasks wait for each other in a circle: {' -> '.join(error.args[1])}", remedy


_KUBEFLOW = ("kubeflow",)
RULES = (
    Rule("whole-graph", "every task has its component, its executor and what it waits for", TARGETS, _whole_graph),
    Rule("schema-version", "the schema is one that the target takes (Kubeflow: 2.1.0)", TARGETS, _schema_version),
    Rule("file-ending", "the file ends in .yaml (Vertex AI: or .json)", TARGETS, _file_ending),
    Rule("pipeline-name", "the name fits [a-z0-9][a-z0-9-]{0,127}", TARGETS, _pipeline_name),
    Rule("no-resolver", "there is no Resolver node", _KUBEFLOW, _no_resolver),
    Rule("no-condition-on-importer", "no condition hangs on an Importer", _KUBEFLOW, _no_condition_on_importer),
    Rule("no-custom-driver", "no task needs a driver of its own", TARGETS, _no_custom_driver),
    Rule("readable-root", "artifacts and data lie where tasks can read them", TARGETS, _readable_root),
    Rule("accelerator-name", "accelerators are named in the target's words", TARGETS, _accelerator_name),
    Rule("retry-policy", "a task that failed is tried again", _KUBEFLOW, _retry_policy),
    Rule(
        "kubernetes-config", "Kubernetes is told what it can be told, of tasks there are", _KUBEFLOW, _kubernetes_config
    ),
    Rule("artifact-types", "TFX can make every artifact's class from its type", TARGETS, _artifact_types),
    Rule("container-command", "every task runs our entry point in our own image", TARGETS, _container_command),
    Rule("no-local-paths", "no parameter holds a path of this machine", TARGETS, _no_local_paths),
)
