"""The Pusher: whole versions or none, each newer than all before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tfx.types.standard_artifacts import InfraBlessing, Model, ModelBlessing, PushedModel

from components.pusher import Executor
from tests.fixtures.executors import artifact, context
from tests.fixtures.object_store import object_store
from tests.fixtures.tiny_run import TinyRun

_CHECKOUT = Path(__file__).resolve().parents[2]


def write_model(folder: Path, mebibytes: int = 0) -> None:
    """A Model artifact; how many MiB of variables decides how long copying takes."""
    serving = folder / "Format-Serving"
    (serving / "variables").mkdir(parents=True)
    (serving / "saved_model.pb").write_text("graph")
    for number in range(max(1, mebibytes // 4)):
        (serving / "variables" / f"variables-{number:03d}").write_bytes(bytes(4 * 2**20 if mebibytes else 4))


def push(
    folder: Path, *, blessed: bool = True, infra_blessed: bool | None = None, serving: str | None = None
) -> PushedModel:
    """Runs the executor on the model in `folder`, towards `folder`/serving or another place."""
    blessing = artifact(ModelBlessing, folder / "blessing")
    blessing.set_int_custom_property("blessed", int(blessed))
    inputs = {"model": [artifact(Model, folder / "model")], "model_blessing": [blessing]}
    if infra_blessed is not None:
        infra = artifact(InfraBlessing, folder / "infra")
        infra.set_int_custom_property("blessed", int(infra_blessed))
        inputs["infra_blessing"] = [infra]
    pushed = artifact(PushedModel, folder / "pushed")
    destination = {"filesystem": {"base_directory": serving or str(folder / "serving")}}
    Executor(context(folder)).Do(inputs, {"pushed_model": [pushed]}, {"push_destination": json.dumps(destination)})
    return pushed


def served(folder: Path) -> list[str]:
    """What lies in the serving folder."""
    return sorted(path.name for path in (folder / "serving").iterdir())


def test_a_blessed_model_becomes_a_version_named_by_the_time(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    before = int(time.time())
    pushed = push(tmp_path)
    [version] = served(tmp_path)
    assert before <= int(version) <= time.time()
    assert (tmp_path / "serving" / version / "saved_model.pb").read_text() == "graph"
    assert (tmp_path / "serving" / version / "variables" / "variables-000").stat().st_size == 4
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_version") == version
    assert pushed.get_string_custom_property("pushed_destination") == str(tmp_path / "serving" / version)
    assert (tmp_path / "pushed" / "saved_model.pb").is_file()


def test_versions_increase_within_a_second_and_when_the_clock_goes_back(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    versions = []
    for graph in ("one", "two", "three"):
        (tmp_path / "model" / "Format-Serving" / "saved_model.pb").write_text(graph)
        versions.append(int(push(tmp_path).get_string_custom_property("pushed_version")))
    assert versions == sorted(set(versions))
    ahead = int(time.time()) + 10**6
    (tmp_path / "serving" / str(ahead)).mkdir()
    assert push(tmp_path).get_string_custom_property("pushed_version") == str(ahead + 1)


@pytest.mark.parametrize("aside", [False, True])
def test_the_newest_version_is_not_pushed_once_more_even_if_it_was_rolled_back(tmp_path: Path, aside: bool) -> None:
    write_model(tmp_path / "model")
    first = push(tmp_path).get_string_custom_property("pushed_version")
    if aside:
        (tmp_path / "serving" / ".rolled_back").mkdir()
        (tmp_path / "serving" / first).rename(tmp_path / "serving" / ".rolled_back" / first)
    before = served(tmp_path)
    again = push(tmp_path)
    assert served(tmp_path) == before
    assert again.get_int_custom_property("pushed") == 1
    assert again.get_string_custom_property("pushed_version") == first
    assert again.get_string_custom_property("pushed_destination") == str(tmp_path / "serving" / first)
    variables = tmp_path / "model" / "Format-Serving" / "variables" / "variables-000"
    variables.write_bytes(b"\1\0\0\0")  # the same size
    other = push(tmp_path).get_string_custom_property("pushed_version")
    assert int(other) > int(first) and other in served(tmp_path)
    variables.write_bytes(bytes(4))  # the first model again, which is not the newest version
    assert int(push(tmp_path).get_string_custom_property("pushed_version")) > int(other)


@pytest.mark.parametrize(
    ("blessed", "infra_blessed", "expected"),
    [(True, None, True), (True, True, True), (True, False, False), (False, None, False), (False, True, False)],
)
def test_a_model_needs_every_blessing(
    tmp_path: Path, blessed: bool, infra_blessed: bool | None, expected: bool
) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "serving" / "5").mkdir(parents=True)
    pushed = push(tmp_path, blessed=blessed, infra_blessed=infra_blessed)
    assert bool(pushed.get_int_custom_property("pushed")) == expected
    assert (served(tmp_path) == ["5"]) != expected


def test_an_unblessed_model_is_not_pushed_where_nothing_was_served(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert push(tmp_path, blessed=False).get_int_custom_property("pushed") == 0
    assert not (tmp_path / "serving").exists() or served(tmp_path) == []


def test_what_a_killed_push_left_is_cleaned_up(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    stale = tmp_path / "serving" / ".incoming" / "17"
    stale.mkdir(parents=True)
    (stale / "half").write_text("a model")
    [version] = [push(tmp_path).get_string_custom_property("pushed_version")]
    assert served(tmp_path) == [version]
    assert not (tmp_path / "serving" / version / "half").exists()


PUSH = """
import sys
from pathlib import Path
from tests.components.test_pusher import push
print("ready", flush=True)
sys.stdin.readline()
push(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def big_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that takes a while to copy."""
    folder = tmp_path_factory.mktemp("big")
    write_model(folder / "model", mebibytes=240)
    yield folder
    for path in (folder / "model").rglob("variables-*"):
        path.unlink()


def test_a_push_killed_half_way_leaves_no_half_version_and_the_next_is_whole(big_model: Path) -> None:
    command = [sys.executable, "-c", PUSH, str(big_model)]
    process = subprocess.Popen(command, cwd=_CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        incoming = big_model / "serving" / ".incoming"
        deadline = time.monotonic() + 60
        while not list(incoming.glob("*/variables/*")):
            assert process.poll() is None and time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert served(big_model) == [".incoming"]
    assert not list(incoming.glob("*/saved_model.pb")), "it was killed too late to tell anything"

    version = push(big_model).get_string_custom_property("pushed_version")
    assert served(big_model) == [version]
    assert len(list((big_model / "serving" / version / "variables").iterdir())) == 60
    for path in (big_model / "serving").rglob("variables-*"):
        path.unlink()


def test_the_pipeline_pushes_what_it_trained(tiny_run: TinyRun) -> None:
    version = tiny_run.answer.outcome["pushed_version"]
    pushed = tiny_run.home.serving("kmnist") / version
    for path in tiny_run.model.rglob("*"):
        if path.is_file():
            assert (pushed / path.relative_to(tiny_run.model)).read_bytes() == path.read_bytes()


def test_the_number_of_a_rolled_back_version_is_not_used_again(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    ahead = int(time.time()) + 10**6
    (tmp_path / "serving" / ".rolled_back" / str(ahead)).mkdir(parents=True)
    assert push(tmp_path).get_string_custom_property("pushed_version") == str(ahead + 1)


PUSH_INTO_BUCKET = """
import sys
from pathlib import Path
from tests.components.test_pusher import push
folder, graph = Path(sys.argv[1]), Path(sys.argv[1]) / "model" / "Format-Serving" / "saved_model.pb"
for text in ("one", "one", "two"):
    graph.write_text(text)
    print(push(folder, serving="gs://my-bucket/serving/mnist").get_string_custom_property("pushed_version"))
"""


@pytest.mark.slow
def test_into_a_bucket_too_each_model_is_pushed_once(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    with object_store(tmp_path / "store") as (store, environment):
        # A process of its own: TensorFlow looks at this environment once.
        finished = subprocess.run(
            [sys.executable, "-c", PUSH_INTO_BUCKET, str(tmp_path)],
            cwd=_CHECKOUT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr
        first, again, other = finished.stdout.split()
        assert first == again and int(other) > int(first)
        names = ("saved_model.pb", "variables/variables-000")
        assert store.names("gs://my-bucket/serving/mnist") == sorted(
            f"{one}/{name}" for one in (first, other) for name in names
        )
        assert store.refused == []
