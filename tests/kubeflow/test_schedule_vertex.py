"""Schedules on Vertex AI: the real SDK against a loopback server over TLS, with what goes wrong on the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from google.cloud.aiplatform_v1 import types
from google.oauth2 import credentials as oauth2
from grpc import StatusCode as Code

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.remote import attempts
from mnist_tfx.kubeflow.remote.cron import parse_cron
from mnist_tfx.kubeflow.remote.platform import Job, Timing, Unreachable, find_schedule
from mnist_tfx.kubeflow.remote.vertex import VertexPlatform
from tests.fixtures.command import mnist_tfx
from tests.fixtures.remote_jobs import compiled_job, recompiled, vertex_profile
from tests.fixtures.vertex_server import Fault, VertexServer, vertex_server

NIGHTLY = Timing(parse_cron("0 3 * * *"), ZoneInfo("Europe/Paris"))


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


def test_create_update_pause_resume_delete(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    made, change = platform.schedules.put("nightly", job, NIGHTLY)
    [stored] = server.schedules.values()
    assert change == "created"
    assert (made.name, made.state, made.cron, made.timezone) == ("nightly", "active", "0 3 * * *", "Europe/Paris")
    assert stored.cron == "TZ=Europe/Paris 0 3 * * *"
    assert stored.max_concurrent_run_count == 1 and not stored.allow_queueing
    run = stored.create_pipeline_job_request.pipeline_job
    assert run.service_account == "mnist-tfx@my-project.iam.gserviceaccount.com"
    assert run.labels["pipeline-digest"] == job.digest == made.pipeline_digest
    assert all(token.startswith("Bearer ") for token in server.authorizations)

    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "unchanged"
    assert server.calls("UpdateSchedule") == 0
    platform.schedules.pause(made)
    later = Timing(parse_cron("30 4 * * MON-FRI"), ZoneInfo("UTC"), max_concurrent_runs=2)
    updated, change = platform.schedules.put("nightly", job, later)
    assert (change, updated.schedule_id, updated.state) == ("updated", made.schedule_id, "paused")
    assert (updated.cron, updated.timezone, updated.max_concurrent_runs) == ("30 4 * * 1-5", "UTC", 2)
    platform.schedules.resume(updated, catch_up=True)
    assert server.schedules[made.schedule_id].catch_up
    platform.schedules.resume(updated, catch_up=False)
    assert not server.schedules[made.schedule_id].catch_up
    assert find_schedule(platform.schedules, "nightly").state == "active"
    platform.schedules.delete(updated)
    assert not server.schedules
    with pytest.raises(UsageError, match="there is no schedule 'nightly'"):
        find_schedule(platform.schedules, "nightly")


def test_an_update_brings_another_pipeline_at_the_same_time(
    server: VertexServer, platform: VertexPlatform, job: Job, tmp_path: Path
) -> None:
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    other = recompiled(job, tmp_path)
    updated, change = platform.schedules.put("nightly", other, NIGHTLY)
    assert (change, updated.schedule_id) == ("updated", made.schedule_id)
    [stored] = server.schedules.values()
    run = stored.create_pipeline_job_request.pipeline_job
    assert run.labels["pipeline-digest"] == other.digest == updated.pipeline_digest != made.pipeline_digest
    assert platform.schedules.put("nightly", other, NIGHTLY)[1] == "unchanged"


def test_another_program_s_schedule_is_left_alone(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    theirs, _ = platform.schedules.put("nightly", job, NIGHTLY)
    request = server.schedules[theirs.schedule_id].create_pipeline_job_request
    request.pipeline_job.labels = {"team": "others"}
    for number in range(3):  # more than a page
        platform.schedules.put(f"other-{number}", job, NIGHTLY)
    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "created"
    assert [one.name for one in platform.schedules.all()] == ["nightly", "other-0", "other-1", "other-2"]
    with pytest.raises(UsageError, match=r"unknown schedule 'nigthly'. Did you mean 'nightly'\?"):
        find_schedule(platform.schedules, "nigthly")


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN])
def test_lost_answer_after_create(server: VertexServer, platform: VertexPlatform, job: Job, code: Code) -> None:
    server.fail("CreateSchedule", Fault(code, after_work=True))
    made, change = platform.schedules.put("nightly", job, NIGHTLY)
    assert change == "created" and list(server.schedules) == [made.schedule_id]
    assert server.calls("CreateSchedule") == 1


def test_timeout_after_create(server: VertexServer, job: Job) -> None:
    impatient = VertexPlatform(vertex_profile(server.address, server.certificate), timeout_seconds=0.5)
    server.fail("CreateSchedule", Fault(Code.UNAVAILABLE, after_work=True, hangs=True))
    made, _ = impatient.schedules.put("nightly", job, NIGHTLY)
    assert list(server.schedules) == [made.schedule_id] and server.calls("CreateSchedule") == 1


def test_failure_before_create_is_repeated(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    server.fail("CreateSchedule", Fault(Code.UNAVAILABLE), Fault(Code.INTERNAL))
    platform.schedules.put("nightly", job, NIGHTLY)
    assert len(server.schedules) == 1 and server.calls("CreateSchedule") == 3


def test_nothing_but_failures(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    server.fail("CreateSchedule", *[Fault(Code.INTERNAL, "500 from the back end")] * 3)
    with pytest.raises(Unreachable, match="create schedule nightly: INTERNAL, 500 from the back end"):
        platform.schedules.put("nightly", job, NIGHTLY)
    assert not server.schedules


def test_conflict_with_another_caller(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    server.fail("CreateSchedule", Fault(Code.ALREADY_EXISTS, after_work=True))
    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "created"
    assert len(server.schedules) == 1


def test_doubles_are_removed(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    first, _ = platform.schedules.put("nightly", job, NIGHTLY)
    double = types.Schedule(server.schedules[first.schedule_id], name=f"{first.schedule_id}9")
    server.schedules[double.name] = double
    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "unchanged"
    assert list(server.schedules) == [first.schedule_id]


def test_doubles_are_paused_and_deleted_together_and_one_is_resumed(
    server: VertexServer, platform: VertexPlatform, job: Job
) -> None:
    first, _ = platform.schedules.put("nightly", job, NIGHTLY)
    double = types.Schedule(server.schedules[first.schedule_id], name=f"{first.schedule_id}9")
    server.schedules[double.name] = double
    platform.schedules.pause(find_schedule(platform.schedules, "nightly"))
    assert {one.state.name for one in server.schedules.values()} == {"PAUSED"}
    platform.schedules.resume(find_schedule(platform.schedules, "nightly"), catch_up=False)
    assert [one.state.name for one in server.schedules.values()] == ["ACTIVE", "PAUSED"], (
        "each would begin its own runs"
    )
    assert find_schedule(platform.schedules, "nightly").state == "active"
    platform.schedules.delete(find_schedule(platform.schedules, "nightly"))
    assert not server.schedules


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (Code.PERMISSION_DENIED, "roles/aiplatform.user on project my-project"),
        (Code.UNAUTHENTICATED, "gcloud auth application-default login"),
        (Code.NOT_FOUND, "check project my-project and region europe-west4"),
        (Code.RESOURCE_EXHAUSTED, "more quota"),
        (Code.INVALID_ARGUMENT, "correct the profile"),
    ],
)
def test_refusals(server: VertexServer, platform: VertexPlatform, job: Job, code: Code, remedy: str) -> None:
    server.fail("CreateSchedule", Fault(code, "no\nsuch luck. " * 100))
    with pytest.raises(PipelineError) as raised:
        platform.schedules.put("nightly", job, NIGHTLY)
    message = str(raised.value)
    assert message.startswith(f"Vertex AI refused to create schedule nightly: {code.name}, no such luck.")
    assert f"remedy: {remedy}" in message.replace("give your account ", "").replace("log in again: ", "").replace(
        "wait, or ask for ", ""
    )
    assert len(message) < 1200 and raised.value.exit_code == 1
    assert server.calls("CreateSchedule") == 1


def test_lost_answers_of_the_other_verbs(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    for method in ("PauseSchedule", "ResumeSchedule", "UpdateSchedule", "DeleteSchedule", "ListSchedules"):
        server.fail(method, Fault(Code.UNAVAILABLE, after_work=True))
    platform.schedules.pause(made)
    assert find_schedule(platform.schedules, "nightly").state == "paused"
    platform.schedules.resume(made, catch_up=False)
    platform.schedules.put("nightly", job, Timing(parse_cron("0 4 * * *"), ZoneInfo("UTC")))
    assert find_schedule(platform.schedules, "nightly").cron == "0 4 * * *"
    platform.schedules.delete(made)
    assert not server.schedules


def test_catch_up_at_creation_is_refused(server: VertexServer, platform: VertexPlatform, job: Job) -> None:
    with pytest.raises(UsageError, match="schedule resume NAME --catch-up"):
        platform.schedules.put("nightly", job, Timing(NIGHTLY.cron, NIGHTLY.zone, catch_up=True))
    assert not server.requests


def test_no_credentials(server: VertexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(PipelineError, match=r"no credentials for Google Cloud: File .*missing.json.*\n.*gcloud auth"):
        VertexPlatform(vertex_profile(server.address, server.certificate))


class TokenServer(BaseHTTPRequestHandler):
    """Gives nobody a token any more."""

    def do_POST(self) -> None:
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b'{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}')

    def log_message(self, *_: object) -> None:
        pass


def test_credentials_that_have_expired(
    server: VertexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those of `gcloud auth application-default login`, with which a token is asked for."""
    credentials = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    (tmp_path / "key.json").write_text(json.dumps(credentials))
    profile = vertex_profile(server.address, server.certificate)
    with HTTPServer(("127.0.0.1", 0), TokenServer) as tokens:
        monkeypatch.setattr(oauth2, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"http://127.0.0.1:{tokens.server_port}")
        threading.Thread(target=tokens.handle_request).start()
        with pytest.raises(PipelineError, match=r"Cloud: invalid_grant: Token has been expired.*\n.*gcloud auth"):
            VertexPlatform(profile, timeout_seconds=10).schedules.all()
    with pytest.raises(Unreachable, match=r"to list schedules: .*refused.*\n.*check the network"):
        VertexPlatform(profile, timeout_seconds=10).schedules.all()  # and now no token server answers
    assert not server.requests and "Traceback" not in capfd.readouterr().err


