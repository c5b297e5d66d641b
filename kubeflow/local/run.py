"""Runs a compiled pipeline on this machine, without containers: what failed on the cluster can be looked at here.

The file is the one that the cluster gets. Only its root is another: a folder takes the place of the bucket, and what
would be uploaded there is put into it. What a cluster adds is left out: containers, machines and accelerators,
permissions, parallel tasks, the pauses before retries.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kfp.pipeline_spec import pipeline_spec_pb2 as pb
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
from tfx.types import Artifact

from mnist_tfx.components.beam_arguments import workers_elsewhere
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.report.collect import measured
from mnist_tfx.components.report.run import Plan, Run, made_by
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.compile import Upload
from mnist_tfx.kubeflow.entrypoint import register_types
from mnist_tfx.kubeflow.ir import CompiledPipeline
from mnist_tfx.kubeflow.local.backends import Kubeflow, Vertex
from mnist_tfx.kubeflow.local.bucket import Bucket
from mnist_tfx.kubeflow.local.tasks import Places, run_tasks
from mnist_tfx.kubeflow.profiles import Profile, Target
from mnist_tfx.pipeline.home import RUN_LOG
from mnist_tfx.pipeline.observer import Observer


def check_target(pipeline: CompiledPipeline, target: Target) -> None:
    """Raises UsageError where the pipeline cannot be run here in the way of the target."""
    containers = [executor.container for executor in pipeline.executors.values()]
    if target == "kubeflow" and any(workers_elsewhere(container.args) for container in containers):
        raise UsageError(
            "Beam's workers elsewhere cannot read what takes the bucket's place for a pod: run it --as vertex."
        )


def run_local(
    pipeline: CompiledPipeline,
    profile: Profile,
    folder: Path,
    run_folder: Path,
    dataset: PreparedDataset,
    needed: Sequence[Upload],
    target: Target,
    observer: Observer,
    *,
    in_bucket: bool = False,
) -> Run:
    """Runs it to its end; a failed run is told too.

    Args:
        pipeline: the file, as the cluster gets it.
        profile: whose roots are addresses in a bucket.
        folder: what takes their place; made, and laid out as in the bucket. Models are pushed to `serving/` in it.
        run_folder: the run's own, in `folder`; its name is the run's id.
        dataset: what the pipeline was compiled for.
        needed: what must lie under the root before the run.
        target: in whose way.
        observer: is told how the run goes.
        in_bucket: nothing takes the root's place, and only logs go into `folder`. Everything else is read from and
            written to the bucket, with this user's credentials; what is needed must lie there. Not as Kubeflow, whose
            launcher would need credentials of its own.

    Raises:
        UsageError: the pipeline has parts that only a cluster can run.
        KeyboardInterrupt: the user stopped it.
    """
    for upload in () if in_bucket else needed:
        _put(upload.source, folder / upload.destination.removeprefix(profile.data_root()).lstrip("/"))
    run_id, log = run_folder.name, run_folder / RUN_LOG
    roots = [profile.root, profile.data_root()]
    places = Places(run_folder, folder / "cache" / target, roots, root_here="" if in_bucket else str(folder))
    backend = Vertex(f"{pipeline.root}/{run_id}" if in_bucket else str(run_folder))
    if target == "kubeflow":
        backend = Kubeflow(f"{pipeline.root}/{run_id}", run_folder, Bucket(profile.root, folder))
    started = time.monotonic()
    try:
        tasks = run_tasks(pipeline, backend, places, observer, _artifacts)
    except PipelineError as error:
        return Run(run_id, dataset.name, end="failed", error=error, seconds=time.monotonic() - started, log=log)
    return measured(
        Run(
            run_id,
            dataset.name,
            executions=tuple(
                made_by(task.name, _artifacts(task.outputs), "CACHED" if task.cached else "COMPLETE", task.seconds)
                for task in tasks
            ),
            plan=Plan(class_names=dataset.class_names),
            end="complete",
            seconds=time.monotonic() - started,
            log=log,
        )
    )


def _put(source: Path, target: Path) -> None:
    """What is there already is taken to be the same: the version and the digest are in its path."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")  # what a kill leaves
    if source.is_dir():
        shutil.copytree(source, partial, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, partial)
    partial.rename(target)


def _artifacts(outputs: Mapping[str, pb.ArtifactList]) -> Mapping[str, Sequence[Artifact]]:
    """As a task's entry point would read them."""
    register_types()
    parsed: Mapping[str, Sequence[Artifact]] = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(outputs)
    return parsed
