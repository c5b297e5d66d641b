"""Every overlay and combination of components is admitted, pods included, and its pods find a node."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.fixtures.manifests import DEFAULT_SOURCE, K8S, combinations, own, render
from tests.real.kubernetes.api import NAMESPACE, Api, is_ready, wait

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(5400)]  # the first one builds the control plane


@pytest.mark.parametrize("combination", list(combinations()), ids="+".join)
def test_applied_strictly_and_admitted_as_restricted(api: Api, tmp_path: Path, combination: tuple[str, ...]) -> None:
    said = api.kubectl("apply", "--validate=strict", "--kustomize", own(tmp_path, *combination))
    assert "Warning" not in said
    namespace = api.get(f"/api/v1/namespaces/{NAMESPACE}")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    wait(lambda: sum(map(is_ready, api.pods())) == 2, "two ready pods")
    overlay, *components = combination
    nodes = {pod["spec"]["nodeName"].rpartition("-")[0] for pod in api.pods()}
    assert nodes <= ({overlay} if overlay != "cpu" else {"plain", "gpu"})  # gpu-3 has no taint
    source = next((part for part in components if part.startswith("models-")), DEFAULT_SOURCE[overlay])
    claims = api.get(f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims")["items"]
    assert [claim["status"]["phase"] for claim in claims] == (["Bound"] if source == "models-pvc" else [])
    again = api.kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", tmp_path)
    assert len(again.splitlines()) == len(render(*combination).objects)
    policy = api.get(f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/tf-serving")["spec"]
    assert {"egress": [], **policy} == render(*combination).one("NetworkPolicy")["spec"]


def test_what_is_misspelt_or_asks_for_more_is_refused(api: Api) -> None:
    """So the other tests mean something."""
    api.kubectl("apply", "--kustomize", K8S / "overlays" / "cpu")
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    template = render("cpu").pod
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "another"}, "spec": copy.deepcopy(template["spec"])}
    asked = {"dryRun": "All", "fieldValidation": "Strict"}
    api.done("POST", pods, pod, **asked)
    pod["spec"]["containers"][0]["readynessProbe"] = {}
    answer = api.request("POST", pods, pod, **asked)
    assert answer.status_code == 400
    assert 'unknown field "spec.containers[0].readynessProbe"' in answer.json()["message"]
    del pod["spec"]["containers"][0]["readynessProbe"]
    del pod["spec"]["securityContext"]["runAsNonRoot"]
    answer = api.request("POST", pods, pod, **asked)
    assert answer.status_code == 403
    assert 'violates PodSecurity "restricted:latest": runAsNonRoot' in answer.json()["message"]


def test_the_writer_s_job_gets_the_claim(api: Api) -> None:
    """By the commands in its kustomization.yaml, but for the copying itself: there is no container to copy to."""
    api.kubectl("apply", "--kustomize", K8S / "overlays" / "cpu")
    commands = [line[4:] for line in (K8S / "writer" / "kustomization.yaml").read_text().splitlines()]  # "#   kubectl"
    first, second, last = (line.split()[1:] for line in commands if line.startswith("kubectl "))
    assert "Warning" not in api.kubectl(*_here(first), "--validate=strict")
    assert "condition met" in api.kubectl(*second)
    [pod] = api.pods("models-writer")
    [claim] = [volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"] if volume["name"] == "models"]
    assert (
        api.get(f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/{claim['claimName']}")["status"]["phase"]
        == "Bound"
    )
    api.kubectl("--namespace", NAMESPACE, "wait", "--for=condition=Complete", "job/models-writer", "--timeout=60s")
    api.kubectl(*_here(last))
    wait(lambda: not api.pods("models-writer"), "the writer's end")


def _here(command: list[str]) -> list[str]:
    return [word.replace("serving/k8s", str(K8S)) for word in command]