def test_the_next_runs_are_named_without_credentials_and_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    what = ("--target", "vertex", "--profile", "vertex-cpu", "--dataset", "mnist", "--cron", "0 3 * * *", "--dry-run")
    planned = mnist_tfx("schedule", "create", *what)
    assert planned.code == 0 and planned.err.count("next run: ") == 3, planned.err
    assert mnist_tfx("schedule", "create", *what, "--catch-up").code == 2
    created = mnist_tfx("schedule", "create", *what[:-1], "--home", tmp_path)
    assert created.code == 1 and "no credentials for Google Cloud" in created.err


def test_a_server_that_nobody_vouches_for(server: VertexServer, job: Job) -> None:
    profile = vertex_profile(server.address, server.certificate, "ca_certificate=")
    with pytest.raises(Unreachable, match="check the network"):
        VertexPlatform(profile, timeout_seconds=2).schedules.all()
    assert not server.requests
    with pytest.raises(UsageError, match="ca_certificate of the profile cannot be read"):
        VertexPlatform(vertex_profile(server.address, Path("/missing.pem")))


def test_commands(server: VertexServer, tiny: PreparedDataset, tiny_recipe_file: Path) -> None:
    to = [*("--target", "vertex", "--profile", "vertex-cpu", "--profile-set", f"endpoint={server.address}")]
    to += ["--profile-set", f"ca_certificate={server.certificate}"]
    what = ("--dataset", "kmnist", "--recipe", tiny_recipe_file, "--home", tiny.data_dir.parent)
    when = ("--cron", "30 2 * * *", "--timezone", "Europe/Paris")
    planned = mnist_tfx("schedule", "create", *to, *what, *when, "--dry-run")
    assert planned.code == 0 and not server.schedules
    created = mnist_tfx("schedule", "create", *to, *what, *when, "--json")
    assert created.code == 0, created.err
    answer = json.loads(created.out)
    assert (answer["name"], answer["change"], len(answer["next_runs"])) == ("kmnist-tiny", "created", 3)
    assert created.err.count("next run: ") == 3 and "Europe/Paris change and 02:30 does not exist" in created.err
    assert "needed in the bucket: gcloud storage rsync" in created.err
    assert json.loads(mnist_tfx("schedule", "create", *to, *what, *when, "--json").out)["change"] == "unchanged"
    assert json.loads(mnist_tfx("schedule", "pause", "kmnist-tiny", *to, "--json").out)["state"] == "paused"
    assert "it is paused" in mnist_tfx("schedule", "create", *to, *what, *when).err
    [listed] = json.loads(mnist_tfx("schedule", "list", *to, "--json").out)
    assert listed["state"] == "paused"
    assert mnist_tfx("schedule", "resume", "kmnist-tiny", *to).out == "name: kmnist-tiny\nstate: active\n"
    shown = json.loads(mnist_tfx("schedule", "show", "kmnist-tiny", *to, "--json").out)
    assert shown["next_runs"] == answer["next_runs"]
    long = "kmnist-tiny-on-workdays-and-before-everybody-comes"
    assert mnist_tfx("schedule", "create", *to, *what, *when, "--name", long).code == 0
    [row] = [line for line in mnist_tfx("schedule", "list", *to).out.splitlines() if long in line]
    assert "Europe/Paris" in row
    assert mnist_tfx("schedule", "delete", long, *to).code == 0
    assert mnist_tfx("schedule", "delete", "kmnist-tiny", *to).code == 0
    gone = mnist_tfx("schedule", "show", "kmnist-tiny", *to)
    assert gone.code == 2 and gone.err.startswith("error: there is no schedule 'kmnist-tiny'")
    wrong = mnist_tfx("schedule", "create", *to, *what, "--cron", "61 3 * * *")
    assert wrong.code == 2 and "'61' is no minute" in wrong.err
