"""A control plane on loopback: etcd, kube-apiserver, kube-scheduler, kube-controller-manager; kwok is its kubelets."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import requests
import yaml

from tests.fixtures.certificates import CertificateAuthority
from tests.real.kubernetes.api import Api, wait

# How long pods take, where kwok's stages take no time: to be ready, to end (their grace is 50 s), to do a Job's work.
SECONDS = {"pod-ready": 1, "pod-delete": 3, "pod-complete": 4}


@contextmanager
def control_plane(programs: Path, folder: Path) -> Iterator[Api]:
    """As its administrator; `folder` gets data, logs, and the certificate `server.crt` and `server.key` of `ca.crt`."""
    etcd, peers, port = _free_ports(3)
    authority, token = CertificateAuthority(), secrets.token_hex()
    pair = authority.issue("server", "prometheus-adapter.monitoring.svc")  # custom_metrics.py shows it, too
    ca, certificate, key, tokens = (folder / name for name in ("ca.crt", "server.crt", "server.key", "tokens.csv"))
    ca.write_bytes(authority.certificate)
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    tokens.write_text(f"{token},administrator,1,system:masters\n")
    api = Api(f"https://127.0.0.1:{port}", token, ca, folder / "kubeconfig")
    _write_kubeconfig(api)
    etcd_url, peer_url = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peers}"
    client = [f"--kubeconfig={api.kubeconfig}"]
    controller = [*client, "--leader-elect=false", "--secure-port=0"]
    commands = {
        "etcd": [
            f"--data-dir={folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
        ],
        "kube-apiserver": [
            f"--etcd-servers={etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--advertise-address=192.0.2.1",  # nobody's: it may not be a loopback address
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={certificate}",
            f"--service-account-signing-key-file={key}",
        ],
        "kube-scheduler": controller,
        "kube-controller-manager": [
            *controller,
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={ca}",
            "--horizontal-pod-autoscaler-sync-period=1s",
        ],
        "kwok": [
            *client,
            f"--config={_stages(programs, folder)}",
            "--manage-all-nodes",
            "--node-lease-duration-seconds=40",  # without leases the nodes are taken for dead after 50 s
        ],
    }
    with ExitStack() as stack:
        for name, flags in commands.items():
            process = stack.enter_context(_process([str(programs / name), *flags], folder / f"{name}.log"))
            if name == "kube-apiserver":
                wait(partial(_ended_or_ready, process, api), "kube-apiserver", 180)
                assert process.poll() is None, (folder / f"{name}.log").read_text()[-3000:]
        yield api


def _write_kubeconfig(api: Api) -> None:
    cluster = {"server": api.address, "certificate-authority": str(api.authority)}
    config = {
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "administrator", "user": {"token": api.token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "administrator"}}],
        "current-context": "tests",
    }
    api.kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))


def _stages(programs: Path, folder: Path) -> Path:
    """kwok's own, with `SECONDS`."""
    stages = [yaml.safe_load(stage.read_text()) for stage in sorted(programs.glob("stage-*.yaml"))]
    for stage in stages:
        if (seconds := SECONDS.get(stage["metadata"]["name"])) is not None:
            stage["spec"]["delay"] = {"durationMilliseconds": 1000 * seconds}
    file = folder / "stages.yaml"
    file.write_text(yaml.safe_dump_all(stages))
    return file


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """It ends with this process, however that ends."""
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _ended_or_ready(server: subprocess.Popen[bytes], api: Api) -> bool:
    return server.poll() is not None or _is_ready(api)


def _is_ready(api: Api) -> bool:
    try:
        return api.request("GET", "/readyz").ok
    except requests.ConnectionError:
        return False
