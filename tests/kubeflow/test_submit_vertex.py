"""Runs on Vertex AI: the real SDK against a loopback server over TLS; a run is followed to each of its ends."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.cloud import aiplatform
from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format, struct_pb2
from grpc import StatusCode as Code

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.remote import attempts, follow
from mnist_tfx.kubeflow.remote.platform import Job, Unreachable
from mnist_tfx.kubeflow.remote.vertex import VertexPlatform
from mnist_tfx.kubeflow.verdict import TaskVerdict
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.remote_jobs import compiled_job, vertex_profile, watched
from tests.fixtures.vertex_server import PARENT, Fault, VertexServer, vertex_server

BEGAN = datetime(2027, 3, 1, 3, tzinfo=UTC)
REJECTED = (
    "The replica workerpool0-0 exited with a non-zero status of 3. Termination reason: Error. \nTraceback (most recent "
    "call last):\n  [...]\n  File executor.py, line 66, in Do\nmnist_tfx.contract.errors.DataRejected: the data gate "
    "rejected kmnist: 1 anomaly, nothing was trained.\n  train: image: 3 of 540 cannot be decoded"
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VertexServer]:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.setattr(attempts, "PAUSES_SECONDS", (0.0, 0.0))
    with vertex_server(tmp_path) as running:
        yield running


@pytest.fixture
def platform(server: VertexServer) -> VertexPlatform:
    return VertexPlatform(vertex_profile(server.address, server.certificate), timeout_seconds=10)


@pytest.fixture
def job() -> Job:
    return compiled_job("vertex")


def task(name: str, state: str, outputs: Mapping[str, Mapping[str, Any]] | None = None, error: str = "") -> Any:
    detail: Any = types.PipelineTaskDetail(task_name=name, state=state)
    if state != "PENDING":
        detail.start_time = BEGAN
    if state in ("SUCCEEDED", "FAILED", "SKIPPED"):
        detail.end_time = BEGAN + timedelta(seconds=42)
    if error:
        detail.error = {"code": 9, "message": error}
    for key, properties in (outputs or {}).items():
        artifact = types.Artifact()
        types.Artifact.pb(artifact).metadata.CopyFrom(struct_pb2.Struct())
        types.Artifact.pb(artifact).metadata.update(properties)
        detail.outputs[key] = types.PipelineTaskDetail.ArtifactList(artifacts=[artifact])
    return detail


def state(phase: str, *tasks: Any, error: str = "") -> types.PipelineJob:
    job = types.PipelineJob(state=f"PIPELINE_STATE_{phase}", job_detail={"task_details": list(tasks)})
    if error:
        job.error = {"code": 9, "message": error}
    return job


def pushed(value: int, evaluator: int = 1, infra: int = 1) -> list[Any]:
    version = {"pushed": value, **({"pushed_version": "1795318470"} if value else {})}
    last = TaskVerdict(pushed_version="1795318470") if value else TaskVerdict(says="a blessing is wanting")
    return [
        task("TfdsExampleGen", "SKIPPED"),
        task("DataGate", "SUCCEEDED"),
        task("Evaluator", "SUCCEEDED", {"blessing": {"blessed": evaluator, "verdict": judged(evaluator)}}),
        task("InfraValidator", "SUCCEEDED", {"blessing": {"blessed": infra, "verdict": judged(infra)}}),
        task("Pusher", "SUCCEEDED", {"pushed_model": {**version, "verdict": last.to_text()}}),
    ]


def judged(blessed: int) -> str:
    return (TaskVerdict() if blessed else TaskVerdict(4, "accuracy overall: 0.4000")).to_text()


class Submit:
    """`mnist-tfx submit` of the tiny dataset, to the loopback server."""

    def __init__(self, server: VertexServer, tiny: PreparedDataset, recipe: Path) -> None:
        self._arguments: list[str | Path] = ["--target", "vertex", "--profile", "vertex-cpu", "--dataset", "kmnist"]
        for setting in (f"endpoint={server.address}", f"ca_certificate={server.certificate}"):
            self._arguments += ["--profile-set", setting]
        self._arguments += [
            "--recipe",
            recipe,
            "--home",
            tiny.data_dir.parent,
            "--request-timeout",
            "10",
        ]

    def __call__(self, *more: str) -> Answer:
        return mnist_tfx("submit", *self._arguments, *more, *(("--poll", "0.01") if "--wait" in more else ()))


@pytest.fixture
def submit(server: VertexServer, tiny: PreparedDataset, tiny_recipe_file: Path) -> Submit:
    return Submit(server, tiny, tiny_recipe_file)


def test_what_is_sent_is_what_the_sdk_s_own_class_sends(
    server: VertexServer, platform: VertexPlatform, job: Job
) -> None:
    run = platform.submit(job)
    [sent] = [request.pipeline_job for method, request in server.requests if method == "CreatePipelineJob"]
    own = aiplatform.PipelineJob(
        display_name=job.pipeline,
        template_path=str(job.file),
        project="my-project",
        location="europe-west4",
        labels=dict(sent.labels),
    )._gca_resource
    assert sent.pipeline_spec == own.pipeline_spec and sent.runtime_config == own.runtime_config
    assert sent.display_name == own.display_name
    assert sent.service_account == "mnist-tfx@my-project.iam.gserviceaccount.com"
    assert dict(sent.labels) == {
        "app": "mnist-tfx",
        "managed-by": "mnist-tfx",
        "dataset": "kmnist",
        "recipe": "default",
        "pipeline-digest": job.digest,
    }
    assert f"{PARENT}/pipelineJobs/{run.run_id}" in server.jobs
    assert run.url == (
        "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/"
        f"{run.run_id}?project=my-project"
    )
    platform.submit(dataclasses.replace(job, dataset="emnist/By_Class"))
    _, sent = [request.pipeline_job for method, request in server.requests if method == "CreatePipelineJob"]
    assert sent.labels["dataset"] == "emnist-by_class"


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(Code.UNAVAILABLE, after_work=True)],
        [Fault(Code.INTERNAL), Fault(Code.INTERNAL, after_work=True)],
        [Fault(Code.ALREADY_EXISTS, after_work=True)],  # a repetition below us
        [Fault(Code.UNAVAILABLE)],
    ],
)
def test_lost_answers_make_one_run(
    server: VertexServer, platform: VertexPlatform, job: Job, faults: list[Fault]
) -> None:
    platform.submit(job)
    server.fail("CreatePipelineJob", *faults)
    run = platform.submit(job)
    assert len(server.jobs) == 2 and f"{PARENT}/pipelineJobs/{run.run_id}" in server.jobs


def test_timeout(server: VertexServer, job: Job) -> None:
    profile = vertex_profile(server.address, server.certificate, "network=projects/1/global/networks/vpc")
    server.fail("CreatePipelineJob", Fault(Code.UNAVAILABLE, after_work=True, hangs=True))
    VertexPlatform(profile, timeout_seconds=0.5).submit(job)
    assert [one.network for one in server.jobs.values()] == ["projects/1/global/networks/vpc"]


def test_a_key_of_ones_own(server: VertexServer, job: Job) -> None:
    key = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"
    profile = vertex_profile(server.address, server.certificate, f"encryption_key={key}")
    VertexPlatform(profile, timeout_seconds=10).submit(job)
    assert [one.encryption_spec.kms_key_name for one in server.jobs.values()] == [key]


def test_refused(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    server.fail("CreatePipelineJob", Fault(Code.PERMISSION_DENIED, "aiplatform.pipelineJobs.create denied"))
    with pytest.raises(
        PipelineError, match=r"refused to begin the run: PERMISSION_DENIED.*\n.*serviceAccountUser on mnist"
    ):
        platform.submit(job)
    server.fail("CreatePipelineJob", *[Fault(Code.UNAVAILABLE)] * 3)
    with pytest.raises(Unreachable):
        platform.submit(job)
    assert not server.jobs


def test_wait_for_success(server: VertexServer, submit: Submit) -> None:
    server.progress = [
        state("PENDING"),
        state("RUNNING", task("TfdsExampleGen", "SKIPPED"), task("DataGate", "RUNNING"), task("the-root", "RUNNING")),
        state("SUCCEEDED", *pushed(1)),
    ]
    server.fail("GetPipelineJob", *[Fault(Code.UNAVAILABLE)] * 4)  # a network that is gone for a while
    answer = submit("--wait", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["pushed_version"] == "1795318470" and told["succeeded"] and told["error"] is None
    lines = [line.split(None, 2)[1:] for line in answer.err.splitlines() if line.startswith("[kmnist]")]
    assert [name for name, _ in lines] == [
        *("TfdsExampleGen", "TfdsExampleGen", "DataGate", "DataGate"),
        *("Evaluator", "Evaluator", "InfraValidator", "InfraValidator", "Pusher", "Pusher"),
    ]
    shown = {name: " ".join(rest.split()) for name, rest in lines}
    assert shown["TfdsExampleGen"] == "cached 42.0 s" and shown["DataGate"] == "done 42.0 s"
    assert shown["Evaluator"] == "done 42.0 s blessed" and shown["Pusher"] == "done 42.0 s version 1795318470"


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (
            state("FAILED", task("DataGate", "FAILED", error=REJECTED)),
            3,
            "  DataGate: the data gate rejected kmnist: 1 anomaly, nothing was trained.\n      train: image: 3 of",
        ),
        (
            state("FAILED", task("DataGate", "FAILED", error="exited with a non-zero status of 137")),
            1,
            "  DataGate: exited with a non-zero status of 137",
        ),
        (state("FAILED", task("Trainer", "FAILED", error="out\nof memory")), 1, "  Trainer: out of memory\n"),
        (state("FAILED", error="quota of N1 CPUs"), 1, "the run failed.\n  quota of N1 CPUs"),
        (
            state("SUCCEEDED", *pushed(0, evaluator=0)),
            4,
            "by Evaluator, it was not pushed.\n  Evaluator: accuracy overall",
        ),
        (state("SUCCEEDED", *pushed(0, evaluator=0, infra=0)), 4, "by Evaluator and InfraValidator"),
        (state("CANCELLED", task("Trainer", "CANCELLED")), 130, "stopped by somebody else"),
    ],
)
def test_wait_for_other_ends(
    server: VertexServer, platform: VertexPlatform, job: Job, end: types.PipelineJob, code: int, words: str
) -> None:
    run = platform.submit(job)
    server.progress = [end]
    verdict = watched(platform, job, run)
    assert verdict.error is not None and verdict.error.exit_code == code
    assert words in str(verdict.error) and run.url in str(verdict.error)


def test_success_of_which_the_push_is_not_told(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    run = platform.submit(job)
    server.progress = [state("SUCCEEDED", task("Pusher", "SUCCEEDED"))]
    verdict = watched(platform, job, run)
    assert verdict.error is None and "cannot be told from here" in verdict.note


class Clock:
    """In the place of `time`: sleeping takes no time, and moves it on by 400 s."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += 400


