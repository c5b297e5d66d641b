"""The search space of recipes, and searches with keras-tuner on real training."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from keras_tuner import HyperParameters, Objective
from keras_tuner.oracles import HyperbandOracle
from pydantic import ValidationError
from tfx.components.trainer.fn_args_utils import FnArgs

from mnist_tfx.components.settings import AugmentationSettings, DistillationSettings, ModelSettings, TrainingSettings
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.tuner.hyperparameters import settings_found, with_settings
from mnist_tfx.components.tuner.oracles import BayesianOptimizationOracle
from mnist_tfx.components.tuner.search import PROJECT_PREFIX, RecipeTuner, trial_count, tuner_fn
from mnist_tfx.components.tuner.settings import Choice, Range, TunerSettings
from mnist_tfx.components.tuner.space import search_space
from mnist_tfx.contract.errors import PipelineError
from tests.fixtures.tiny_run import TinyRun

RATES = {"training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"training.learning_rat": {"min": 1, "max": 2}}, "Did you mean 'training.learning_rate'?"),
        ({"training.learning_rate": 0.1}, "Write it like"),
        ({"training.learning_rate": {"min": 0.2, "max": 0.1}}, "min must be less than max"),
        ({"training.learning_rate": {"min": 0, "max": 0.1, "log": True}}, "above 0 where log = true"),
        ({"training.learning_rate": {"values": [0.1]}}, "values"),
        ({"training.learning_rate": {"min": 0.1, "max": 0.2, "lgo": True}}, "lgo"),
        ({"model.dropout": {"min": 0, "max": 1}}, "model.dropout: 1 does not fit"),
        ({"model.hidden_layers": {"min": 8, "max": 16}}, "write { values = [...] }"),
        ({"training.optimizer": {"values": ["adam", "adma"]}}, "'adma' does not fit"),
        ({"training.batch_size": {"min": 32, "max": 64.5}}, "64.5 does not fit"),
        ({"training.seed": {"values": [0, 1]}}, "not better"),
        ({"training.epochs": {"min": 1, "max": 9}}, "tuner.max_epochs"),
        ({"training.warm_start": {"values": [False, True]}}, "every trial begins anew"),
        ({"training.momentum": {"min": 0.5, "max": 1.0}}, "training.momentum: 1.0 does not fit"),
        ({}, "empty"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        TunerSettings.model_validate({"space": space})
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "space",
    [
        {"augmentation.elastic_smoothness": {"min": 4.0, "max": 8.0}},
        {"model.layer_dropout": {"values": [[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]}},
    ],
)
def test_what_goes_with_other_settings_than_the_defaults_is_left_to_the_trials(space: dict[str, Any]) -> None:
    assert list(TunerSettings.model_validate({"space": space}).space) == list(space)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 5}, "trials has no effect with strategy 'hyperband', only with bayesian"),
        ({"strategy": "bayesian", "factor": 2}, "factor has no effect with strategy 'bayesian', only with hyperband"),
    ],
)
def test_what_has_no_effect_under_the_strategy_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TunerSettings.model_validate(settings)


def test_a_space_may_be_written_with_and_without_quotes() -> None:
    entry = {"min": 1e-4, "max": 1e-2}
    nested = TunerSettings.model_validate({"space": {"training": {"learning_rate": entry}}})
    assert nested == TunerSettings.model_validate({"space": {"training.learning_rate": entry}})
    assert TunerSettings.model_validate(nested.model_dump(mode="json")) == nested


def test_every_kind_of_setting_gets_its_hyperparameter_and_comes_back_with_its_type() -> None:
    space: dict[str, Range | Choice] = {
        "training.learning_rate": Range(min=1e-4, max=1e-2, log=True),
        "training.batch_size": Range(min=32, max=64),
        "model.hidden_layers": Choice(values=((8,), (16, 8), ())),
        "training.optimizer": Choice(values=("adam", "sgd")),
        "model.batch_normalization": Choice(values=(False, True)),
        "model.dropout": Choice(values=(0, 0.5)),
    }
    hyperparameters = search_space(space)
    assert isinstance(hyperparameters, HyperParameters)
    assert {type(one).__name__ for one in hyperparameters.space} == {"Float", "Int", "Choice"}
    found = settings_found({**hyperparameters.values, "tuner/epochs": 3})
    assert set(found) == set(space)
    config = with_settings(config_of(Path("x"), TunerSettings()), found)
    assert (config.model.hidden_layers, config.training.optimizer, config.training.batch_size) == ((8,), "adam", 32)
    assert config.model.batch_normalization is False
    assert config.training.learning_rate == 1e-4


def test_a_search_over_optimizers_takes_of_the_others_settings_none() -> None:
    searched_in = {"training.momentum": 0.5, "training.weight_decay": 0.1, "model.dropout": 0.2}
    assert settings_found(searched_in) == searched_in  # the recipe's own optimizer
    found = settings_found({"training.optimizer": '"sgd"', **searched_in})
    assert found == {"training.optimizer": "sgd", "training.momentum": 0.5, "model.dropout": 0.2}
    training = with_settings(config_of(Path("x"), TunerSettings()), found).training
    assert (training.optimizer, training.momentum, training.weight_decay, training.beta_2) == ("sgd", 0.5, None, None)


def test_searches_of_other_data_have_nothing_in_common(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = config_of(tmp_path, TunerSettings())
    given = arguments(tiny_run, config)
    projects = [tuner_fn(given).tuner.project_name for _ in range(2)]
    given.train_files = given.eval_files
    projects.append(tuner_fn(given).tuner.project_name)
    assert projects[0] == projects[1] != projects[2]


def config_of(backup: Path, tuner: TunerSettings | None, **training: Any) -> TrainerConfig:
    return TrainerConfig(
        dataset="kmnist",
        data_fingerprint="abc",
        class_names=tuple("abcdefghij"),
        image_shape=(28, 28, 1),
        normalization="standardize",
        model=ModelSettings(hidden_layers=(8,)),
        training=TrainingSettings.model_validate({"batch_size": 60, **training}),
        augmentation=AugmentationSettings(),
        distillation=DistillationSettings(),
        code_version="1",
        backup_dir=str(backup),
        tuner=tuner,
    )


def arguments(tiny_run: TinyRun, config: TrainerConfig) -> FnArgs:
    """What TFX's Tuner hands to `tuner_fn`."""
    return FnArgs(
        working_dir="",
        train_files=[str(tiny_run.examples / "Split-train" / "*")],
        eval_files=[str(tiny_run.examples / "Split-eval" / "*")],
        train_steps=None,
        eval_steps=None,
        schema_path=None,
        transform_graph_path=str(tiny_run.transform_graph),
        data_accessor=None,
        custom_config=config.to_json(),
    )


