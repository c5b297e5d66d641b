"""The console script `mnist-tfx`: finds the subcommand's module, runs it, and turns errors into exit codes.

Nothing here or at the top of a command's module imports TensorFlow or TFX, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mnist_tfx.components.disk import disk_error
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.commands.options.project import add_project_argument, choose_project
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Each is a module of pipeline.commands with SUMMARY, EXAMPLE, add_arguments(parser) and run(args) -> exit code.
COMMANDS = (
    "doctor",
    "init",
    "data",
    "feedback",
    "schema",
    "run",
    "recipes",
    "lr-find",
    "tune",
    "runs",
    "show",
    "report",
    "tensorboard",
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
    "prune",
    "serve",
    "monitor",
)

_WRONG_PLACES = {
    PermissionError: "no permission for {}. Name another place, or change its owner or mode.",
    IsADirectoryError: "{} is a folder, where a file is to be. Name another place.",
    FileExistsError: "{} is there already, where a folder is to be made. Name another place.",
    NotADirectoryError: "{} cannot be: a folder on the way to it is a file. Name another place.",
}
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
        module = importlib.import_module(f"mnist_tfx.pipeline.commands.{name.replace('-', '_')}")
        subparser = subparsers.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=f"example: {module.EXAMPLE}\n\n{_EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        if name != "init":  # which makes one
            add_project_argument(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    _open_closed_streams()
    args = build_parser().parse_args(argv)
    code = 0
    try:
        choose_project(args)
        with _checked_output():
            code = int(args.run(args))
        return code
    except PipelineError as error:
        return _failed(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        sys.stderr.close()
        return code  # which a command that had come to its end has told
    except Exception as error:
        homes = [Home.resolve(args.home).root] if hasattr(args, "home") else []
        refused = disk_error(error, *homes) or _wrong_place(error)
        if refused is None:
            raise
        return _failed(refused)


def _open_closed_streams() -> None:
    """Leads a standard stream that the caller closed (`>&-`) to the null device.

    Python has None in its place, and the next file to be opened would get its number.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            os.set_inheritable(number, True)
            if null != number:
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _failed(error: PipelineError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _wrong_place(error: Exception) -> PipelineError | None:
    for kind, words in _WRONG_PLACES.items():
        if isinstance(error, kind) and error.filename is not None:
            return PipelineError(words.format(error.filename))
    return None


class _Output(io.FileIO):
    """Standard output, of which an error is told like others: Python would do so at exit, with exit code 120."""

    def write(self, content: ReadableBuffer) -> int:
        """Raises a PipelineError, except where the reader went away."""
        try:
            return super().write(content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise PipelineError(f"cannot write to standard output: {error.strerror}.") from error


@contextmanager
def _checked_output() -> Iterator[None]:
    """Inside, standard output is an `_Output`.

    It takes all text, for a locale may know neither the lines of a table nor every name.
    """
    before = sys.stdout
    try:
        descriptor = before.fileno()
    except (io.UnsupportedOperation, AttributeError):  # a test, or a notebook, has put something else there
        yield
        return
    output = io.BufferedWriter(_Output(descriptor, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(output, before.encoding, "backslashreplace", line_buffering=before.isatty())
    try:
        yield
        sys.stdout.flush()
    finally:
        checked, sys.stdout = sys.stdout, before
        with suppress(PipelineError, OSError):  # what could not be written is given up
            checked.close()
