"""Compiles the pipeline for Vertex AI or Kubeflow Pipelines. Needs no network, no bucket and no credentials."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kfp.pipeline_spec import pipeline_spec_pb2 as pb
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig

from mnist_tfx.components.code_version import SOURCE, modules_of, source_told
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.live.driver import SurroundingsDriver
from mnist_tfx.components.report.component import Report
from mnist_tfx.components.settings import BeamSettings
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.check import check_file
from mnist_tfx.kubeflow.machines import KubeflowMachine, VertexMachine
from mnist_tfx.kubeflow.profiles import KubeflowProfile, Profile, VertexProfile
from mnist_tfx.kubeflow.retries import BACKUPS
from mnist_tfx.kubeflow.rules import COMMAND
from mnist_tfx.kubeflow.verdict import PARAMETER as VERDICT
from mnist_tfx.pipeline.dag import CALLED, Paths, create_pipeline
from mnist_tfx.pipeline.monitor_dag import create_monitor_pipeline
from mnist_tfx.pipeline.projects import Project
from mnist_tfx.pipeline.recipes import Recipe

UPLOAD_POD = "mnist-tfx-upload"  # docs name it, too
_TRAINER = "Trainer"
_TRAINING = (_TRAINER, "Tuner")
_SYSTEM_TYPE = re.compile(r"^title: (system\.\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Upload:
    """A file or a folder that must lie in the bucket, or on the volume, before the pipeline runs."""

    source: Path
    destination: str

    def command(self) -> str:
        """What copies it there, from the folder where this is called; in a bucket, not what lies there already."""
        here = Path.cwd()
        source = self.source.relative_to(here) if self.source.is_relative_to(here) else self.source
        if self.destination.startswith("/"):  # on a volume, through a pod that mounts it
            # Into the folder: where what is copied is there already, `kubectl cp` to its name would copy into it.
            into = str(Path(self.destination).parent)
            make = ["kubectl", "exec", UPLOAD_POD, "--", "mkdir", "-p", into]
            return f"{shlex.join(make)} && {shlex.join(['kubectl', 'cp', str(source), f'{UPLOAD_POD}:{into}'])}"
        verb = ("rsync", "--recursive") if self.source.is_dir() else ("cp",)
        return shlex.join(["gcloud", "storage", *verb, str(source), self.destination])


def compile_prepared(
    dataset: PreparedDataset, recipe: Recipe, profile: Profile, output: Path, *, monitor: bool = False
) -> None:
    """Writes the compiled pipeline to `output`; the same input gives the same bytes.

    Args:
        dataset: its fingerprint and class names enter the pipeline.
        recipe: what the pipeline does.
        profile: where it runs.
        output: a file ending in `.json` (Vertex AI) or `.yaml` (both).
        monitor: the pipeline that watches what is served, instead of the one that trains.

    Raises:
        UsageError: a setting does not fit, or the file's ending does not.
        BrokenRules: the compiled pipeline would not run at its target; the file is written nevertheless, to look at.
    """
    check_ending(profile, output)
    job = _job(dataset, recipe, profile, monitor=monitor)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(_text(job, _platform_spec(job, profile), output), encoding="utf-8")
    check_file(output, profile.target)


def check_ending(profile: Profile, output: Path) -> None:
    """Raises a UsageError where the target does not take files of this ending."""
    endings = (".json", ".yaml") if isinstance(profile, VertexProfile) else (".yaml",)
    if output.suffix not in endings:
        raise UsageError(
            f"{output}: a pipeline for {profile.target} must be in a file ending in {' or '.join(endings)}."
        )


def uploads(dataset: PreparedDataset, project: Project, profile: Profile, *, monitor: bool = False) -> list[Upload]:
    """What the pipeline reads that is not made by it: the prepared dataset with its spans, and its schema.

    Raises:
        UsageError: there is no curated schema.
    """
    paths = cluster_paths(project, profile)
    schema = Upload(project.schema_file, paths.schema_file)
    if monitor:
        return [schema]
    read = {each.folder for each in (dataset, *dataset.spans.values())}
    data = [Upload(folder, f"{paths.data_dir}/{folder.relative_to(dataset.data_dir)}") for folder in sorted(read)]
    return [*data, schema]


def cluster_paths(project: Project, profile: Profile) -> Paths:
    """Every path of the pipeline, under the profile's roots; laid out as in a home.

    Raises:
        UsageError: there is no curated schema.
    """
    root, dataset = profile.data_root(), project.model
    return Paths(
        pipeline_root=f"{profile.root}/runs/{dataset}",
        data_dir=f"{root}/datasets",
        schema_file=f"{root}/schemas/{dataset}/{project.schema_digest()}/schema.pbtxt",
        training_backup="",  # runs may overlap: each keeps its own
        serving=f"{root}/serving/{dataset}",
    )


def _job(dataset: PreparedDataset, recipe: Recipe, profile: Profile, *, monitor: bool) -> dict[str, Any]:
    """The PipelineJob as a JSON object."""
    if recipe.beam != BeamSettings():
        raise UsageError(
            "on a cluster, Beam's settings are the profile's: leave [beam] out of the recipe, and write it in the "
            "profile or as --profile-set beam.runner=dataflow."
        )
    if recipe.infra.endpoint and isinstance(profile, KubeflowProfile) and not monitor:
        raise UsageError(
            "on Kubeflow, a task's files are its pod's, where a staging server cannot read the candidate: leave "
            "infra.endpoint out of the recipe, and a server in the pod checks the model; or use the target vertex."
        )
    paths = cluster_paths(recipe.project, profile)
    if monitor:
        pipeline = create_monitor_pipeline(
            recipe,
            pipeline_root=paths.pipeline_root,
            schema_file=paths.schema_file,
            serving=paths.serving,
            requests=f"{profile.data_root()}/requests/{recipe.project.model}/requests",
            enable_cache=profile.cache,
        )
    else:
        recipe = recipe.model_copy(update={"beam": profile.beam_settings()})
        pipeline = create_pipeline(recipe, dataset, paths, enable_cache=profile.cache)
    for component in pipeline.components:
        if isinstance(component, BaseComponent):
            machine = profile.machines.trainer if component.id in _TRAINING else profile.machines.default
            component.with_platform_config(_resource_spec(machine))
    config = KubeflowV2DagRunnerConfig(
        default_image=profile.image, default_commands=list(COMMAND), use_pipeline_spec_2_1=True
    )
    job = dict(KubeflowV2DagRunner(config).run(pipeline, write_out=False))
    job["pipelineSpec"]["defaultPipelineRoot"] = paths.pipeline_root
    executors = job["pipelineSpec"]["deploymentSpec"]["executors"]
    tasks = job["pipelineSpec"]["root"]["dag"]["tasks"]
    for component in pipeline.components:
        if "container" in (executor := executors[f"{component.id}_executor"]):  # TFX leaves the flags out of it
            executor["container"]["args"] += component.executor_spec.extra_flags
            environment = _environment(component, dataset.name, profile)
            executor["container"]["env"] = [{"name": name, "value": environment[name]} for name in environment]
        if policy := profile.retries.policy(component.id, trainer=component.id == _TRAINER):
            tasks[component.id]["retryPolicy"] = policy
        # The backend runs no drivers, by which a local cache knows what is live; and a report is of its run.
        if issubclass(component.driver_class, SurroundingsDriver) or isinstance(component, Report):
            tasks[component.id].pop("cachingOptions", None)
    for component in job["pipelineSpec"]["components"].values():
        outputs = component.setdefault("outputDefinitions", {})
        outputs["parameters"] = {VERDICT: {"parameterType": "STRING"}}
        for artifact in outputs.get("artifacts", {}).values():
            artifact["artifactType"] = _named_as_system(artifact["artifactType"])
    if isinstance(profile, VertexProfile):
        job["labels"] = {**job.get("labels", {}), **profile.labels}
        if profile.encryption_key:
            job["encryptionSpec"] = {"kmsKeyName": profile.encryption_key}
    return job


def _environment(component: BaseComponent, dataset: str, profile: Profile) -> dict[str, str]:
    """The variables of a task's container; on Vertex AI they are part of its cache key."""
    variables = {**profile.environment, SOURCE: source_told(*modules_of(component, CALLED))}
    # Its pod's files are gone where it is tried again.
    if isinstance(profile, KubeflowProfile) and component.id == _TRAINER:
        variables[BACKUPS] = f"{profile.data_root()}/backups/{dataset}"
    return variables


