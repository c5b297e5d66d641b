"""The way to Kubeflow Pipelines: the kfp client, its requests with a time limit, and its errors in words that help."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.profiles import KubeflowProfile
from mnist_tfx.kubeflow.remote.attempts import Taken, read
from mnist_tfx.kubeflow.remote.platform import Unreachable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kfp tells of its Python versions
    from kfp import client as kfp_client

_LOG_PATH = (
    "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log"  # backend/src/apiserver/main.go; no generated client has it
)
_CONNECT_SECONDS = 10.0
_PAGE = 100
_EQUALS = 1  # kfp_server_api.V2beta1PredicateOperation


class _Client(kfp_client.Client):
    """kfp's, asked once where it would ask five times five seconds apart, and without urllib3's silent repetitions."""

    def _load_config(self, *args: Any, **kwargs: Any) -> kfp_server_api.Configuration:
        config = super()._load_config(*args, **kwargs)
        config.retries = urllib3.Retry(0, redirect=0, raise_on_redirect=False)
        return config

    def get_kfp_healthz(self, sleep_duration: int = 0) -> kfp_server_api.V2beta1GetHealthzResponse:
        """Only the constructor calls this, to learn whether there are many users: the namespace is in the profile."""
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)


class KubeflowAccess:
    """The generated API of one installation. Making it needs no network."""

    def __init__(self, profile: KubeflowProfile, timeout_seconds: float) -> None:
        """`timeout_seconds` is for each single request.

        Raises:
            UsageError: the profile's token file or certificate file cannot be read.
        """
        self.profile = profile
        self._timeout = (min(_CONNECT_SECONDS, timeout_seconds), timeout_seconds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "only works with Kubeflow Pipelines 2"
            self.api = _Client(
                host=profile.endpoint,
                namespace=profile.namespace or "kubeflow",
                existing_token=_read(profile.token_file, "token_file").strip() if profile.token_file else None,
                ssl_ca_cert=str(_readable(profile.ca_certificate)) if profile.ca_certificate else None,
            )

    def ask(self, what: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the generated API to `what` ("create the run").

        Raises:
            Unreachable: no answer, or one that leaves open whether it was done.
            Taken: it exists.
            PipelineError: Kubeflow refused.
        """
        try:
            return call(*args, _request_timeout=self._timeout, **kwargs)
        except kfp_server_api.ApiException as error:
            raise self._translated(what, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(
                f"Kubeflow Pipelines at {self.profile.endpoint} gave no answer to the request to {what}: "
                f"{' '.join(str(getattr(error, 'reason', None) or error).split())[:300]}.\n"
                "  remedy: check the endpoint in the profile; with kubectl: "
                "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80."
            ) from error

    def list_all(self, what: str, call: Callable[..., Any], field: str, **kwargs: Any) -> list[Any]:
        """Every page of a list; `field` of an answer has its items."""

        def call_all() -> list[Any]:
            items: list[Any] = []
            token = ""
            while True:
                answer = self.ask(what, call, page_size=_PAGE, page_token=token, **kwargs)
                items += getattr(answer, field) or []
                token = answer.next_page_token or ""
                if not token:
                    return items

        return read(call_all)

    def in_namespace(self) -> dict[str, str]:
        """The argument that a request in a many-user installation carries."""
        return {"namespace": self.profile.namespace} if self.profile.namespace else {}

    def read_log(self, run_id: str, pod: str) -> str:
        """The log of a task's pod, as the server still has it."""
        api: kfp_server_api.ApiClient = self.api._run_api.api_client
        answer = self.ask(
            "read a log",
            api.call_api,
            _LOG_PATH,
            "GET",
            {"run_id": run_id, "node_id": pod},
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        return bytes(answer.data).decode(errors="replace")

    def _translated(self, what: str, error: kfp_server_api.ApiException) -> PipelineError:
        status = error.status or 0
        answered = f"{status} {error.reason}: {_message(error)}"
        if status == 409 or "already exist" in answered:  # some versions answer 400 with these words
            return Taken(f"Kubeflow says, to the request to {what}, that it exists: {answered}")
        if status >= 500 or status == 429:
            return Unreachable(
                f"Kubeflow Pipelines at {self.profile.endpoint} could not {what}: {answered}.\n"
                "  remedy: try again in a few minutes; kubectl logs -n kubeflow deploy/ml-pipeline tells why."
            )
        namespace = self.profile.namespace
        match status:
            case 301 | 302 | 303 | 307 | 401:
                remedy = "log in: put a bearer token into a file, and its name into the profile as token_file."
            case 403:
                remedy = (
                    f"let the user behind the token edit Kubeflow profile {namespace}."
                    if namespace
                    else "where there are many users, set `namespace` in the profile; else let this one edit pipelines."
                )
            case 404:
                remedy = "check the endpoint in the profile: Kubeflow Pipelines 2, with its API under /apis/v2beta1."
            case _:
                remedy = "correct the profile or the recipe; `mnist-tfx compile` checks what can be checked here."
        return PipelineError(
            f"Kubeflow Pipelines at {self.profile.endpoint} refused to {what}: {answered}.\n  remedy: {remedy}"
        )


def equals(value: str) -> str:
    """The filter for a display name."""
    return json.dumps({"predicates": [{"operation": _EQUALS, "key": "display_name", "stringValue": value}]})


def _message(error: kfp_server_api.ApiException) -> str:
    """What the server says went wrong; its body is JSON, or a proxy's page."""
    try:
        body = json.loads(error.body)
        text = body.get("message") or body.get("error_message") or error.body
    except (TypeError, ValueError, AttributeError):
        text = str(error.body or "")
    return " ".join(text.split())[:600].rstrip(".")


def _readable(path: str) -> Path:
    _read(path, "ca_certificate")
    return Path(path)


def _read(path: str, setting: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{setting} of the profile cannot be read: {error}.") from error
