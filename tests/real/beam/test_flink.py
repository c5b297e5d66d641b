"""Beam's steps of the compiled pipeline on a Flink cluster whose machines share nothing but a bucket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.kubeflow.compile import uploads
from mnist_tfx.kubeflow.profiles import load_profile
from mnist_tfx.pipeline.home import CHECKOUT
from mnist_tfx.pipeline.projects import shipped
from tests.fixtures.object_store import ObjectStore, object_store
from tests.real.beam.flink_cluster import MAIN, FlinkCluster, flink_cluster
from tests.real.beam.machines import GATEWAY, Machine, network, possible
from tests.real.beam.programs import NotHere, Programs, programs

BEAM_STEPS = ("TfdsExampleGen", "StatisticsGen", "DataGate", "Transform", "Evaluator")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def parts() -> Programs:
    if not possible():
        pytest.skip("no network namespaces can be made here: be root on Linux, with iproute2")
    try:
        return programs(CHECKOUT / ".tools" / "beam")
    except NotHere as reason:
        pytest.skip(f"Flink and Beam's programs cannot be had: {reason}")


@dataclass(frozen=True)
class Site:
    """The cluster, the bucket, and what a process needs to find the bucket."""

    cluster: FlinkCluster
    store: ObjectStore
    environment: dict[str, str]


@pytest.fixture
def site(tmp_path: Path, parts: Programs) -> Iterator[Site]:
    with (
        network(tmp_path / "shared", tmp_path / "image", tmp_path / "logs") as joined,
        object_store(joined.shared, GATEWAY) as (store, environment),
    ):
        environment["no_proxy"] = f"localhost,{MAIN}"  # gRPC heeds proxies for every address
        yield Site(flink_cluster(joined, parts, environment=environment), store, environment)


def jobs(cluster: FlinkCluster) -> list[dict[str, Any]]:
    """All jobs so far, the first one first."""
    return sorted(cluster.ask("jobs/overview")["jobs"], key=lambda job: job["start-time"])


def test_mnist_runs_to_a_pushed_model_though_task_managers_are_lost(site: Site, tmp_path: Path) -> None:
    """One while it writes Examples, the other while it computes statistics."""
    cluster, profile = site.cluster, load_profile("vertex-gpu")
    dataset = prepare("mnist", tmp_path / "home" / "datasets")
    for upload in uploads(dataset, shipped("mnist"), profile):
        site.store.upload(upload.source, upload.destination)
    local = tmp_path / "local"
    program = "import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "compile", "--target", "vertex", "--dataset", "mnist"]
    command += ["--home", str(tmp_path / "home"), "--profile", "vertex-gpu", "-o", str(tmp_path / "pipeline.json")]
    command += ["--recipe", "linear", "--json"]
    settings = ("training.epochs=3", "evaluation.min_accuracy=0.8", "evaluation.baseline=served", "push.enabled=true")
    for setting in (*settings, "transform.normalization=standardize"):  # which Transform computes with Beam
        command += ["--set", setting]
    for key in ("runner", "job_endpoint", "worker_pool", "workers"):
        command += ["--profile-set", f"beam.{key}={getattr(cluster.settings, key)}"]
    with (tmp_path / "run.log").open("wb") as log:
        run = subprocess.Popen(
            [*command, "--run-local", str(local), "--in-bucket"],
            env={**os.environ, **site.environment},
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    try:
        hit = [lose(machine, cluster, number, run) for number, machine in enumerate(cluster.task_managers)]
        stdout, _ = run.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 0, (tmp_path / "run.log").read_text()[-6000:]
    assert "examples: 55,000 train, 5,000 eval, 10,000 test" in (tmp_path / "run.log").read_text()
    [outcome] = json.loads(stdout)
    assert f"{outcome['pushed_version']}/saved_model.pb" in site.store.names("gs://my-bucket/mnist-tfx/serving/mnist")
    assert outcome["accuracy"] > 0.8 and site.store.refused == []
    for step in BEAM_STEPS:
        task_log = local / "runs" / "mnist" / outcome["run"] / step / "task.log"
        assert "Job state changed to DONE" in task_log.read_text(), step
    ended = jobs(cluster)
    assert {job["state"] for job in ended} == {"FINISHED"} and len(ended) >= len(BEAM_STEPS)
    assert hit == [job["jid"] for job in ended[: len(hit)]]
    assert all(cluster.ask(f"jobs/{job}/exceptions")["exceptionHistory"]["entries"] for job in hit), "nothing was lost"
    for job in ended[len(hit) :]:
        hosts = {task["endpoint"].partition(":")[0] for task in tasks(cluster, job["jid"])}
        assert hosts == {machine.address for machine in cluster.task_managers}, job["name"]


def lose(machine: Machine, cluster: FlinkCluster, number: int, run: subprocess.Popen[bytes]) -> str:
    """Kills a TaskManager while it runs tasks of that job, and starts it anew as Kubernetes would; returns the job."""
    while run.poll() is None:
        for job in jobs(cluster)[number:]:
            running = (task for task in tasks(cluster, job["jid"]) if task["status"] == "RUNNING")
            if any(task["endpoint"].startswith(machine.address) for task in running):
                cluster.task_managers[machine].kill()
                cluster.task_managers[machine].wait()
                cluster.start_task_manager(machine)
                return str(job["jid"])
        time.sleep(0.2)
    raise AssertionError(f"the run ended before job {number} ran")


def tasks(cluster: FlinkCluster, job: str) -> list[dict[str, Any]]:
    """The tasks of a job, with the machine that runs each as `endpoint`."""
    vertices = cluster.ask(f"jobs/{job}")["vertices"]
    return [task for vertex in vertices for task in cluster.ask(f"jobs/{job}/vertices/{vertex['id']}")["subtasks"]]
