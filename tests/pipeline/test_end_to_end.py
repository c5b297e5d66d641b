"""The whole pipeline through the command line, on the tiny dataset: what runs again, what is refused, what survives."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_tfx.components.trainer.run_fn import TRAINING_LOG
from mnist_tfx.pipeline import projects
from mnist_tfx.pipeline.home import CHECKOUT, Home
from mnist_tfx.pipeline.projects import shipped
from mnist_tfx.pipeline.recipes import load_recipe
from mnist_tfx.pipeline.run_recipe import run_until
from mnist_tfx.pipeline.runs.store import LATEST, load_run
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.tiny_run import RECIPE_TOML, TinyRun, run_tiny

BEFORE_GATE = ["ImportSchemaGen", "TfdsExampleGen", "StatisticsGen", "ExampleValidator"]
ALL = [*BEFORE_GATE, "DataGate", "Transform", "Trainer", "Baseline", "Evaluator", "InfraValidator", "Pusher", "Report"]
# In TFDS's order of the tiny dataset, the last 100 examples have other shares of the classes than the first 500.
SKEWED = ("--set", "data.splits.train=train[:500]", "--set", "data.splits.eval=train[500:]")
OTHER = ("--set", "training.seed=101")


@pytest.fixture
def run(tiny_run: TinyRun) -> Iterator[TinyRun]:
    """The first run, in a home that may be run in again: what is pushed is taken back afterwards.

    Tests of other modules run in it too, in any order: who counts on a training that is not cached has a seed of its
    own. Who needs any other model than the first takes that of `OTHER`: the first who does finds it trained anew, and
    the last leaves it rolled back.
    """
    before = set(tiny_run.versions())
    yield tiny_run
    for version in set(tiny_run.versions()) - before:
        shutil.rmtree(tiny_run.home.serving("kmnist") / version)


def not_cached(answer: Answer) -> list[str]:
    """The components that really ran."""
    return [component["id"] for component in answer.outcome["components"] if not component["cached"]]


def states(home: Home, answer: Answer) -> dict[str, str]:
    """The state of each component, from ML Metadata."""
    detail = load_run(home.metadata_db, answer.outcome["run"])
    return {execution.component: execution.state for execution in detail.executions}


def test_a_first_run_runs_everything_and_pushes(tiny_run: TinyRun) -> None:
    outcome = tiny_run.answer.outcome
    assert sorted(component["id"] for component in outcome["components"]) == sorted(ALL)
    assert not_cached(tiny_run.answer) == [component["id"] for component in outcome["components"]]
    assert outcome["blessed"] is True and outcome["exit_code"] == 0 and outcome["error"] is None
    assert outcome["pushed_version"] in tiny_run.versions()
    assert set(states(tiny_run.home, tiny_run.answer).values()) == {"COMPLETE"}
    assert (tiny_run.home.runs("kmnist") / tiny_run.run_id / "run.log").stat().st_size > 0


def test_stderr_tells_of_every_component(tiny_run: TinyRun) -> None:
    for component in ALL:
        assert any(component in line and " done " in line for line in tiny_run.answer.err.splitlines())
    assert "examples: 480 train, 120 eval, 200 test" in tiny_run.answer.err
    assert "nothing else is served" in tiny_run.answer.err
    assert "Traceback" not in tiny_run.answer.err


def test_a_second_run_is_cached_from_end_to_end_and_pushes_nothing(run: TinyRun) -> None:
    before = run.versions()
    again = run.again()
    assert (again.code, not_cached(again)) == (0, [])
    assert run.versions() == before
    assert again.outcome["accuracy"] == run.answer.outcome["accuracy"]
    assert again.outcome["run"] != run.run_id
    assert set(states(run.home, again).values()) == {"CACHED"}


def test_a_changed_recipe_is_trained_anew_and_compared_with_the_served_version(run: TinyRun) -> None:
    answer = run.again(*OTHER)
    assert answer.code == 0
    assert not_cached(answer) == ["Trainer", "Baseline", "Evaluator", "InfraValidator", "Pusher", "Report"]
    assert answer.outcome["baseline_version"] == run.answer.outcome["pushed_version"]
    assert answer.outcome["baseline_accuracy"] == pytest.approx(run.answer.outcome["accuracy"])
    assert run.versions() == [run.answer.outcome["pushed_version"], answer.outcome["pushed_version"]]


def test_a_version_that_was_deleted_is_pushed_again(run: TinyRun, tmp_path: Path) -> None:
    [version] = run.versions()
    shutil.move(run.home.serving("kmnist") / version, tmp_path / version)
    try:
        answer = run.again()
        assert answer.code == 0
        assert run.versions() == [answer.outcome["pushed_version"]]
    finally:
        shutil.move(tmp_path / version, run.home.serving("kmnist") / version)


def test_without_a_baseline_only_the_judgement_is_new(run: TinyRun) -> None:
    answer = run.again("--set", "baseline=none")
    assert answer.code == 0
    assert not_cached(answer) == ["Evaluator", "Pusher", "Report"]
    assert answer.outcome["baseline_version"] is None and answer.outcome["baseline_accuracy"] is None
    assert answer.outcome["accuracy"] == pytest.approx(run.answer.outcome["accuracy"])


def test_a_model_of_other_data_is_compared_with_the_live_one_and_not_pushed(run: TinyRun) -> None:
    """The same recipe, trained on fewer images, is another candidate."""
    live = run.versions()
    answer = run.again("--set", "data.splits.train=train[180:600]", "--set", "max_accuracy_drop=0.005")
    assert answer.code == 4
    assert answer.outcome["baseline_version"] == live[-1]
    assert answer.outcome["accuracy"] < answer.outcome["baseline_accuracy"] - 0.005
    assert answer.outcome["blessed"] is False and answer.outcome["pushed_version"] is None
    assert run.versions() == live


def test_a_study_leaves_what_is_live_alone(run: TinyRun, tmp_path: Path) -> None:
    live, study = run.versions(), tmp_path / "study.toml"
    settings = RECIPE_TOML.replace("epochs = 2", "epochs = 1")  # a worse model
    study.write_text(settings + 'baseline = "none"\n[push]\nenabled = false\n')
    answer = mnist_tfx("run", "--dataset", "kmnist", "--recipe", study, "--home", run.home.root)
    assert answer.code == 0, answer.err
    assert "not pushed: a study recipe" in answer.out and "blessed" in answer.out
    assert str(load_run(run.home.metadata_db, LATEST).verdict()) == "not pushed: a study recipe"
    assert run.versions() == live

    refused = run_tiny(run.home.root, study, "--set", "push.enabled=true")
    assert refused.code == 2 and "recipe study is a study" in refused.err
    pushed = run_tiny(run.home.root, study, "--push", "--set", "max_accuracy_drop=0.005")
    assert pushed.code == 4, "it is worse than the live model, and compared with it once it shall be pushed"
    assert pushed.outcome["baseline_version"] == live[-1]
    assert run.versions() == live


def test_no_push_pushes_nothing(run: TinyRun) -> None:
    live = run.versions()
    answer = run.again("--no-push", *OTHER)
    assert answer.code == 0 and answer.outcome["blessed"] is True
    assert (answer.outcome["pushed_version"], answer.outcome["not_pushed"]) == (None, "--no-push")
    assert answer.outcome["baseline_version"] == live[-1]
    assert run.versions() == live


def test_without_a_baseline_a_push_is_loud_and_what_is_said_to_be_live_is(run: TinyRun) -> None:
    """The third run's model is the first one's, and goes live anew; the cache knows of the second."""
    answers = [run.again("--set", "baseline=none", *seed) for seed in ((), OTHER, ())]
    assert [answer.code for answer in answers] == [0, 0, 0]
    pushed = [answer.outcome["pushed_version"] for answer in answers]
    assert run.versions() == sorted(set(pushed), key=int) and run.versions()[-1] == pushed[-1] != pushed[0]
    assert not_cached(answers[2]) == ["Pusher", "Report"]
    assert [caution.partition(":")[0] for caution in answers[2].outcome["cautions"]] == ["baseline=none"]

    status = mnist_tfx("status", "kmnist", "--home", run.home.root)
    assert "is live, and was pushed with baseline=none: it was not compared" in " ".join(status.out.split())
    assert "baseline=none: it was not compared" in Path(answers[2].outcome["report"]).read_text()
    shown = mnist_tfx(
        "run", "--dataset", "kmnist", "--recipe", run.recipe_file, "--home", run.home.root, "--set", "baseline=none"
    )
    assert "warning: kmnist: baseline=none: it was not compared" in " ".join(shown.out.split())


def test_a_model_that_was_rolled_back_is_not_said_to_be_pushed(run: TinyRun) -> None:
    other = run.again(*OTHER).outcome["pushed_version"]
    assert mnist_tfx("rollback", "kmnist", "--home", run.home.root).code == 0
    assert other not in run.versions()
    again = run.again(*OTHER)
    assert again.code == 0
    assert again.outcome["pushed_version"] is None
    assert f"version {other}, which was rolled back" in again.outcome["not_pushed"]
    assert other not in run.versions()
    shutil.rmtree(run.home.serving("kmnist") / ".rolled_back")


def test_a_model_server_that_appears_on_the_path_is_asked_anew(
    run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mnist_tfx.serving.server "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    answer = run.again()
    assert answer.code == 0 and not_cached(answer) == ["InfraValidator", "Pusher", "Report"]
    assert not_cached(run.again()) == []
    monkeypatch.undo()
    assert "InfraValidator" not in not_cached(run.again())  # what our own server said still holds


def test_a_model_below_its_bounds_is_not_pushed(run: TinyRun) -> None:
    answer = run.again("--set", "min_accuracy=1.0", "--set", "baseline=none")
    assert answer.code == 4
    accuracy = answer.outcome["accuracy"]
    assert accuracy < 1
    assert f"accuracy overall: {accuracy:.4f}, required at least 1.0000" in answer.err
    assert "the model of kmnist is not good enough, it was not pushed" in answer.err and "remedy: " in answer.err
    assert answer.outcome["blessed"] is False and answer.outcome["pushed_version"] is None
    assert answer.outcome["exit_code"] == 4
    assert run.versions() == [run.answer.outcome["pushed_version"]]


def test_bad_data_end_the_run_before_anything_is_trained_and_are_refused_again(run: TinyRun) -> None:
    """Anew without the cache, and where all but the gate's own answer comes from the cache."""
    for options, state in (((), None), (("--no-cache",), "COMPLETE"), ((), "CACHED")):
        answer = run.again(*SKEWED, *options)
        assert answer.code == 3
        assert "the data gate rejected kmnist" in answer.err
        assert "split train against eval, feature label: " in answer.err and "remedy: " in answer.err
        assert answer.outcome["exit_code"] == 3 and answer.outcome["accuracy"] is None
        found = states(run.home, answer)
        assert list(found)[-1] == "DataGate" and found.pop("DataGate") == "FAILED"
        assert found.keys() == set(BEFORE_GATE) and (state is None or set(found.values()) == {state})
    assert run.versions() == [run.answer.outcome["pushed_version"]]
    assert run.again().code == 0  # what was accepted before is accepted still


