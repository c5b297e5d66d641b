"""Schedules on Kubeflow: the real kfp client against a loopback server, with what goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.remote import attempts
from mnist_tfx.kubeflow.remote.cron import parse_cron
from mnist_tfx.kubeflow.remote.kfp import KubeflowPlatform
from mnist_tfx.kubeflow.remote.platform import Job, Timing, Unreachable, find_schedule, plain_recipe_name
from tests.fixtures.command import mnist_tfx
from tests.fixtures.kubeflow_server import Fault, KubeflowServer, kubeflow_server
from tests.fixtures.remote_jobs import compiled_job, kubeflow_profile, recompiled
from tests.fixtures.vertex_server import vertex_server

NIGHTLY = Timing(parse_cron("0 3 * * *"), ZoneInfo("UTC"))
LATER = Timing(parse_cron("30 4 * * MON-FRI"), ZoneInfo("UTC"), max_concurrent_runs=2)
CREATE = "POST /recurringruns"


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


def test_create_update_pause_resume_delete(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    assert platform.schedules.all() == []
    made, change = platform.schedules.put("nightly", job, NIGHTLY)
    [stored] = server.recurring_runs.values()
    assert change == "created"
    assert (made.name, made.state, made.cron, made.pipeline_digest) == ("nightly", "active", "0 3 * * *", job.digest)
    assert stored["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (stored["max_concurrency"], stored["no_catchup"]) == ("1", True)
    [version] = server.versions.values()
    assert version["display_name"] == f"{job.pipeline}-{job.digest}"
    assert stored["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]

    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "unchanged"
    updated, change = platform.schedules.put("nightly", job, LATER)
    assert (change, updated.state, updated.cron, updated.max_concurrent_runs) == (
        "updated",
        "active",
        "30 4 * * 1-5",
        2,
    )
    assert list(server.recurring_runs) == [updated.schedule_id] and server.most_enabled == 1
    assert len(server.versions) == len(server.pipelines) == len(server.experiments) == 1

    platform.schedules.pause(updated)
    again, change = platform.schedules.put("nightly", job, NIGHTLY)
    assert (change, again.state) == ("updated", "paused")
    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "unchanged"
    platform.schedules.resume(again, catch_up=False)
    assert find_schedule(platform.schedules, "nightly").state == "active" and server.most_enabled == 1
    with pytest.raises(UsageError, match=r"create \.\.\. --catch-up"):
        platform.schedules.resume(again, catch_up=True)
    platform.schedules.delete(again)
    assert not server.recurring_runs


def test_an_update_brings_another_pipeline_at_the_same_time(
    server: KubeflowServer, platform: KubeflowPlatform, job: Job, tmp_path: Path
) -> None:
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    other = recompiled(job, tmp_path)
    updated, change = platform.schedules.put("nightly", other, NIGHTLY)
    assert change == "updated" and updated.pipeline_digest == other.digest != made.pipeline_digest
    [stored] = server.recurring_runs.values()
    version = server.versions[stored["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"] == f"{job.pipeline}-{other.digest}" and len(server.pipelines) == 1
    assert platform.schedules.put("nightly", other, NIGHTLY)[1] == "unchanged"


@pytest.mark.parametrize(
    ("recipe", "name"), [("default", "default"), ("my/Big_one.toml", "big-one"), ("lr0.1", "lr0-1"), ("_", "recipe")]
)
def test_a_recipe_s_name_in_that_of_its_schedule(recipe: str, name: str) -> None:
    assert plain_recipe_name(recipe) == name


def test_catch_up(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    platform.schedules.put("nightly", job, Timing(NIGHTLY.cron, NIGHTLY.zone, catch_up=True))
    assert [one["no_catchup"] for one in server.recurring_runs.values()] == [False]


def test_another_program_s_schedule_is_left_alone(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    theirs, _ = platform.schedules.put("nightly", job, NIGHTLY)
    server.recurring_runs[theirs.schedule_id]["description"] = "by hand"
    for number in range(3):  # more than a page
        platform.schedules.put(f"other-{number}", job, NIGHTLY)
    assert [one.name for one in platform.schedules.all()] == ["other-0", "other-1", "other-2"]
    assert platform.schedules.put("nightly", job, LATER)[1] == "created"
    assert theirs.schedule_id in server.recurring_runs


@pytest.mark.parametrize(
    "fault", [Fault(500, after_work=True), Fault(504, "<html>", after_work=True), Fault(0, after_work=True)]
)
def test_lost_answer_after_create(server: KubeflowServer, platform: KubeflowPlatform, job: Job, fault: Fault) -> None:
    server.fail(CREATE, fault)
    made, change = platform.schedules.put("nightly", job, NIGHTLY)
    assert change == "created" and list(server.recurring_runs) == [made.schedule_id]
    server.fail(CREATE, fault)
    updated, change = platform.schedules.put("nightly", job, LATER)
    assert change == "updated" and list(server.recurring_runs) == [updated.schedule_id]
    assert server.calls(CREATE) == 2
    assert server.most_enabled == 1


def test_timeout_after_create(server: KubeflowServer, job: Job) -> None:
    impatient = KubeflowPlatform(kubeflow_profile(server.address), timeout_seconds=0.5)
    server.fail(CREATE, Fault(500, after_work=True, hangs=True))
    made, _ = impatient.schedules.put("nightly", job, NIGHTLY)
    assert list(server.recurring_runs) == [made.schedule_id]


def test_failed_update_leaves_the_old_schedule_running(
    server: KubeflowServer, platform: KubeflowPlatform, job: Job
) -> None:
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    server.fail("POST /recurringruns/", Fault(500))  # the pause that comes first; it is repeated, and works
    server.fail(CREATE, *[Fault(503)] * 3)
    with pytest.raises(Unreachable, match="could not create schedule nightly: 503"):
        platform.schedules.put("nightly", job, LATER)
    assert {key: one["status"] for key, one in server.recurring_runs.items()} == {made.schedule_id: "ENABLED"}


def test_ctrl_c_during_an_update_leaves_the_old_schedule_running(
    server: KubeflowServer, platform: KubeflowPlatform, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the pause before the second attempt."""
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    server.fail(CREATE, Fault(503))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(attempts, "time", SimpleNamespace(sleep=interrupt))
    with pytest.raises(KeyboardInterrupt):
        platform.schedules.put("nightly", job, LATER)
    assert {key: one["status"] for key, one in server.recurring_runs.items()} == {made.schedule_id: "ENABLED"}
    assert server.calls(f"POST /recurringruns/{made.schedule_id}:disable") == 1


