"""`mnist-tfx rollback`, `canary`, `promote` and `status`, as a user calls them; no server runs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mnist_tfx.pipeline.home import Home
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.ordinary_user import ORDINARY
from tests.fixtures.served_home import seen_by_a_server, store
from tests.pipeline.small_pipelines import run_small_pipeline


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Versions 5 to 7 of mnist, none of them pushed by a run."""
    store(tmp_path / "serving", "mnist", 5, 6, 7)
    return tmp_path


@pytest.fixture(scope="module")
def nobody() -> str:
    """An address where no server answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def status(home: Path, nobody: str, model: str = "mnist") -> dict[str, Any]:
    answer = mnist_tfx("status", model, "--home", home, "--address", nobody, "--json")
    assert answer.code == 0, answer.err
    [page] = json.loads(answer.out)
    return page


def table(answer: Answer) -> list[list[str]]:
    return [line.split() for line in answer.out.splitlines()]


def test_a_rollback_says_what_it_did_and_how_to_undo_it(home: Path, nobody: str) -> None:
    answer = mnist_tfx("rollback", "mnist", "--home", home, "--address", nobody, "--reason", "wrong on 4s")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines() == [
        "mnist: version 6 is live instead of 7.",
        f"moved aside: {home}/serving/mnist/.rolled_back/7",
        "to make it live again: mnist-tfx rollback mnist --to 7",
        f"{nobody}: no server answers (Connection refused); a server of this home takes it up when it starts",
    ]
    assert seen_by_a_server(home / "serving", "mnist") == ["5", "6"]
    assert mnist_tfx("rollback", "mnist", "--to", "7", "--home", home, "--no-wait").code == 0
    page = status(home, nobody)
    assert page["live"] == 7
    assert [(r["action"], r["before"], r["after"], r["reason"]) for r in page["releases"]] == [
        ("rollback", 7, 6, "wrong on 4s"),
        ("rollback", 6, 7, ""),
    ]


def test_promote_canary_promote_and_back(home: Path, nobody: str) -> None:
    def call(*arguments: str) -> dict[str, Any]:
        answer = mnist_tfx(*arguments, "--home", home, "--address", nobody, "--json")
        assert answer.code == 0, answer.err
        return json.loads(answer.out)

    first = call("promote", "mnist", "6")
    assert first["pinned"] == {"versions": [6], "labels": {"stable": 6}}
    assert first["servers"] == [{"address": nobody, "problem": "no server answers (Connection refused)"}]
    assert call("canary", "mnist")["pinned"] == {"versions": [6, 7], "labels": {"canary": 7, "stable": 6}}
    rows = {row["folder"]: (row["status"], row["labels"]) for row in status(home, nobody)["versions"]}
    assert rows == {"7": ("canary", ["canary"]), "6": ("live", ["stable"]), "5": ("stored", [])}
    assert (call("promote", "mnist")["from"], status(home, nobody)["live"]) == (6, 7)
    assert call("rollback", "mnist")["to"] == 6
    assert status(home, nobody)["versions"][0]["status"] == "rolled back"
    assert call("promote", "mnist", "--follow-latest")["pinned"] is None
    assert (status(home, nobody)["live"], seen_by_a_server(home / "serving", "mnist")) == (6, ["5", "6"])


def test_the_words_of_canary_and_promote(home: Path, nobody: str) -> None:
    options = ("--home", home, "--address", nobody)
    out = mnist_tfx("promote", "mnist", "6", *options).out
    assert "version 6 is stable instead of 7, until another one is promoted." in out
    assert (
        "It is new. mnist-tfx serve takes it up; a tensorflow_model_server started without it must be restarted." in out
    )
    out = mnist_tfx("canary", "mnist", *options).out
    assert "version 7 is the canary beside the stable version 6." in out
    assert "Requests that name no label or version get 7" in out
    assert "It is new" not in out
    assert "the canary 7 is withdrawn; version 6 stays stable." in mnist_tfx("rollback", "mnist", *options).out
    out = mnist_tfx("promote", "mnist", "--follow-latest", *options).out
    assert "each push goes live at once; now 6 is live. Labels gone: 'canary', 'stable'." in out


def test_errors_have_exit_codes_and_remedies(home: Path, nobody: str) -> None:
    options = ("--home", home, "--address", nobody)
    for arguments, code, words in [
        (("rollback", "mnits"), 2, "Did you mean 'mnist'?"),
        (("status", "mnits"), 2, "Did you mean 'mnist'?"),
        (("rollback", "mnist", "--to", "8"), 2, "unknown version of mnist '8'"),
        (("promote", "mnist"), 2, "mnist has no canary to promote. Make one: mnist-tfx canary mnist"),
        (("promote", "mnist", "6", "--follow-latest"), 2, "takes no VERSION"),
        (("status", "mnist", "--address", "http://localhost:8500"), 2, "Leave out the scheme: localhost:8500"),
        (("status", "mnist", "--ca", str(home / "absent.pem")), 2, "absent.pem"),
        (("canary", "mnist"), 1, "Each push goes live at once. So that the next one waits: mnist-tfx promote mnist 7"),
    ]:
        answer = mnist_tfx(*arguments, *options)
        assert (answer.code, answer.out) == (code, "")
        assert words in answer.err
    assert seen_by_a_server(home / "serving", "mnist") == ["5", "6", "7"]


def test_status_names_the_run_that_pushed_a_version(tmp_path: Path, nobody: str) -> None:
    pushed = run_small_pipeline(tmp_path)
    run_small_pipeline(tmp_path)  # answered from the cache: it pushes nothing
    store(tmp_path / "serving", "mnist", 6, 7)
    store(tmp_path / "serving", "fashion_mnist", 7)
    answer = mnist_tfx("status", "--home", tmp_path, "--address", nobody)
    assert answer.code == 0, answer.err
    rows = table(answer)
    assert ["7", "live", pushed.run_id] in rows
    assert ["6", "stored"] in rows
    assert ["7", "live"] in rows, "another model's version 7 was pushed by nobody"
    assert answer.out.count(f"{nobody}: no server answers") == 2


def test_status_of_an_empty_home_and_of_a_model_without_versions(tmp_path: Path, nobody: str) -> None:
    answer = mnist_tfx("status", "--home", tmp_path)
    assert (answer.code, answer.out.startswith("No model in ")) == (0, True)
    assert json.loads(mnist_tfx("status", "--home", tmp_path, "--json").out) == []
    (tmp_path / "serving" / "mnist" / "notes").mkdir(parents=True)
    page = status(tmp_path, nobody)
    assert (page["live"], page["versions"]) == (None, [])
    assert page["notes"] == ["mnist has no version that a server could serve."]


def test_a_folder_that_only_root_may_read_is_passed_over(home: Path, nobody: str) -> None:
    (home / "serving" / "lost+found").mkdir(mode=0)  # on a fresh ext4 volume
    code = (
        "import sys; from mnist_tfx.pipeline.cli import main;"
        f"options = ['--home', {str(home)!r}, '--address', {nobody!r}, '--json'];"
        "sys.exit(any([main([command, *options]) for command in ('status', 'prune')]))"
    )
    done = subprocess.run([*ORDINARY, sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"mnist"' in done.stdout and "lost+found" not in done.stdout


def test_a_rollback_during_a_run_says_that_the_run_may_push(home: Path, nobody: str) -> None:
    with Home(home).lock():
        answer = mnist_tfx("rollback", "mnist", "--home", home, "--address", nobody)
    assert answer.code == 0
    assert "What it pushes goes live at once. To keep version 6 live: mnist-tfx promote mnist 6" in answer.err


def test_no_command_loads_tensorflow(home: Path, nobody: str) -> None:
    code = (
        "import sys; from mnist_tfx.pipeline.cli import main;"
        f"options = ['mnist', '--home', {str(home)!r}, '--address', {nobody!r}];"
        "codes = [main([command, *options]) for command in ('rollback', 'status')];"
        "sys.exit(any(codes) or bool({'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
