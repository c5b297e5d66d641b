"""`mnist-tfx runs`: past runs, the newest first."""

from __future__ import annotations

import argparse
import json
from shlex import quote

from mnist_tfx.pipeline.home import Home

SUMMARY = "List past runs with their verdicts."
EXAMPLE = "mnist-tfx runs --dataset mnist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--dataset", metavar="NAME", help="only runs of this dataset")
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints a table, or a JSON list, to standard output."""
    from mnist_tfx.pipeline.runs.store import list_runs
    from mnist_tfx.pipeline.runs.views import run_json, runs_table, stdout_console

    home = Home.resolve(args.home)
    runs = [run for run in list_runs(home.metadata_db) if args.dataset in (None, run.dataset)]
    if args.json:
        print(json.dumps([run_json(run) for run in runs], indent=2))
    elif runs:
        stdout_console().print(runs_table(runs))
    else:
        of_it = f" of {args.dataset}" if args.dataset else ""
        option = f"--dataset {args.dataset or 'mnist'}"
        if args.project:
            option = f"--project {quote(str(args.project.schema_file.parent))}"
        print(f"No run{of_it} in {home.root} yet. Make one: mnist-tfx run {option}")
    return 0
