"""Runs that `mnist-tfx prune` removes: in a real home, whose next runs do not take what is gone from the cache."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2 as pb

from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.recipes import load_recipe
from mnist_tfx.pipeline.run_recipe import run_until
from mnist_tfx.pipeline.runs.records import record_end
from mnist_tfx.pipeline.runs.store import list_runs, open_store
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.ordinary_user import ORDINARY
from tests.fixtures.recorded_runs import Node, record_run
from tests.fixtures.tiny_run import TinyRun


def prune(run: TinyRun, *options: str) -> Answer:
    return mnist_tfx("prune", "--home", run.home.root, "--address", "127.0.0.1:1", "--keep", "1", "--json", *options)


def trained(run: TinyRun, seed: int) -> Path:
    """The Model artifact of a run up to the Trainer, whose path names that run; other tests use other seeds."""
    recipe = load_recipe("kmnist", str(run.recipe_file), [f"training.seed={seed}"])
    with run.home.lock():
        [model] = run_until("Trainer", recipe, run.home).outputs["Trainer"]["model"]
    return Path(model.uri)


def states(run: TinyRun) -> dict[str, int]:
    """What ML Metadata says of each artifact, by its path."""
    store = open_store(run.home.metadata_db)
    assert store is not None
    return {artifact.uri: artifact.state for artifact in store.get_artifacts()}


def test_a_run_goes_and_the_next_one_does_not_take_it_from_the_cache(tiny_run: TinyRun) -> None:
    first = tiny_run.home.runs("kmnist") / tiny_run.run_id
    before, states_before = sorted(first.rglob("*")), states(tiny_run)  # other modules' tests ran in this home, too
    model = trained(tiny_run, 203)
    folder = model.parents[2]
    again = tiny_run.again()  # all of it from the cache of the first, which pushed what is live
    assert again.code == 0
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    would = json.loads(prune(tiny_run, "--dry-run").out)
    assert folder.exists()
    found = {each["name"]: each for each in would["removed"] if each["kind"] == "run"}
    assert found[folder.name]["bytes"] == size
    with tiny_run.home.lock():  # as a run has it
        left_alone = prune(tiny_run)
    assert json.loads(left_alone.out)["removed"] == [] and "another run is using" in left_alone.err
    assert folder.exists()
    answer = prune(tiny_run)
    assert answer.code == 0 and json.loads(answer.out)["removed"] == would["removed"]
    assert not folder.exists()
    assert sorted(first.rglob("*")) == before, "a version that stays was pushed by it"
    assert tiny_run.home.report("kmnist", again.outcome["run"]).exists()
    after = states(tiny_run)
    assert after[str(model)] == pb.Artifact.DELETED
    of_first = {uri: state for uri, state in states_before.items() if Path(uri).is_relative_to(first)}
    assert pb.Artifact.LIVE in of_first.values() and of_first.items() <= after.items()
    assert folder.name in [run.run_id for run in list_runs(tiny_run.home.metadata_db)], "its history stays"
    anew = trained(tiny_run, 203)
    assert anew.parents[2] not in (folder, first) and anew.exists()
    assert trained(tiny_run, 0).is_relative_to(first), "what stayed is taken from the cache"


def test_artifacts_that_a_run_that_stays_shares_stay(tiny_run: TinyRun) -> None:
    model = trained(tiny_run, 204)
    assert trained(tiny_run, 204) == model  # another run, from the cache: the newest
    folder = model.parents[2]
    prune(tiny_run)
    assert model.exists() and (folder / "run.log").exists()
    assert trained(tiny_run, 204) == model


def test_what_was_made_by_another_path_of_the_home_is_shared_too(tmp_path: Path) -> None:
    """As through a link to another disk: the home's own path is that of the disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "var").symlink_to("disk")
    home, old, new = Home(tmp_path / "disk"), "20261122-143000-mnist", "20261122-150000-mnist"
    store = record_run(home.metadata_db, old, [Node("Trainer", outputs={"model": ("Model", {})})])
    [model] = store.get_artifacts()
    model.uri = str(tmp_path / "var" / "runs" / "mnist" / old / "Trainer" / "model" / "1")
    store.put_artifacts([model])
    record_end(store, old, "complete", 1.0)
    Path(model.uri).mkdir(parents=True)

    def reads(store: mlmd.MetadataStore, execution: pb.Execution) -> None:
        store.put_events([pb.Event(artifact_id=model.id, execution_id=execution.id, type=pb.Event.INPUT)])

    record_end(record_run(home.metadata_db, new, [Node("Evaluator", note=reads)]), new, "complete", 1.0)
    answer = mnist_tfx("prune", "--home", tmp_path / "var", "--address", "127.0.0.1:1", "--keep", "1")
    assert answer.code == 0 and Path(model.uri).is_dir(), answer.out


