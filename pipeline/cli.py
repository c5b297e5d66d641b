"""The console script `mnist-tfx`: finds the subcommand's module, runs it, and turns errors into exit codes.

Nothing here or at the top of a command's module imports TensorFlow or TFX, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from components.errors import PipelineError

# Each is a module of pipeline.commands with SUMMARY, EXAMPLE, add_arguments(parser) and run(args) -> exit code.
COMMANDS = (
    "doctor",
    "data",
    "run",
    "recipes",
    "lr-find",
    "tune",
    "runs",
    "show",
    "report",
    "compile",
    "submit",
    "schedule",
    "predict",
    "wait",
    "bench",
    "status",
    "rollback",
    "canary",
    "promote",
    "serve",
)

_EXIT_CODES = (
    "exit codes: 0 success, 1 failed run, 2 wrong usage, 3 data rejected, 4 model not good enough to push, 130 stopped"
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="mnist-tfx",
        description="Train, validate and push image classifiers with TFX.",
        epilog=f"example: mnist-tfx run --dataset mnist\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"pipeline.commands.{name.replace('-', '_')}")
        subparser = subparsers.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=f"example: {module.EXAMPLE}\n\n{_EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        sys.stderr.close()
        return 0
