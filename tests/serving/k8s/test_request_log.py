"""The component request-log: the proxy stands where the server stood, and both outlast their clients' connections."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from mnist_tfx.serving.client.proxy import build_parser
from tests.fixtures.manifests import K8S, OVERLAYS, Rendered, render
from tests.serving.k8s.test_manifests import CUSTOM, mebibytes, validate


@pytest.fixture(params=[(overlay, *more) for overlay in OVERLAYS for more in ((), ("monitoring", "autoscaling"))])
def rendered(request: pytest.FixtureRequest) -> Rendered:
    overlay, *more = request.param
    return render(overlay, "request-log", *more)


def containers(rendered: Rendered) -> tuple[Any, Any]:
    """The server and the proxy."""
    server, proxy = rendered.pod["spec"]["containers"]
    assert (server["name"], proxy["name"]) == ("tf-serving", "request-log")
    return server, proxy


def port_of(container: Any, name: str) -> int:
    [port] = [port["containerPort"] for port in container["ports"] if port["name"] == name]
    return int(port)


def test_valid_by_the_strict_schemas(rendered: Rendered) -> None:
    for each in rendered.objects:
        if each["kind"] not in CUSTOM:
            validate(json.dumps(each, sort_keys=True))


def test_the_proxy_takes_the_port_and_asks_the_server(rendered: Rendered) -> None:
    server, proxy = containers(rendered)
    args = build_parser().parse_args(proxy["args"])  # the real options
    assert server["args"].count(f"--port={port_of(server, 'grpc-server')}") == 1
    assert "--port=8500" not in server["args"]
    assert args.server == f"127.0.0.1:{port_of(server, 'grpc-server')}"
    assert args.listen == f"0.0.0.0:{port_of(proxy, 'grpc')}"
    for service in rendered.of_kind("Service"):  # headless: clients go to the pod's port of the same number
        [port] = [port for port in service["spec"]["ports"] if port["name"] == "grpc"]
        assert (port["port"], port["targetPort"]) == (port_of(proxy, "grpc"), "grpc")
    ingress = rendered.one("NetworkPolicy")["spec"]["ingress"]
    allowed = {port["port"] for rule in ingress for port in rule["ports"]}
    assert port_of(proxy, "grpc") in allowed and port_of(server, "grpc-server") not in allowed, "none goes round it"
    assert server["livenessProbe"]["grpc"]["port"] == port_of(server, "grpc-server")
    assert proxy["livenessProbe"]["tcpSocket"]["port"] == port_of(proxy, "grpc")


def test_the_log_is_bounded_and_what_it_keeps_is_said(rendered: Rendered) -> None:
    _, proxy = containers(rendered)
    args = build_parser().parse_args(proxy["args"])
    volume = rendered.volumes["requests"]["emptyDir"]["sizeLimit"]
    [mount] = proxy["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == ("requests", args.folder)
    assert (
        1.5 * args.max_megabytes <= mebibytes(volume) <= mebibytes(proxy["resources"]["requests"]["ephemeral-storage"])
    )
    assert 0 < args.sampling <= 0.1 and args.keep_days <= 30
    for option in ("--sampling", "--pixels", "--max-megabytes", "--keep-days"):
        assert any(arg.startswith(option) for arg in proxy["args"])


def test_drain_and_rights_are_the_servers(rendered: Rendered) -> None:
    server, proxy = containers(rendered)
    args = build_parser().parse_args(proxy["args"])
    assert f"--grpc_channel_arguments={args.grpc_channel_arguments}" in server["args"]
    assert proxy["lifecycle"] == server["lifecycle"]
    sleep, grace = (
        proxy["lifecycle"]["preStop"]["sleep"]["seconds"],
        rendered.pod["spec"]["terminationGracePeriodSeconds"],
    )
    assert sleep + args.drain < grace, "the last records are written before SIGKILL"
    assert proxy["securityContext"] == server["securityContext"]


def test_the_image_is_built_from_the_client_alone() -> None:
    dockerfile = K8S.parent / "client" / "Dockerfile"
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    linted = subprocess.run([hadolint, dockerfile], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    _, proxy = containers(render("cpu", "request-log"))
    assert f"docker build -t {proxy['image']} serving/client" in dockerfile.read_text()
    assert '"mnist_tfx.serving.client.proxy"' in dockerfile.read_text().splitlines()[-1]
