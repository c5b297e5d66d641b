"""Rollback on the folders that a server watches, with no version pinned."""

from __future__ import annotations

import getpass
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.releases import FILE_NAME, read_releases
from mnist_tfx.pipeline.commands.release_view import notes_on, status_of
from mnist_tfx.serving.releases import apply, plans
from mnist_tfx.serving.releases.apply import Released, release
from mnist_tfx.serving.releases.state import ModelState, read_state
from tests.fixtures.served_home import seen_by_a_server, store


def roll_back(serving: Path, to: int | None = None, reason: str = "") -> Released:
    return release(serving, "mnist", lambda state: plans.rollback(state, to), reason=reason)


def statuses(state: ModelState) -> dict[str, str]:
    return {version.path.name: status_of(state, version) for version in (*state.stored, *state.rolled_back)}


def test_the_newest_version_goes_aside_whole_and_comes_back(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 1, 2, 3)
    assert roll_back(tmp_path).after.live == 2
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "2"]
    aside = tmp_path / "mnist" / ".rolled_back" / "3"
    assert (aside / "saved_model.pb").read_text() == "graph of 3"
    assert (aside / "variables" / "variables.index").read_text() == "3"
    assert statuses(read_state(tmp_path, "mnist")) == {"1": "stored", "2": "live", "3": "rolled back"}

    assert roll_back(tmp_path, to=3).after.live == 3
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "2", "3"]
    assert not aside.exists()


def test_going_back_several_versions_and_to_one_between(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 1, 2, 3, 4)
    roll_back(tmp_path, to=1)
    assert seen_by_a_server(tmp_path, "mnist") == ["1"]
    roll_back(tmp_path, to=3)
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "3"]
    store(tmp_path, "mnist", 5)
    roll_back(tmp_path, to=2)
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "2"]
    assert read_state(tmp_path, "mnist").live == 2


def test_the_last_version_is_not_removed(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 1)
    with pytest.raises(PipelineError, match="the last one is not removed"):
        roll_back(tmp_path)
    store(tmp_path, "mnist", 2)
    roll_back(tmp_path)
    with pytest.raises(PipelineError, match=r"Stored: 1\. Rolled back: 2\."):
        roll_back(tmp_path)
    assert seen_by_a_server(tmp_path, "mnist") == ["1"]
    (tmp_path / "kmnist").mkdir()
    with pytest.raises(PipelineError, match="kmnist has no version"):
        release(tmp_path, "kmnist", lambda state: plans.rollback(state, None))


def test_what_cannot_be_meant_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="Make one: mnist-tfx run"):
        roll_back(tmp_path / "absent")
    store(tmp_path, "mnist", 10, 20)
    with pytest.raises(UsageError, match="Did you mean 'mnist'"):
        release(tmp_path, "mnits", lambda state: plans.rollback(state, None))
    with pytest.raises(UsageError, match=r"unknown model '\.\./mnist'"):
        release(tmp_path, "../mnist", lambda state: plans.rollback(state, None))
    with pytest.raises(UsageError, match=r"unknown version of mnist '11'\. Did you mean '10'"):
        roll_back(tmp_path, to=11)
    with pytest.raises(UsageError, match="version 20 of mnist is live already"):
        roll_back(tmp_path, to=20)
    assert seen_by_a_server(tmp_path, "mnist") == ["10", "20"]
    assert read_releases(tmp_path) == []


def test_a_half_copied_version_is_what_a_rollback_withdraws(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 1, 2)
    store(tmp_path, "mnist", 3, whole=False)
    state = read_state(tmp_path, "mnist")
    assert statuses(state) == {"1": "stored", "2": "live", "3": "incomplete"}
    assert any("holds no saved_model.pb" in note for note in notes_on(state))
    with pytest.raises(UsageError, match="no server can load it"):
        roll_back(tmp_path, to=3)
    assert roll_back(tmp_path).after.live == 2
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "2"]


def test_other_names_leading_zeros_and_files(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 1, "002", "2", "latest", "3.1", "-4", ".incoming", "5x", "\u0667")
    (tmp_path / "mnist" / "9").write_text("a file; TF Serving takes its name for a version")
    (tmp_path / "models.txt").write_text("no model")
    state = read_state(tmp_path, "mnist")
    assert [version.path.name for version in state.stored] == ["1", "002", "2", "9"]
    assert state.live == 2
    assert any(note.startswith("002 and 2 are one and the same version to a server.") for note in notes_on(state))
    roll_back(tmp_path, to=1)
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "\u0667"]
    roll_back(tmp_path, to=2)
    assert (tmp_path / "mnist" / "002" / "saved_model.pb").is_file()
    assert (tmp_path / "mnist" / "2" / "saved_model.pb").is_file()