def test_conflicts_with_another_caller(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    for request in ("POST /experiments", "POST /pipelines", "POST /pipelines/upload_version"):
        server.fail(request, Fault(409, after_work=True))
    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "created"
    assert len(server.versions) == len(server.pipelines) == len(server.experiments) == 1


def test_doubles_are_removed(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    server.recurring_runs["double"] = {**server.recurring_runs[made.schedule_id], "recurring_run_id": "double"}
    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "unchanged"
    assert len(server.recurring_runs) == 1


def test_doubles_are_paused_and_deleted_together_and_one_is_resumed(
    server: KubeflowServer, platform: KubeflowPlatform, job: Job
) -> None:
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    server.recurring_runs["double"] = {**server.recurring_runs[made.schedule_id], "recurring_run_id": "double"}
    platform.schedules.pause(find_schedule(platform.schedules, "nightly"))
    assert {one["status"] for one in server.recurring_runs.values()} == {"DISABLED"}
    platform.schedules.resume(find_schedule(platform.schedules, "nightly"), catch_up=False)
    assert sorted(one["status"] for one in server.recurring_runs.values()) == ["DISABLED", "ENABLED"]
    assert find_schedule(platform.schedules, "nightly").state == "active"
    platform.schedules.delete(find_schedule(platform.schedules, "nightly"))
    assert not server.recurring_runs


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(403), "403 Forbidden: told to fail.\n  remedy: where there are many users, set `namespace`"),
        (Fault(401, ""), "remedy: log in: put a bearer token into a file"),
        (Fault(302, "<a>login</a>"), "remedy: log in: put a bearer token into a file"),
        (Fault(404, "<h1>nothing here</h1>"), "remedy: check the endpoint in the profile"),
        (Fault(400, "no JSON"), "400 Bad Request: no JSON.\n  remedy: correct the profile"),
    ],
)
def test_refusals(server: KubeflowServer, platform: KubeflowPlatform, job: Job, fault: Fault, words: str) -> None:
    server.fail(CREATE, fault)
    with pytest.raises(PipelineError) as raised:
        platform.schedules.put("nightly", job, NIGHTLY)
    assert words in str(raised.value) and raised.value.exit_code == 1
    assert f"{server.address} refused to create schedule nightly" in str(raised.value)
    assert server.calls(CREATE) == 1