def _platform_spec(job: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """The `PlatformSpec` of the pipeline's format as JSON; empty where Kubernetes is told nothing."""
    if isinstance(profile, VertexProfile):
        return {}
    executors = {
        label: profile.executor_config(
            profile.machines.trainer if label.removesuffix("_executor") in _TRAINING else profile.machines.default
        )
        for label in job["pipelineSpec"]["deploymentSpec"]["executors"]
    }
    told = {label: config for label, config in executors.items() if config}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": told}}}} if told else {}


def _named_as_system(artifact_type: dict[str, Any]) -> dict[str, Any]:
    """A type that the platforms know themselves, such as `system.HTML`, written as kfp writes it, so that they do."""
    found = _SYSTEM_TYPE.search(artifact_type.get("instanceSchema", ""))
    return {"schemaTitle": found[1], "schemaVersion": "0.0.1"} if found else artifact_type


def _resource_spec(machine: VertexMachine | KubeflowMachine) -> Any:
    cpus, memory_gb = machine.size
    spec = pb.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec(cpu_limit=cpus, memory_limit=memory_gb)
    if machine.accelerator:
        spec.accelerator.type, spec.accelerator.count = machine.accelerator, machine.accelerator_count
    return spec


def _text(job: dict[str, Any], platform: dict[str, Any], output: Path) -> str:
    """JSON holds the whole job, YAML the pipeline and what Kubernetes is told: what each target's own SDK writes."""
    if output.suffix == ".json":
        return json.dumps(job, indent=2, sort_keys=True) + "\n"
    documents = [job["pipelineSpec"], platform] if platform else [job["pipelineSpec"]]
    return "---\n".join(yaml.safe_dump(each, sort_keys=True) for each in documents)
