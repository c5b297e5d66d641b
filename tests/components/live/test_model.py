"""Which served version is live, which is the very candidate, and with which one a candidate is compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.types.standard_artifacts import Model

from mnist_tfx.components.baseline.executor import Driver, Executor
from mnist_tfx.components.live.model import (
    baseline_version,
    is_same_model,
    live_version,
    rolled_back_versions,
    warm_start_version,
)
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.names import DATA_STATISTICS_PATH, METADATA_PATH, MODEL_CARD_PATH, PUSH_RECORD_PATH
from mnist_tfx.contract.versions import stored_versions
from mnist_tfx.pipeline.running.describe import describer
from mnist_tfx.serving.releases import plans
from mnist_tfx.serving.releases.apply import release
from tests.fixtures.executors import artifact, context
from tests.fixtures.tiny_run import TinyRun

MINE, OTHER = "my weights", "other weights"
WARMUP_PATH = "assets.extra/tf_serving_warmup_requests"


def write_model(folder: Path, weights: str, *, pushed: bool = True, whole: bool = True) -> Path:
    """A SavedModel as the Trainer exports it; with what the infra validator and the Pusher add, if `pushed`."""
    files = {"variables/data": weights, METADATA_PATH: json.dumps({"metadata_version": 1})}
    if pushed:
        files |= {WARMUP_PATH: "requests", PUSH_RECORD_PATH: "{}", f"{DATA_STATISTICS_PATH}/Split-train/F.pb": "pixels"}
        files |= {MODEL_CARD_PATH: "card", f"{MODEL_CARD_PATH}.partial": "half of one, where a run was killed"}
    if whole:
        files["saved_model.pb"] = "graph"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def candidate(tmp_path: Path) -> str:
    """The model at hand."""
    return str(write_model(tmp_path / "candidate" / "Format-Serving", MINE, pushed=False))


def baseline(serving: Path, candidate: str) -> str | None:
    """The name of the version that the candidate is compared with."""
    version = baseline_version(str(serving), candidate)
    return version.name if version else None


def test_nothing_served_is_no_baseline(tmp_path: Path, candidate: str) -> None:
    (tmp_path / "empty").mkdir()
    for serving in (tmp_path / "absent", tmp_path / "empty"):
        assert baseline(serving, candidate) is None
        assert live_version(str(serving)) is None


def test_the_newest_version_by_number_is_the_baseline(tmp_path: Path, candidate: str) -> None:
    for name in ("9", "10", "8"):
        write_model(tmp_path / "serving" / name, OTHER)
    assert baseline(tmp_path / "serving", candidate) == "10"


def test_the_candidate_itself_is_passed_over_whatever_a_push_added_to_it(tmp_path: Path, candidate: str) -> None:
    serving = tmp_path / "serving"
    write_model(serving / "1", OTHER)
    write_model(serving / "2", MINE)
    assert baseline(serving, candidate) == "1"
    write_model(serving / "3", MINE, pushed=False)
    assert baseline(serving, candidate) == "1"
    write_model(serving / "4", OTHER)
    assert baseline(serving, candidate) == "4"


@pytest.mark.parametrize("name", ["variables/data", METADATA_PATH, "saved_model.pb", "assets.extra/other", "more"])
def test_a_model_that_differs_in_one_file_is_another(tmp_path: Path, candidate: str, name: str) -> None:
    other = write_model(tmp_path / "other", MINE)
    assert is_same_model(candidate, str(other)) and is_same_model(str(other), candidate)
    (other / name).write_text("changed")
    assert not is_same_model(candidate, str(other))


def test_only_the_candidate_itself_served_is_no_baseline(tmp_path: Path, candidate: str) -> None:
    write_model(tmp_path / "serving" / "1", MINE)
    assert baseline(tmp_path / "serving", candidate) is None


def test_a_graph_without_content_is_no_whole_version_as_the_servers_have_it(tmp_path: Path, candidate: str) -> None:
    serving = tmp_path / "serving"
    for name, graph, content in (("1", "saved_model.pbtxt", "graph"), ("2", "saved_model.pb", "")):
        write_model(serving / name, OTHER, whole=False)
        (serving / name / graph).write_text(content)
    assert baseline(serving, candidate) == "1"
    assert [version.whole for version in stored_versions(serving)] == [True, False]


def test_a_config_that_is_no_utf_8_is_refused_by_name(tmp_path: Path, candidate: str) -> None:
    serving = tmp_path / "serving" / "mnist"
    write_model(serving / "1", OTHER)
    config = serving.parent / "models.config"
    config.write_bytes("# für später".encode("latin-1"))
    with pytest.raises(PipelineError, match=r"cannot read .*models\.config"):
        baseline(serving, candidate)


def test_a_model_of_the_same_settings_but_other_weights_is_a_baseline(tmp_path: Path, candidate: str) -> None:
    """A recipe says nothing of the data: the same one may have trained on others."""
    write_model(tmp_path / "serving" / "1", OTHER)
    assert baseline(tmp_path / "serving", candidate) == "1"


def test_what_is_no_whole_version_is_passed_over(tmp_path: Path, candidate: str) -> None:
    serving = tmp_path / "serving"
    write_model(serving / "1", OTHER)
    write_model(serving / "2", OTHER, whole=False)
    for name in (".incoming-5-abc", "latest", "3.1", "-4", "5x", "99999999999999999999"):
        write_model(serving / name, OTHER)
    (serving / "6").write_text("a file")
    assert baseline(serving, candidate) == "1"


def test_what_was_rolled_back_or_waits_to_be_promoted_is_no_baseline(tmp_path: Path, candidate: str) -> None:
    serving = tmp_path / "serving" / "mnist"
    for name in ("1", "2", "3", "4"):
        write_model(serving / name, MINE if name == "2" else OTHER)
    release(serving.parent, "mnist", lambda state: plans.rollback(state, None))
    assert baseline(serving, candidate) == "3"
    release(serving.parent, "mnist", lambda state: plans.promote(state, 2))
    live = live_version(f"{serving}/")
    assert live is not None and live.name == "2"
    assert baseline(serving, candidate) == "1"
    release(serving.parent, "mnist", lambda state: plans.canary(state, 3))
    assert baseline(serving, candidate) == "1"
    release(serving.parent, "mnist", lambda state: plans.rollback(state, None))  # 3 stays in its place
    write_model(serving / "5", MINE)
    release(serving.parent, "mnist", lambda state: plans.promote(state, 5))
    assert baseline(serving, candidate) == "1", "below the live one, which is the candidate, 2 is it too"


def test_what_was_rolled_back_and_is_served_again_by_hand_is_live(tmp_path: Path) -> None:
    serving = tmp_path / "serving" / "mnist"
    for name in ("1", "2"):
        write_model(serving / name, OTHER)
    release(serving.parent, "mnist", lambda state: plans.rollback(state, None))
    (serving / ".rolled_back" / "2").rename(serving / "2")
    live = live_version(str(serving))
    assert live is not None and live.name == "2"
    assert rolled_back_versions(str(serving)) == []


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GREY = {"class_names": ["a", "b"], "image_shape": [28, 28, 1]}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({}, ""),
        ({"image_shape": [64, 64, 1]}, "version 7 has another image shape"),
        ({"class_names": ["b", "a"]}, "version 7 has other classes"),
        ({"class_names": ["a"], "image_shape": [28, 28, 3]}, "version 7 has other classes and another image shape"),
    ],
)
def test_a_live_model_of_other_images_or_classes_is_not_compared_with(
    tmp_path: Path, candidate: str, other: dict[str, Any], why: str
) -> None:
    for folder, said in ((Path(candidate), GREY), (write_model(tmp_path / "serving" / "7", OTHER), GREY | other)):
        (folder / METADATA_PATH).write_text(json.dumps(said))
    copied = artifact(Model, tmp_path / "baseline")
    inputs = {"model": [artifact(Model, tmp_path / "candidate")]}
    parameters = {"serving_dir": str(tmp_path / "serving"), "code_version": ""}
    Executor(context(tmp_path)).Do(inputs, {"baseline": [copied]}, parameters)
    source = Path(candidate) if why else tmp_path / "serving" / "7"
    assert tree(tmp_path / "baseline" / "Format-Serving") == tree(source)
    assert copied.get_string_custom_property("version") == ("" if why else "7")
    assert copied.get_string_custom_property("not_compared") == why
    told = describer(())("Baseline", {"baseline": [copied]})
    assert told == (f"none: {why}" if why else "version 7")


@pytest.mark.parametrize("served", [True, False])
def test_the_component_copies_the_baseline_or_else_the_candidate(tmp_path: Path, candidate: str, served: bool) -> None:
    serving = tmp_path / "serving"
    if served:
        write_model(serving / "7", OTHER)
    parameters = {"serving_dir": str(serving), "code_version": ""}
    inputs = {"model": [artifact(Model, tmp_path / "candidate")]}
    copied = artifact(Model, tmp_path / "baseline")
    Executor(context(tmp_path)).Do(inputs, {"baseline": [copied]}, parameters)
    source = serving / "7" if served else Path(candidate)
    assert tree(tmp_path / "baseline" / "Format-Serving") == tree(source)
    assert copied.get_string_custom_property("version") == ("7" if served else "")
    keyed = Driver(None).run(ExecutionInfo(input_dict=inputs, exec_properties=parameters))
    assert keyed.exec_properties["surroundings"].string_value == ("7" if served else "")


def test_the_first_run_has_the_candidate_for_its_baseline(tiny_run: TinyRun) -> None:
    assert tree(tiny_run.artifact("Baseline", "baseline") / "Format-Serving") == tree(tiny_run.model)
    outcome = tiny_run.answer.outcome
    assert outcome["baseline_version"] == ""
    assert outcome["baseline_accuracy"] == outcome["accuracy"]


def test_a_warm_start_begins_with_the_newest_served_model_of_other_data(tmp_path: Path) -> None:
    for name, fingerprint in (("1", "old"), ("2", "old"), ("3", "new")):
        folder = write_model(tmp_path / name, OTHER)
        (folder / METADATA_PATH).write_text(json.dumps({"data_fingerprint": fingerprint}))
    found = [warm_start_version(str(tmp_path), fingerprint) for fingerprint in ("newest", "new", "old")]
    assert [version and version.name for version in found] == ["3", "2", "3"]
    assert warm_start_version(str(tmp_path / "nothing"), "new") is None
