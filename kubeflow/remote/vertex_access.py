"""The way to Vertex AI: credentials, the two clients, and its errors in words that help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google.auth
import grpc
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.aiplatform_v1.services.pipeline_service import PipelineServiceClient
from google.cloud.aiplatform_v1.services.pipeline_service.transports.grpc import PipelineServiceGrpcTransport
from google.cloud.aiplatform_v1.services.schedule_service import ScheduleServiceClient
from google.cloud.aiplatform_v1.services.schedule_service.transports.grpc import ScheduleServiceGrpcTransport

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.profiles import VertexProfile
from mnist_tfx.kubeflow.remote.attempts import Taken
from mnist_tfx.kubeflow.remote.platform import Unreachable

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Codes with which a request may have done its work, or not.
_UNKNOWN_OUTCOME = (
    api.ServiceUnavailable,
    api.DeadlineExceeded,
    api.InternalServerError,
    api.Unknown,
    api.Cancelled,
    api.Aborted,
)


class VertexAccess:
    """Clients of one project and region. Making it needs credentials, but no network."""

    def __init__(self, profile: VertexProfile, timeout_seconds: float) -> None:
        """`timeout_seconds` is for each single request.

        Raises:
            PipelineError: there are no credentials.
            UsageError: the profile's certificate file cannot be read.
        """
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.parent = f"projects/{profile.project}/locations/{profile.region}"
        self.host = profile.endpoint or f"{profile.region}-aiplatform.googleapis.com"
        roots = _read_certificate(profile.ca_certificate) if profile.ca_certificate else None
        ssl = grpc.ssl_channel_credentials(roots) if roots else None
        try:
            credentials, _ = google.auth.default(scopes=[_SCOPE])
        except auth.GoogleAuthError as error:
            raise PipelineError(_no_credentials(error)) from error
        self.pipelines = PipelineServiceClient(
            transport=PipelineServiceGrpcTransport(
                host=self.host, credentials=credentials, ssl_channel_credentials=ssl, always_use_jwt_access=True
            )
        )
        self.schedules = ScheduleServiceClient(
            transport=ScheduleServiceGrpcTransport(
                host=self.host, credentials=credentials, ssl_channel_credentials=ssl, always_use_jwt_access=True
            )
        )

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Turns the errors of a request to `what` ("create the schedule") into ours.

        Raises:
            Unreachable: no answer, or one that leaves open whether it was done.
            Taken: it exists.
            PipelineError: Vertex AI refused.
        """
        try:
            yield
        except _UNKNOWN_OUTCOME as error:
            raise Unreachable(
                f"Vertex AI ({self.host}) gave no usable answer to the request to {what}: {_in_words(error)}.\n"
                "  remedy: check the network and the profile's region; if both are right, try again in a few minutes."
            ) from error
        except api.Conflict as error:
            raise Taken(f"Vertex AI says, to the request to {what}, that it exists: {_in_words(error)}") from error
        except api.GoogleAPICallError as error:
            raise PipelineError(
                f"Vertex AI refused to {what}: {_in_words(error)}.\n  remedy: {self._remedy(error)}"
            ) from error
        except auth.GoogleAuthError as error:
            raise PipelineError(_no_credentials(error)) from error

    def _remedy(self, error: api.GoogleAPICallError) -> str:
        project, runs_as = self.profile.project, self.profile.service_account
        match error:
            case api.Unauthenticated():
                return "log in again: gcloud auth application-default login."
            case api.Forbidden():
                act_as = f" and roles/iam.serviceAccountUser on {runs_as}" if runs_as else ""
                return (
                    f"give your account roles/aiplatform.user on project {project}{act_as}, and check that "
                    f"aiplatform.googleapis.com is enabled there."
                )
            case api.NotFound():
                return f"check project {project} and region {self.profile.region} in the profile."
            case api.TooManyRequests():
                return f"wait, or ask for more quota for project {project} (machines, accelerators, pipeline jobs)."
            case _:
                return "correct the profile or the recipe; `mnist-tfx compile` checks what can be checked here."


def _in_words(error: api.GoogleAPICallError) -> str:
    """The status and the first lines of the message, which may be pages long."""
    status = error.grpc_status_code.name if error.grpc_status_code is not None else type(error).__name__
    return f"{status}, {' '.join(error.message.split())[:600].rstrip('.')}"


def _no_credentials(error: auth.GoogleAuthError) -> str:
    return (
        f"no credentials for Google Cloud: {' '.join(str(error).split())[:300].rstrip('.')}.\n  remedy: gcloud auth "
        "application-default login, or name a service account's key file in GOOGLE_APPLICATION_CREDENTIALS."
    )


def moment(timestamp: Any) -> datetime | None:
    """A message's timestamp field; None where it is not set."""
    return datetime.fromtimestamp(timestamp.timestamp(), UTC) if timestamp else None


def _read_certificate(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"ca_certificate of the profile cannot be read: {error}.") from error
