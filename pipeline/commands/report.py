"""`mnist-tfx report`: what a run did, as one HTML file or as a model card."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.pipeline.home import Home

SUMMARY = "Make the HTML report of a run, or of several runs beside each other; or the model card of a run."
EXAMPLE = "mnist-tfx report latest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "run_id",
        metavar="RUN",
        nargs="?",
        help="a run id as `mnist-tfx runs` lists it, its beginning, or 'latest'",
    )
    parser.add_argument("--compare", nargs="+", metavar="RUN", help="two or more runs of one dataset")
    parser.add_argument("--card", action="store_true", help="print the model card of the run, in Markdown, instead")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write it there (default: HOME/reports/...; a card: stdout)"
    )
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the path of the file, a JSON object, or the card, to standard output."""
    from mnist_tfx.pipeline.log_capture import output_to
    from mnist_tfx.pipeline.running.loading import collector_paused
    from mnist_tfx.pipeline.runs.store import LATEST, list_runs, load_run

    home = Home.resolve(args.home)
    if args.card and args.compare is None and args.run_id is None:  # the newest with a model that was judged
        judged = (run.run_id for run in list_runs(home.metadata_db) if run.artifact("Evaluator", "evaluation"))
        args.run_id = next(judged, LATEST)
    if (args.run_id is None) == (args.compare is None) or len(args.compare or "of one") < 2:
        raise UsageError("name one run, or two with --compare, or more. `mnist-tfx runs` lists them.")
    if args.card and (args.compare or args.json):
        raise UsageError("--card is the card of one run, in Markdown: leave out --compare and --json.")
    output = args.output.resolve() if args.output else None
    if output is not None and output.is_dir():
        raise UsageError(f"{output} is a folder: name a file to write the report to.")
    # Before TensorFlow is loaded, so that a wrong name is known at once.
    runs = [load_run(home.metadata_db, named) for named in args.compare or [args.run_id]]
    log = home.reports / "report.log"
    try:
        with output_to(log):
            with collector_paused():
                from mnist_tfx.pipeline.runs.report import write_card, write_comparison, write_report

            if args.card:
                card = write_card(runs[0], output)
                told = {"report": output or card.rstrip("\n")}
            elif args.compare:
                told = write_comparison(home, runs, output)
            else:
                told = write_report(home, runs[0], output)
    except OSError as error:
        raise PipelineError(f"cannot write to {home.reports}: {error.strerror}.") from error
    print(json.dumps(told, indent=2) if args.json else told["report"])
    return 0
