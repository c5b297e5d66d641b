"""The figures that recipes and benchmarks/accuracy.md state are those that were measured, with these settings."""

from __future__ import annotations

import pytest

from benchmarks.accuracy import PAGE, Result, measured_recipes, read_results, rows, settings_digest, table
from mnist_tfx.pipeline.home import CHECKOUT
from mnist_tfx.pipeline.projects import shipped
from mnist_tfx.pipeline.recipes import load_recipe

MEASURED = {(row.dataset, row.recipe): row for row in rows(read_results())}


@pytest.mark.parametrize(("dataset", "name"), measured_recipes())
def test_a_recipes_header_states_what_was_measured_with_its_settings(dataset: str, name: str) -> None:
    row = MEASURED[dataset, name]
    assert row.seeds >= 3
    assert row.header() in shipped(dataset).recipes[name].read_text().splitlines()
    measured_with = {each.settings for each in read_results() if (each.dataset, each.recipe) == (dataset, name)}
    assert measured_with == {settings_digest(load_recipe(dataset, name))}, "settings changed since: measure again"


@pytest.mark.parametrize(("dataset", "name"), measured_recipes())
def test_a_recipes_header_has_the_command_that_reproduces_it(dataset: str, name: str) -> None:
    recipe = "" if name == "default" else f" --recipe {name}"
    command = f"# mnist-tfx run --dataset {dataset}{recipe} --set seed=0"
    assert command in shipped(dataset).recipes[name].read_text().splitlines()


def test_the_page_has_the_table_of_the_results() -> None:
    assert table(read_results()) in PAGE.read_text()


def test_the_readme_has_every_recipes_accuracy() -> None:
    names = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
    readme = (CHECKOUT / "README.md").read_text().splitlines()
    for row in MEASURED.values():
        assert f"| {names[row.dataset]} | `{row.recipe}` | {row.mean:.4f} | {row.seeds} |" in readme


def test_the_digest_changes_with_a_setting_and_not_with_the_seed_or_a_bound() -> None:
    digest = settings_digest(load_recipe("mnist", "default"))
    assert settings_digest(load_recipe("mnist", "default", ["training.seed=7", "min_accuracy=0.5"])) == digest
    assert settings_digest(load_recipe("mnist", "default", ["epochs=7"])) != digest
    assert settings_digest(load_recipe("mnist", "default", ["augmentation.elastic=0.123"])) != digest


def test_a_row_sums_up_its_seeds() -> None:
    [row] = rows(
        [
            Result("mnist", "default", seed, "", accuracy, seconds, epochs, 4, 2)
            for seed, (accuracy, seconds, epochs) in enumerate([(0.98, 31.0, 5), (0.99, 30.2, 7), (0.985, 40.0, 6)])
        ]
    )
    assert row.mean == pytest.approx(0.985) and row.deviation == pytest.approx(0.005)
    assert (row.seconds, row.epochs, row.best_epochs) == (30.2, "5 to 7", "4")
    assert row.header() == ("# Test accuracy 0.9850 (mean of 3 seeds, deviation 0.0050); 30 s of training on 2 cores.")
