"""Which served version a candidate is compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tfx.types.standard_artifacts import Model

from components.baseline.executor import Executor
from components.baseline.versions import baseline_version
from components.features import METADATA_PATH
from serving.releases import plans
from serving.releases.apply import release
from tests.fixtures.executors import artifact, context
from tests.fixtures.tiny_run import TinyRun

MINE = {"dataset": "kmnist", "training": {"epochs": 3}}
OTHER = {"dataset": "kmnist", "training": {"epochs": 4}}


def push(serving: Path, name: str, identity: dict[str, Any] | None, whole: bool = True) -> None:
    """A version as the Pusher leaves it, or (`whole` false) as a killed copy would."""
    folder = serving / name
    (folder / "variables").mkdir(parents=True)
    (folder / "variables" / "data").write_text(name)
    if identity is not None:
        (folder / METADATA_PATH).parent.mkdir()
        (folder / METADATA_PATH).write_text(json.dumps({"metadata_version": 1, **identity}))
    if whole:
        (folder / "saved_model.pb").write_text(name)


def test_nothing_served_is_no_baseline(tmp_path: Path) -> None:
    assert baseline_version(str(tmp_path / "absent"), MINE) == ""
    assert baseline_version(str(tmp_path), MINE) == ""


def test_the_newest_version_by_number_is_the_baseline(tmp_path: Path) -> None:
    for name in ("9", "10", "8"):
        push(tmp_path, name, OTHER)
    assert baseline_version(str(tmp_path), MINE) == "10"


def test_a_version_with_the_candidates_identity_is_passed_over(tmp_path: Path) -> None:
    push(tmp_path, "1", OTHER)
    push(tmp_path, "2", MINE)
    assert baseline_version(str(tmp_path), MINE) == "1"
    assert baseline_version(str(tmp_path), OTHER) == "2"
    push(tmp_path, "3", MINE | {"training": {"epochs": 3}, "more": "than the identity"})
    assert baseline_version(str(tmp_path), MINE) == "1"


def test_only_the_candidate_itself_served_is_no_baseline(tmp_path: Path) -> None:
    push(tmp_path, "1", MINE)
    assert baseline_version(str(tmp_path), MINE) == ""


def test_a_model_from_elsewhere_is_a_baseline(tmp_path: Path) -> None:
    push(tmp_path, "1", None)
    assert baseline_version(str(tmp_path), MINE) == "1"


def test_what_is_no_whole_version_is_passed_over(tmp_path: Path) -> None:
    push(tmp_path, "1", OTHER)
    push(tmp_path, "2", OTHER, whole=False)
    for name in (".incoming", "latest", "3.1", "-4", "5x"):
        push(tmp_path, name, OTHER)
    (tmp_path / "6").write_text("a file")
    assert baseline_version(str(tmp_path), MINE) == "1"


def test_what_was_rolled_back_or_waits_to_be_promoted_is_no_baseline(tmp_path: Path) -> None:
    for name in ("1", "2", "3", "4"):
        push(tmp_path / "mnist", name, OTHER)
    release(tmp_path, "mnist", lambda state: plans.rollback(state, None))
    assert baseline_version(str(tmp_path / "mnist"), MINE) == "3"
    release(tmp_path, "mnist", lambda state: plans.promote(state, 2))
    assert baseline_version(str(tmp_path / "mnist"), MINE) == "2"
    assert baseline_version(f"{tmp_path / 'mnist'}/", OTHER) == ""
    release(tmp_path, "mnist", lambda state: plans.canary(state, 3))
    assert baseline_version(str(tmp_path / "mnist"), MINE) == "2"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("served", [True, False])
def test_the_component_copies_the_baseline_or_else_the_candidate(tmp_path: Path, served: bool) -> None:
    serving = tmp_path / "serving"
    if served:
        push(serving, "7", OTHER)
    push(tmp_path / "candidate", "Format-Serving", MINE)
    baseline = artifact(Model, tmp_path / "baseline")
    Executor(context(tmp_path)).Do(
        {"model": [artifact(Model, tmp_path / "candidate")]},
        {"baseline": [baseline]},
        {"serving_dir": str(serving), "identity": json.dumps(MINE), "expected_version": "", "code_version": ""},
    )
    source = serving / "7" if served else tmp_path / "candidate" / "Format-Serving"
    assert tree(tmp_path / "baseline" / "Format-Serving") == tree(source)
    assert baseline.get_string_custom_property("version") == ("7" if served else "")


def test_the_first_run_has_the_candidate_for_its_baseline(tiny_run: TinyRun) -> None:
    assert tree(tiny_run.artifact("Baseline", "baseline") / "Format-Serving") == tree(tiny_run.model)
    outcome = tiny_run.answer.outcome
    assert outcome["baseline_version"] == ""
    assert outcome["baseline_accuracy"] == outcome["accuracy"]