def searched(tiny_run: TinyRun, config: TrainerConfig) -> RecipeTuner:
    """A search that is done."""
    tuner = tuner_fn(arguments(tiny_run, config)).tuner
    tuner.search()
    assert isinstance(tuner, RecipeTuner)
    return tuner


def finished(tuner: RecipeTuner) -> list[Any]:
    """The trials that came to their end, in the order of their numbers."""
    return sorted(
        (trial for trial in tuner.oracle.trials.values() if trial.status == "COMPLETED"), key=lambda t: t.trial_id
    )


@pytest.fixture(scope="module")
def hyperband(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> RecipeTuner:
    """A whole search by Hyperband."""
    tuner = TunerSettings.model_validate({"space": RATES, "max_epochs": 3, "factor": 2})
    return searched(tiny_run, config_of(tmp_path_factory.mktemp("hyperband"), tuner))


def test_hyperband_runs_all_its_trials_and_gives_more_epochs_to_the_best(hyperband: RecipeTuner) -> None:
    trials = finished(hyperband)
    assert len(trials) == trial_count(TunerSettings(max_epochs=3, factor=2)) == len(hyperband.oracle.trials)
    by_epochs = {trial.hyperparameters.values["tuner/epochs"] for trial in trials}
    assert by_epochs == {2, 3}
    promoted = next(t for t in trials if t.hyperparameters.values["tuner/round"] == 1)
    first_round = [
        t
        for t in trials
        if (t.hyperparameters.values["tuner/bracket"], t.hyperparameters.values["tuner/round"]) == (1, 0)
    ]
    best = max(first_round, key=lambda trial: trial.score)
    assert (
        promoted.hyperparameters.values["training.learning_rate"]
        == (best.hyperparameters.values["training.learning_rate"])
    )


@pytest.mark.parametrize(("max_epochs", "factor"), [(1, 2), (4, 2), (9, 3), (10, 3)])
def test_the_number_of_trials_told_is_that_of_keras_tuner(max_epochs: int, factor: int, tmp_path: Path) -> None:
    settings = TunerSettings(max_epochs=max_epochs, factor=factor)
    oracle = HyperbandOracle(
        Objective("val_loss", "min"),
        max_epochs=max_epochs,
        factor=factor,
        seed=1,
        hyperparameters=search_space(settings.space),
    )
    oracle.verbose = 0
    oracle._set_project_dir(str(tmp_path), "project")
    while (trial := oracle.create_trial("tuner")).status == "RUNNING":
        oracle.update_trial(trial.trial_id, {"val_loss": float(len(oracle.trials))})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    assert len(oracle.trials) == trial_count(settings)


class Killed(Exception):
    """What ends a search between two of its files."""


def killed() -> None:
    raise Killed


def bayesian_oracle(folder: Path) -> BayesianOptimizationOracle:
    """An oracle for three trials, which nothing trains."""
    space = search_space(TunerSettings.model_validate({"space": RATES}).space)
    oracle = BayesianOptimizationOracle(Objective("val_loss", "min"), max_trials=3, seed=1, hyperparameters=space)
    oracle.verbose = 0
    oracle._set_project_dir(str(folder), "project")
    return oracle


def run_trials(oracle: BayesianOptimizationOracle, killed_while: tuple[str, str] | None = None) -> list[str]:
    """The numbers of those that ran, to the end or until one was killed before `oracle.json` was written."""
    ran = []
    while (trial := oracle.create_trial("tuner")).status == "RUNNING":
        ran.append(trial.trial_id)
        if killed_while == ("ending", trial.trial_id):
            oracle.save = killed
        oracle.update_trial(trial.trial_id, {"val_loss": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        if killed_while == ("beginning", str(len(oracle.trials))):
            oracle.save = killed
    return ran


@pytest.mark.parametrize(("moment", "left"), [("beginning", ["1", "2"]), ("ending", ["2"])])
def test_a_kill_between_two_files_of_a_search_loses_no_trial(moment: str, left: list[str], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run_trials(bayesian_oracle(tmp_path), killed_while=(moment, "1"))
    again = bayesian_oracle(tmp_path)
    again.reload()
    assert run_trials(again) == left
    assert [trial.status for trial in again.trials.values()] == ["COMPLETED"] * 3
    assert again.start_order == again.end_order == ["0", "1", "2"]


def test_a_trials_score_is_the_best_epochs_accuracy_on_split_eval(hyperband: RecipeTuner) -> None:
    assert hyperband.oracle.objective.name == "val_accuracy"
    for trial in finished(hyperband):
        assert (trial.score * 120).is_integer() or trial.score * 120 == pytest.approx(
            round(trial.score * 120), abs=1e-3
        )
    scores = [trial.score for trial in finished(hyperband)]
    assert len(set(scores)) > 1
    assert hyperband.oracle.get_best_trials(1)[0].score == max(scores)


def test_a_trial_is_told_and_compared_by_its_best_epoch_and_not_by_its_last(
    tiny_run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TunerSettings.model_validate({"space": RATES, "strategy": "bayesian", "trials": 1, "max_epochs": 3})
    with caplog.at_level(logging.INFO, logger="mnist_tfx.progress"):
        # Nothing is better than the first epoch by so much: the second is the last.
        [trial] = finished(searched(tiny_run, config_of(tmp_path, settings, min_delta=1.0, patience=1)))
    lines = [record.getMessage() for record in caplog.records]
    first, second = (line.partition("val_accuracy ")[2] for line in lines if line.startswith("epoch "))
    assert f"{trial.score:.4f}" == first != second
    assert any(line.startswith(f"trial 1 of 1: val_accuracy {first} in 2 epochs") for line in lines)


def test_the_best_by_loss_is_the_one_with_the_least(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = TunerSettings.model_validate({"space": RATES, "strategy": "bayesian", "trials": 3, "max_epochs": 1})
    tuner = searched(tiny_run, config_of(tmp_path, settings, monitor="val_loss"))
    assert len(finished(tuner)) == 3
    assert tuner.oracle.get_best_trials(1)[0].score == min(trial.score for trial in finished(tuner))


def test_more_trials_go_on_with_those_done(tiny_run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"space": RATES, "strategy": "bayesian", "max_epochs": 1}
    first = searched(tiny_run, config_of(tmp_path, TunerSettings.model_validate({**settings, "trials": 1})))
    before = {trial.trial_id: trial.score for trial in finished(first)}
    with caplog.at_level(logging.INFO, logger="mnist_tfx.progress"):
        more = searched(tiny_run, config_of(tmp_path, TunerSettings.model_validate({**settings, "trials": 2})))
    after = {int(trial.trial_id): trial.score for trial in finished(more)}
    assert len(after) == 2
    assert {0: after[0]} == {int(number): score for number, score in before.items()}
    lines = [record.getMessage() for record in caplog.records]
    assert any("going on after 1 finished" in line for line in lines)
    assert [line.split(":")[0] for line in lines if line.startswith("trial ")] == ["trial 2 of 2"]


def test_a_search_whose_file_was_cut_short_begins_anew(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = TunerSettings.model_validate({"space": RATES, "strategy": "bayesian", "trials": 1, "max_epochs": 1})
    searched(tiny_run, config_of(tmp_path, settings))
    [project] = tmp_path.glob(f"{PROJECT_PREFIX}*")
    oracle = project / "oracle.json"
    oracle.write_text(oracle.read_text()[:-20])
    assert len(finished(searched(tiny_run, config_of(tmp_path, settings)))) == 1


def test_another_space_is_another_search(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = {"strategy": "bayesian", "trials": 1, "max_epochs": 1}
    for rates in (RATES, {"training.learning_rate": {"min": 1e-4, "max": 2e-2, "log": True}}):
        searched(tiny_run, config_of(tmp_path, TunerSettings.model_validate({**settings, "space": rates})))
    assert len(list(tmp_path.glob(f"{PROJECT_PREFIX}*"))) == 2


def test_a_trial_that_comes_apart_does_not_end_the_search(
    tiny_run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TunerSettings.model_validate(
        {
            "space": {"training.learning_rate": {"values": [1e-3, 1e30]}},
            "strategy": "bayesian",
            "trials": 2,
            "max_epochs": 1,
        }
    )
    with caplog.at_level(logging.INFO, logger="mnist_tfx.progress"):
        tuner = searched(tiny_run, config_of(tmp_path, settings, optimizer="sgd"))
    assert sorted(trial.status for trial in tuner.oracle.trials.values()) == ["COMPLETED", "FAILED"]
    assert settings_found(tuner.get_best_hyperparameters()[0].values) == {"training.learning_rate": 1e-3}
    assert any("failed: Training came apart" in record.getMessage() for record in caplog.records)


def test_a_search_goes_on_however_many_trials_in_a_row_were_no_good(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = TunerSettings.model_validate({"space": RATES, "strategy": "bayesian", "trials": 12})
    oracle = tuner_fn(arguments(tiny_run, config_of(tmp_path, settings))).tuner.oracle
    while (trial := oracle.create_trial("tuner")).status == "RUNNING":
        trial.status = "FAILED"
        oracle.end_trial(trial)
    assert len(oracle.end_order) == 12


def test_a_trial_whose_settings_exclude_the_recipes_fails_with_the_reason(
    tiny_run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TunerSettings.model_validate(
        {"space": {"model.dropout": {"values": [0.2, 0.4]}}, "strategy": "bayesian", "trials": 2, "max_epochs": 1}
    )
    config = replace(config_of(tmp_path, settings), model=ModelSettings(hidden_layers=(8,), layer_dropout=(0.1,)))
    why = "failed: dropout and layer_dropout exclude each other: give one of them."
    with caplog.at_level(logging.INFO, logger="mnist_tfx.progress"), pytest.raises(PipelineError) as failure:
        searched(tiny_run, config)
    assert str(failure.value) == f"no trial came to its end; the last one {why}"
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("trial ")]
    assert sorted(line.partition(": ")[2] for line in lines) == [f"{why}; model.dropout {rate}" for rate in (0.2, 0.4)]


def test_a_search_without_one_good_trial_fails(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = TunerSettings.model_validate(
        {
            "space": {"training.learning_rate": {"values": [1e29, 1e30]}},
            "strategy": "bayesian",
            "trials": 2,
            "max_epochs": 1,
        }
    )
    with pytest.raises(PipelineError, match=r"no trial came to its end.*came apart"):
        searched(tiny_run, config_of(tmp_path, settings, optimizer="sgd"))
