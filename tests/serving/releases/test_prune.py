"""Versions that `mnist-tfx prune` removes, and those that it leaves, beside a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mnist_tfx.pipeline.home import Home
from mnist_tfx.serving.releases import apply
from mnist_tfx.serving.server.config import ServerOptions
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.saved_models import write_scale_model
from tests.fixtures.served_home import seen_by_a_server, store
from tests.serving.conftest import running, scale_request, wait_until

NOBODY = "127.0.0.1:1"


def prune(home: Path, *options: str, address: str = NOBODY) -> Answer:
    return mnist_tfx("prune", "--home", home, "--address", address, "--json", *options)


def removed(answer: Answer) -> list[str]:
    assert answer.code == 0, answer.err
    return [each["name"] for each in json.loads(answer.out)["removed"]]


def test_the_newest_stay_and_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    serving = Home(tmp_path).serving_root
    store(serving, "mnist", *range(1, 8))
    store(serving, "mnist", 9, whole=False)  # somebody copies it
    store(serving, "fashion_mnist", 1, 2, 3, 4)
    would = prune(tmp_path, "--keep", "3", "--dry-run")
    assert removed(would) == ["1", "1", "2", "3", "4"]  # of fashion_mnist, then of mnist
    size = len("1") + len("graph of 1")
    assert json.loads(would.out)["bytes"] == 5 * size
    assert seen_by_a_server(serving, "mnist") == ["1", "2", "3", "4", "5", "6", "7", "9"]
    assert removed(prune(tmp_path, "--keep", "3", "--dataset", "mnist")) == ["1", "2", "3", "4"]
    assert seen_by_a_server(serving, "mnist") == ["5", "6", "7", "9"]
    assert sorted(path.name for path in (serving / "mnist").iterdir()) == ["5", "6", "7", "9"], "nothing is left behind"
    assert seen_by_a_server(serving, "fashion_mnist") == ["1", "2", "3", "4"]


def test_what_is_pinned_live_or_needed_to_go_back_stays(tmp_path: Path) -> None:
    serving = Home(tmp_path).serving_root
    store(serving, "mnist", *range(1, 8))
    for command in (["promote", "mnist", "2"], ["promote", "mnist", "5"], ["canary", "mnist"]):
        assert mnist_tfx(*command, "--home", tmp_path, "--no-wait").code == 0, command
    store(serving, "mnist", 8, 9)
    # 9: the newest; 7: the canary; 5: stable; 4: below it, the baseline of the very same model; 2: stable before.
    assert removed(prune(tmp_path, "--keep", "1")) == ["1", "3", "6", "8"]
    assert mnist_tfx("rollback", "mnist", "--home", tmp_path, "--no-wait").code == 0  # the canary
    assert mnist_tfx("rollback", "mnist", "--home", tmp_path, "--no-wait").code == 0
    assert "2" in seen_by_a_server(serving, "mnist")


def test_what_was_rolled_back_stays_and_with_it_that_it_is_not_pushed_again(tmp_path: Path) -> None:
    serving = Home(tmp_path).serving_root
    store(serving, "mnist", *range(1, 6))
    assert mnist_tfx("rollback", "mnist", "--home", tmp_path, "--no-wait").code == 0
    assert removed(prune(tmp_path, "--keep", "1")) == ["1", "2"]
    assert (serving / "mnist" / ".rolled_back" / "5" / "saved_model.pb").exists()
    store(serving, "mnist", 6, 7, 8)
    for command in (["promote", "mnist", "4"], ["canary", "mnist", "6"], ["rollback", "mnist"]):
        assert mnist_tfx(*command, "--home", tmp_path, "--no-wait").code == 0, command
    assert removed(prune(tmp_path, "--keep", "1")) == ["7"], "6 is withdrawn, and in its place: 4 is pinned"


def test_what_was_rolled_back_under_a_pin_stays_where_it_is_and_can_be_promoted(tmp_path: Path) -> None:
    serving = Home(tmp_path).serving_root
    store(serving, "mnist", *range(1, 8))
    for command in (["promote", "mnist", "3"], ["promote", "mnist", "6"], ["rollback", "mnist"]):
        assert mnist_tfx(*command, "--home", tmp_path, "--no-wait").code == 0, command
    # 7: the newest; 6: rolled back; 3: stable; 2: below it.
    assert removed(prune(tmp_path, "--keep", "1")) == ["1", "4", "5"]
    assert mnist_tfx("promote", "mnist", "6", "--home", tmp_path, "--no-wait").code == 0


def test_what_a_killed_removal_left_behind_goes(tmp_path: Path) -> None:
    serving = Home(tmp_path).serving_root
    store(serving, "mnist", 1, ".pruned-7-0")
    assert removed(prune(tmp_path)) == []
    assert [path.name for path in (serving / "mnist").iterdir()] == ["1"]


def test_of_a_version_that_is_a_link_only_the_link_goes(tmp_path: Path) -> None:
    serving = Home(tmp_path).serving_root
    store(serving, "mnist", 2, 3)
    store(tmp_path / "kept", "mnist", 1)
    (serving / "mnist" / "1").symlink_to(tmp_path / "kept" / "mnist" / "1")
    answer = prune(tmp_path, "--keep", "1")
    assert (removed(answer), json.loads(answer.out)["bytes"]) == (["1"], 0)
    assert sorted(path.name for path in (serving / "mnist").iterdir()) == ["2", "3"]
    assert (tmp_path / "kept" / "mnist" / "1" / "saved_model.pb").is_file()
    assert removed(prune(tmp_path, "--keep", "1")) == []


@pytest.mark.parametrize("text", ["", "model_config_list {}"])
def test_nothing_goes_while_it_is_not_known_what_was_pinned(tmp_path: Path, text: str) -> None:
    serving = Home(tmp_path).serving_root
    store(serving, "mnist", *range(1, 8))
    assert mnist_tfx("promote", "mnist", "2", "--home", tmp_path, "--no-wait").code == 0
    (serving / "models.config").write_text(text)  # as a full disk leaves it
    answer = prune(tmp_path, "--keep", "1")
    assert removed(answer) == [] and "lists no model: what was pinned is lost" in answer.err
    assert len(seen_by_a_server(serving, "mnist")) == 7


def test_a_release_under_way_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = Home(tmp_path).serving_root
    store(serving, "mnist", 1, 2, 3)
    monkeypatch.setattr(apply, "_LOCK_SECONDS", 0.1)
    with apply.changes_kept_out(serving):
        assert prune(tmp_path, "--keep", "1").code == 1
    assert len(seen_by_a_server(serving, "mnist")) == 3


def test_what_a_running_server_has_loaded_stays_and_it_goes_on_answering(tmp_path: Path) -> None:
    serving = Home(tmp_path).serving_root
    for version in range(1, 6):
        write_scale_model(serving / "scale" / str(version), version)
    config = tmp_path / "own.config"  # another file than the home's: only the server knows what it serves
    config.write_text(
        f'model_config_list {{ config {{ name: "scale" base_path: "{serving}/scale" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 2 versions: 5 } } } }"
    )
    options = ServerOptions(port=0, rest_api_port=-1, model_config_file=str(config), file_system_poll_wait_seconds=0.1)
    with running(options) as one:
        wait_until(lambda: len(one.server.manager.statuses("scale")) == 2, "both versions")
        answer = prune(tmp_path, "--keep", "1", address=f"127.0.0.1:{one.server.grpc_port}")
        assert removed(answer) == ["1", "3"]
        for version in (2, 5):
            response = one.prediction.Predict(scale_request(version=version))
            assert response.outputs["factor"].float_val == [version]
    assert removed(prune(tmp_path, "--keep", "1")) == ["2"], "nobody has it loaded any more"
