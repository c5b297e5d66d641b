"""`mnist-tfx tune`: searches hyperparameters with the pipeline's Tuner."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.recipe import add_plot_argument, add_recipe_arguments, check_plot_argument
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from mnist_tfx.components.tuner.results import TrialResult
    from mnist_tfx.pipeline.recipes import Recipe

SUMMARY = "search hyperparameters over the space in the recipe's section [tuner]"
EXAMPLE = "mnist-tfx tune --dataset mnist --set tuner.strategy=bayesian --set tuner.trials=12"

_PIPED_COLUMNS = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_recipe_arguments(parser)
    parser.add_argument("--anew", action="store_true", help="forget all trials done so far on this dataset")
    add_plot_argument(parser, "trials.png")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the pipeline up to its Tuner; a search that was stopped goes on."""
    from mnist_tfx.pipeline.recipes import load_recipe
    from mnist_tfx.pipeline.run_recipe import run_until

    check_plot_argument(args.output)
    recipe = load_recipe(project_of(args), args.recipe, [*args.set, "tuner.tune=true"])
    home = Home.resolve(args.home)
    home.prepare()
    with home.lock():
        if args.anew:
            for folder in home.training_backup(recipe.data.dataset).glob("tuner-*"):
                shutil.rmtree(folder)
        made = run_until("Tuner", recipe, home, enable_cache=not args.anew)
    from mnist_tfx.components.tuner.results import read_trials
    from mnist_tfx.pipeline.commands.plots import plot_trials

    trials = read_trials(made.outputs["Tuner"])
    plot = Path(args.output) if args.output else made.folder / "trials.png"
    monitor = recipe.training.monitor
    plot_trials(trials, monitor, f"{args.dataset}, {Path(args.recipe).stem}: {recipe.tuner.strategy}", plot)
    if args.json:
        answer = {"best": trials[0].to_json(), "trials": [trial.to_json() for trial in trials]}
        print(json.dumps({"monitor": monitor, **answer, "plot": str(plot)}, indent=2))
    else:
        _print_table(trials, recipe)
        settings = " ".join(f"--set '{key}={_toml(value)}'" for key, value in trials[0].settings.items())
        print(f"best: {settings}")
        print("a run that searches (cached by now), trains with the best, and pushes: add --set tune=true to `run`")
    print(f"plot: {plot}", file=sys.stderr)
    return 0


def _print_table(trials: Sequence[TrialResult], recipe: Recipe) -> None:
    from rich.table import Table

    from mnist_tfx.components.tuner.results import settings_of_any, short
    from mnist_tfx.pipeline.runs.views import stdout_console

    table = Table(title=f"{len(trials)} trials, the best first", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column(recipe.training.monitor, justify="right")
    table.add_column("epochs", justify="right")
    keys = settings_of_any(trials)
    for key in keys:
        table.add_column(key, justify="right")
    for trial in trials:
        values = [short(trial.settings[key]) if key in trial.settings else "" for key in keys]
        table.add_row(str(trial.number), f"{trial.score:.4f}", str(trial.epochs or recipe.tuner.max_epochs), *values)
    stdout_console(_PIPED_COLUMNS).print(table)


def _toml(value: Any) -> str:
    """As `--set` takes it: text without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
