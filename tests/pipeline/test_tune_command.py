"""`mnist-tfx tune` and `lr-find`, and both as options of the pipeline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.trainer.run_fn import TRAINING_LOG
from mnist_tfx.components.tuner.results import TrialResult
from mnist_tfx.pipeline.commands.plots import plot_trials
from mnist_tfx.pipeline.commands.tune import _print_table
from mnist_tfx.pipeline.recipes import load_recipe
from mnist_tfx.pipeline.run_recipe import run_until
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.tiny_run import TinyRun

_CHECKOUT = Path(__file__).resolve().parents[2]
_SPACE = (
    'tuner.space={"training.learning_rate"={min=1e-4,max=1e-2,log=true},"model.hidden_layers"={values=[[8],[12,8]]}}'
)
_SEARCH = ("tuner.strategy=bayesian", "tuner.trials=4", "tuner.max_epochs=2", _SPACE)


def options(tiny_run: TinyRun, *settings: str) -> list[str]:
    given = ["--dataset", "kmnist", "--recipe", str(tiny_run.recipe_file), "--home", str(tiny_run.home.root)]
    return given + [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def killed_after_two_trials(tiny_run: TinyRun) -> list[str]:
    """What a search printed before it was killed."""
    command = [sys.executable, "-c", "import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main())", "tune"]
    process = subprocess.Popen(
        [*command, *options(tiny_run, *_SEARCH)],
        cwd=_CHECKOUT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if "trial 2 of 4" in line:
            break
    process.kill()
    process.communicate()
    return lines


@pytest.fixture(scope="module")
def tuned(tiny_run: TinyRun, killed_after_two_trials: list[str]) -> Answer:
    """The same search, started again."""
    return mnist_tfx("tune", *options(tiny_run, *_SEARCH), "--json")


def test_a_killed_search_goes_on(killed_after_two_trials: list[str], tuned: Answer) -> None:
    assert tuned.code == 0, tuned.err
    trials = json.loads(tuned.out)["trials"]
    assert sorted(trial["trial"] for trial in trials) == [1, 2, 3, 4]
    assert "going on after 2 finished" in tuned.err or "going on after 3 finished" in tuned.err
    assert "trial 1 of 4" not in tuned.err
    assert "trial 4 of 4" in tuned.err
    for number in (1, 2):
        [line] = [line for line in killed_after_two_trials if f"trial {number} of 4" in line]
        [score] = [trial["score"] for trial in trials if trial["trial"] == number]
        assert f"val_accuracy {score:.4f}" in line


def test_trials_are_told_the_best_first_with_a_plot(tuned: Answer) -> None:
    answer = json.loads(tuned.out)
    scores = [trial["score"] for trial in answer["trials"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["best"] == answer["trials"][0]
    assert answer["monitor"] == "val_accuracy"
    with Image.open(answer["plot"]) as image:
        assert image.format == "PNG"
        assert image.width > 400


def test_a_finished_search_is_answered_from_the_cache_as_a_table(
    tiny_run: TinyRun, tuned: Answer, tmp_path: Path
) -> None:
    answer = mnist_tfx("tune", *options(tiny_run, *_SEARCH), "-o", tmp_path / "trials.png")
    assert answer.code == 0, answer.err
    assert "trial 4 of 4" not in answer.err
    best = json.loads(tuned.out)["best"]
    assert f"{best['score']:.4f}" in answer.out
    assert f"training.learning_rate={json.dumps(best['settings']['training.learning_rate'])}" in answer.out
    assert (tmp_path / "trials.png").stat().st_size > 1000


@pytest.mark.parametrize("best", ["adam", "sgd"])
def test_where_a_trials_optimizer_lacks_a_setting_it_is_left_blank(
    best: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adam = TrialResult(1, 0.75, 2, {"training.optimizer": "adam", "training.learning_rate": 0.01})
    sgd = TrialResult(
        2, 0.5, 2, {"training.optimizer": "sgd", "training.momentum": 0.25, "training.learning_rate": 0.1}
    )
    trials = [adam, sgd] if best == "adam" else [sgd, adam]
    _print_table(trials, load_recipe("mnist", "default"))
    plot_trials(trials, "val_accuracy", "two optimizers", tmp_path / "trials.png")
    rows = [[cell.strip() for cell in re.split("[┃│]", line)[1:-1]] for line in capsys.readouterr().out.splitlines()]
    columns, first, second = (row for row in rows if row)
    momentum, rate = columns.index("training.momentum"), columns.index("training.learning_rate")
    told = {row[columns.index("training.optimizer")]: (row[momentum], row[rate]) for row in (first, second)}
    assert told == {"adam": ("", "0.01"), "sgd": ("0.25", "0.1")}
    with Image.open(tmp_path / "trials.png") as image:
        assert image.width == 3 * 480  # a plot for each setting


def test_the_pipelines_model_has_the_best_trials_settings(tiny_run: TinyRun, tuned: Answer) -> None:
    best = json.loads(tuned.out)["best"]["settings"]
    recipe = load_recipe("kmnist", str(tiny_run.recipe_file), [*_SEARCH, "tune=true"])
    with tiny_run.home.lock():
        made = run_until("Trainer", recipe, tiny_run.home)
    [model] = made.outputs["Trainer"]["model"]
    metadata = read_metadata(f"{model.uri}/Format-Serving")
    assert metadata["training"]["learning_rate"] == best["training.learning_rate"] != recipe.training.learning_rate
    assert metadata["model"]["hidden_layers"] == best["model.hidden_layers"]
    assert metadata["training"]["epochs"] == recipe.training.epochs  # the tuner's are the trials' alone
    assert kernel_units(f"{model.uri}/Format-Serving") == [*best["model.hidden_layers"], 10]
    log = training_log(model.uri)
    assert log["settings_found"] == best
    assert log["history"][0]["learning_rate"] == pytest.approx(best["training.learning_rate"], rel=1e-5)


def test_training_may_begin_with_the_range_test(tiny_run: TinyRun) -> None:
    recipe = load_recipe("kmnist", str(tiny_run.recipe_file), ["lr_find=true", "label_smoothing=0.1"])
    with tiny_run.home.lock():
        made = run_until("Trainer", recipe, tiny_run.home)
    [model] = made.outputs["Trainer"]["model"]
    log = training_log(model.uri)
    rate = log["settings_found"]["training.learning_rate"]
    assert rate != recipe.training.learning_rate
    assert log["history"][0]["learning_rate"] == pytest.approx(rate, rel=1e-5)
    assert read_metadata(f"{model.uri}/Format-Serving")["training"]["learning_rate"] == rate
    found = mnist_tfx("lr-find", *options(tiny_run, "label_smoothing=0.1"), "--json")
    assert json.loads(found.out)["learning_rate"] == rate


def test_lr_find_says_what_and_why_and_draws_it(tiny_run: TinyRun, tmp_path: Path) -> None:
    answer = mnist_tfx("lr-find", *options(tiny_run, "label_smoothing=0.1"), "-o", tmp_path / "curve.png")
    assert answer.code == 0, answer.err
    assert "suggested learning rate: " in answer.out
    assert "why: the lowest rate by which" in answer.out
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"


def test_lr_find_refuses_a_curve_that_still_falls_and_draws_it(tiny_run: TinyRun, tmp_path: Path) -> None:
    answer = mnist_tfx("lr-find", *options(tiny_run), "--max-rate", "0.001", "-o", tmp_path / "curve.png")
    assert answer.code == 1
    assert "no minimum" in answer.err
    assert "--max-rate 0.1" in answer.err
    assert "suggested" not in answer.out
    assert (tmp_path / "curve.png").exists()


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        ("lr-find", ["--min-rate", "1", "--max-rate", "0.1"], "must begin above 0, and rise"),
        ("lr-find", ["--steps", "3"], "at least 50"),
        ("lr-find", ["-o", "/no/such/folder/x.png"], "cannot write the plot"),
        (
            "tune",
            ["--set", "tuner.space={'training.learnin_rate'={min=1,max=2}}"],
            "Did you mean 'training.learning_rate'",
        ),
        ("tune", ["--set", "lr_find=true"], "exclude each other"),
        ("tune", ["--set", "tuner.stragety=bayesian"], "Did you mean 'tuner.strategy'"),
    ],
)
def test_wrong_usage_is_told_before_any_work(tiny_run: TinyRun, command: str, more: list[str], message: str) -> None:
    answer = mnist_tfx(command, *options(tiny_run), *more)
    assert answer.code == 2
    assert message in answer.err


def training_log(model_uri: str) -> dict[str, Any]:
    return dict(json.loads((Path(model_uri) / TRAINING_LOG).read_text()))


def kernel_units(saved_model: str) -> list[int]:
    import tensorflow as tf

    from mnist_tfx.components.trainer.export import read_weights

    return [weight.shape[1] for weight in read_weights(tf.saved_model.load(saved_model)) if len(weight.shape) == 2]
