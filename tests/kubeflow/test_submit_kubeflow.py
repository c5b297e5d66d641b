"""Runs on Kubeflow Pipelines: the real kfp client against a loopback server; a run is followed to each of its ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.kubeflow.compile import compile_prepared
from mnist_tfx.kubeflow.profiles import load_profile
from mnist_tfx.kubeflow.remote import attempts
from mnist_tfx.kubeflow.remote.follow import Verdict
from mnist_tfx.kubeflow.remote.kfp import KubeflowPlatform
from mnist_tfx.kubeflow.remote.platform import Job, Unreachable
from mnist_tfx.kubeflow.verdict import TaskVerdict
from tests.fixtures.command import mnist_tfx
from tests.fixtures.compiled import DESCRIBED
from tests.fixtures.kubeflow_server import Fault, KubeflowServer, kubeflow_server
from tests.fixtures.remote_jobs import compiled_job, kubeflow_profile, watched
from tests.fixtures.tiny_run import tiny_recipe_of

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


def task(name: str, state: str, error: str = "") -> dict[str, Any]:
    """A task as the server tells it."""
    detail: dict[str, Any] = {"display_name": name, "task_id": name, "state": state, "start_time": BEGAN}
    detail["end_time"] = "1970-01-01T00:00:00Z" if state == "RUNNING" else ENDED
    if error:
        detail["error"] = {"code": 2, "message": error}
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
    assert run["runtime_config"]["pipeline_root"] == job.root and "service_account" not in run
    named = KubeflowPlatform(kubeflow_profile(server.address, "service_account=mnist-tfx"))
    assert server.runs[named.submit(job).run_id]["service_account"] == "mnist-tfx"


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(500, after_work=True)],
        [Fault(0, after_work=True)],
        [Fault(503), Fault(504, after_work=True)],
        [Fault(503), Fault(503), Fault(504, after_work=True)],
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


REJECTED = TaskVerdict(3, "the data gate rejected kmnist: 1 anomaly, nothing was trained.\n  train: image: bad")


@pytest.mark.parametrize(
    ("end", "message", "code", "words"),
    [
        (
            state("FAILED", task("datagate", "FAILED")),
            REJECTED.to_text(),
            3,
            "DataGate: the data gate rejected kmnist: 1 anomaly, nothing was trained.\n      train: image: bad",
        ),
        (state("FAILED", task("datagate", "FAILED")), TaskVerdict(1, "KeyError: 'x'").to_text(), 1, "KeyError: 'x'"),
        (state("FAILED", task("datagate", "FAILED")), "OOMKilled", 1, "DataGate: no reason given"),
        (state("FAILED", task("datagate", "FAILED", "ImagePullBackOff")), "", 1, "  DataGate: ImagePullBackOff\n"),
        (state("FAILED", error="no such service account"), "", 1, "no such service account"),
        (state("CANCELED", task("Trainer", "CANCELED")), "", 130, "stopped by somebody else"),
    ],
)
def test_wait_for_bad_ends(
    server: KubeflowServer,
    platform: KubeflowPlatform,
    job: Job,
    end: dict[str, Any],
    message: str,
    code: int,
    words: str,
) -> None:
    """Of a failed task, Kubeflow keeps no outputs: its pod's termination message says why."""
    run = platform.submit(job)
    server.progress = [end]
    server.tell("root")
    server.tell("datagate", pod="gate", message=message)
    verdict = watched(platform, job, run)
    assert verdict.error is not None and verdict.error.exit_code == code
    assert words in str(verdict.error) and run.url in str(verdict.error)
    if code in (1, 3) and "datagate" in str(end):
        assert f"log: {server.address}/k8s/pod/logs?podname=gate&podnamespace=kubeflow" in str(verdict.error)


@pytest.mark.parametrize("rejecting", [("Evaluator",), ("Evaluator", "InfraValidator")])
def test_a_model_that_is_not_good_enough(
    server: KubeflowServer, platform: KubeflowPlatform, job: Job, rejecting: tuple[str, ...]
) -> None:
    run = platform.submit(job)
    server.progress = [state("SUCCEEDED", *(task(name, "SUCCEEDED") for name in (*rejecting, "pusher")))]
    for name in rejecting:
        server.tell(name.lower(), verdict=TaskVerdict(4, f"what {name} found"), pod=name)
    server.tell("pusher", verdict=TaskVerdict(says="a blessing is wanting"))
    error = watched(platform, job, run).error
    assert error is not None and error.exit_code == 4
    assert f"the model of kmnist was not blessed by {' and '.join(rejecting)}, it was not pushed" in str(error)
    assert "  Evaluator: what Evaluator found" in str(error)


