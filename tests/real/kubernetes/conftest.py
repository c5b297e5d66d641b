"""The cluster that the tests share, and a namespace of each test's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from tests.real.kubernetes.api import NAMESPACE, Api, condition, wait
from tests.real.kubernetes.control_plane import control_plane
from tests.real.kubernetes.programs import programs

TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}  # as GKE sets it
LABELS = {  # what the overlays' node selectors ask for: NVIDIA's GPU feature discovery, GKE
    "gpu": {"nvidia.com/gpu.present": "true"},
    "gke-gpu": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
}


def node(name: str, labels: Mapping[str, str], gpus: int, *taints: Mapping[str, str]) -> dict[str, Any]:
    """A node of 16 CPUs, as its kubelet (and NVIDIA's device plugin) would register it."""
    has = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "100Gi", "pods": "110"}
    if gpus:
        has["nvidia.com/gpu"] = str(gpus)
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
    status = {"capacity": has, "allocatable": has}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}, "status": status}


def _is_node_ready(api: Api, name: str) -> bool:
    answer: bool = condition(api.get(f"/api/v1/nodes/{name}"), "Ready").get("status") == "True"
    return answer


NODES = [
    *(node(f"plain-{number}", {}, 0) for number in (1, 2)),
    *(node(f"gpu-{number}", LABELS["gpu"], 1, TAINT) for number in (1, 2)),
    node("gpu-3", LABELS["gpu"], 1),  # the GPU operator taints only where it is told to
    *(node(f"gke-gpu-{number}", LABELS["gke-gpu"], 1, TAINT) for number in (1, 2, 3)),
]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """`NODES`, the Prometheus operator's CRDs, and a default storage class."""
    built = programs()
    with control_plane(built, tmp_path_factory.mktemp("control-plane")) as api:
        for file in built.glob("crd-*.yaml"):
            api.kubectl("create", "--filename", file)
        api.kubectl("wait", "--for=condition=Established", "crd", "--all")
        for each in NODES:
            api.done("POST", "/api/v1/nodes", each)
        metadata = {"name": "models", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
        storage_class = {"metadata": metadata, "provisioner": "kubernetes.io/no-provisioner"}
        api.done("POST", "/apis/storage.k8s.io/v1/storageclasses", storage_class)
        for each in NODES:
            name = each["metadata"]["name"]
            wait(partial(_is_node_ready, api, name), name)
        yield api


@pytest.fixture
def api(cluster: Api) -> Iterator[Api]:
    """Every node is free; there is a volume for a claim."""
    specification = {
        "storageClassName": "models",
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "10Gi"},
        "nfs": {"server": "192.0.2.2", "path": "/models"},
    }
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "models"}, "spec": specification}
    cluster.done("POST", "/api/v1/persistentvolumes", volume)
    yield cluster
    for each in NODES:
        cordon(cluster, each["metadata"]["name"], False)
    # Not the namespace itself, whose deletion takes 10 s.
    kinds = "deploy,job,svc,hpa,pdb,netpol,pvc,cm,sa,servicemonitors,prometheusrules"
    cluster.kubectl("--namespace", NAMESPACE, "delete", "--all", "--cascade=foreground", kinds)
    cluster.kubectl("delete", "persistentvolume", "models")


def cordon(api: Api, name: str, cordoned: bool = True) -> None:
    """Lets a node take new pods, or no more."""
    api.done("PATCH", f"/api/v1/nodes/{name}", {"spec": {"unschedulable": cordoned}})
