"""The way to Vertex AI: credentials, the two clients, and its errors in words that help."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import google.auth
import grpc
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.transport.requests import Request
from google.cloud.aiplatform_v1.services.pipeline_service import PipelineServiceClient
from google.cloud.aiplatform_v1.services.pipeline_service.transports.grpc import PipelineServiceGrpcTransport
from google.cloud.aiplatform_v1.services.schedule_service import ScheduleServiceClient
from google.cloud.aiplatform_v1.services.schedule_service.transports.grpc import ScheduleServiceGrpcTransport
from google.cloud.aiplatform_v1.types import PipelineJob
from google.oauth2 import service_account
from google.protobuf import json_format

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.profiles import VertexProfile
from mnist_tfx.kubeflow.remote.attempts import read
from mnist_tfx.kubeflow.remote.platform import (
    MANAGED_BY,
    OTHER_REMEDY,
    Exists,
    Job,
    Unreachable,
    in_words,
    read_setting,
)

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# With these, a request may have done its work, or not; or somebody else did (Conflict: Aborted is one, too).
_UNKNOWN_OUTCOME = (
    api.ServiceUnavailable,
    api.DeadlineExceeded,
    api.InternalServerError,
    api.Unknown,
    api.Cancelled,
    api.Conflict,
)
_REMEDIES = {
    grpc.StatusCode.UNAUTHENTICATED: "log in again: gcloud auth application-default login.",
    grpc.StatusCode.PERMISSION_DENIED: "give your account roles/aiplatform.user on project {0.project} and "
    "roles/iam.serviceAccountUser on {account}, and check that aiplatform.googleapis.com is enabled there.",
    grpc.StatusCode.NOT_FOUND: "check project {0.project} and region {0.region} in the profile.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "wait, or ask for more quota for project {0.project} (machines, accelerators, "
    "pipeline jobs).",
}


class VertexAccess:
    """Clients of one project and region. Making it needs credentials, but no network."""

    def __init__(self, profile: VertexProfile, timeout_seconds: float) -> None:
        """`timeout_seconds` is for each single request.

        Raises:
            PipelineError: there are no credentials.
            UsageError: the profile's certificate file cannot be read.
        """
        self.profile, self._timeout = profile, timeout_seconds
        self.parent = f"projects/{profile.project}/locations/{profile.region}"
        self._host = profile.endpoint or f"{profile.region}-aiplatform.googleapis.com"
        try:
            self._credentials, _ = google.auth.default(scopes=[_SCOPE])
        except auth.GoogleAuthError as error:
            raise _no_credentials(error) from error
        if isinstance(self._credentials, service_account.Credentials):  # which then sign their tokens themselves
            self._credentials = self._credentials.with_always_use_jwt_access(True)
        transport: dict[str, Any] = {"host": self._host, "credentials": self._credentials}
        if profile.ca_certificate:
            roots = read_setting(profile.ca_certificate, "ca_certificate")
            transport["ssl_channel_credentials"] = grpc.ssl_channel_credentials(roots)
        self.pipelines = PipelineServiceClient(transport=PipelineServiceGrpcTransport(**transport))
        self.schedules = ScheduleServiceClient(transport=ScheduleServiceGrpcTransport(**transport))

    def ask(self, what: str, call: Callable[..., Any], **request: Any) -> Any:
        """Calls a client's method to `what` ("create the schedule"), once; a list is read to its end.

        Raises:
            Unreachable: no answer, or one that leaves open whether it was done.
            PipelineError: Vertex AI refused.
        """
        silent = f"Vertex AI ({self._host}) gave no usable answer to the request to {what}"
        remedy = "check the network and the profile's region; if they are right, try again later."
        try:
            # Here, and not in gRPC, which would print an error of the credentials and tell it as one of the service.
            self._credentials.before_request(Request(), "POST", self._host, {})
            answer = call(**request, retry=None, timeout=self._timeout)
            return list(answer) if hasattr(answer, "pages") else answer
        except auth.TransportError as error:
            raise Unreachable(f"{silent}: {in_words(error)}.\n  remedy: {remedy}") from error
        except auth.GoogleAuthError as error:
            raise _no_credentials(error) from error
        except api.GoogleAPICallError as error:
            status = error.grpc_status_code
            words = f"{status.name if status else type(error).__name__}, {in_words(error.message)}"
            if isinstance(error, _UNKNOWN_OUTCOME):
                kind = Exists if isinstance(error, api.AlreadyExists) else Unreachable
                raise kind(f"{silent}: {words}.\n  remedy: {remedy}") from error
            account = self.profile.service_account or "Compute Engine's default account"
            remedy = _REMEDIES.get(status, OTHER_REMEDY).format(self.profile, account=account)
            raise PipelineError(f"Vertex AI refused to {what}: {words}.\n  remedy: {remedy}") from error

    def read(self, what: str, call: Callable[..., Any], **request: Any) -> Any:
        """Asks for what changes nothing, or what is the same when done twice; up to three times."""
        return read(lambda: self.ask(what, call, **request))

    def pipeline_job(self, job: Job) -> PipelineJob:
        """A compiled pipeline with what the profile says of its run, and the labels by which we know it again."""
        profile = self.profile
        message = PipelineJob(
            display_name=job.pipeline,
            service_account=profile.service_account,
            network=profile.network,
            encryption_spec={"kms_key_name": profile.encryption_key} if profile.encryption_key else None,
            labels={
                **profile.labels,
                "managed-by": MANAGED_BY,
                "dataset": re.sub(r"[^a-z0-9_-]", "-", job.dataset.lower())[:63],  # emnist/balanced
                "recipe": job.recipe[:63],
                "pipeline-digest": job.digest,
            },
            runtime_config=PipelineJob.RuntimeConfig(gcs_output_directory=job.root),
        )
        json_format.ParseDict(dict(job.spec), PipelineJob.pb(message).pipeline_spec)
        return message


def _no_credentials(error: auth.GoogleAuthError) -> PipelineError:
    return PipelineError(
        f"no credentials for Google Cloud: {in_words(error.args[0], 300)}.\n  remedy: gcloud auth application-default "
        "login, or name a service account's key file in GOOGLE_APPLICATION_CREDENTIALS."
    )