@pytest.mark.parametrize(
    ("told", "version", "note"),
    [
        (TaskVerdict(pushed_version="17"), "17", ""),
        (TaskVerdict(says="a study recipe"), "", "not pushed: a study recipe"),
        (None, "", "whether the model was pushed cannot be told from here"),
    ],
)
def test_success(
    server: KubeflowServer, platform: KubeflowPlatform, job: Job, told: TaskVerdict | None, version: str, note: str
) -> None:
    run = platform.submit(job)
    server.progress = [state("SUCCEEDED", task("pusher", "SUCCEEDED"))]
    server.tell("pusher", verdict=told)
    verdict = watched(platform, job, run)
    assert verdict.error is None and verdict.pushed_version == version
    assert verdict.note.startswith(note) if note else not verdict.note


def test_the_pipeline_that_watches_pushes_nothing(
    server: KubeflowServer, platform: KubeflowPlatform, tmp_path: Path
) -> None:
    file = tmp_path / "monitor.yaml"
    compile_prepared(DESCRIBED, tiny_recipe_of(), load_profile("kubeflow-cpu"), file, monitor=True)
    job = Job.read(file, DESCRIBED.name, "default")
    run = platform.submit(job)
    server.progress = [state("SUCCEEDED", task("monitor", "SUCCEEDED"))]
    assert watched(platform, job, run) == Verdict(None)


def test_an_installation_that_does_not_show_its_metadata(
    server: KubeflowServer, platform: KubeflowPlatform, job: Job
) -> None:
    run = platform.submit(job)
    server.progress, server.hides = [state("SUCCEEDED", task("pusher", "SUCCEEDED"))], ("/ml_metadata", "/k8s")
    server.tell("pusher", verdict=TaskVerdict(4, "bad"))
    verdict = watched(platform, job, run)
    assert verdict.error is None and "cannot be told from here" in verdict.note


def test_command(server: KubeflowServer, tiny: PreparedDataset, tiny_recipe_file: Path) -> None:
    server.progress = [
        state("PENDING"),
        state("RUNNING", task("root", "RUNNING"), task("datagate", "RUNNING"), task("datagate-driver", "SUCCEEDED")),
        state(
            "SUCCEEDED",
            task("datagate", "SUCCEEDED"),
            task("transform", "SKIPPED"),
            task("pusher", "SUCCEEDED"),
        ),
    ]
    server.tell("pusher", verdict=TaskVerdict(pushed_version="1795318470"))
    arguments = ["--target", "kubeflow", "--profile", "kubeflow-cpu", "--profile-set", f"endpoint={server.address}"]
    what = ("--dataset", "kmnist", "--recipe", tiny_recipe_file, "--home", tiny.data_dir.parent)
    answer = mnist_tfx("submit", *arguments, *what, "--wait", "--poll", "0.01", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["note"] is None and told["pushed_version"] == "1795318470"
    lines = [line.split()[1:5] for line in answer.err.splitlines() if line.startswith("[kmnist]")]
    assert ["DataGate", "done", "42.0", "s"] in lines and ["Transform", "cached", "42.0", "s"] in lines
    assert len(lines) == 6


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_exit_codes_of_the_command(
    server: KubeflowServer, tiny: PreparedDataset, tiny_recipe_file: Path, code: int
) -> None:
    failed = code in (1, 3)
    server.progress = [
        state("FAILED" if failed else "SUCCEEDED", task("datagate", "FAILED" if failed else "SUCCEEDED"))
    ]
    told = TaskVerdict(code, "why")
    server.tell("datagate", verdict=None if failed else told, pod="gate", message=told.to_text() if failed else "")
    arguments = ["--target", "kubeflow", "--profile", "kubeflow-cpu", "--profile-set", f"endpoint={server.address}"]
    what = ("--dataset", "kmnist", "--recipe", tiny_recipe_file, "--home", tiny.data_dir.parent)
    answer = mnist_tfx("submit", *arguments, *what, "--wait", "--poll", "0.01")
    assert answer.code == code and ("why" in answer.err) == (code != 0)
