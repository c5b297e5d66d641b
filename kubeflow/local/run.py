"""Runs a compiled pipeline on this machine, without containers: what failed on the cluster can be looked at here.

The file is the one that the cluster gets. Only its root is another: a folder takes the place of the bucket, and what
would be uploaded there is put into it. What a cluster adds is left out: containers, machines and accelerators,
permissions, parallel tasks, retries.
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
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.compile import Upload
from mnist_tfx.kubeflow.entrypoint import register_types
from mnist_tfx.kubeflow.ir import read_compiled
from mnist_tfx.kubeflow.local.backends import Kubeflow, Vertex
from mnist_tfx.kubeflow.local.bucket import Bucket
from mnist_tfx.kubeflow.local.tasks import Places, order_of, run_tasks
from mnist_tfx.kubeflow.profiles import Profile, Target
from mnist_tfx.pipeline.local_run import outcome_of
from mnist_tfx.pipeline.outcome import Outcome
from mnist_tfx.pipeline.run_id import claim_run_id
from mnist_tfx.pipeline.running.describe import describer
from mnist_tfx.pipeline.running.live_view import make_observer
from mnist_tfx.pipeline.running.local_runner import NodeResult, RunResult
from mnist_tfx.pipeline.running.log_capture import output_to

LOG = "run.log"


def run_local(
    compiled: Path,
    profile: Profile,
    folder: Path,
    dataset: PreparedDataset,
    needed: Sequence[Upload],
    target: Target,
    *,
    in_bucket: bool = False,
) -> Outcome:
    """Runs it to its end, showing it on stderr; a failed run is an outcome too.

    Args:
        compiled: the file, as the cluster gets it.
        profile: whose roots are addresses in a bucket.
        folder: what takes their place; made, and laid out as in the bucket. Models are pushed to `serving/` in it.
        dataset: what the pipeline was compiled for.
        needed: what must lie under the root before the run.
        target: in whose way.
        in_bucket: nothing takes the root's place, and only logs go into `folder`. Everything else is read from and
            written to the bucket, with this user's credentials; what is needed must lie there. Not as Kubeflow, whose
            launcher would need credentials of its own.

    Raises:
        UsageError: the pipeline has parts that only a cluster can run.
        KeyboardInterrupt: the user stopped it.
    """
    pipeline = read_compiled(compiled)
    containers = [executor.container for executor in pipeline.executors.values()]
    if target == "kubeflow" and any(workers_elsewhere(container.args) for container in containers):
        raise UsageError(
            "Beam's workers elsewhere cannot read what takes the bucket's place for a pod: run it --as vertex."
        )
    for upload in () if in_bucket else needed:
        _put(upload.source, folder / upload.destination.removeprefix(profile.data_root()).lstrip("/"))
    run_id = claim_run_id(folder / "runs" / dataset.name, dataset.name)
    run = folder / "runs" / dataset.name / run_id
    roots = [profile.root, profile.data_root()]
    places = Places(run, folder / "cache" / target, roots, root_here="" if in_bucket else str(folder))
    backend = Vertex(f"{pipeline.root}/{run_id}" if in_bucket else str(run))
    if target == "kubeflow":
        backend = Kubeflow(f"{pipeline.root}/{run_id}", run, Bucket(profile.root, folder))
    started = time.monotonic()
    try:
        with (
            make_observer(dataset.name, order_of(pipeline), describer(dataset.class_names)) as observer,
            output_to(run / LOG),
        ):
            tasks = run_tasks(pipeline, backend, places, observer, _artifacts)
    except PipelineError as error:
        return Outcome(dataset.name, run_id, time.monotonic() - started, (), None, (), None, error)
    seconds = time.monotonic() - started
    nodes = tuple(NodeResult(task.name, task.cached, task.seconds, _artifacts(task.outputs)) for task in tasks)
    with output_to(run / LOG):
        return outcome_of(dataset, RunResult(run_id, seconds, nodes), seconds)


def run_folder(folder: Path, outcome: Outcome) -> Path:
    """Where a run under `folder` left its tasks' outputs and logs."""
    return folder / "runs" / outcome.dataset / outcome.run


def _put(source: Path, target: Path) -> None:
    """What is there already is taken to be the same: the version and the digest are in its path."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _artifacts(outputs: Mapping[str, pb.ArtifactList]) -> Mapping[str, Sequence[Artifact]]:
    """As a task's entry point would read them."""
    register_types()
    parsed: Mapping[str, Sequence[Artifact]] = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(outputs)
    return parsed