def test_a_version_that_is_a_relative_link_leads_where_it_led(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    store(serving, "mnist", 1)
    store(tmp_path / "kept", "mnist", 2)
    link, aside = serving / "mnist" / "2", serving / "mnist" / ".rolled_back" / "2"
    link.symlink_to("../../kept/mnist/2")
    assert roll_back(serving).after.live == 1
    assert (aside / "saved_model.pb").read_text() == "graph of 2" and not link.is_symlink()
    assert roll_back(serving, to=2).after.live == 2
    assert (link / "saved_model.pb").read_text() == "graph of 2" and not aside.is_symlink()

    link.unlink()
    link.symlink_to("../../kept/mnist/2")
    with pytest.raises(KeyError), apply._moved([(link, aside)]):
        raise KeyError
    assert read_state(serving, "mnist").live == 2, "what fails later puts it back"


def test_what_is_in_the_way_stops_a_rollback_before_it_begins(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 1, 2, 3)
    store(tmp_path / "mnist", ".rolled_back", 3)
    with pytest.raises(PipelineError, match="is in the way"):
        roll_back(tmp_path, to=1)
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "2", "3"]
    assert [entry.outcome for entry in read_releases(tmp_path)] == ["failed"]


def test_a_folder_that_cannot_be_written_to_is_an_error_in_words(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 1, 2)
    (tmp_path / "mnist" / ".rolled_back").write_text("no folder")
    with pytest.raises(PipelineError, match=r"cannot change .*/\.rolled_back.*: (File exists|Not a directory)"):
        roll_back(tmp_path)
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "2"]


def test_every_change_is_on_record_and_a_cut_off_line_spoils_no_other(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 1, 2, 3)
    roll_back(tmp_path, reason="wrong on sandals")
    with open(tmp_path / FILE_NAME, "a") as file:
        file.write('{"id": "cut off')
    roll_back(tmp_path)
    first, second = read_releases(tmp_path, "mnist")
    assert (first.action, first.before, first.after, first.reason) == ("rollback", 3, 2, "wrong on sandals")
    assert (second.before, second.after, second.outcome) == (2, 1, "done")
    assert first.by.startswith(f"{getpass.getuser()}@")
    assert first.time.endswith("+00:00")
    assert read_releases(tmp_path, "fashion_mnist") == []


def die_at(serving: Path, call: int) -> None:
    """Rolls back to version 1 in a process that dies, as by kill -9, at its `call`-th rename or line of the record."""
    calls = 0
    rename, append = os.rename, json.dumps

    def counted() -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            os._exit(9)

    def dying_rename(source: Path, destination: Path) -> None:
        counted()
        rename(source, destination)

    def dying_dumps(entry: object) -> str:
        counted()
        return append(entry)

    os.rename, json.dumps = dying_rename, dying_dumps  # type: ignore[assignment]
    roll_back(serving, to=1)


@pytest.mark.parametrize(
    ("call", "live", "record"), [(2, 3, "begun"), (3, 3, "begun"), (4, 1, "begun"), (5, 1, "done")]
)
def test_a_kill_leaves_the_old_or_the_new_version_live_and_never_one_between(
    tmp_path: Path, call: int, live: int, record: str
) -> None:
    store(tmp_path, "mnist", 1, 2, 3)
    process = multiprocessing.get_context("fork").Process(target=die_at, args=(tmp_path, call))
    process.start()
    process.join()
    assert process.exitcode == (9 if record == "begun" else 0)
    assert read_state(tmp_path, "mnist").live == live
    assert [entry.outcome for entry in read_releases(tmp_path)] == [record]

    if live == 3:
        roll_back(tmp_path, to=1)
    assert read_state(tmp_path, "mnist").live == 1
    assert sorted(path.name for path in (tmp_path / "mnist" / ".rolled_back").iterdir()) == ["2", "3"]


def test_two_releases_at_once_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, "mnist", 1, 2, 3, 4, 5, 6)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=roll_back, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert seen_by_a_server(tmp_path, "mnist") == ["1", "2"]
    assert [(entry.before, entry.after) for entry in read_releases(tmp_path)] == [(6, 5), (5, 4), (4, 3), (3, 2)]

    monkeypatch.setattr(apply, "_LOCK_SECONDS", 0.1)
    with apply.changes_kept_out(tmp_path), pytest.raises(PipelineError, match="another canary, promote or rollback"):
        roll_back(tmp_path)
