"""The Job that fills the claim, and the script that puts versions in place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest

from tests.fixtures.manifests import K8S, kustomize, render
from tests.fixtures.served_home import store

RECEIVE = K8S / "writer" / "receive.sh"


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_the_job_is_valid_and_writes_where_the_server_reads(version: str) -> None:
    config_map, job = kustomize(K8S / "writer")
    for each in (config_map, job):
        kubernetes_validate.validate(json.loads(json.dumps(each)), version, strict=True)
    pod, server = job["spec"]["template"]["spec"], render("cpu")
    [container] = pod["containers"]
    assert job["metadata"]["namespace"] == server.one("PersistentVolumeClaim")["metadata"]["namespace"]
    claim = next(volume["persistentVolumeClaim"] for volume in pod["volumes"] if volume["name"] == "models")
    assert claim == {"claimName": server.volumes["models"]["persistentVolumeClaim"]["claimName"]}
    assert (container["image"], pod["securityContext"]) == (
        server.server["image"],
        server.pod["spec"]["securityContext"],
    )
    assert container["securityContext"] == server.server["securityContext"]
    assert job["spec"]["activeDeadlineSeconds"] <= int(container["command"][1])
    selector = server.one("Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= job["spec"]["template"]["metadata"]["labels"].items(), "no Service finds it"
    assert f"-- bash /writer/{RECEIVE.name} /models" in (K8S / "writer" / "kustomization.yaml").read_text()
    assert list(config_map["data"]) == [RECEIVE.name]


def send(serving: Path, claim: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """The README's pipe, without kubectl between."""
    tar = subprocess.run(["tar", "-C", serving, "-c", *names], check=True, capture_output=True).stdout
    run = subprocess.run(["/bin/bash", RECEIVE, claim], input=tar, capture_output=True)
    return subprocess.CompletedProcess(run.args, run.returncode, run.stdout.decode(), run.stderr.decode())


def test_versions_arrive_whole_and_what_is_there_stays(tmp_path: Path) -> None:
    serving, claim = tmp_path / "serving", tmp_path / "claim"
    claim.mkdir()
    store(serving, "mnist", 1, 2)
    store(serving, "mnist/.rolled_back", 3)
    store(serving, "fashion_mnist", 7)
    store(claim, "mnist", 1)
    (claim / "mnist" / "1" / "saved_model.pb").write_text("the one that is served")
    run = send(serving, claim, "mnist", "fashion_mnist")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        f"{claim}/fashion_mnist/7", f"{claim}/mnist/1 was there already", f"{claim}/mnist/2",
    ]  # fmt: skip
    found = {str(path.relative_to(claim)): path.read_text() for path in claim.rglob("saved_model.pb")}
    assert found == {
        "fashion_mnist/7/saved_model.pb": "graph of 7",
        "mnist/1/saved_model.pb": "the one that is served",
        "mnist/2/saved_model.pb": "graph of 2",
    }
    assert sorted(path.name for path in claim.iterdir()) == ["fashion_mnist", "mnist"], "nothing is left lying"


def test_a_tar_that_is_cut_off_or_of_something_else_changes_nothing(tmp_path: Path) -> None:
    serving, claim = tmp_path / "serving", tmp_path / "claim"
    claim.mkdir()
    store(serving, "mnist", 1)
    store(serving, "mnist", 2, whole=False)
    assert "mnist/2: saved_model.pb is missing" in send(serving, claim, "mnist").stderr
    assert "holds no MODEL/VERSION" in send(serving / "mnist", claim, "1").stderr
    tar = subprocess.run(["tar", "-C", serving, "-c", "mnist"], check=True, capture_output=True).stdout
    assert subprocess.run(["/bin/bash", RECEIVE, claim], input=tar[:1000], capture_output=True).returncode != 0
    assert list(claim.iterdir()) == []
