"""`mnist-tfx feedback`: logged requests get labels, and become a span of the data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from shlex import quote

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.data import tell_span
from mnist_tfx.pipeline.commands.monitor import add_logs_argument, log_prefix
from mnist_tfx.pipeline.commands.options.project import project_of_model
from mnist_tfx.pipeline.commands.options.server import positive
from mnist_tfx.pipeline.home import Home

SUMMARY = "Label logged requests, and add them to the data as a span."
EXAMPLE = "mnist-tfx feedback mnist --export to-label"
_LIMIT = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("model", metavar="MODEL", help="the model's name, which is its dataset's")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--export",
        metavar="DIR",
        type=Path,
        help="write the images that the model was least certain of, and labels.csv, to be filled in",
    )
    what.add_argument("--labels", metavar="FILE", type=Path, help="add the images with a label in this file as a span")
    add_logs_argument(parser)
    parser.add_argument(
        "--limit", type=positive(int), metavar="N", help=f"with --export: at most so many (default: {_LIMIT})"
    )
    parser.add_argument(
        "--test", action="store_true", help="with --labels: a tenth goes to split test (default: none does)"
    )
    parser.add_argument("--recipe", default="default", help="whose image size counts (default: %(default)s)")
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Exports, or adds."""
    from mnist_tfx.pipeline.feedback import LABELS, add_feedback, export_logged
    from mnist_tfx.pipeline.recipes import load_recipe

    if args.labels and args.limit is not None:
        raise UsageError("--limit goes with --export DIR.")
    if args.export and args.test:
        raise UsageError("--test goes with --labels FILE.")
    recipe, home = load_recipe(project_of_model(args), args.recipe), Home.resolve(args.home)
    prefix = log_prefix(args.logs, recipe, home, args.model)
    if args.labels:
        home.prepare()
        tell_span(
            recipe.data.dataset,
            *add_feedback(recipe, home, args.labels, prefix, with_test=args.test),
            as_json=args.json,
        )
        return 0
    written, found = export_logged(prefix, args.model, recipe.data.image_shape, args.export, args.limit or _LIMIT)
    if args.json:
        print(json.dumps({"file": str(args.export / LABELS), "written": written, "found": found}, indent=2))
    else:
        print(f"{written:,} of {found:,} logged images in {args.export}; fill in the column label of {LABELS}, then:")
        print(f"mnist-tfx feedback {args.model} --labels {quote(str(args.export / LABELS))}")
    return 0
