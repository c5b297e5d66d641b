"""The Pusher: whole versions or none, each newer than all before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.dsl.io import fileio
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.types import Artifact
from tfx.types.standard_artifacts import ExampleStatistics, InfraBlessing, ModelBlessing, PushedModel

from mnist_tfx.components.live.model import Version, is_same_model
from mnist_tfx.components.live.model import stored_versions as stored_in
from mnist_tfx.components.pusher import publish as module
from mnist_tfx.components.pusher.executor import Driver, Executor
from mnist_tfx.components.pusher.publish import add_card, publish
from mnist_tfx.contract.names import METADATA_PATH, MODEL_CARD_PATH
from mnist_tfx.contract.versions import stored_versions
from mnist_tfx.serving.releases import plans
from mnist_tfx.serving.releases.apply import release
from tests.fixtures.command import mnist_tfx
from tests.fixtures.executors import artifact, context
from tests.fixtures.object_store import object_store
from tests.fixtures.tiny_run import TinyRun

_CHECKOUT = Path(__file__).resolve().parents[2]


def write_model(folder: Path, mebibytes: int = 0) -> None:
    """A model in an InfraBlessing, and statistics; how many MiB of variables decides how long copying takes."""
    model = folder / "infra" / "stamped_model"
    (model / "variables").mkdir(parents=True)
    (model / "saved_model.pb").write_text("graph")
    for number in range(max(1, mebibytes // 4)):
        (model / "variables" / f"variables-{number:03d}").write_bytes(bytes(4 * 2**20 if mebibytes else 4))
    (folder / "statistics" / "Split-train").mkdir(parents=True)
    (folder / "statistics" / "Split-train" / "FeatureStats.pb").write_text("statistics")


def blessings(folder: Path, *, blessed: bool = True, infra_blessed: bool = True) -> dict[str, list[Artifact]]:
    """The inputs: the model in `folder` and what was said of it."""
    blessing, infra = artifact(ModelBlessing, folder / "blessing"), artifact(InfraBlessing, folder / "infra")
    blessing.set_int_custom_property("blessed", int(blessed))
    infra.set_int_custom_property("blessed", int(infra_blessed))
    infra.set_int_custom_property("has_model", 1)
    statistics = artifact(ExampleStatistics, folder / "statistics")
    return {"model_blessing": [blessing], "infra_blessing": [infra], "statistics": [statistics]}


def parameters(folder: Path, **given: str) -> dict[str, str]:
    """Those of the component, towards `folder`/serving."""
    usual = {"serving_dir": str(folder / "serving"), "withheld": "", "baseline": "served", "drift_reference": "live"}
    return usual | given


def push(folder: Path, *, blessed: bool = True, infra_blessed: bool = True, **given: str) -> PushedModel:
    """Runs the executor on the model in `folder`."""
    pushed = artifact(PushedModel, folder / "pushed")
    inputs = blessings(folder, blessed=blessed, infra_blessed=infra_blessed)
    Executor(context(folder)).Do(inputs, {"pushed_model": [pushed]}, parameters(folder, **given))
    return pushed


def key(folder: Path) -> str:
    """What the driver adds to the cache key."""
    found = Driver(None).run(ExecutionInfo(input_dict=blessings(folder), exec_properties=parameters(folder)))
    return str(found.exec_properties["surroundings"].string_value)


def graph_file(folder: Path) -> Path:
    """The graph of the model to push."""
    return folder / "infra" / "stamped_model" / "saved_model.pb"


def served(folder: Path) -> list[str]:
    """What lies in the serving folder."""
    return sorted(path.name for path in (folder / "serving").iterdir())


def test_a_blessed_model_becomes_a_version_named_by_the_time(tmp_path: Path) -> None:
    write_model(tmp_path)
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
    statistics = tmp_path / "serving" / version / "assets.extra" / "data_statistics" / "Split-train" / "FeatureStats.pb"
    assert statistics.read_text() == "statistics"
    record = json.loads((tmp_path / "serving" / version / "assets.extra" / "push.json").read_text())
    assert record == {"baseline": "served", "drift_reference": "live"}


def test_versions_increase_within_a_second_and_when_the_clock_goes_back(tmp_path: Path) -> None:
    write_model(tmp_path)
    versions = []
    for graph in ("one", "two", "three"):
        graph_file(tmp_path).write_text(graph)
        versions.append(int(push(tmp_path).get_string_custom_property("pushed_version")))
    assert versions == sorted(set(versions))
    ahead = int(time.time()) + 10**6
    (tmp_path / "serving" / str(ahead)).mkdir()
    assert push(tmp_path).get_string_custom_property("pushed_version") == str(ahead + 1)


def test_two_runs_that_push_at_once_make_two_versions(tmp_path: Path) -> None:
    """On one disk and in one second: a rename that comes second fails, and takes the next number."""
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        write_model(folder)
        graph_file(folder).write_text(folder.name)
    barrier = threading.Barrier(len(folders))

    def publish_at_once(folder: Path) -> str:
        barrier.wait()
        return publish(str(folder / "infra" / "stamped_model"), str(tmp_path / "serving")).name

    with ThreadPoolExecutor(len(folders)) as pool:
        versions = list(pool.map(publish_at_once, folders))
    assert sorted(versions) == served(tmp_path)
    graphs = [(tmp_path / "serving" / version / "saved_model.pb").read_text() for version in versions]
    assert graphs == [folder.name for folder in folders]


def test_a_number_that_another_run_took_meanwhile_stays_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    next_version, taken = module._next_version, list[Path]()

    def look_and_lose(serving_dir: str, now: int) -> Version:
        version = next_version(serving_dir, now)
        if not taken:
            taken.append(Path(version.folder))
            taken[0].mkdir()
            (taken[0] / "saved_model.pb").write_text("another")
        return version

    monkeypatch.setattr(module, "_next_version", look_and_lose)
    version = publish(str(tmp_path / "infra" / "stamped_model"), str(tmp_path / "serving"))
    assert version.number > int(taken[0].name) and served(tmp_path) == [taken[0].name, version.name]
    assert [path.name for path in taken[0].iterdir()] == ["saved_model.pb"]
    assert (taken[0] / "saved_model.pb").read_text() == "another"
    assert (Path(version.folder) / "saved_model.pb").read_text() == "graph"


def test_a_push_into_a_bucket_that_breaks_off_leaves_no_graph(tmp_path: Path) -> None:
    """TensorFlow's file system in memory is an address, too, to which a model is copied file by file."""
    write_model(tmp_path)
    model, bucket = tmp_path / "infra" / "stamped_model", f"ram://{tmp_path}"
    lost = model / "variables" / "variables-001"
    lost.symlink_to("nowhere")
    with pytest.raises(fileio.NotFoundError):
        publish(str(model), bucket)
    [half] = stored_in(bucket)
    assert not tf.io.gfile.exists(f"{half.folder}/saved_model.pb")
    lost.unlink()
    whole = publish(str(model), bucket)
    assert whole.number > half.number and is_same_model(str(model), whole.folder)


