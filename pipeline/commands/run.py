"""`mnist-tfx run`: the pipeline on this machine."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.recipe import add_recipe_arguments
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from mnist_tfx.pipeline.recipes import Recipe

# What --push and --no-push set; --set comes after them.
_PUSH = {
    True: ("push.enabled=true", "evaluation.baseline=served"),
    False: ("push.enabled=false", "push.reason=--no-push"),
}

SUMMARY = "run the pipeline on this machine: data, training, validation, push"
EXAMPLE = "mnist-tfx run --dataset mnist --set training.epochs=5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_recipe_arguments(parser, dataset="a dataset that has recipes, or 'all': fashion_mnist and mnist")
    parser.add_argument(
        "--push",
        action=argparse.BooleanOptionalAction,
        help="push the model if it is good enough and not worse than the live one, also where the recipe is a study; "
        "or push nothing (default: as the recipe says)",
    )
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        help="run it N times, with training.seed 0 to N-1, and compare; each is judged, and pushed, like any run",
    )
    parser.add_argument(
        "--after-drift",
        action="store_true",
        help="only where `mnist-tfx monitor` sees drift in what the model is asked; else say so, and exit 0",
    )
    parser.add_argument("--no-cache", action="store_true", help="run every component, even where its answer is known")
    parser.add_argument(
        "--mlflow",
        metavar="URI",
        nargs="?",
        const="",
        help="record the run in MLflow, too (default: MLFLOW_TRACKING_URI, else HOME/mlflow.db)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs each dataset, with each seed, in turn; a rejected run does not keep the others from running."""
    from mnist_tfx.components.datasets.sources import require_sources
    from mnist_tfx.pipeline.projects import MAIN_DATASETS, shipped
    from mnist_tfx.pipeline.recipes import load_recipe
    from mnist_tfx.pipeline.run_recipe import run_whole
    from mnist_tfx.pipeline.runs.seeds import compare_seeds, each_seed
    from mnist_tfx.pipeline.runs.tracking import Tracking
    from mnist_tfx.pipeline.runs.views import tell_runs

    seeds = each_seed(args.seeds, args.set)
    projects = [shipped(dataset) for dataset in MAIN_DATASETS] if args.dataset == "all" else [project_of(args)]
    settings = [*_PUSH.get(args.push, ()), *args.set]
    recipes = [load_recipe(project, args.recipe, [*settings, *seed]) for project in projects for seed in seeds]
    home = Home.resolve(args.home)
    home.prepare()
    fetched = [recipe.data for recipe in recipes if not (recipe.data.images or recipe.data.data_dir)]
    require_sources([(data.dataset, data.version) for data in fetched], home.datasets)
    if args.after_drift:
        recipes = [recipe for recipe in recipes if _drifts(recipe, home)]
        if not recipes:
            if args.json:
                print("[]")
            return 0
    tracking = Tracking(args.mlflow, home) if args.mlflow is not None else None
    with home.lock():
        runs = run_whole(recipes, home, enable_cache=not args.no_cache)
    if tracking:
        for each in runs:
            tracking.leave(each)
    return tell_runs(runs, as_json=args.json, seeds=compare_seeds(home, runs) if args.seeds else ())


def _drifts(recipe: Recipe, home: Home) -> bool:
    """What monitoring says, which is told on standard error."""
    from mnist_tfx.pipeline.commands.monitor import watcher

    report = watcher(recipe, home)()
    print(f"{report.sentence()}{'' if report.drifts else '; nothing was run'}", file=sys.stderr)
    return report.drifts
