"""kube-scheduler puts the pods where GPUs are, and nowhere else; the eviction API keeps to the disruption budget."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.manifests import K8S
from tests.real.kubernetes.api import NAMESPACE, Api, condition, is_ready, wait
from tests.real.kubernetes.conftest import NODES, cordon

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(5400)]


def scale(api: Api, replicas: int) -> None:
    api.kubectl("--namespace", NAMESPACE, "scale", "deployment/tf-serving", f"--replicas={replicas}")


@pytest.mark.parametrize("overlay", ["gpu", "gke-gpu"])
def test_one_gpu_per_pod_and_none_beyond(api: Api, overlay: str) -> None:
    api.kubectl("apply", "--kustomize", K8S / "overlays" / overlay)
    wait(lambda: sum(map(is_ready, api.pods())) == 2, "two ready pods")
    scale(api, 5)
    nodes = [f"{overlay}-{number}" for number in (1, 2, 3)]
    wait(lambda: sum(map(is_ready, api.pods())) == 3, "a pod on each node with a GPU")
    waiting = wait(lambda: [pod for pod in api.pods() if condition(pod, "PodScheduled").get("status") == "False"], "")
    assert sorted(pod["spec"]["nodeName"] for pod in api.pods() if pod not in waiting) == nodes
    assert len(waiting) == 2
    for pod in waiting:
        scheduled = condition(pod, "PodScheduled")
        assert (pod["status"]["phase"], scheduled["reason"]) == ("Pending", "Unschedulable")
        assert "3 Insufficient nvidia.com/gpu" in scheduled["message"]
        assert "5 node(s) didn't match Pod's node affinity/selector" in scheduled["message"]


def test_without_gpus_the_pods_spread_over_nodes_without(api: Api) -> None:
    """The taint keeps them off GPU nodes, on which there is room."""
    cordon(api, "gpu-3")  # the one without the taint
    api.kubectl("apply", "--kustomize", K8S / "overlays" / "cpu")
    wait(lambda: sum(map(is_ready, api.pods())) == 2, "two ready pods")
    assert sorted(pod["spec"]["nodeName"] for pod in api.pods()) == ["plain-1", "plain-2"]
    scale(api, 30)  # 16 CPUs each, 2 for a pod
    wait(lambda: sum(map(is_ready, api.pods())) == 16, "16 ready pods")
    assert {pod["spec"].get("nodeName") for pod in api.pods()} == {"plain-1", "plain-2", None}


def evict(api: Api, pod: Any) -> Any:
    """As `kubectl drain` asks for it."""
    metadata = {"name": pod["metadata"]["name"], "namespace": NAMESPACE}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    return api.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{metadata['name']}/eviction", body)


def test_a_second_eviction_waits_for_a_pod_in_place_of_the_first(api: Api) -> None:
    api.kubectl("apply", "--kustomize", K8S / "overlays" / "gpu")
    budget = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/tf-serving"
    wait(lambda: api.get(budget).get("status", {}).get("disruptionsAllowed") == 1, "the budget's count")
    for node in NODES:
        cordon(api, node["metadata"]["name"])
    first, second = api.pods()
    assert evict(api, first).status_code == 201
    refused = evict(api, second)
    assert refused.status_code == 429, refused.text
    [cause] = refused.json()["details"]["causes"]
    assert cause["reason"] == "DisruptionBudget"
    wait(lambda: first["metadata"]["name"] not in {pod["metadata"]["name"] for pod in api.pods()}, "its end")
    assert evict(api, second).status_code == 429, "the pod in place of the first one has no node"
    [waiting] = [pod for pod in api.pods() if pod["metadata"]["name"] != second["metadata"]["name"]]
    assert evict(api, waiting).status_code == 201, "who serves nobody holds up no drain"
    for node in NODES:
        cordon(api, node["metadata"]["name"], False)
    wait(lambda: api.get(budget)["status"]["disruptionsAllowed"] == 1, "the new pod")
    assert evict(api, second).status_code == 201
