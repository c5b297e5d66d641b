"""`mnist-tfx tensorboard`: the logs that the Trainer wrote, in TensorBoard."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.remedies import FIRST_RUN
from mnist_tfx.pipeline.commands.options.server import port
from mnist_tfx.pipeline.home import Home

SUMMARY = "Open TensorBoard on the training logs of a run, or of all runs, also of one that is going on."
EXAMPLE = "mnist-tfx tensorboard latest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "run_id",
        metavar="RUN",
        nargs="?",
        help="as `mnist-tfx runs` lists it, its beginning, or 'latest' (default: all)",
    )
    parser.add_argument("--port", type=port, help="0: a free one (default: the first free one from 6006 on)")
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")


def run(args: argparse.Namespace) -> int:
    """Prints the address to standard output, and serves until it is stopped."""
    logs = _logs(Home.resolve(args.home), args.run_id)
    from tensorboard import program

    asked = [] if args.port is None else ["--port", str(args.port)]
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(logs), *asked])
    try:
        address = board.launch()
    except program.TensorBoardServerException as error:
        raise PipelineError(f"TensorBoard cannot listen: {error.msg} Name another one with --port.") from error
    print(address, flush=True)
    threading.Event().wait()
    return 0


def _logs(home: Home, run_id: str | None) -> Path:
    """The folder with the logs. A run that took its model from the cache has those of the run that trained it."""
    if run_id is None:
        if not home.root.joinpath("runs").is_dir():
            raise UsageError(f"there is no run in {home.root} yet. {FIRST_RUN}")
        return home.root / "runs"
    from mnist_tfx.pipeline.runs.store import load_run

    run = load_run(home.metadata_db, run_id)
    logs = run.artifact("Trainer", "model_run")
    return Path(logs.uri) if logs else home.runs(run.dataset) / run.run_id
