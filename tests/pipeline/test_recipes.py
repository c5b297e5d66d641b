"""Recipes: typed, frozen, closed to unknown keys, with errors that tell what to write instead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.projects import MAIN_DATASETS, project_in, shipped, shipped_datasets
from mnist_tfx.pipeline.recipes import Recipe, flatten, load_recipe, recipe_name
from tests.fixtures.command import mnist_tfx
from tests.fixtures.locales import make_locale

SHIPPED = [(dataset, name) for dataset in shipped_datasets() for name in shipped(dataset).recipes]


def test_the_datasets_that_have_recipes() -> None:
    assert set(shipped_datasets()) >= {*MAIN_DATASETS, "kmnist"}
    assert all("default" in shipped(dataset).recipes for dataset in shipped_datasets())


@pytest.mark.parametrize(("dataset", "name"), SHIPPED)
def test_every_shipped_recipe_loads(dataset: str, name: str) -> None:
    recipe = load_recipe(dataset, name)
    assert recipe.data.dataset == dataset
    assert recipe.evaluation.min_accuracy > 0.5
    assert shipped(dataset).recipes[name].read_text().startswith("# "), "a recipe begins with what it is"


@pytest.mark.parametrize(("dataset", "name"), SHIPPED)
def test_every_setting_can_be_set_to_its_own_value(dataset: str, name: str) -> None:
    recipe = load_recipe(dataset, name)
    settings = [f"{key}={json.dumps(value)}" for key, value in flatten(recipe).items() if value is not None]
    assert len(settings) > 20
    assert load_recipe(dataset, name, settings) == recipe


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.epochs=3", "training.epochs", 3),
        ("epochs=3", "training.epochs", 3),
        ("epochs = 3 ", "training.epochs", 3),
        ("learning_rate=1e-2", "training.learning_rate", 0.01),
        ("hidden_layers=[8, 4]", "model.hidden_layers", [8, 4]),
        ("batch_normalization=false", "model.batch_normalization", False),
        ("baseline=none", "evaluation.baseline", "none"),
        ("data.splits.eval=train[90%:]", "data.splits.eval", "train[90%:]"),
        ("splits.train=train[:90%]", "data.splits.train", "train[:90%]"),
        ("version=3.0.1", "data.version", "3.0.1"),
        ("beam.args=--runner=DirectRunner --x='a b'", "beam.args", ["--runner=DirectRunner", "--x=a b"]),
        ('args=["--runner=DirectRunner"]', "beam.args", ["--runner=DirectRunner"]),
    ],
)
def test_an_override_changes_one_setting(override: str, key: str, value: object) -> None:
    before, after = flatten(load_recipe("mnist", "default")), flatten(load_recipe("mnist", "default", [override]))
    assert after[key] == value
    assert {k: v for k, v in after.items() if k != key} == {k: v for k, v in before.items() if k != key}


def test_the_size_of_an_image_is_that_to_which_it_is_resized() -> None:
    grey = load_recipe("mnist", "default", ["resize=[14, 20]"]).data
    assert (grey.resize, grey.image_shape) == ((14, 20), (14, 20, 1))
    colour = load_recipe("mnist", "default", ["resize=[14, 20]", "image_shape=[28, 28, 3]"]).data
    assert colour.image_shape == (14, 20, 3)


@pytest.mark.parametrize("override", ["optimizer=sgd", 'training.optimizer = "sgd"', "optimizer='sgd'"])
def test_another_optimizer_leaves_out_what_the_file_says_of_its_own(override: str) -> None:
    assert load_recipe("mnist", "default").training.beta_2 == 0.99
    training = load_recipe("mnist", "default", [override]).training
    assert (training.optimizer, training.beta_2, training.momentum) == ("sgd", None, 0.9)
    assert load_recipe("mnist", "default", [override, "momentum=0.5"]).training.momentum == 0.5
    for own in (["optimizer=adam"], ["optimizer='adam'"], [override, "optimizer=adam"]):
        assert load_recipe("mnist", "default", own) == load_recipe("mnist", "default")


def test_another_optimizer_keeps_what_the_file_says_of_both() -> None:
    """As a search over optimizers does, whose result is to be trained again by `--set`."""
    training = load_recipe("mnist", "default", ["optimizer=adamw"]).training
    assert (training.optimizer, training.beta_2, training.weight_decay) == ("adamw", 0.99, 0.004)


STUDIES = [(dataset, name) for dataset, name in SHIPPED if not load_recipe(dataset, name).push.enabled]


def test_the_studies_are_those_that_are_compared_with_nothing() -> None:
    uncompared = [(d, name) for d, name in SHIPPED if load_recipe(d, name).evaluation.baseline == "none"]
    assert uncompared == STUDIES and ("fashion_mnist", "linear") in STUDIES and ("mnist", "benchmark") in STUDIES


@pytest.mark.parametrize(("dataset", "name"), STUDIES)
def test_a_study_pushes_only_what_is_compared_or_was_told_not_to_be(dataset: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"recipe {name} is a study.* Use `run --push`"):
        load_recipe(dataset, name, ["push.enabled=true"])
    compared = load_recipe(dataset, name, ["push.enabled=true", "baseline=served"])
    assert compared.push.enabled and compared.evaluation.baseline == "served"
    assert load_recipe(dataset, name, ["push.enabled=true", "evaluation.baseline=none"]).push.enabled


def test_the_last_of_several_overrides_wins() -> None:
    assert load_recipe("mnist", "default", ["epochs=3", "training.epochs=4"]).training.epochs == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epohcs=3", "unknown setting 'epohcs'. Did you mean 'training.epochs'?"),
        ("training.epoch=3", "unknown setting 'training.epoch'. Did you mean 'training.epochs'?"),
        ("model.epochs=3", "unknown setting 'model.epochs'."),
        ("epochs", "--set 'epochs': write KEY=VALUE, for example --set training.epochs=3."),
        ("epochs=0", "training.epochs: input should be greater than or equal to 1 (got 0)"),
        ("epochs=many", "training.epochs: "),
        ("min_accuracy=1.5", "evaluation.min_accuracy: input should be less than or equal to 1 (got 1.5)"),
        ("optimizer=adem", "training.optimizer: input should be 'adam', 'adamw', 'rmsprop' or 'sgd' (got 'adem')"),
        ("hidden_layers=[0]", "model.hidden_layers.0: "),
        ("dropout=1.0", "model.dropout: input should be less than 1"),
        ("image_shape=[28, 28, 2]", "data.image_shape.2: "),
        ("min_images=20000", "monitoring: min_images is 20000 and max_images 10000: of each version fewer"),
        ("training=3", "unknown setting 'training'"),
        ("seed=4294967296", "training.seed: input should be less than"),
        ("teacher_channels=[24, 48]", "distillation: teacher_channels without teachers: say how many"),
        ("momentum=0.5", "training: momentum has no effect with optimizer 'adam', only with sgd: leave it out"),
        ('tuner.space={"training.momentum" = {min = 0.1, max = 0.9}}', "training.momentum has no effect"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("mnist", "default", [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("shape", ["32", "null"])
def test_an_image_shape_that_is_no_list_is_refused_beside_resize_too(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace("[evaluation]", "resize = [64, 64]\n[evaluation]"))
    assert load_recipe("kmnist", str(path)).data.image_shape == (64, 64, 1)
    with pytest.raises(UsageError, match=r"data\.image_shape: input should be a valid tuple"):
        load_recipe("kmnist", str(path), [f"image_shape={shape}"])


def test_no_teachers_may_be_said_whatever_they_would_be() -> None:
    distillation = load_recipe("mnist", "default", ["teacher_channels=[24]", "teachers=0"]).distillation
    assert (distillation.teachers, distillation.teacher_channels) == (0, (24,))


def test_smoothness_without_bends_is_refused_unless_there_are_to_be_none() -> None:
    with pytest.raises(UsageError, match="augmentation: elastic_smoothness without elastic: say how far pixels move"):
        load_recipe("fashion_mnist", "default", ["elastic_smoothness=8"])
    augmentation = load_recipe("fashion_mnist", "default", ["elastic_smoothness=8", "elastic=0"]).augmentation
    assert (augmentation.elastic, augmentation.elastic_smoothness) == (0.0, 8.0)


def test_all_errors_of_a_recipe_are_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"training\.epochs.*; model\.dropout|model\.dropout.*; training\.epochs"):
        load_recipe("mnist", "default", ["epochs=0", "dropout=2"])


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown dataset 'fashion-mnist'\. Did you mean 'fashion_mnist'\?"):
        load_recipe("fashion-mnist", "default")
    with pytest.raises(UsageError, match=r"unknown recipe of mnist 'benchmrak'\. Did you mean 'benchmark'\?"):
        load_recipe("mnist", "benchmrak")


MINIMAL = '[data]\ndataset = "kmnist"\n[evaluation]\nmin_accuracy = 0.9\n'


def test_a_file_needs_a_dataset_and_a_bound_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert load_recipe("kmnist", str(path)).training.epochs == 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[data", "is not valid TOML"),
        ('[data]\ndataset = "kmnist"\n', "evaluation is missing"),
        ('[data]\ndataset = "kmnist"\n[evaluation]\n', "evaluation.min_accuracy is missing"),
        (MINIMAL.replace("kmnist", "mnist"), "is for dataset 'mnist', not 'kmnist'"),
        (MINIMAL + "[training]\nepohcs = 3\n", "unknown setting 'training.epohcs'. Did you mean 'training.epochs'?"),
        (MINIMAL + "[trainign]\nepochs = 3\n", "unknown setting 'trainign'"),
        ("data = 3\n[evaluation]\nmin_accuracy = 0.9\n", "data: "),
        ("push = false\n" + MINIMAL, "push: "),
        (MINIMAL.replace("[e", 'images = "a"\nbuilder = "b:C"\n[e'), "data: images and builder exclude each other: "),
        (MINIMAL.replace("[e", 'images = "a"\ndata_dir = "b"\n[e'), "data: images and data_dir exclude each other: "),
        (MINIMAL.replace("[e", 'labels = "a.csv"\n[e'), "data: labels without images: name the folder"),
        (None, "cannot read recipe"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_recipe("kmnist", str(path))
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_a_file_is_utf_8_in_every_locale_and_may_say_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('\ufeff[data]\nclasses = { "été" = ["0"] }\n' + MINIMAL.removeprefix("[data]\n"), encoding="utf-8")
    code = (
        "from mnist_tfx.pipeline.recipes import load_recipe;"
        f"print(*map(ascii, load_recipe('kmnist', {str(path)!r}).data.classes))"
    )
    for env in ({"LC_ALL": "C.UTF-8"}, make_locale(tmp_path, "de_DE", "ISO-8859-1")):
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True)
        assert done.stdout == "'\\xe9t\\xe9'\n", done.stderr


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not valid TOML"):
        load_recipe("kmnist", str(path))


def test_an_override_of_what_is_no_section_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("training = 3\n" + MINIMAL)
    with pytest.raises(UsageError, match="training: "):
        load_recipe("kmnist", str(path), ["epochs=3"])


@pytest.mark.parametrize("beside", ["[data", 'project = "my-project"\n', None])
def test_a_recipe_is_called_by_the_nearest_of_its_project(tmp_path: Path, beside: str | None) -> None:
    """Whatever else lies there: a Vertex profile, or a recipe that is only half written."""
    (tmp_path / "recipe.toml").write_text(MINIMAL)
    (tmp_path / "wide.toml").write_text(MINIMAL + "[model]\nhidden_layers = [900, 900]\n[training]\nepochs = 5\n")
    if beside is not None:
        (tmp_path / "beside.toml").write_text(beside)
    project = project_in(tmp_path)
    assert recipe_name(load_recipe(project, "wide")) == "wide"
    assert recipe_name(load_recipe(project, "default", ["beam.args=--x"])) == "default"
    assert recipe_name(load_recipe(project, "wide", ["epochs=6"])) == "wide with training.epochs=6"
    assert recipe_name(load_recipe(project, "default", ["epochs=6"])) == "default with training.epochs=6"
    far = [f"{name}=0.1" for name in ("dropout", "l2", "mixup", "shift", "elastic", "scale", "learning_rate")]
    assert recipe_name(load_recipe(project, "default", far)) == ""


def test_a_file_that_is_no_recipe_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(MINIMAL)
    (tmp_path / "my-vertex.toml").write_text('project = "my-project"\n')
    answer = mnist_tfx("recipes", "--project", tmp_path, "--json")
    assert [each["name"] for each in json.loads(answer.out)] == ["default"]
    assert answer.code == 0 and "note: left out" in answer.err and "my-vertex.toml" in answer.err
    (tmp_path / "recipe.toml").write_text(MINIMAL + "[training]\nepohcs = 3\n")
    assert mnist_tfx("recipes", "--project", tmp_path).code == 2


def test_a_recipe_cannot_be_changed(tiny_recipe: Recipe) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny_recipe.training.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        tiny_recipe.training = tiny_recipe.training  # type: ignore[misc]
    hash(tiny_recipe)


def test_the_command_lists_recipes_with_their_settings() -> None:
    answer = mnist_tfx("recipes", "--dataset", "mnist", "--json")
    listed = {recipe["name"]: recipe["settings"] for recipe in json.loads(answer.out)}
    assert listed["default"] == load_recipe("mnist", "default").model_dump(mode="json")
    text = mnist_tfx("recipes").out
    assert all(f"{dataset} / {name}" in text for dataset, name in SHIPPED)
    assert "training.epochs = 15" in text
