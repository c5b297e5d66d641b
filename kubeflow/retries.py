"""How often a platform tries a task again that failed: the `RetryPolicy` of the pipeline's format.

`PipelineTaskSpec.RetryPolicy`, api/v2alpha1/pipeline_spec.proto in github.com/kubeflow/pipelines. What its longest time
means differs: on Vertex AI it is the longest pause (https://cloud.google.com/vertex-ai/docs/pipelines/configure-retries);
on Kubeflow, Argo tries nothing again that much later than the first try began, and stops a try that lasts until then
(`processNodeRetries`, workflow/controller/operator.go in github.com/argoproj/argo-workflows).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mnist_tfx.components.settings import Section

BACKUPS = "MNIST_TFX_BACKUPS"  # in the Trainer's container: where its backups outlive the pod
NOT_REPEATED = ("DataGate", "Monitor")  # neither platform can tell exit codes apart: what it rejects, it rejects again

Count = Annotated[int, Field(ge=0, le=10)]


class VertexRetries(Section):
    """How often a task is tried again, and after which pauses."""

    default: Count = 0
    trainer: Count = 0
    backoff_seconds: Annotated[int, Field(ge=0)] = 60  # before the second try
    backoff_factor: Annotated[int, Field(ge=1, le=10)] = 2  # by which each further pause is longer
    backoff_max_seconds: Annotated[int, Field(ge=1, le=3600)] = 3600  # the longest pause

    def policy(self, task: str, *, trainer: bool) -> dict[str, Any] | None:
        """The `RetryPolicy` of a task as JSON; None: it is tried once."""
        count = self.trainer if trainer else self.default
        if not count or task in NOT_REPEATED:
            return None
        return {
            "maxRetryCount": count,
            "backoffDuration": f"{self.backoff_seconds}s",
            "backoffFactor": float(self.backoff_factor),
            "backoffMaxDuration": f"{self.backoff_max_seconds}s",
        }


class KubeflowRetries(VertexRetries):
    """The same; the longest time is that of all tries together."""

    backoff_max_seconds: Annotated[int, Field(ge=1)] = 7 * 24 * 3600