def test_the_newest_version_is_not_pushed_once_more(tmp_path: Path) -> None:
    write_model(tmp_path)
    first = push(tmp_path).get_string_custom_property("pushed_version")
    again = push(tmp_path)
    assert served(tmp_path) == [first]
    assert again.get_int_custom_property("pushed") == 1
    assert again.get_string_custom_property("pushed_version") == first
    assert again.get_string_custom_property("pushed_destination") == str(tmp_path / "serving" / first)
    variables = tmp_path / "infra" / "stamped_model" / "variables" / "variables-000"
    variables.write_bytes(b"\1\0\0\0")  # the same size
    other = push(tmp_path).get_string_custom_property("pushed_version")
    assert int(other) > int(first) and other in served(tmp_path)
    variables.write_bytes(bytes(4))  # the first model again, which is not the newest version
    assert int(push(tmp_path).get_string_custom_property("pushed_version")) > int(other)


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("pinned", [False, True])
def test_a_model_that_was_rolled_back_is_not_pushed_again(tmp_path: Path, pinned: bool, followed: bool) -> None:
    """Its folder was moved aside, or is still in its place beside the version that is pinned."""
    write_model(tmp_path)
    graph_file(tmp_path).write_text("before")
    older = int(push(tmp_path).get_string_custom_property("pushed_version"))
    graph_file(tmp_path).write_text("graph")
    first = push(tmp_path).get_string_custom_property("pushed_version")
    if pinned:
        release(tmp_path, "serving", lambda state: plans.promote(state, older))
        release(tmp_path, "serving", lambda state: plans.canary(state, None))
    key_before = key(tmp_path)
    release(tmp_path, "serving", lambda state: plans.rollback(state, None))
    assert (first in served(tmp_path)) == pinned and key(tmp_path) != key_before
    if followed:
        graph_file(tmp_path).write_text("another")
        push(tmp_path)
        graph_file(tmp_path).write_text("graph")
    before = served(tmp_path)
    again = push(tmp_path)
    assert served(tmp_path) == before
    assert again.get_int_custom_property("pushed") == 0
    assert f"version {first}, which was rolled back" in again.get_string_custom_property("not_pushed")


