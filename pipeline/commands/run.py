"""`mnist-tfx run`: the pipeline on this machine."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from mnist_tfx.pipeline.commands.options.recipe import add_recipe_arguments
from mnist_tfx.pipeline.running.home import Home

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.prepared import PreparedDataset
    from mnist_tfx.pipeline.outcome import Outcome
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
    parser.add_argument("--no-cache", action="store_true", help="run every component, even where its answer is known")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs each dataset in turn; a rejected one does not keep the others from running."""
    from mnist_tfx.components.datasets.sources import require_sources
    from mnist_tfx.pipeline.metadata_store import open_store
    from mnist_tfx.pipeline.outcome_report import report_outcomes
    from mnist_tfx.pipeline.partial_run import prepare_dataset
    from mnist_tfx.pipeline.recipes import MAIN_DATASETS, load_recipe

    datasets = MAIN_DATASETS if args.dataset == "all" else (args.dataset,)
    recipes = [load_recipe(dataset, args.recipe, [*_PUSH.get(args.push, ()), *args.set]) for dataset in datasets]
    home = Home.resolve(args.home)
    home.prepare()
    require_sources([(recipe.data.dataset, recipe.data.version) for recipe in recipes], home.datasets)
    with home.lock():
        open_store(home.metadata_db)  # a damaged one is known before anything is fetched
        # All data first: what cannot be had is known before the first model is trained.
        prepared = [(recipe, prepare_dataset(recipe, home)) for recipe in recipes]
        outcomes = [_run_one(recipe, data, home, enable_cache=not args.no_cache) for recipe, data in prepared]
    logs = {outcome.dataset: home.log(outcome.dataset, outcome.run) for outcome in outcomes}
    return report_outcomes(outcomes, logs, as_json=args.json)


def _run_one(recipe: Recipe, dataset: PreparedDataset, home: Home, *, enable_cache: bool) -> Outcome:
    from mnist_tfx.pipeline.run_id import claim_run_id
    from mnist_tfx.pipeline.running.loading import collector_paused
    from mnist_tfx.pipeline.running.log_capture import output_to

    run_id = claim_run_id(home.runs(dataset.name), dataset.name)
    log_file = home.log(dataset.name, run_id)
    with output_to(log_file):  # TensorFlow and TFX are chatty from their import on
        with collector_paused():
            from mnist_tfx.pipeline.local_run import plan_run

        planned = plan_run(recipe, dataset, home, run_id, log_file, enable_cache=enable_cache)
    outcome = planned.execute()
    with output_to(log_file):
        from mnist_tfx.pipeline.run_report import leave_report

        report = leave_report(home, run_id)
    return replace(outcome, report=str(report) if report else None)
