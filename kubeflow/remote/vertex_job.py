"""A compiled pipeline as Vertex AI is asked to run it."""

from __future__ import annotations

from google.cloud.aiplatform_v1.types import PipelineJob
from google.protobuf import json_format

from mnist_tfx.kubeflow.profiles import VertexProfile
from mnist_tfx.kubeflow.remote.platform import MANAGED_BY, Job


def pipeline_job(job: Job, profile: VertexProfile) -> PipelineJob:
    """The message, with the profile's labels, account, network, key, and the labels by which we know it again."""
    message = PipelineJob(
        display_name=job.pipeline,
        service_account=profile.service_account,
        network=profile.network,
        encryption_spec={"kms_key_name": profile.encryption_key} if profile.encryption_key else None,
        labels={
            **profile.labels,
            "managed-by": MANAGED_BY,
            "dataset": job.dataset,
            "recipe": job.recipe[:63],
            "pipeline-digest": job.digest,
        },
        runtime_config=PipelineJob.RuntimeConfig(gcs_output_directory=job.root),
    )
    json_format.ParseDict(dict(job.spec), PipelineJob.pb(message).pipeline_spec)
    return message