def test_the_key_tells_what_another_run_pushed_and_not_what_this_one_did(tmp_path: Path) -> None:
    write_model(tmp_path)
    at_first = key(tmp_path)
    push(tmp_path)
    assert key(tmp_path) == at_first  # a repeated run is answered from the cache
    graph_file(tmp_path).write_text("another")
    for_another = key(tmp_path)
    assert for_another != at_first
    second = push(tmp_path).get_string_custom_property("pushed_version")
    assert key(tmp_path) == for_another
    graph_file(tmp_path).write_text("graph")
    assert key(tmp_path) not in (at_first, for_another)  # the second is live: the first must be pushed anew
    (tmp_path / "serving" / ".rolled_back").mkdir()
    (tmp_path / "serving" / second).rename(tmp_path / "serving" / ".rolled_back" / second)
    graph_file(tmp_path).write_text("another")
    assert key(tmp_path) != for_another


def test_a_study_is_not_pushed_and_says_so(tmp_path: Path) -> None:
    write_model(tmp_path)
    pushed = push(tmp_path, withheld="a study recipe")
    assert pushed.get_int_custom_property("pushed") == 0
    assert pushed.get_string_custom_property("not_pushed") == "a study recipe"
    assert not (tmp_path / "serving").exists()


def test_what_a_model_did_not_have_to_pass_is_kept_beside_it(tmp_path: Path) -> None:
    write_model(tmp_path)
    pushed = push(tmp_path, baseline="none")
    assert pushed.get_string_custom_property("baseline") == "none"
    [version] = stored_versions(tmp_path / "serving")
    [caution] = version.cautions
    assert caution.startswith("baseline=none: ")


def test_a_push_past_a_live_model_of_other_classes_is_kept_beside_it_too(tmp_path: Path) -> None:
    write_model(tmp_path)
    metadata = tmp_path / "infra" / "stamped_model" / METADATA_PATH
    metadata.parent.mkdir(parents=True)
    for name in ("a", "b"):
        metadata.write_text(json.dumps({"class_names": [name]}))
        pushed = push(tmp_path)
    assert push(tmp_path).get_string_custom_property("baseline") == "other", "the same again, which is not pushed anew"
    assert pushed.get_string_custom_property("baseline") == "other"
    first, second = stored_versions(tmp_path / "serving")
    [caution] = second.cautions
    assert caution.startswith("no baseline: ") and first.cautions == ()