def test_watching_ends_ten_minutes_after_the_last_answer(
    server: VertexServer, platform: VertexPlatform, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "time", Clock())
    run = platform.submit(job)
    server.fail("GetPipelineJob", *[Fault(Code.UNAVAILABLE)] * 9, after=3)
    with pytest.raises(Unreachable, match="tell of the run"):
        watched(platform, job, run)
    assert server.calls("GetPipelineJob") == 3 + 2 * 3, "each question is asked three times"


def test_a_study_that_was_not_pushed_succeeded(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    run = platform.submit(job)
    told = TaskVerdict(says="a study recipe").to_text()
    withheld = task("Pusher", "SUCCEEDED", {"pushed_model": {"pushed": 0, "verdict": told}})
    server.progress = [state("SUCCEEDED", *pushed(1)[:-1], withheld)]
    verdict = watched(platform, job, run)
    assert verdict.error is None and verdict.note == "not pushed: a study recipe"


def test_command_tells_the_end(server: VertexServer, submit: Submit) -> None:
    server.progress = [state("SUCCEEDED", *pushed(0, evaluator=0))]
    answer = submit("--wait", "--no-cache")
    assert answer.code == 4
    assert "error: the model of kmnist was not blessed" in answer.err
    assert "did not succeed" in answer.out and "watch it at https://console.cloud.google.com" in answer.out
    [sent] = server.jobs.values()
    spec = json_format.MessageToDict(types.PipelineJob.pb(sent).pipeline_spec)
    assert not any(one.get("cachingOptions", {}).get("enableCache") for one in spec["root"]["dag"]["tasks"].values())
    quick = submit()
    assert quick.code == 0 and quick.out.startswith("run kmnist-") and len(server.jobs) == 2


@pytest.fixture
def ctrl_c_raises() -> Iterator[None]:
    """As in a terminal: whoever starts the tests in the background may have SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_raises")
def test_ctrl_c_stops_watching_and_not_the_run(server: VertexServer, submit: Submit) -> None:
    server.progress = [state("RUNNING", task("DataGate", "RUNNING"))]

    def interrupt() -> None:
        while server.calls("GetPipelineJob") < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    answer = submit("--wait")
    thread.join()
    assert answer.code == 130 and "stopped watching; the run goes on: https://" in answer.err
    assert {method for method, _ in server.requests} == {"CreatePipelineJob", "GetPipelineJob"}
