"""Kubernetes' own programs, etcd, kwok and the Prometheus operator's CRDs, built from their Go modules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

KUBERNETES = "v1.37.1"  # its go.mod says which etcd
KWOK = "v0.8.0"
PROMETHEUS_OPERATOR = "v0.85.0"
PROGRAMS = ("kube-apiserver", "kube-scheduler", "kube-controller-manager")
TOOLS = Path(__file__).resolve().parents[3] / ".tools" / "kubernetes"


def programs() -> Path:
    """The folder with `PROGRAMS`, etcd, kwok, its stages and the CRDs; built once for each set of versions."""
    folder = TOOLS / f"{KUBERNETES}-{KWOK}-{PROMETHEUS_OPERATOR}"
    if folder.exists():
        return folder
    if shutil.which("go") is None:
        pytest.skip("Go is not installed: install Go 1.26 to try the manifests with a real control plane")
    making = TOOLS / "making"
    making.mkdir(parents=True, exist_ok=True)
    _build_kubernetes(making)
    environment = {"GOBIN": str(making)}
    _go(making, "install", "-ldflags=-s -w", f"sigs.k8s.io/kwok/cmd/kwok@{KWOK}", environment=environment)
    stages = _module("sigs.k8s.io/kwok", KWOK) / "kustomize" / "stage"
    for stage in ("pod/fast", "node/fast", "node/heartbeat-with-lease"):
        for file in (stages / stage).glob("*-*.yaml"):
            shutil.copyfile(file, making / f"stage-{file.name}")
    operator = _module("github.com/prometheus-operator/prometheus-operator", PROMETHEUS_OPERATOR)
    for kind in ("servicemonitors", "prometheusrules"):
        name = f"monitoring.coreos.com_{kind}.yaml"
        shutil.copyfile(operator / "example" / "prometheus-operator-crd" / name, making / f"crd-{name}")
    making.rename(folder)
    return folder


def _build_kubernetes(folder: Path) -> None:
    """Its go.mod finds its libraries in its repository (staging/); the module is without them, they are modules too."""
    source = _module("k8s.io/kubernetes", KUBERNETES)
    module = folder / "kubernetes.mod"
    libraries = KUBERNETES.replace("v1.", "v0.")
    text = (source / "go.mod").read_text()
    module.write_text(re.sub(r"=> \./staging/src/(\S+)", rf"=> \1 {libraries}", text))
    shutil.copyfile(source / "go.sum", folder / "kubernetes.sum")
    version = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}"
    packages = ["go.etcd.io/etcd/server/v3", *(f"./cmd/{program}" for program in PROGRAMS)]
    flags = [f"-modfile={module}", "-mod=mod", f"-ldflags=-s -w {version}", "-o", f"{folder}/"]
    _go(source, "build", *flags, *packages, environment={"GOWORK": "off"})
    (folder / "server").rename(folder / "etcd")


def _module(path: str, version: str) -> Path:
    return Path(json.loads(_go(TOOLS, "mod", "download", "-json", f"{path}@{version}"))["Dir"])


def _go(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    env = {**os.environ, "CGO_ENABLED": "0", **(environment or {})}
    done = subprocess.run(["go", *arguments], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-800:]
        reason = f"the control plane cannot be built here: go {' '.join(arguments)}: {said}"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") else pytest.skip(reason)
    return done.stdout
