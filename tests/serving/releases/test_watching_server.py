"""Releases while a server watches: it refuses no file, and no label ever leads nowhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.serving.releases import plans, servers
from mnist_tfx.serving.releases.apply import Released, release
from mnist_tfx.serving.releases.plans import Plan
from mnist_tfx.serving.releases.servers import RunningServer
from mnist_tfx.serving.releases.state import ModelState, read_state
from tests.fixtures.command import mnist_tfx
from tests.fixtures.served_home import seen_by_a_server, store
from tests.fixtures.watching_server import WatchingServer, watching
from tests.serving.conftest import wait_until

_CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    folder = tmp_path / "serving"
    store(folder, "mnist", 1, 2, 3)
    return folder


def call(
    server: WatchingServer,
    serving: Path,
    action: str,
    version: int | None = None,
    others: Sequence[WatchingServer] = (),
) -> Released:
    decisions = {"rollback": plans.rollback, "canary": plans.canary, "promote": plans.promote}

    def decide(state: ModelState) -> Plan:
        return decisions[action](state, version)

    with ExitStack() as stack:
        running = [stack.enter_context(closing(RunningServer(one.address, "mnist"))) for one in (server, *others)]
        return release(serving, "mnist", decide, servers=running, timeout=10)


def test_every_step_waits_for_the_server_and_none_is_refused(serving: Path) -> None:
    with watching(serving, "mnist") as server:
        for action, version, available, labels in [
            ("promote", 2, {2}, {"stable": 2}),  # not the one that is served so far
            ("canary", None, {2, 3}, {"stable": 2, "canary": 3}),
            ("canary", 1, {1, 2}, {"stable": 2, "canary": 1}),  # the label moves to what is not loaded yet
            ("promote", None, {1}, {"stable": 1, "canary": 1}),
            ("rollback", None, {2}, {"stable": 2, "canary": 2}),
        ]:
            call(server, serving, action, version)
            assert server.history[-1] == (frozenset(available), labels)
        assert server.refused == []
        assert all(set(labels.values()) <= available for available, labels in server.history)
        assert all(available for available, _ in server.history), "there was always a version to answer"


def test_each_of_two_servers_is_waited_for_and_none_is_refused(serving: Path) -> None:
    with watching(serving, "mnist") as early, watching(serving, "mnist", load_seconds=0.5) as late:
        store(serving, "mnist", 4)
        wait_until(lambda: early.history[-1][0] == {4}, "the new version, which the other server has not loaded yet")
        call(early, serving, "promote", 4, others=[late])
        call(early, serving, "canary", 2, others=[late])
        for server in (early, late):
            assert server.history[-1] == (frozenset({2, 4}), {"stable": 4, "canary": 2})
            assert server.refused == []


def test_a_plain_rollback_waits_until_the_server_is_back_on_the_old_version(serving: Path) -> None:
    with watching(serving, "mnist") as server:
        call(server, serving, "rollback")
        assert [available for available, _ in server.history] == [{3}, {2}]
        call(server, serving, "rollback", 3)
        call(server, serving, "rollback", 1)
        assert [available for available, _ in server.history][1:] == [{2}, {3}, {1}], "2 did not come between"


def test_a_version_that_does_not_load_is_no_canary_and_the_file_is_put_back(
    serving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "LOOK_SECONDS", 0.5)  # this server looks more often than each second
    store(serving, "mnist", 4)
    with watching(serving, "mnist") as server:
        call(server, serving, "promote", 3)
        before = (serving / "models.config").read_text()
        server.unloadable.add(4)
        with pytest.raises(PipelineError, match="cannot load version 4: Op type not registered"):
            call(server, serving, "canary", 4)
        assert (serving / "models.config").read_text() == before
        assert read_state(serving, "mnist").releases[-1].outcome == "failed"

        begin = time.monotonic()  # at once, before the server has looked again, and with the same end
        with pytest.raises(PipelineError, match="cannot load version 4: Op type not registered"):
            call(server, serving, "canary", 4)
        assert time.monotonic() - begin < 3
        server.unloadable.clear()  # the copy is whole now; the server still tells of the failure
        call(server, serving, "canary", 4)
        assert server.history[-1] == (frozenset({3, 4}), {"stable": 3, "canary": 4})


def test_a_version_that_came_back_and_does_not_load_goes_aside_again(serving: Path) -> None:
    with watching(serving, "mnist") as server:
        call(server, serving, "rollback")
        call(server, serving, "promote", 2)
        server.unloadable.add(3)
        with pytest.raises(PipelineError, match=r"^the server at .* cannot load version 3: Op type not registered"):
            call(server, serving, "rollback", 3)
    assert seen_by_a_server(serving, "mnist") == ["1", "2"]
    state = read_state(serving, "mnist")
    assert (state.live, [version.number for version in state.rolled_back]) == (2, [3])


def test_a_version_that_failed_once_can_be_rolled_back_to(serving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LOOK_SECONDS", 0.5)
    with watching(serving, "mnist") as server:
        call(server, serving, "rollback")
        server.unloadable.add(3)
        with pytest.raises(PipelineError, match=r"the rollback to version 3 is made, but .* cannot load version 3"):
            call(server, serving, "rollback", 3)
        server.unloadable.clear()
        call(server, serving, "rollback")
        call(server, serving, "rollback", 3)
        assert server.history[-1] == (frozenset({3}), {})


def test_a_server_that_restarts_on_the_way_is_waited_for(serving: Path) -> None:
    with watching(serving, "mnist", load_seconds=1.0) as server:
        call(server, serving, "promote", 3)
        restart = threading.Timer(0.3, server.restart)
        restart.start()
        call(server, serving, "canary", 2)
        restart.join()
        assert server.history[-1] == (frozenset({2, 3}), {"stable": 3, "canary": 2})


def test_a_server_that_does_not_read_the_file_is_told_apart(serving: Path) -> None:
    with (
        watching(serving, "mnist", reads_config=False) as server,
        closing(RunningServer(server.address, "mnist")) as running,
    ):
        with pytest.raises(PipelineError, match=r"after 0\.3 s .* say: version 3 is AVAILABLE\. Does it watch this"):
            release(serving, "mnist", lambda state: plans.promote(state, 2), servers=[running], timeout=0.3)
        assert not (serving / "models.config").exists()
        with pytest.raises(PipelineError, match="the promote to version 3 is made, but after"):
            release(serving, "mnist", lambda state: plans.promote(state, 3), servers=[running], timeout=0.3)


@pytest.mark.parametrize(
    ("change", "unasked", "available", "labels"),
    [
        ("rollback mnist --to 1", "--no-wait", {1}, {"stable": 1, "canary": 1}),
        ("promote mnist 1", "--address 127.0.0.1:1", {1}, {"stable": 1, "canary": 1}),
        ("canary mnist 1", "--address 127.0.0.1:1", {1, 2}, {"stable": 2, "canary": 1}),
    ],
)
def test_a_server_that_was_not_reached_refuses_a_moved_label_and_is_taken_along_as_the_message_says(
    serving: Path, change: str, unasked: str, available: set[int], labels: dict[str, int]
) -> None:
    home = ("--home", serving.parent)
    with watching(serving, "mnist") as server:
        call(server, serving, "promote", 2)
        call(server, serving, "canary", 3)
        seen = len(server.history)
        answer = mnist_tfx(*change.split(), *home, *unasked.split())
        assert answer.code == 0 and "a label moves to version 1, which it has not loaded" in answer.out, answer
        wait_until(lambda: bool(server.refused), "its refusal")
        assert server.history[seen:] == [], "it answers as before"

        commands = re.findall(r"mnist-tfx (.+?) --address HOST:PORT", answer.out)
        assert len(commands) == 2 and commands[1] == change
        for command in commands:
            told = mnist_tfx(*command.split(), *home, "--address", server.address)
            assert f"{server.address}: serves it" in told.out and "refuses" not in told.out, told
        assert server.history[-1] == (frozenset(available), labels)
        assert all(set(known) == set(labels) for _, known in server.history[seen:]), "each label always led somewhere"


@pytest.mark.parametrize(("change", "live"), [("rollback", 2), ("promote", 3)])
def test_a_server_that_was_not_reached_follows_to_what_it_has_loaded(serving: Path, change: str, live: int) -> None:
    with watching(serving, "mnist") as server:
        call(server, serving, "promote", 2)
        call(server, serving, "canary", 3)
        answer = mnist_tfx(change, "mnist", "--home", serving.parent, "--no-wait")
        assert answer.code == 0 and "refuses" not in answer.out, answer
        wait_until(lambda: server.history[-1] == (frozenset({live}), {"stable": live, "canary": live}), change)
        assert server.refused == []


def test_a_killed_canary_leaves_what_can_be_gone_on_from(serving: Path) -> None:
    with watching(serving, "mnist", load_seconds=1.0) as server:
        call(server, serving, "promote", 3)
        store(serving, "mnist", 4)
        command = ["canary", "mnist", "--home", str(serving.parent), "--address", server.address]
        code = "import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
        process = subprocess.Popen([sys.executable, "-c", code, *command], cwd=_CHECKOUT)
        while "versions: 4" not in (serving / "models.config").read_text():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        state = read_state(serving, "mnist")
        assert (state.live, state.served, state.pin and state.pin.labels) == (3, [3, 4], {"stable": 3})
        assert state.releases[-1].outcome == "begun"

        assert mnist_tfx(*command).code == 0
        assert server.history[-1] == (frozenset({3, 4}), {"stable": 3, "canary": 4})
        assert server.refused == []


def test_status_shows_what_the_server_says(serving: Path) -> None:
    with watching(serving, "mnist") as server:
        options = ("status", "mnist", "--home", serving.parent, "--address", server.address)
        [page] = json.loads(mnist_tfx(*options, "--json").out)
        said = {row["folder"]: row["servers"][server.address] for row in page["versions"]}
        assert said == {"3": {"state": "AVAILABLE", "error": ""}, "2": None, "1": None}
        assert ["3", "live", "AVAILABLE"] in [line.split() for line in mnist_tfx(*options).out.splitlines()]
        store(serving, "kmnist", 1)
        assert "NOT_FOUND: Could not find any versions" in mnist_tfx("status", *options[2:]).out