def test_the_run_that_pushed_what_stays_stays_though_no_newer_one_shares_anything_with_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    pushed, other, newest = runs = [f"20261122-{hour}0000-mnist" for hour in (14, 15, 16)]
    for run_id in runs:
        said = {"pushed": 1, "pushed_version": "7"} if run_id == pushed else {"pushed": 0}
        store = record_run(home.metadata_db, run_id, [Node("Pusher", {"pushed_model": ("PushedModel", said)})])
        record_end(store, run_id, "complete", 1.0)
        home.log("mnist", run_id).parent.mkdir(parents=True)
        home.log("mnist", run_id).touch()
    (home.serving("mnist") / "7").mkdir(parents=True)
    (home.serving("mnist") / "7" / "saved_model.pb").touch()
    answer = mnist_tfx("prune", "--home", tmp_path, "--address", "127.0.0.1:1", "--keep", "1", "--json")
    assert [each["name"] for each in json.loads(answer.out)["removed"]] == [other]
    assert [run_id for run_id in runs if home.log("mnist", run_id).exists()] == [pushed, newest]


def test_the_index_that_prune_makes_anew_tells_a_killed_run(tmp_path: Path) -> None:
    """While it holds the home's lock itself, which is how runs that go on are known."""
    home, old, killed = Home(tmp_path), "20261122-143000-mnist", "20261122-150000-mnist"
    record_end(record_run(home.metadata_db, old, [Node("Trainer")]), old, "complete", 1.0)
    record_run(home.metadata_db, killed, [Node("Trainer", state="RUNNING")])
    home.log("mnist", old).parent.mkdir(parents=True)
    answer = mnist_tfx("prune", "--home", tmp_path, "--address", "127.0.0.1:1", "--keep", "1")
    assert answer.code == 0 and old in answer.out
    index = (home.reports / "index.html").read_text()
    assert killed in index and "✗ killed<" in index and "✓ running<" not in index


def test_runs_of_a_model_whose_versions_cannot_be_read_stay(tmp_path: Path) -> None:
    home, old, newest = Home(tmp_path), "20261122-143000-mnist", "20261122-150000-mnist"
    for run_id in (old, newest):
        record_end(record_run(home.metadata_db, run_id, [Node("Trainer")]), run_id, "complete", 1.0)
    home.log("mnist", old).parent.mkdir(parents=True)
    home.serving("mnist").mkdir(parents=True, mode=0)  # another user's
    code = "import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main())"
    options = ("--home", str(tmp_path), "--address", "127.0.0.1:1", "--keep", "1")
    done = subprocess.run([*ORDINARY, sys.executable, "-c", code, "prune", *options], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0 removed, 0 bytes\n"), done.stderr


def test_an_empty_home_has_nothing_to_remove(tmp_path: Path) -> None:
    answer = mnist_tfx("prune", "--home", tmp_path, "--address", "127.0.0.1:1")
    assert (answer.code, answer.out) == (0, "0 removed, 0 bytes\n")