@pytest.mark.parametrize(
    ("blessed", "infra_blessed", "expected"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_a_model_needs_every_blessing(tmp_path: Path, blessed: bool, infra_blessed: bool, expected: bool) -> None:
    write_model(tmp_path)
    (tmp_path / "serving" / "5").mkdir(parents=True)
    pushed = push(tmp_path, blessed=blessed, infra_blessed=infra_blessed)
    assert bool(pushed.get_int_custom_property("pushed")) == expected
    assert (served(tmp_path) == ["5"]) != expected


def test_an_unblessed_model_is_not_pushed_where_nothing_was_served(tmp_path: Path) -> None:
    write_model(tmp_path)
    assert push(tmp_path, blessed=False).get_int_custom_property("pushed") == 0
    assert not (tmp_path / "serving").exists() or served(tmp_path) == []


def test_what_a_killed_push_left_is_cleaned_up_once_no_push_can_still_go_on(tmp_path: Path) -> None:
    write_model(tmp_path)
    now = int(time.time())
    stale, fresh = (tmp_path / "serving" / f".incoming-{begun}-abc" for begun in (now - 2 * 24 * 3600, now))
    for folder in (stale, fresh):
        folder.mkdir(parents=True)
        (folder / "half").write_text("a model")
    version = push(tmp_path).get_string_custom_property("pushed_version")
    assert served(tmp_path) == [fresh.name, version]  # the fresh one may be another run's


PUSH = """
import sys
from pathlib import Path
from mnist_tfx.components.pusher.publish import add_card
from tests.components.test_pusher import push
print("ready", flush=True)
sys.stdin.readline()
push(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def big_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that takes a while to copy."""
    folder = tmp_path_factory.mktemp("big")
    write_model(folder, mebibytes=240)
    yield folder
    for path in (folder / "infra").rglob("variables-*"):
        path.unlink()


def test_a_push_killed_half_way_leaves_no_half_version_and_the_next_is_whole(big_model: Path) -> None:
    command = [sys.executable, "-c", PUSH, str(big_model)]
    process = subprocess.Popen(command, cwd=_CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not list((big_model / "serving").glob(".incoming-*/variables/*")):
            assert process.poll() is None and time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    [incoming] = (big_model / "serving").iterdir()
    assert incoming.name.startswith(".incoming-")
    assert len(list(incoming.glob("variables/*"))) < 60, "it was killed too late to tell anything"

    version = push(big_model).get_string_custom_property("pushed_version")
    assert served(big_model) == [incoming.name, version]
    assert len(list((big_model / "serving" / version / "variables").iterdir())) == 60
    for path in (big_model / "serving").rglob("variables-*"):
        path.unlink()


def test_the_first_card_of_a_version_stays_and_it_is_still_the_same_model(tmp_path: Path) -> None:
    write_model(tmp_path)
    version = push(tmp_path).get_string_custom_property("pushed_destination")
    before = key(tmp_path)
    add_card(version, "the run that pushed it")
    add_card(version, "a later run of the same model")
    assert (Path(version) / MODEL_CARD_PATH).read_text() == "the run that pushed it"
    assert push(tmp_path).get_string_custom_property("pushed_destination") == version
    assert key(tmp_path) == before and served(tmp_path) == [Path(version).name]


def test_a_version_that_is_gone_gets_no_card(tmp_path: Path) -> None:
    write_model(tmp_path)
    version = Path(push(tmp_path).get_string_custom_property("pushed_destination"))
    (version.parent / ".rolled_back").mkdir()
    version.rename(version.parent / ".rolled_back" / version.name)
    add_card(str(version), "card")
    assert not version.exists() and not list(tmp_path.rglob("MODEL_CARD.md*"))


def test_the_pipeline_leaves_the_model_card_beside_the_model(tiny_run: TinyRun) -> None:
    version = tiny_run.answer.outcome["pushed_version"]
    card = tiny_run.home.serving("kmnist") / version / MODEL_CARD_PATH
    text = card.read_text()
    assert text.startswith(f"# Model card: kmnist, run {tiny_run.run_id}")
    assert f"{tiny_run.answer.outcome['accuracy']:.2%}".rstrip("%") in text
    assert is_same_model(str(tiny_run.model), str(card.parents[1]))
    assert f"model card: {card}" in mnist_tfx("status", "--home", tiny_run.home.root).out


def test_the_pipeline_pushes_what_it_trained(tiny_run: TinyRun) -> None:
    version = tiny_run.answer.outcome["pushed_version"]
    pushed = tiny_run.home.serving("kmnist") / version
    for path in tiny_run.model.rglob("*"):
        if path.is_file():
            assert (pushed / path.relative_to(tiny_run.model)).read_bytes() == path.read_bytes()


def test_the_number_of_a_rolled_back_version_is_not_used_again(tmp_path: Path) -> None:
    write_model(tmp_path)
    ahead = int(time.time()) + 10**6
    (tmp_path / "serving" / ".rolled_back" / str(ahead)).mkdir(parents=True)
    assert push(tmp_path).get_string_custom_property("pushed_version") == str(ahead + 1)


PUSH_INTO_BUCKET = """
import sys
from pathlib import Path
from mnist_tfx.components.pusher.publish import add_card
from tests.components.test_pusher import push
folder, graph = Path(sys.argv[1]), Path(sys.argv[1]) / "infra" / "stamped_model" / "saved_model.pb"
for text in ("one", "one", "two"):
    graph.write_text(text)
    pushed = push(folder, serving_dir="gs://my-bucket/serving/mnist")
    print(pushed.get_string_custom_property("pushed_version"))
    add_card(pushed.get_string_custom_property("pushed_destination"), "card")
"""


@pytest.mark.slow
def test_into_a_bucket_too_each_model_is_pushed_once(tmp_path: Path) -> None:
    write_model(tmp_path)
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
        added = (
            "assets.extra/MODEL_CARD.md",
            "assets.extra/data_statistics/Split-train/FeatureStats.pb",
            "assets.extra/push.json",
        )
        names = (*added, "saved_model.pb", "variables/variables-000")
        assert store.names("gs://my-bucket/serving/mnist") == sorted(
            f"{one}/{name}" for one in (first, other) for name in names
        )
        assert store.refused == []