def test_lost_answers_of_the_other_requests(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    for request in ("POST /experiments", "POST /pipelines", "POST /pipelines/upload_version", "GET /experiments"):
        server.fail(request, Fault(0, after_work=True))
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    assert len(server.versions) == len(server.pipelines) == len(server.experiments) == 1
    server.fail(f"POST /recurringruns/{made.schedule_id}:disable", Fault(500, after_work=True))
    platform.schedules.pause(made)
    server.fail("DELETE /recurringruns/", Fault(500, after_work=True))
    platform.schedules.delete(made)
    assert not server.recurring_runs


def test_nobody_listens(server: KubeflowServer) -> None:
    with pytest.raises(Unreachable, match=r"gave no answer to the request to list experiments: .*refused.*\n.*kubectl"):
        KubeflowPlatform(kubeflow_profile("http://127.0.0.1:9")).schedules.all()


def test_a_server_that_nobody_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PAUSES_SECONDS", (0.0, 0.0))
    with vertex_server(tmp_path) as over_tls:
        profile = kubeflow_profile(f"https://{over_tls.address}")
        with pytest.raises(
            Unreachable, match=r"certificate verify failed.*\n  remedy: name the PEM file .*ca_certificate"
        ):
            KubeflowPlatform(profile).schedules.all()


def test_clock_of_the_installation(server: KubeflowServer, job: Job) -> None:
    paris = Timing(NIGHTLY.cron, ZoneInfo("Europe/Paris"))
    in_utc = KubeflowPlatform(kubeflow_profile(server.address))
    with pytest.raises(UsageError, match="CRON_SCHEDULE_TIMEZONE=Europe/Paris"):
        in_utc.schedules.put("paris", job, paris)
    in_utc.schedules.put("tokyo", job, Timing(NIGHTLY.cron, ZoneInfo("Asia/Tokyo")))
    assert [one["trigger"]["cron_schedule"]["cron"] for one in server.recurring_runs.values()] == ["0 0 18 * * *"]
    in_paris = KubeflowPlatform(kubeflow_profile(server.address, "cron_timezone=Europe/Paris"))
    made, _ = in_paris.schedules.put("nightly", job, paris)
    assert (made.cron, made.timezone) == ("0 3 * * *", "Europe/Paris")
    with pytest.raises(UsageError, match=r"unknown time zone 'Europe/Pariss'. Did you mean 'Europe/Paris'\?"):
        KubeflowPlatform(kubeflow_profile(server.address, "cron_timezone=Europe/Pariss")).schedules.all()


def test_service_account(server: KubeflowServer, platform: KubeflowPlatform, job: Job) -> None:
    made, _ = platform.schedules.put("nightly", job, NIGHTLY)
    assert "service_account" not in server.recurring_runs[made.schedule_id]
    named = KubeflowPlatform(kubeflow_profile(server.address, "service_account=mnist-tfx"))
    updated, change = named.schedules.put("nightly", job, NIGHTLY)
    assert change == "updated" and server.recurring_runs[updated.schedule_id]["service_account"] == "mnist-tfx"


def test_token_and_namespace(server: KubeflowServer, job: Job, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    profile = kubeflow_profile(server.address, f"token_file={token}", "namespace=team")
    platform = KubeflowPlatform(profile)
    platform.schedules.put("nightly", job, NIGHTLY)
    assert server.authorizations == {"Bearer secret"}
    assert platform.schedules.put("nightly", job, NIGHTLY)[1] == "unchanged", "what is there is found in the namespace"
    token.write_text("renewed\n")
    platform.schedules.all()
    assert server.authorizations == {"Bearer secret", "Bearer renewed"}
    assert [one["namespace"] for one in (*server.experiments.values(), *server.pipelines.values())] == ["team"] * 2
    with pytest.raises(UsageError, match="token_file of the profile cannot be read"):
        KubeflowPlatform(kubeflow_profile(server.address, "token_file=/missing"))
    for content in (b"", b"a\nb\n", "é".encode(), b"\xff"):
        token.write_bytes(content)
        with pytest.raises(UsageError, match="token_file of the profile holds no bearer token"):
            KubeflowPlatform(profile)


def test_commands(server: KubeflowServer, tiny: PreparedDataset, tiny_recipe_file: Path) -> None:
    to = ["--target", "kubeflow", "--profile", "kubeflow-cpu", "--profile-set", f"endpoint={server.address}"]
    what = ("--dataset", "kmnist", "--recipe", tiny_recipe_file, "--home", tiny.data_dir.parent)
    create: list[str | Path] = ["schedule", "create", *to, *what, "--name", "nightly", "--cron"]
    created = mnist_tfx(*create, "0 3 * * *", "--json")
    assert created.code == 0, created.err
    assert json.loads(created.out)["change"] == "created"
    assert json.loads(mnist_tfx(*create, "0 5 * * *", "--json").out)["change"] == "updated"
    refused = mnist_tfx(*create, "0 3 * * *", "--timezone", "Europe/Paris")
    assert refused.code == 2 and "changes with the seasons" in refused.err
    assert [one["cron"] for one in json.loads(mnist_tfx("schedule", "list", *to, "--json").out)] == ["0 5 * * *"]
    for verb in ("pause", "resume", "delete"):
        assert mnist_tfx("schedule", verb, "nightly", *to).code == 0
    assert not server.recurring_runs
    wrong = mnist_tfx("schedule", "list", "--target", "vertex", "--profile", "kubeflow-cpu")
    assert wrong.code == 2 and "profile kubeflow-cpu is for kubeflow, not for vertex" in wrong.err
