"""The pods that Kubeflow Pipelines' driver makes of the compiled pipeline find GPU nodes as the profile asks.

The pod is the template of the workflow with the patch of the driver on it, as Argo makes it (argo-workflows,
workflow/controller/workflowpod.go), without the containers that Argo adds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.compiled import GOLDEN, GOLDEN_FILES
from tests.real.kfp.metadata_server import metadata_server
from tests.real.kfp.program import asked, printed, program
from tests.real.kubernetes.api import Api, condition, wait
from tests.real.kubernetes.conftest import cordon

PODS = "/api/v1/namespaces/kubeflow/pods"
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(5400)]


def pod_of(task: str, folder: Path) -> Any:
    """Of the profile kubeflow-gpu; the task's inputs, which tasks before it would make, are left out."""
    spec, platform = yaml.safe_load_all((GOLDEN / GOLDEN_FILES["kubeflow-gpu"]).read_text())
    del spec["components"][task]["inputDefinitions"], spec["root"]["dag"]["tasks"][task]["inputs"]
    job, kubernetes, request = (folder / f"{name}.json" for name in ("job", "platform", "request"))
    kubernetes.write_text(json.dumps(platform))
    job.write_text(json.dumps({"pipelineSpec": spec, "runtimeConfig": {}}))
    with metadata_server() as (_, port):
        asking = {"Job": str(job), "Platform": str(kubernetes), "Tasks": [task], "PlanOnly": True}
        where = {"Root": "s3://bucket/root", "Run": "run-1", "MetadataPort": str(port)}
        request.write_text(json.dumps({**asking, **where}))
        told = printed(program(), "run", request)
    patch = json.loads(told.removeprefix(f"pod spec patch of {task}: "))
    workflow = asked(program(), "compile", job, kubernetes)
    [template] = [each for each in workflow["spec"]["templates"] if each["name"] == "system-container-impl"]
    [container], base = patch["containers"], template["container"]
    joined = {name: base[name] + container.get(name, []) for name in ("env", "volumeMounts")}
    pod = {
        **patch,
        "containers": [{**base, **container, **joined}],
        "initContainers": template["initContainers"],
        "volumes": template["volumes"] + patch.get("volumes", []),
        "securityContext": template["securityContext"],
    }
    metadata = {"name": task.lower(), "annotations": template["metadata"]["annotations"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


@pytest.fixture
def kubeflow(api: Api) -> Iterator[Api]:
    """With the namespace of that name."""
    api.kubectl("create", "namespace", "kubeflow")
    wait(lambda: api.request("GET", "/api/v1/namespaces/kubeflow/serviceaccounts/default").ok, "the service account")
    yield api
    api.kubectl("--namespace", "kubeflow", "delete", "pods", "--all")
    api.kubectl("delete", "namespace", "kubeflow")


def test_the_trainer_waits_for_a_gpu_and_the_others_do_not(kubeflow: Api, tmp_path: Path) -> None:
    """It asks for a spot node of GKE's and tolerates the GPU taint; all mount the claim."""
    api = kubeflow
    cordon(api, "gpu-3")  # the one GPU node without a taint
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    claims = "/api/v1/namespaces/kubeflow/persistentvolumeclaims"
    api.done("POST", claims, {"metadata": {"name": "mnist-tfx"}, "spec": claim})
    api.done("POST", PODS, pod_of("DataGate", tmp_path), fieldValidation="Strict")
    api.done("POST", PODS, pod_of("Trainer", tmp_path), fieldValidation="Strict")
    gate = wait(lambda: api.get(f"{PODS}/datagate")["spec"].get("nodeName"), "a node")
    assert gate.startswith("plain-")
    trainer = wait(lambda: condition(pod := api.get(f"{PODS}/trainer"), "PodScheduled") and pod, "the scheduler")
    assert trainer["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "4",
        "memory": "16G",
        "nvidia.com/gpu": "1",
    }
    assert "didn't match Pod's node affinity/selector" in condition(trainer, "PodScheduled")["message"]
    spot = {"metadata": {"labels": {"cloud.google.com/gke-spot": "true"}}}
    api.done("PATCH", "/api/v1/nodes/plain-1", spot)
    api.done("PATCH", "/api/v1/nodes/gke-gpu-2", spot)
    assert wait(lambda: api.get(f"{PODS}/trainer")["spec"].get("nodeName"), "a node") == "gke-gpu-2"
