"""What a damaged metadata.db does to the commands, and how runs are told apart where the clock was set back."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs.report import write_index
from mnist_tfx.pipeline.runs.store import list_runs, load_run, open_store, pushing_runs
from tests.fixtures.command import mnist_tfx
from tests.fixtures.served_home import store
from tests.pipeline.small_pipelines import run_small_pipeline

PAGE = 4096


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of two runs: the first pushed version 7, the second one was answered from the cache."""
    home = tmp_path_factory.mktemp("home")
    run_small_pipeline(home)
    run_small_pipeline(home)
    return home / "metadata.db"


def _sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def _overwrite_a_page(path: Path) -> None:
    [(page,)] = sqlite3.connect(path).execute("SELECT rootpage FROM sqlite_master WHERE name = 'ContextProperty'")
    content = bytearray(path.read_bytes())
    content[(page - 1) * PAGE : page * PAGE] = b"x" * PAGE
    path.write_bytes(content)


def _replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off in its first page": lambda path: os.truncate(path, 100),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // PAGE // 2 * PAGE),
    "text": lambda path: path.write_text("not a database, " * 100),
    "one page overwritten": _overwrite_a_page,
    "a folder": _replace_by_a_folder,
    "of a later version": lambda path: _sql(path, "UPDATE MLMDEnv SET schema_version = 99"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_command_says_the_same_of_a_damaged_database_and_status_goes_on(
    database: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copy(database, tmp_path)
    DAMAGES[damage](tmp_path / "metadata.db")
    store(tmp_path / "serving", "mnist", 6, 7)
    home = ("--home", tmp_path)
    for command in (
        ("run", "--dataset", "mnist"),
        ("tune", "--dataset", "mnist"),
        ("runs",),
        ("show", "latest"),
        ("report", "latest"),
    ):
        answer = mnist_tfx(*command, *home)
        assert (answer.code, answer.out) == (1, ""), command
        assert answer.err.startswith(f"error: cannot read {tmp_path / 'metadata.db'} as ML Metadata: ")
        assert "move it away: runs go on without their history and their cache" in answer.err
    assert not (tmp_path / "datasets").exists() and not (tmp_path / "runs").exists(), "nothing was begun"

    answer = mnist_tfx("status", "mnist", "--json", *home)
    assert answer.code == 0
    assert json.loads(answer.out)[0]["live"] == 7
    assert answer.err.startswith("warning: which run pushed a version is not known: cannot read ")
    assert mnist_tfx("status", *home).code == 0


def test_the_runner_itself_refuses_a_damaged_database(database: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.db").write_bytes(database.read_bytes()[:PAGE])
    with pytest.raises(PipelineError, match="move it away"):
        run_small_pipeline(tmp_path)


def test_moved_away_as_told_runs_go_on(database: Path, tmp_path: Path) -> None:
    shutil.copy(database, tmp_path / "metadata.db.old")
    assert not any(node.cached for node in run_small_pipeline(tmp_path).nodes)


def test_what_a_killed_process_has_half_written_is_taken_back(database: Path, tmp_path: Path) -> None:
    """ML Metadata's own connection for reading would refuse such a database."""
    copy = tmp_path / "metadata.db"
    shutil.copy(database, copy)
    before = list_runs(copy)
    code = (
        "import os, sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "[connection.execute(each) for each in ('PRAGMA cache_size = 1', 'BEGIN', 'DELETE FROM Context',"
        "\"UPDATE ExecutionProperty SET string_value = printf('%.5000c', 'x')\")]; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, copy])
    assert copy.with_name("metadata.db-journal").stat().st_size > 0
    assert list_runs(copy) == before


def test_reading_makes_and_changes_nothing(database: Path, tmp_path: Path) -> None:
    assert open_store(tmp_path / "metadata.db") is None
    before = (database.read_bytes(), sorted(database.parent.iterdir()))
    list_runs(database)
    assert (database.read_bytes(), sorted(database.parent.iterdir())) == before
    assert list(tmp_path.iterdir()) == []


def test_where_the_clock_was_set_back_the_run_made_last_is_the_newest(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "metadata.db"
    shutil.copy(database, copy)
    second, first = list_runs(copy)
    assert first.started <= second.started
    hour = 3_600_000
    _sql(
        copy,
        f"UPDATE Context SET create_time_since_epoch = create_time_since_epoch - {hour} WHERE name = '{second.run_id}'",
        f"UPDATE Execution SET last_update_time_since_epoch = last_update_time_since_epoch - {hour}",
    )
    assert [run.run_id for run in list_runs(copy)] == [second.run_id, first.run_id]
    assert load_run(copy, "latest").run_id == second.run_id
    assert pushing_runs(copy) == {("mnist", "7"): first.run_id}
    assert {execution.seconds for execution in load_run(copy, "latest").executions} == {None}
    index = write_index(Home(tmp_path)).read_text()
    assert index.index(second.run_id) < index.index(first.run_id)