def test_an_edited_schema_is_not_answered_from_the_cache(
    run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = tmp_path / "kmnist" / "schema.pbtxt"
    edited.parent.mkdir()
    text = shipped("kmnist").schema_file.read_text()
    assert "min_examples_count: 100" in text
    edited.write_text(text.replace("min_examples_count: 100", "min_examples_count: 150"))
    monkeypatch.setattr(projects, "_SCHEMAS", tmp_path)
    answer = run.again()
    assert answer.code == 3
    assert "split eval, feature (whole split): " in answer.err
    found = states(run.home, answer)
    assert found["ImportSchemaGen"] == "COMPLETE" and found["TfdsExampleGen"] == "CACHED"
    assert found["ExampleValidator"] == "COMPLETE"


def resumed_after(model: Path) -> int:
    """The epoch after which the model's training went on; 0 where it began anew."""
    return int(json.loads((model / TRAINING_LOG).read_text())["resumed_after_epoch"])


KILLED_RUN = "import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main(sys.argv[1:]))"


def test_a_killed_run_goes_on_where_it_was_and_a_second_one_beside_it_is_refused(run: TinyRun) -> None:
    settings = ("normalization=unit", "epochs=30", "patience=30", "hidden_layers=[8]")
    options = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-c", KILLED_RUN, "run", "--dataset", "kmnist", "--recipe", str(run.recipe_file)]
    process = subprocess.Popen(
        [*command, "--home", str(run.home.root), *options], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr
        for line in process.stderr:
            if "epoch" in line:
                break
        beside = run.again()
        assert beside.code == 1
        assert f"another run is using {run.home.root} (process {process.pid})" in beside.err
        backups = run.home.cache("training_backup") / "kmnist"
        deadline = time.monotonic() + 60
        while not list(backups.glob("*/training_metadata.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
    assert run.versions() == [run.answer.outcome["pushed_version"]]

    other_data = load_recipe("kmnist", str(run.recipe_file), [*settings, "data.splits.train=train[180:600]"])
    with run.home.lock():
        [elsewhere] = run_until("Trainer", other_data, run.home).outputs["Trainer"]["model"]
    assert resumed_after(Path(elsewhere.uri)) == 0, "a training must not go on with other data"

    answer = run.again(*options)
    assert answer.code == 0
    # Transform had finished.
    assert not_cached(answer) == ["Trainer", "Baseline", "Evaluator", "InfraValidator", "Pusher", "Report"]
    [model] = (run.home.runs("kmnist") / answer.outcome["run"] / "Trainer" / "model").iterdir()
    assert 0 < resumed_after(model) < 30
    for version in run.versions():
        assert (run.home.serving("kmnist") / version / "saved_model.pb").is_file()
    assert not list(backups.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "kmnits"), "unknown dataset 'kmnits'. Did you mean 'kmnist'?"),
        (("--dataset", "mnist", "--recipe", "benchmrak"), "Did you mean 'benchmark'?"),
        (("--dataset", "mnist", "--set", "epohcs=3"), "Did you mean 'training.epochs'?"),
        (("--dataset", "kmnist", "--recipe", "no/such/file.toml"), "cannot read recipe no/such/file.toml"),
    ],
)
def test_what_is_unknown_is_wrong_usage_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    answer = mnist_tfx("run", *arguments, "--home", tmp_path / "home")
    assert answer.code == 2
    assert answer.err.startswith("error: ") and message in answer.err
    assert answer.out == ""
    assert not (tmp_path / "home").exists()


def test_a_split_that_the_dataset_does_not_have_is_wrong_usage(run: TinyRun) -> None:
    answer = run.again("--set", "data.splits.eval=validation")
    assert answer.code == 2
    assert "data.splits.eval = 'validation' is not a slice of kmnist" in answer.err


def test_a_home_that_cannot_be_written_to_is_refused(tmp_path: Path, tiny_recipe_file: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run_tiny(tmp_path / "file" / "home", tiny_recipe_file)
    assert answer.code == 1
    assert f"cannot write to the home folder {tmp_path / 'file' / 'home'}" in answer.err and "--home DIR" in answer.err


def test_a_dataset_without_a_schema_is_told_to_write_one(
    run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects, "_SCHEMAS", tmp_path)
    answer = run.again()
    assert answer.code == 2
    assert "has no schema: cannot read" in answer.err and "kmnist/schema.pbtxt" in answer.err


def test_the_table_is_on_stdout_and_names_the_log(run: TinyRun, tiny_recipe_file: Path) -> None:
    answer = mnist_tfx("run", "--dataset", "kmnist", "--recipe", tiny_recipe_file, "--home", run.home.root)
    assert answer.code == 0
    assert "kmnist" in answer.out and "blessed" in answer.out
    assert any(version in answer.out for version in run.versions())
    assert str(run.home.runs("kmnist")) in answer.err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_real_datasets_are_trained_judged_and_pushed(tmp_path: Path) -> None:
    """The default recipes on MNIST and Fashion-MNIST, from the checkout's prepared datasets where they are there."""
    prepared = CHECKOUT / "var" / "datasets"
    if prepared.is_dir():
        os.symlink(prepared, tmp_path / "datasets")
    answer = mnist_tfx("run", "--dataset", "all", "--home", tmp_path, "--json")
    assert answer.code == 0, answer.err
    outcomes = {outcome["dataset"]: outcome for outcome in json.loads(answer.out)}
    assert outcomes["mnist"]["accuracy"] >= 0.985
    assert outcomes["fashion_mnist"]["accuracy"] >= 0.895
    for dataset, outcome in outcomes.items():
        assert (tmp_path / "serving" / dataset / outcome["pushed_version"] / "saved_model.pb").is_file()

    # The gate that could be walked round: the same recipe on other data, and a study.
    live = Home(tmp_path).serving("fashion_mnist")
    before = sorted(live.iterdir())
    fewer = ("--set", "data.splits.train=train[:2000]", "--set", "min_accuracy=0.5", "--set", "min_class_accuracy=0")
    answer = mnist_tfx("run", "--dataset", "fashion_mnist", "--home", tmp_path, "--json", *fewer)
    assert answer.code == 4 and answer.outcome["baseline_version"] == outcomes["fashion_mnist"]["pushed_version"]
    assert "drop against the baseline" in answer.err
    answer = mnist_tfx("run", "--dataset", "fashion_mnist", "--recipe", "linear", "--home", tmp_path, "--json")
    assert (answer.code, answer.outcome["not_pushed"]) == (0, "a study recipe")
    assert answer.outcome["accuracy"] < outcomes["fashion_mnist"]["accuracy"]
    assert sorted(live.iterdir()) == before
