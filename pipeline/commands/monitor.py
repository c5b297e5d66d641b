"""`mnist-tfx monitor`: what a model is asked against what it was trained on."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.contract.errors import DataRejected, UsageError
from mnist_tfx.contract.names import model_name
from mnist_tfx.pipeline.commands.options.project import project_of_model
from mnist_tfx.pipeline.commands.options.recipe import add_settings_arguments
from mnist_tfx.pipeline.commands.options.server import port, positive
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.text_files import replace_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from mnist_tfx.components.monitoring.watch import Report
    from mnist_tfx.pipeline.recipes import Recipe

SUMMARY = "compare what a model is asked, by its request logs, with what it was trained on"
EXAMPLE = "mnist-tfx monitor mnist --since 24h --page drift.html"

_EVERY = 300.0
_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}
_MOST_HOURS = 24 * 36525  # a century: Python's dates end somewhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.description = (
        f"{SUMMARY[0].upper()}{SUMMARY[1:]}: images, and the model's own answers, by version and by hour. The "
        "logs are those of `mnist-tfx serve --log-requests`, or any of TF Serving's PredictionLog records. Exit code "
        "0: in order, or too few requests to say; 3: drift. Bounds: [monitoring] of the recipe."
    )
    parser.add_argument("model", metavar="MODEL", help="the model's name, which is its dataset's")
    add_logs_argument(parser)
    parser.add_argument(
        "--since", type=_span, metavar="SPAN", help="how far back: 30m, 24h, 7d (default: monitoring.hours, 24)"
    )
    parser.add_argument("--version", type=int, metavar="N", help="this version only (default: all, each by itself)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page with the distributions, too")
    out = parser.add_mutually_exclusive_group()
    out.add_argument("--textfile", type=Path, metavar="FILE", help="write metrics for Prometheus' node exporter, too")
    out.add_argument(
        "--listen", type=port, metavar="PORT", help="go on, and answer Prometheus on this port of all IPv4 addresses"
    )
    parser.add_argument(
        "--every", type=positive(float), metavar="S", help=f"with --listen (default: {_EVERY:g} seconds)"
    )
    add_settings_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def add_logs_argument(parser: argparse.ArgumentParser) -> None:
    """Declares `--logs`, which `feedback` has too."""
    parser.add_argument("--logs", metavar="PREFIX", help="of the log files (default: HOME/requests/MODEL/requests)")


def log_prefix(named: str | None, recipe: Recipe, home: Home, model: str) -> str:
    """The prefix that `--logs` names, else the recipe, else that of `mnist-tfx serve --log-requests`."""
    return named or recipe.monitoring.logs or str(home.requests(model))


def run(args: argparse.Namespace) -> int:
    """Prints a table, or JSON; with `--listen` goes on until a signal."""
    from mnist_tfx.contract.versions import model_folder
    from mnist_tfx.pipeline.recipes import load_recipe

    if args.listen is not None and (args.page or args.json):
        raise UsageError("--page and --json are of one look: leave out --listen, which goes on.")
    if args.listen is None and args.every is not None:
        raise UsageError("--every goes with --listen PORT.")
    home = Home.resolve(args.home)
    model_folder(home.serving_root, args.model)  # a wrong name is told as a model's, not as a dataset's
    recipe = load_recipe(project_of_model(args), args.recipe, args.set)
    look = watcher(recipe, home, logs=args.logs, since=args.since, version=args.version)
    if args.listen is not None:
        from mnist_tfx.components.monitoring.prometheus import listen

        listen(look, args.listen, args.every or _EVERY)
        return 0
    report = look()
    if args.page:
        from mnist_tfx.components.report.page.monitoring import render_monitoring

        _write(args.page, render_monitoring(report))
    if args.textfile:
        from mnist_tfx.components.monitoring.prometheus import to_text

        _write(args.textfile, to_text(report))
    if args.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        from mnist_tfx.pipeline.commands.monitor_view import tell

        tell(report)
    return DataRejected.exit_code if report.drifts else 0


def watcher(
    recipe: Recipe, home: Home, *, logs: str | None = None, since: timedelta | None = None, version: int | None = None
) -> Callable[[], Report]:
    """What looks at the logs of a recipe's model, anew each time it is called; options as those of the command.

    Raises:
        UsageError: there is no such model, or no schema that can be read; in a look, no such version.
        PipelineError: there is no model at all; in a look, no log that can be read.
    """
    from mnist_tfx.contract.versions import model_folder
    from mnist_tfx.pipeline.log_capture import output_to

    model = model_name(recipe.data.dataset)
    serving = model_folder(home.serving_root, model)
    settings = recipe.monitoring.model_copy(update={"logs": log_prefix(logs, recipe, home, model)})
    schema = recipe.project.curated_schema()
    span = since or timedelta(hours=settings.hours)

    def look() -> Report:
        with output_to(home.cache("monitor") / "monitor.log"):  # TensorFlow and TFDV are chatty
            from google.protobuf import text_format
            from tensorflow_metadata.proto.v0 import schema_pb2

            from mnist_tfx.components.monitoring.watch import watch

            try:
                parsed = text_format.Parse(schema, schema_pb2.Schema())
            except text_format.ParseError as error:
                raise UsageError(f"{recipe.project.schema_file}: {error}") from error
            return watch(
                model,
                str(serving),
                parsed,
                settings,
                since=datetime.now(UTC) - span,
                version=version,
                any_size=recipe.data.resize is not None,
            )

    return look


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    hours = float(found[1]) * _HOURS[found[2]] if found else 0.0
    if not 0 < hours <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time, such as 30m, 24h or 7d")
    return timedelta(hours=hours)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: Prometheus may read at any time."""
    try:
        replace_text(path, text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}.") from error
    print(f"wrote {path}", file=sys.stderr)
