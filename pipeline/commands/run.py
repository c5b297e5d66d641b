"""`mnist-tfx run`: the pipeline on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.recipe import add_recipe_arguments
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from mnist_tfx.components.report.run import Run
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
    from mnist_tfx.pipeline.runs.seeds import compare_seeds, each_seed
    from mnist_tfx.pipeline.runs.views import tell_runs

    seeds = each_seed(args.seeds, args.set)
    everything = args.dataset == "all" and args.project is None  # whose name may be all
    projects = [shipped(dataset) for dataset in MAIN_DATASETS] if everything else [project_of(args)]
    settings = [*_PUSH.get(args.push, ()), *args.set]
    recipes = [load_recipe(project, args.recipe, [*settings, *seed]) for project in projects for seed in seeds]
    home = Home.resolve(args.home)
    home.prepare()
    fetched = [recipe.data for recipe in recipes if not (recipe.data.images or recipe.data.data_dir)]
    require_sources([(data.dataset, data.version) for data in fetched], home.datasets)
    unknown = 0
    if args.after_drift:
        recipes, unknown = _drifting(recipes, home)
        if not recipes:
            if args.json:
                tell_runs([], as_json=True, seeds=[] if args.seeds else None)
            return unknown
    runs = _run_each(recipes, home, args)
    return tell_runs(runs, as_json=args.json, seeds=compare_seeds(home, runs) if args.seeds else None) or unknown


def _run_each(recipes: Sequence[Recipe], home: Home, args: argparse.Namespace) -> list[Run]:
    """Runs them in turn. Where a later one is stopped, those before it are told: what they pushed is live."""
    from mnist_tfx.pipeline.run_recipe import run_whole
    from mnist_tfx.pipeline.runs.tracking import Tracking
    from mnist_tfx.pipeline.runs.views import tell_runs

    tracking = Tracking(args.mlflow, home) if args.mlflow is not None else None
    runs: list[Run] = []
    try:
        with home.lock():
            for each in run_whole(recipes, home, enable_cache=not args.no_cache):
                runs.append(each)
                if tracking:
                    tracking.leave(each)
    except BaseException:
        if runs:
            tell_runs(runs, as_json=args.json, seeds=[] if args.seeds else None)
        raise
    return runs


def _drifting(recipes: Sequence[Recipe], home: Home) -> tuple[list[Recipe], int]:
    """Those of the datasets of which monitoring sees drift, each looked at once; it is told on standard error.

    Returns:
        The recipes, and the exit code of what kept it from looking at a dataset; 0 where it looked at all.
    """
    from mnist_tfx.pipeline.commands.monitor import watcher

    drifts: dict[str, bool] = {}
    code = 0
    for dataset, recipe in {recipe.data.dataset: recipe for recipe in recipes}.items():
        try:
            report = watcher(recipe, home)()
        except PipelineError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
            continue
        drifts[dataset] = report.drifts
        print(f"{report.sentence()}{'' if report.drifts else '; nothing was run'}", file=sys.stderr)
    return [recipe for recipe in recipes if drifts.get(recipe.data.dataset)], code
