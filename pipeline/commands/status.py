"""`mnist-tfx status`: which versions there are, which one is live, and what a server says."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack

from mnist_tfx.contract.remedies import FIRST_RUN
from mnist_tfx.pipeline.commands.options.release import add_server_arguments, open_servers
from mnist_tfx.pipeline.home import Home

SUMMARY = "Show the versions of a model: which is live, its labels, the run that pushed it, and what a server says."
EXAMPLE = "mnist-tfx status mnist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model's name (default: all)")
    add_server_arguments(parser)
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints a table per model, or a JSON list. Works without a server, and says so."""
    from rich.text import Text

    from mnist_tfx.contract.versions import model_names
    from mnist_tfx.pipeline.commands.release_view import ServerAnswer, status_json, status_page
    from mnist_tfx.pipeline.runs.store import known_pushing_runs
    from mnist_tfx.pipeline.runs.views import stdout_console
    from mnist_tfx.serving.releases.state import read_state

    home = Home.resolve(args.home)
    models = model_names(home.serving_root) if args.model is None else [args.model]
    if not models and not args.json:
        print(f"No model in {home.serving_root} yet. {FIRST_RUN}")
        return 0
    runs = known_pushing_runs(home.metadata_db)
    console = stdout_console()
    pages = []
    for model in models:
        state = read_state(home.serving_root, model)
        with ExitStack() as stack:
            servers = open_servers(stack, args, model)
            answers = [ServerAnswer(one.address, one.states(), one.problem) for one in servers]
        if args.json:
            pages.append(status_json(state, runs, answers))
        else:
            console.print(status_page(state, runs, answers), Text(), sep="\n")
    if args.json:
        print(json.dumps(pages, indent=2))
    return 0
