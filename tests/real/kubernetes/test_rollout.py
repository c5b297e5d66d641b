"""A changed file of the ConfigMap rolls the pods, never with more or fewer of them than the Deployment says."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.manifests import K8S, own
from tests.real.kubernetes.api import NAMESPACE, Api, condition, is_ready, wait
from tests.real.kubernetes.conftest import cordon

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/tf-serving"
README = K8S.parent / "README.md"
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(5400)]


class Observed:
    """All that happens to the pods, event by event, from now on."""

    def __init__(self, api: Api) -> None:
        self.api = api
        listed = api.get(PODS)
        self._version = listed["metadata"]["resourceVersion"]
        self._pods = {pod["metadata"]["name"]: pod for pod in listed["items"]}
        self.old = set(self._pods)
        self.alive: list[int] = []  # after each event: pods that are not being ended,
        self.ready: list[int] = []  # and those of them that are ready
        self.seconds_ready: list[float] = []  # of the youngest ready pod, whenever one is told to end

    def until(self, replaced: int, seconds: int = 120) -> None:
        """Looks until so many pods of the beginning are gone and as many new ones are ready."""
        for kind, pod in self.api.watch(PODS, self._version, seconds):
            name = pod["metadata"]["name"]
            before = self._pods.pop(name, None)
            if kind != "DELETED":
                self._pods[name] = pod
            ending = {name: each for name, each in self._pods.items() if "deletionTimestamp" in each["metadata"]}
            ready = [each for each in self._pods.values() if is_ready(each)]
            self.alive.append(len(self._pods) - len(ending))
            self.ready.append(len(ready))
            if name in ending and before and "deletionTimestamp" not in before["metadata"] and ready:
                self.seconds_ready.append(_ending_since(pod) - max(map(_ready_since, ready)))
            if len(self.old - set(self._pods)) == replaced and len(set(self._pods) - self.old) == len(ready) == 2:
                return
        raise AssertionError(f"not after {seconds} s: {[(name, is_ready(each)) for name, each in self._pods.items()]}")


def _ready_since(pod: Any) -> float:
    return datetime.fromisoformat(condition(pod, "Ready")["lastTransitionTime"]).timestamp()


def _ending_since(pod: Any) -> float:
    metadata = pod["metadata"]
    return datetime.fromisoformat(metadata["deletionTimestamp"]).timestamp() - metadata["deletionGracePeriodSeconds"]


def config_map(api: Api) -> Any:
    """The one that the Deployment's pods mount at /config."""
    volumes = api.get(DEPLOYMENT)["spec"]["template"]["spec"]["volumes"]
    [name] = [volume["configMap"]["name"] for volume in volumes if volume["name"] == "config"]
    return api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}")["data"]


def pinned(folder: Path, *components: str, **more: Any) -> None:
    """The README's way of a changed models.config, on top of the overlay gpu."""
    [generator] = [block for block in _blocks() if "configMapGenerator" in block]
    [file] = generator["configMapGenerator"][0]["files"]
    text = (K8S / "base" / "config" / "models.config").read_text()
    (folder / file).write_text(text.replace("num_versions: 2", "num_versions: 1"))
    own(folder, "gpu", *components, **generator, **more)


def _blocks() -> list[dict[str, Any]]:
    return [
        yaml.safe_load(block) for block in re.findall(r"^ *```yaml\n(.+?)```", README.read_text(), re.DOTALL | re.M)
    ]


def start(api: Api, folder: Path) -> None:
    api.kubectl("apply", "--kustomize", own(folder, "gpu"))
    api.kubectl("--namespace", NAMESPACE, "rollout", "status", "deployment/tf-serving", "--timeout=90s")


def test_a_changed_file_replaces_the_pods_with_one_spare_gpu(api: Api, tmp_path: Path) -> None:
    start(api, tmp_path)
    before, observed = config_map(api), Observed(api)
    pinned(tmp_path)
    api.kubectl("apply", "--kustomize", tmp_path)
    observed.until(replaced=2)
    assert min(observed.ready) == 2 and max(observed.alive) == 3, "maxUnavailable 0, maxSurge 1"
    assert len(observed.seconds_ready) == 2
    assert min(observed.seconds_ready) >= api.get(DEPLOYMENT)["spec"]["minReadySeconds"] - 1, "times are whole seconds"
    api.kubectl("--namespace", NAMESPACE, "rollout", "status", "deployment/tf-serving", "--timeout=60s")
    after = config_map(api)
    assert {name for name in before if before[name] != after[name]} == {"models.config"}

    observed = Observed(api)
    api.kubectl("--namespace", NAMESPACE, "rollout", "undo", "deployment/tf-serving")
    observed.until(replaced=2)
    assert min(observed.ready) == 2 and max(observed.alive) == 3
    assert config_map(api) == before, "the file before is still there"


def test_without_a_spare_gpu_the_old_pods_serve_on(api: Api, tmp_path: Path) -> None:
    """Until capacity is traded for it, as the base's Deployment says."""
    cordon(api, "gpu-3")
    start(api, tmp_path)
    observed = Observed(api)
    pinned(tmp_path)
    api.kubectl("apply", "--kustomize", tmp_path)
    [waiting] = wait(lambda: [pod for pod in api.pods() if condition(pod, "PodScheduled")["status"] == "False"], "one")
    assert "Insufficient nvidia.com/gpu" in condition(waiting, "PodScheduled")["message"]
    assert {pod["metadata"]["name"] for pod in api.pods() if is_ready(pod)} == observed.old

    rolling = {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}}
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tf-serving"}, **rolling}
    pinned(tmp_path, patches=[{"patch": yaml.safe_dump(patch)}])
    api.kubectl("apply", "--kustomize", tmp_path)
    observed.until(replaced=2)
    assert min(observed.ready) == 1
    api.kubectl("--namespace", NAMESPACE, "rollout", "status", "deployment/tf-serving", "--timeout=60s")
