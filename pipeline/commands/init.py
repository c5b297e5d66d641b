"""`mnist-tfx init`: a project of one's own, from image files or a TFDS dataset."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from shlex import quote

from mnist_tfx.components.settings import DataSettings
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import model_name
from mnist_tfx.pipeline.commands.options.server import positive

SUMMARY = "make a project of your own: data prepared, a recipe and a schema to look at"
EXAMPLE = "mnist-tfx init flowers --images ~/pictures/flowers"
_MAX_UNREADABLE = DataSettings.model_fields["max_unreadable"].default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "name", metavar="NAME", help="the project's folder, which is made; with --images, its name is the model's"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="image files in folders by class, or in folders train, val and test with such folders; whatever is added, "
        "renamed or moved later, also from test to train, an image stays in the split it was first in",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        type=Path,
        help="columns file and label (and split) say the classes; files are named from --images (default: its folder)",
    )
    parser.add_argument(
        "--tfds",
        metavar="NAME[:VERSION]",
        default="",
        help="instead of --images: a TFDS dataset; or a builder of your own, package.module:Class or file.py:Class",
    )
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="with --tfds: the data_dir where it lies prepared")
    parser.add_argument(
        "--size",
        nargs=2,
        type=positive(int),
        metavar=("H", "W"),
        help="height and width that all images are fitted to (default: their own, or 64 64 where they differ)",
    )
    parser.add_argument(
        "--max-unreadable",
        type=float,
        metavar="SHARE",
        help=f"with --images: the share of files that may be damaged (default: {_MAX_UNREADABLE:g})",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Makes the project, and says what to look at and what comes next."""
    from mnist_tfx.pipeline.init_project import DataSource, init_project
    from mnist_tfx.pipeline.projects import RECIPE, SCHEMA

    images = args.csv.parent if args.csv and not (args.images or args.tfds) else args.images
    if bool(images) == bool(args.tfds):
        raise UsageError(f"init needs --images DIR or --tfds NAME. Example: {EXAMPLE}")
    if args.csv and not images:
        raise UsageError("--csv goes with --images DIR, the folder from which its files are named.")
    if args.max_unreadable is not None and not images:
        raise UsageError("--max-unreadable goes with --images DIR.")
    max_unreadable = _MAX_UNREADABLE if args.max_unreadable is None else args.max_unreadable
    if not 0.0 <= max_unreadable <= 1.0:
        raise UsageError(f"--max-unreadable {args.max_unreadable:g}: a share is between 0 and 1.")
    if args.data_dir and not args.tfds:
        raise UsageError("--data-dir goes with --tfds NAME.")
    folder = Path(args.name).expanduser()
    dataset, told = init_project(
        folder,
        DataSource(images, args.csv, max_unreadable, args.tfds, args.data_dir),
        size=tuple(args.size) if args.size else None,
    )
    if args.json:
        files = {"recipe": str(folder / RECIPE), "schema": str(folder / SCHEMA)}
        answer = {"project": str(folder), "model": model_name(dataset.name), "prepared": told, **files}
        print(json.dumps(answer, indent=2))
        return 0
    print(f"prepared {told}")
    print(f"wrote {folder / RECIPE}, {folder / SCHEMA}: look at them, they are what will be enforced")
    print(f"next: mnist-tfx run --project {quote(str(folder))}")
    return 0
