"""The way to Kubeflow Pipelines: the kfp client, its requests with a time limit, and its errors in words that help."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.profiles import KubeflowProfile
from mnist_tfx.kubeflow.remote.attempts import make_once, read
from mnist_tfx.kubeflow.remote.platform import OTHER_REMEDY, Unreachable, in_words, read_setting

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kfp tells of its Python versions
    from kfp import client as kfp_client

_CONNECT_SECONDS = 10.0
_EQUALS = 1  # kfp_server_api.V2beta1PredicateOperation
_LOGIN = "log in: put a bearer token into a file, and its name into the profile as token_file."
_REMEDIES = {
    **dict.fromkeys((301, 302, 303, 307, 401), _LOGIN),
    403: "where there are many users, set `namespace` in the profile, one that the token's user may edit; else let "
    "this one edit pipelines.",
    404: "check the endpoint in the profile: Kubeflow Pipelines 2, with its API under /apis/v2beta1.",
}


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
    """The client of one installation. Making it needs no network."""

    def __init__(self, profile: KubeflowProfile, timeout_seconds: float) -> None:
        """`timeout_seconds` is for each single request.

        Raises:
            UsageError: the profile's token file or certificate file cannot be read.
        """
        self.profile = profile
        # The page asks for the log and for ML Metadata at its host, whatever path the API is at.
        self.interface = "{0.scheme}://{0.netloc}".format(urlsplit(profile.endpoint))
        if profile.ca_certificate:
            read_setting(profile.ca_certificate, "ca_certificate")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "only works with Kubeflow Pipelines 2"
            self.client = _Client(
                host=profile.endpoint,
                namespace=profile.namespace or "kubeflow",
                existing_token=_token(profile.token_file) if profile.token_file else None,
                ssl_ca_cert=profile.ca_certificate or None,
            )
        self._api_client = self.client.runs.api_client
        if profile.token_file:  # kept new by somebody else: a run may be followed longer than a token lasts
            self._api_client.configuration.refresh_api_key_hook = self._renew_token
        rest = self._api_client.rest_client
        timeout = (min(_CONNECT_SECONDS, timeout_seconds), timeout_seconds)
        rest.request = functools.partial(_within, timeout, rest.request)

    def _renew_token(self, config: kfp_server_api.Configuration) -> None:
        config.api_key["authorization"] = _token(self.profile.token_file)

    def ask(self, what: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the client to `what` ("create the run"), once.

        Raises:
            Unreachable: no answer, or one that leaves open whether it was done.
            PipelineError: Kubeflow refused.
        """
        where = f"Kubeflow Pipelines at {self.profile.endpoint}"
        try:
            return call(*args, **kwargs)
        except kfp_server_api.ApiException as error:
            status = error.status or 0
            answered = f"{status} {error.reason}: {_message(error)}"
            # Some versions say with 400 that a thing exists.
            if status >= 500 or status in (0, 409, 429) or "already exist" in answered:
                raise Unreachable(
                    f"{where} could not {what}: {answered}.\n  remedy: try again in a few minutes; "
                    "kubectl logs -n kubeflow deploy/ml-pipeline tells why."
                ) from error
            remedy = _REMEDIES.get(status, OTHER_REMEDY)
            raise PipelineError(f"{where} refused to {what}: {answered}.\n  remedy: {remedy}") from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            remedy = (
                "name the PEM file of the authority that signed the endpoint's certificate in the profile, as "
                "ca_certificate."
                if isinstance(reason, urllib3.exceptions.SSLError)
                else "check the endpoint in the profile; with kubectl: kubectl port-forward -n kubeflow "
                "svc/ml-pipeline-ui 8080:80."
            )
            silent = f"{where} gave no answer to the request to {what}: {in_words(reason, 300)}"
            raise Unreachable(f"{silent}.\n  remedy: {remedy}") from error

    def read(self, what: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Asks for what changes nothing, or what is the same when done twice; up to three times."""
        return read(lambda: self.ask(what, call, *args, **kwargs))

    def list_all(self, field: str, call: Callable[..., Any], **kwargs: Any) -> list[Any]:
        """Every page of a list; `field` of an answer has its items."""

        def call_all() -> list[Any]:
            items: list[Any] = []
            token = ""
            while True:
                answer = self.ask(f"list {field.replace('_', ' ')}", call, page_size=100, page_token=token, **kwargs)
                items += getattr(answer, field) or []
                token = answer.next_page_token or ""
                if not token:
                    return items

        return read(call_all)

    def named(self, name: str, field: str, call: Callable[..., Any], **kwargs: Any) -> Any | None:
        """The thing of this display name, if it is there."""
        equals = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
        listed = self.list_all(field, call, filter=json.dumps({"predicates": [equals]}), **kwargs)
        return next((one for one in listed if one.display_name == name), None)

    def made(self, what: str, find: Callable[[], Any], call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The thing that `find` finds; else it is made, by one of several callers."""
        return find() or make_once(lambda: self.ask(what, call, *args, **kwargs), find)

    def in_namespace(self) -> dict[str, str]:
        """The argument that a request in a many-user installation carries."""
        return {"namespace": self.profile.namespace} if self.profile.namespace else {}

    def page(self, path: str) -> str:
        """Where a person sees a thing, in the interface."""
        return f"{self.profile.endpoint.rstrip('/')}/#/{path}"

    def ask_interface(self, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> bytes:
        """A request to what `ml-pipeline-ui` serves beside the API."""
        login: dict[str, str] = {}
        self._api_client.update_params_for_auth(login, [], ["Bearer"])
        what, method = f"show {path.partition('?')[0]}", "POST" if body else "GET"
        send = self._api_client.rest_client.request
        return bytes(self.ask(what, send, method, self.interface + path, headers={**login, **headers}, body=body).data)


def _token(file: str) -> str:
    token = read_setting(file, "token_file").strip()
    if not re.fullmatch(rb"[!-~]+", token):
        raise UsageError("token_file of the profile holds no bearer token, which is one word of printable ASCII.")
    return token.decode()


def _within(timeout: tuple[float, float], send: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Sends a request with the time limits that kfp's client itself never sets: to connect, and to answer."""
    return send(*args, **{**kwargs, "_request_timeout": timeout})


def _message(error: kfp_server_api.ApiException) -> str:
    """What the server says went wrong; its body is JSON, or a proxy's page."""
    try:
        body = json.loads(error.body)
        return in_words(body.get("message") or body.get("error_message") or error.body)
    except (TypeError, ValueError, AttributeError):
        return in_words(error.body or "")
