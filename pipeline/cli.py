"""The console script `mnist-tfx`: finds the subcommand's module, runs it, and turns errors into exit codes.

Nothing here or at the top of a command's module imports TensorFlow or TFX, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from components.disk import disk_error
from components.errors import PipelineError
from pipeline.home import Home

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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the locale may know neither the table's lines nor every name
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()  # at exit, an error would be told in Python's words, with exit code 120
        return code
    except PipelineError as error:
        return _failed(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        _give_up(sys.stdout, sys.stderr)
        return 0
    except Exception as error:
        refused = _unwritable_output() or disk_error(error, *_home_of(args)) or _forbidden(error)
        if refused is None:
            raise
        return _failed(refused)


def _failed(error: PipelineError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _home_of(args: argparse.Namespace) -> list[Path]:
    return [Home.resolve(args.home).root] if hasattr(args, "home") else []


def _forbidden(error: Exception) -> PipelineError | None:
    if not isinstance(error, PermissionError) or error.filename is None:
        return None
    return PipelineError(
        f"no permission for {error.filename}. Take another folder or file, or change its owner or mode."
    )


def _unwritable_output() -> PipelineError | None:
    """The error where standard output cannot be written to; what waits to be written there is given up."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _give_up(sys.stdout)
        return PipelineError(f"cannot write to standard output: {error.strerror}.")
    return None


def _give_up(*streams: TextIO) -> None:
    """Keeps Python from writing once more at exit, which would end in exit code 120."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(null, stream.fileno())
    os.close(null)
