"""Runs on Kubeflow Pipelines: the real kfp client against a loopback server; a run is followed to each of its ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.kubeflow.remote import attempts
from mnist_tfx.kubeflow.remote.kfp import KubeflowPlatform
from mnist_tfx.kubeflow.remote.platform import Job, Unreachable
from tests.fixtures.command import mnist_tfx
from tests.fixtures.kubeflow_server import Fault, KubeflowServer, kubeflow_server
from tests.fixtures.remote_jobs import compiled_job, kubeflow_profile, watched

CREATE = "POST /runs"
BEGAN, ENDED = "2027-03-01T03:00:00Z", "2027-03-01T03:00:42Z"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    monkeypatch.setattr(attempts, "PAUSES_SECONDS", (0.0, 0.0))
    with kubeflow_server() as running:
        yield running


@pytest.fixture
def platform(server: KubeflowServer) -> KubeflowPlatform:
    return KubeflowPlatform(kubeflow_profile(server.address), timeout_seconds=10)


@pytest.fixture
def job() -> Job:
    return compiled_job("kubeflow")


def task(name: str, state: str, error: str = "", pod: str = "") -> dict[str, Any]:
    """A task as the server tells it: the executor's pod is a child."""
    detail: dict[str, Any] = {"display_name": name, "task_id": name, "state": state, "start_time": BEGAN}
    detail["end_time"] = "1970-01-01T00:00:00Z" if state == "RUNNING" else ENDED
    if error:
        detail["error"] = {"code": 2, "message": error}
    if pod:
        detail["child_tasks"] = [{"pod_name": f"{pod}-driver"}, {"pod_name": pod}]
    return detail


def state(phase: str, *tasks: dict[str, Any], error: str = "") -> dict[str, Any]:
    extra = {"error": {"code": 2, "message": error}} if error else {}
    return {"state": phase, "run_details": {"task_details": list(tasks)}, **extra}


def test_submit(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    first, second = platform.submit(job), platform.submit(job)
    assert first.run_id != second.run_id and first.url == f"{server.address}/#/runs/details/{first.run_id}"
    assert len(server.experiments) == len(server.pipelines) == len(server.versions) == 1
    [experiment], [version] = server.experiments.values(), server.versions.values()
    run = server.runs[first.run_id]
    assert experiment["display_name"] == "mnist-tfx" and run["experiment_id"] == experiment["experiment_id"]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert run["runtime_config"]["pipeline_root"] == job.root


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(500, after_work=True)],
        [Fault(0, after_work=True)],
        [Fault(503), Fault(504, after_work=True)],
        [Fault(409, after_work=True)],
        [Fault(0)],
    ],
)
def test_lost_answers_make_one_run(
    server: KubeflowServer, platform: KubeflowPlatform, job: Job, faults: list[Fault]
) -> None:
    platform.submit(job)
    server.fail(CREATE, *faults)
    run = platform.submit(job)
    assert len(server.runs) == 2 and run.run_id in server.runs


def test_timeout(server: KubeflowServer, job: Job) -> None:
    server.fail(CREATE, Fault(500, after_work=True, hangs=True))
    KubeflowPlatform(kubeflow_profile(server.address), timeout_seconds=0.5).submit(job)
    assert len(server.runs) == 1


def test_nothing_but_failures(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    server.fail(CREATE, *[Fault(500)] * 3)
    with pytest.raises(Unreachable, match="could not begin the run: 500 Internal Server Error: told to fail"):
        platform.submit(job)
    assert not server.runs


@pytest.mark.parametrize(
    ("end", "logs", "code", "words"),
    [
        (
            state("FAILED", task("datagate", "FAILED", "exit status 1", pod="gate")),
            {"gate": "Traceback\nmnist_tfx.contract.errors.DataRejected: rejected kmnist: 1 anomaly\n  train: bad"},
            3,
            "the data gate rejected kmnist:\n  mnist_tfx.contract.errors.DataRejected: rejected kmnist: 1 anomaly\n",
        ),
        (
            state("FAILED", task("datagate", "FAILED", "ImagePullBackOff", pod="gate")),
            {},
            1,
            "  DataGate: ImagePullBackOff\n",
        ),
        (state("FAILED", task("Trainer", "FAILED", "OOMKilled")), {}, 1, "  Trainer: OOMKilled\n"),
        (state("FAILED", error="no such service account"), {}, 1, "no such service account"),
        (
            state("SUCCEEDED", task("pusher", "SUCCEEDED", pod="push")),
            {"push": "I1122 pusher: Model on gs://b/m was not blessed by model validation"},
            4,
            "the model of kmnist was not blessed, it was not pushed",
        ),
        (state("CANCELED", task("Trainer", "CANCELED")), {}, 130, "stopped by somebody else"),
    ],
)
def test_wait_for_bad_ends(
    server: KubeflowServer,
    platform: KubeflowPlatform,
    job: Job,
    end: dict[str, Any],
    logs: dict[str, str],
    code: int,
    words: str,
) -> None:
    run = platform.submit(job)
    server.progress, server.logs = [end], logs
    verdict = watched(platform, job, run)
    assert verdict.error is not None and verdict.error.exit_code == code
    assert words in str(verdict.error) and run.url in str(verdict.error)


@pytest.mark.parametrize(
    ("logs", "note"),
    [
        ({"push": "I1122 executor.py: Model pushed to gs://b/m."}, ""),
        ({"push": "I1122 executor.py: Model not pushed: a study recipe.\nI1122 done"}, "not pushed: a study recipe"),
        ({}, "whether the model was pushed cannot be told from here"),
    ],
)
def test_success(server: KubeflowServer, platform: KubeflowPlatform, job: Job, logs: dict[str, str], note: str) -> None:
    run = platform.submit(job)
    server.progress, server.logs = [state("SUCCEEDED", task("pusher", "SUCCEEDED", pod="push"))], logs
    verdict = watched(platform, job, run)
    assert verdict.error is None
    assert verdict.note.startswith(note) if note else not verdict.note


def test_command(server: KubeflowServer, tiny: PreparedDataset, tiny_recipe_file: Path) -> None:
    server.progress = [
        state("PENDING"),
        state("RUNNING", task("root", "RUNNING"), task("datagate", "RUNNING"), task("datagate-driver", "SUCCEEDED")),
        state(
            "SUCCEEDED",
            task("datagate", "SUCCEEDED"),
            task("transform", "SKIPPED"),
            task("pusher", "SUCCEEDED", pod="push"),
        ),
    ]
    server.logs = {"push": "Model pushed to gs://b/m."}
    arguments = ["--target", "kubeflow", "--profile", "kubeflow-cpu", "--profile-set", f"endpoint={server.address}"]
    what = ("--dataset", "kmnist", "--recipe", tiny_recipe_file, "--home", tiny.data_dir.parent)
    answer = mnist_tfx("submit", *arguments, *what, "--wait", "--poll", "0.01", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["note"] is None
    lines = [line.split()[1:5] for line in answer.err.splitlines() if line.startswith("[kmnist]")]
    assert ["DataGate", "done", "42.0", "s"] in lines and ["Transform", "cached", "42.0", "s"] in lines
    assert len(lines) == 6
