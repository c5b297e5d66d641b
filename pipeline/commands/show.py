"""`mnist-tfx show`: one run with its lineage, parameters and timings."""

from __future__ import annotations

import argparse
import json

from mnist_tfx.pipeline.home import Home

SUMMARY = "Show one run: its executions, artifacts and parameters, and why it failed."
EXAMPLE = "mnist-tfx show latest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "run_id", metavar="RUN", help="a run id as `mnist-tfx runs` lists it, its beginning, or 'latest'"
    )
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints tables, or a JSON object, to standard output."""
    from mnist_tfx.pipeline.runs.store import load_run
    from mnist_tfx.pipeline.runs.views import run_page, run_page_json, stdout_console

    shown = load_run(Home.resolve(args.home).metadata_db, args.run_id)
    if args.json:
        print(json.dumps(run_page_json(shown), indent=2))
    else:
        stdout_console().print(run_page(shown))
    return 0
