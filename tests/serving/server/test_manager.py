from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mnist_tfx.serving.server.config import BatchingParameters
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.lifecycle import AVAILABLE, END, LOADING, UNLOADING
from mnist_tfx.serving.server.manager import ModelManager
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.warmup import WARMUP_PATH
from tests.fixtures.saved_models import write_scale_model

VERSIONS = 4
ROW = np.ones((1, 3), np.float32)
Begin = Callable[..., ModelManager]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version n multiplies by n."""
    folder = tmp_path_factory.mktemp("built")
    for version in range(1, VERSIONS + 1):
        write_scale_model(folder / str(version), float(version))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "m"
    path.mkdir()
    return path


@pytest.fixture
def push(built: Path, base: Path) -> Callable[[int], None]:
    """Puts a version in place, whole."""

    def put(version: int) -> None:
        shutil.copytree(built / str(version), base / f".{version}")
        (base / f".{version}").rename(base / str(version))

    return put


@pytest.fixture
def begin(base: Path) -> Iterator[Begin]:
    managers: list[ModelManager] = []

    def start(more: str = "", **arguments) -> ModelManager:
        given = {"metrics": Metrics(), "batching": None, "poll_seconds": 0.05, "load_retry_seconds": 0.05, **arguments}
        manager = ModelManager(**given)
        manager.take_over(models(base, more))
        managers.append(manager)
        return manager

    yield start
    for manager in managers:
        manager.stop(10)


def models(base: Path, more: str = "", name: str = "m") -> ModelServerConfig:
    text = (
        f'model_config_list {{ config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more} }} }}'
    )
    return text_format.Parse(text, ModelServerConfig())


def states(manager: ModelManager, name: str = "m") -> dict[int, int]:
    try:
        return {status.version: status.state for status in manager.statuses(name)}
    except ServingError:
        return {}


def wait_for(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.005)


def wait_states(manager: ModelManager, expected: dict[int, int], name: str = "m") -> None:
    wait_for(lambda: states(manager, name) == expected, lambda: (states(manager, name), expected))


def ask(manager: ModelManager, name: str = "m", **which) -> tuple[int, float]:
    """The version that was acquired, and the one that computed."""
    with manager.acquire(name, **which) as servable:
        return servable.version, float(servable.submit("serving_default", {"x": ROW}, ["factor"]).result()["factor"][0])


def error_of(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ServingError) as caught:
        call()
    return caught.value.code.name, caught.value.message


def test_the_latest_version_is_served_and_swapped(begin: Begin, push) -> None:
    push(1)
    push(2)
    manager = begin()
    wait_states(manager, {2: AVAILABLE})
    assert ask(manager) == (2, 2.0)
    push(3)
    wait_states(manager, {3: AVAILABLE, 2: END})
    assert [status.version for status in manager.statuses("m")] == [3, 2]
    assert ask(manager) == (3, 3.0)
    assert error_of(lambda: ask(manager, version=2)) == ("NOT_FOUND", "Servable not found for request: Specific(m, 2)")


def test_a_removed_version_gives_way_to_the_one_before(begin: Begin, push, base: Path) -> None:
    push(1)
    push(2)
    manager = begin()
    wait_states(manager, {2: AVAILABLE})
    shutil.rmtree(base / "2")
    wait_states(manager, {1: AVAILABLE, 2: END})
    push(2)
    wait_states(manager, {2: AVAILABLE, 1: END})
    assert ask(manager) == (2, 2.0)


@pytest.mark.parametrize("batching", [None, BatchingParameters(max_batch_size=8)], ids=["alone", "batched"])
def test_a_rollover_under_load_fails_no_request(begin: Begin, push, batching: BatchingParameters | None) -> None:
    push(1)
    manager = begin(batching=batching)
    wait_states(manager, {1: AVAILABLE})
    stop = threading.Event()
    answers: list[tuple[int, float]] = []
    errors: list[BaseException] = []

    def client() -> None:
        seen = 0
        while not stop.is_set():
            try:
                with manager.acquire("m") as servable:
                    future = servable.submit("serving_default", {"x": ROW}, ["factor"])
                    answers.append((servable.version, float(future.result(30)["factor"][0])))
                answers.append(ask(manager))
                assert answers[-1][0] >= seen  # never back to an older version
                seen = answers[-1][0]
            except BaseException as error:
                errors.append(error)
                return

    clients = [threading.Thread(target=client) for _ in range(6)]
    for one in clients:
        one.start()
    for version in range(2, VERSIONS + 1):
        push(version)
        wait_for(lambda v=version: states(manager).get(v) == AVAILABLE, lambda: states(manager))
    wait_for(lambda: (VERSIONS, float(VERSIONS)) in answers, lambda: answers[-5:])
    stop.set()
    for one in clients:
        one.join(30)
    assert not errors
    assert all(version == factor for version, factor in answers)
    assert {version for version, _ in answers} == set(range(1, VERSIONS + 1))


def test_a_version_in_use_is_not_unloaded(begin: Begin, push) -> None:
    push(1)
    manager = begin()
    wait_states(manager, {1: AVAILABLE})
    with manager.acquire("m") as servable:
        push(2)
        wait_states(manager, {2: AVAILABLE, 1: UNLOADING})
        assert servable.submit("serving_default", {"x": ROW}, ["factor"]).result()["factor"].tolist() == [1.0]
        assert ask(manager) == (2, 2.0)
        assert states(manager) == {2: AVAILABLE, 1: UNLOADING}
    wait_states(manager, {2: AVAILABLE, 1: END})


def test_a_half_copied_version_is_retried_and_the_old_one_serves_on(
    begin: Begin, push, base: Path, built: Path
) -> None:
    push(1)
    manager = begin(max_load_retries=10_000)
    wait_states(manager, {1: AVAILABLE})
    (base / "2").mkdir()
    wait_for(lambda: states(manager).get(2) == LOADING, lambda: states(manager))
    wait_for(lambda: "Could not find SavedModel" in manager.statuses("m", 2)[0].status.error_message, lambda: None)
    assert ask(manager) == (1, 1.0)
    shutil.copytree(built / "2" / "variables", base / "2" / "variables")
    shutil.copy(built / "2" / "saved_model.pb", base / "2")
    wait_states(manager, {2: AVAILABLE, 1: END})
    assert manager.statuses("m", 2)[0].status.error_message == ""


def test_a_version_that_never_loads_ends_with_the_error(begin: Begin, push, base: Path) -> None:
    (base / "7").mkdir()
    manager = begin(max_load_retries=2)
    wait_states(manager, {7: END})
    status = manager.statuses("m", 7)[0].status
    assert status.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert "Could not find SavedModel" in status.error_message
    assert error_of(lambda: ask(manager)) == ("NOT_FOUND", "Servable not found for request: Latest(m)")
    time.sleep(0.2)  # several polls: it is not tried again
    assert states(manager) == {7: END}
    push(1)  # an older version is not the latest: the policy does not ask for it
    shutil.rmtree(base / "7")
    wait_states(manager, {7: END, 1: AVAILABLE})


def test_failing_warm_up_fails_the_load(begin: Begin, push, base: Path, built: Path) -> None:
    push(1)
    manager = begin(max_load_retries=0)
    wait_states(manager, {1: AVAILABLE})
    shutil.copytree(built / "2", base / ".2")
    file = base / ".2" / WARMUP_PATH
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"no TFRecord, but long enough to be read as the header of one")
    (base / ".2").rename(base / "2")
    wait_states(manager, {2: END, 1: AVAILABLE})
    assert "damaged" in manager.statuses("m", 2)[0].status.error_message
    assert ask(manager) == (1, 1.0)


def test_a_missing_base_path_keeps_the_versions_and_an_empty_one_does_not(begin: Begin, push, base: Path) -> None:
    push(1)
    manager = begin()
    wait_states(manager, {1: AVAILABLE})
    away = base.with_name("away")
    base.rename(away)
    time.sleep(0.3)  # several polls
    assert ask(manager) == (1, 1.0)
    away.rename(base)
    push(2)
    wait_states(manager, {2: AVAILABLE, 1: END})
    for version in ("1", "2"):
        shutil.rmtree(base / version)
    wait_states(manager, {2: END, 1: END})


def test_a_base_path_may_appear_later(begin: Begin, push, base: Path) -> None:
    base.rmdir()
    manager = begin()
    assert error_of(lambda: manager.statuses("m")) == ("NOT_FOUND", "Could not find any versions of model m")
    base.mkdir()
    push(1)
    wait_states(manager, {1: AVAILABLE})


def test_names_and_versions_that_are_not_there(begin: Begin, push) -> None:
    push(1)
    manager = begin()
    wait_states(manager, {1: AVAILABLE})
    expected = {
        "Servable not found for request: Latest(x)": lambda: ask(manager, "x"),
        "Servable not found for request: Specific(m, 7)": lambda: ask(manager, version=7),
        "Could not find any versions of model x": lambda: manager.statuses("x"),
        "Could not find version 9 of model m": lambda: manager.statuses("m", 9),
    }
    assert {error_of(call) for call in expected.values()} == {("NOT_FOUND", words) for words in expected}
    for name in ("m", "x"):
        assert error_of(lambda n=name: ask(manager, n, label="s")) == (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: s",
        )


BOTH = "model_version_policy { specific { versions: 1 versions: 2 } }"


def test_labels_bind_to_available_versions_only(begin: Begin, push, base: Path) -> None:
    push(1)
    push(2)
    manager = begin("model_version_policy { specific { versions: 1 } }")
    wait_states(manager, {1: AVAILABLE})
    manager.reload(models(base, f'{BOTH} version_labels {{ key: "stable" value: 1 }}'))
    assert ask(manager, label="stable") == (1, 1.0)
    wait_states(manager, {1: AVAILABLE, 2: AVAILABLE})
    manager.reload(
        models(base, f'{BOTH} version_labels {{ key: "canary" value: 2 }} version_labels {{ key: "stable" value: 1 }}')
    )
    assert (ask(manager, label="canary"), ask(manager, label="stable"), ask(manager)) == ((2, 2.0), (1, 1.0), (2, 2.0))
    refused = models(base, 'model_version_policy { all {} } version_labels { key: "stable" value: 3 }')
    code, message = error_of(lambda: manager.reload(refused))
    assert code == "FAILED_PRECONDITION"
    assert message.startswith(
        "Request to assign label to version 3 of model m, which is not currently available for inference"
    )
    assert ask(manager, label="stable") == (1, 1.0)  # the old list stays


def test_labels_at_the_start_need_the_flag(begin: Begin, push) -> None:
    push(1)
    labelled = 'version_labels { key: "stable" value: 1 } version_labels { key: "next" value: 2 }'
    assert "--allow_version_labels_for_unavailable_models" in error_of(lambda: begin(labelled))[1]
    manager = begin(labelled, allow_labels_for_unavailable=True)
    wait_states(manager, {1: AVAILABLE})
    assert ask(manager, label="stable") == (1, 1.0)
    assert error_of(lambda: ask(manager, label="next")) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(m, 2)",
    )


def test_the_flag_does_not_move_a_label_to_an_unavailable_version(begin: Begin, push, base: Path) -> None:
    push(1)
    manager = begin('version_labels { key: "stable" value: 1 }', allow_labels_for_unavailable=True)
    wait_states(manager, {1: AVAILABLE})
    moved = models(base, 'version_labels { key: "stable" value: 2 }')
    assert error_of(lambda: manager.reload(moved))[0] == "FAILED_PRECONDITION"


def test_a_reload_replaces_the_whole_list(begin: Begin, push, base: Path, built: Path) -> None:
    push(1)
    manager = begin()
    wait_states(manager, {1: AVAILABLE})
    manager.reload(models(built, "model_version_policy { all {} }", name="other"))
    version, factor = ask(manager, "other")  # at least one is available when `reload` returns
    assert version == factor
    wait_states(manager, dict.fromkeys(range(1, VERSIONS + 1), AVAILABLE), "other")
    assert error_of(lambda: ask(manager)) == ("NOT_FOUND", "Servable not found for request: Latest(m)")
    wait_states(manager, {1: END})
    assert [ask(manager, "other", version=version) for version in (1, 3)] == [(1, 1.0), (3, 3.0)]


def test_without_polling_a_reload_looks_at_the_files(begin: Begin, push, base: Path) -> None:
    push(1)
    manager = begin(poll_seconds=0)
    wait_states(manager, {1: AVAILABLE})
    push(2)
    manager.reload(models(base))
    wait_states(manager, {2: AVAILABLE, 1: END})


def test_a_reload_to_another_base_path_serves_what_lies_there(begin: Begin, push, base: Path, tmp_path: Path) -> None:
    push(1)
    manager = begin()
    wait_states(manager, {1: AVAILABLE})
    elsewhere = tmp_path / "elsewhere"
    write_scale_model(elsewhere / "1", 50.0)
    manager.reload(models(elsewhere))
    wait_for(lambda: ask(manager) == (1, 50.0), lambda: ask(manager))


M = 'config { name: "m" base_path: "/a" model_platform: "tensorflow" }'


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('model_config_list { config { name: "m" base_path: "relative" } }', "an absolute path or URI"),
        (f"model_config_list {{ {M} {M} }}", "model m is listed twice"),
        ("custom_model_config {}", "custom_model_config is not supported"),
    ],
)
def test_a_bad_list_is_refused_and_the_old_one_stays(begin: Begin, push, config: str, words: str) -> None:
    push(1)
    manager = begin()
    wait_states(manager, {1: AVAILABLE})
    code, message = error_of(lambda: manager.reload(text_format.Parse(config, ModelServerConfig())))
    assert code == "INVALID_ARGUMENT" and words in message
    assert ask(manager) == (1, 1.0)


def test_a_reload_tells_of_a_new_model_that_does_not_load(begin: Begin, tmp_path: Path) -> None:
    manager = begin()
    code, message = error_of(lambda: manager.reload(models(tmp_path / "none", name="new")))
    assert (code, message.split(": ")[0]) == ("UNKNOWN", "Some models did not become available")
    assert str(tmp_path / "none") in message


def test_a_reload_that_takes_too_long_leaves_the_new_list(begin: Begin, built: Path, tmp_path: Path) -> None:
    manager = begin()
    new = tmp_path / "new"
    pipe = new / "7" / "saved_model.pb"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)  # as a dead network mount, it keeps who reads it waiting
    told = error_of(lambda: manager.reload(models(new, name="new"), 0.2))
    assert told == ("DEADLINE_EXCEEDED", "Still loading: {new}")
    assert manager.names() == ["new"]
    wait_states(manager, {7: LOADING}, "new")
    shutil.copytree(built / "2", new / ".8").rename(new / "8")
    wait_for(lambda: states(manager, "new").get(8) == AVAILABLE, lambda: states(manager, "new"))
    assert ask(manager, "new") == (8, 2.0)
    writer = os.open(pipe, os.O_RDWR)
    pipe.unlink()
    os.close(writer)
    wait_states(manager, {8: AVAILABLE, 7: END}, "new")


def test_stop_waits_for_requests_and_unloads(begin: Begin, push) -> None:
    push(1)
    manager = begin()
    wait_states(manager, {1: AVAILABLE})
    held = manager.acquire("m")
    servable = held.__enter__()
    stopper = threading.Thread(target=manager.stop, args=(10,))
    stopper.start()
    wait_states(manager, {1: UNLOADING})
    assert servable.submit("serving_default", {"x": ROW}, ["factor"]).result()["factor"].tolist() == [1.0]
    held.__exit__(None, None, None)
    stopper.join(30)
    assert states(manager) == {1: END}
    assert error_of(lambda: ask(manager))[0] == "NOT_FOUND"
