"""What a run and a schedule on Kubeflow Pipelines hang on: an experiment, a pipeline, and a version of it.

Each is found by its name, and made where it is not there; several callers may do so at once.
"""

from __future__ import annotations

from typing import Any

import kfp_server_api as models

from mnist_tfx.kubeflow.remote.kfp_access import KubeflowAccess
from mnist_tfx.kubeflow.remote.platform import MANAGED_BY, Job


def find_experiment(access: KubeflowAccess) -> Any | None:
    """The profile's experiment, if it is there."""
    lists = access.client.experiments.experiment_service_list_experiments
    return access.named(access.profile.experiment, "experiments", lists, **access.in_namespace())


def experiment_id(access: KubeflowAccess) -> str:
    """Of the profile's experiment."""
    wanted = models.V2beta1Experiment(display_name=access.profile.experiment, **access.in_namespace())
    create = access.client.experiments.experiment_service_create_experiment
    found = access.made("create the experiment", lambda: find_experiment(access), create, wanted)
    return str(found.experiment_id)


def version_of(access: KubeflowAccess, job: Job) -> dict[str, str]:
    """A version of the job's pipeline with just this content, as kfp's client wants it, named by the file's digest."""
    pipelines, inside = access.client.pipelines, access.in_namespace()
    wanted = models.V2beta1Pipeline(
        name=job.pipeline, display_name=job.pipeline, description=f"made by {MANAGED_BY}", **inside
    )
    pipeline_id = access.made(
        "create the pipeline",
        lambda: access.named(job.pipeline, "pipelines", pipelines.pipeline_service_list_pipelines, **inside),
        pipelines.pipeline_service_create_pipeline,
        wanted,
    ).pipeline_id
    name, lists = f"{job.pipeline}-{job.digest}", pipelines.pipeline_service_list_pipeline_versions
    version = access.made(
        "upload the pipeline version",
        lambda: access.named(name, "pipeline_versions", lists, pipeline_id=pipeline_id),
        access.client.pipeline_uploads.upload_pipeline_version,
        str(job.file),
        name=name,
        pipelineid=pipeline_id,
        description=f"made by {MANAGED_BY} from recipe {job.recipe}",
    )
    return {"pipeline_id": pipeline_id, "version_id": version.pipeline_version_id}
