"""The way to Kubeflow Pipelines: the kfp client, its requests with a time limit, and its errors in words that help."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import kfp_server_api
import urllib3
from google.protobuf.message import Message
from ml_metadata.proto import metadata_store_pb2
from ml_metadata.proto import metadata_store_service_pb2 as service

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.profiles import KubeflowProfile
from mnist_tfx.kubeflow.remote.attempts import Taken, read
from mnist_tfx.kubeflow.remote.platform import Unreachable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kfp tells of its Python versions
    from kfp import client as kfp_client

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
        # The page asks for the log and for ML Metadata at its host, whatever path the API is at.
        self._interface = "{0.scheme}://{0.netloc}".format(urlsplit(profile.endpoint))
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

    def executions(self, run_id: str) -> list[metadata_store_pb2.Execution]:
        """What ML Metadata keeps of a run's tasks, as the user interface asks for it (frontend/src/mlmd/MlmdUtils.ts).

        Raises:
            PipelineError: there is nothing, or it is not shown.
        """
        context = service.GetContextByTypeAndNameResponse()
        wanted = service.GetContextByTypeAndNameRequest(type_name="system.PipelineRun", context_name=run_id)
        self._ask_metadata("GetContextByTypeAndName", wanted, context)
        executions = service.GetExecutionsByContextResponse()
        self._ask_metadata(
            "GetExecutionsByContext", service.GetExecutionsByContextRequest(context_id=context.context.id), executions
        )
        return list(executions.executions)

    def termination_message(self, pod: str, namespace: str) -> str:
        """What a pod's container said when it ended; empty where the pod is gone."""
        try:
            text = self._ask_interface("GET", f"/k8s/pod?{urlencode({'podname': pod, 'podnamespace': namespace})}")
            statuses = json.loads(text)["status"]["containerStatuses"]
        except (PipelineError, ValueError, KeyError, TypeError):
            return ""
        ended = [status.get("state", {}).get("terminated") or {} for status in statuses]
        return next((each["message"] for each in ended if each.get("message")), "")

    def log_page(self, pod: str, namespace: str) -> str:
        """Where a person can read a pod's log."""
        return f"{self._interface}/k8s/pod/logs?{urlencode({'podname': pod, 'podnamespace': namespace})}"

    def _ask_metadata(self, method: str, request: Message, answer: Message) -> None:
        """One call of ML Metadata's service in gRPC-Web, which `ml-pipeline-ui` passes on (frontend/server/app.ts).

        https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md: frames of a byte, four of length, and content.
        """
        content = request.SerializeToString()
        body = self._ask_interface(
            "POST",
            f"/ml_metadata.MetadataStoreService/{method}",
            b"\0" + len(content).to_bytes(4, "big") + content,
            {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"},
        )
        if len(body) < 5 or body[0]:  # the first frame is one of trailers, which tell of an error
            raise PipelineError(f"ML Metadata refused {method}: {body[5:].decode(errors='replace').strip()}")
        answer.ParseFromString(body[5 : 5 + int.from_bytes(body[1:5], "big")])

    def _ask_interface(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A request to what `ml-pipeline-ui` serves beside the API."""
        client = self.api._run_api.api_client
        login: dict[str, str] = {}
        client.update_params_for_auth(login, [], ["Bearer"])

        def call(**kwargs: Any) -> Any:
            timeout = urllib3.Timeout(*kwargs["_request_timeout"])
            answer = client.rest_client.pool_manager.request(
                method, self._interface + path, body=body or None, headers={**login, **(headers or {})}, timeout=timeout
            )
            if answer.status != 200:
                raise kfp_server_api.ApiException(http_resp=kfp_server_api.rest.RESTResponse(answer))
            return answer

        return bytes(self.ask(f"{method} {path.partition('?')[0]}", call).data)

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
