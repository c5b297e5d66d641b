"""`mnist-tfx recipes`: the recipes and their settings."""

from __future__ import annotations

import argparse
import json
import sys

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.options.project import project_of

SUMMARY = "the recipes and their settings"
EXAMPLE = "mnist-tfx recipes --dataset mnist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--dataset", help="only the recipes of this dataset")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints every recipe: its header, and its settings with the defaults filled in, as `--set` takes them."""
    from mnist_tfx.pipeline.projects import shipped, shipped_datasets
    from mnist_tfx.pipeline.recipes import flatten, load_recipe

    if args.project or args.dataset:
        projects = [project_of(args)]
    else:
        projects = [shipped(dataset) for dataset in shipped_datasets()]
    loaded = []
    for project in projects:
        for name, path in project.recipes.items():
            try:
                loaded.append((project.dataset, name, path, load_recipe(project, name)))
            except UsageError as error:
                if name == "default":
                    raise
                print(f"note: left out, it is no recipe: {error}", file=sys.stderr)  # a profile, perhaps
    if args.json:
        print(
            json.dumps(
                [
                    {"dataset": dataset, "name": name, "file": str(path), "settings": recipe.model_dump(mode="json")}
                    for dataset, name, path, recipe in loaded
                ],
                indent=2,
            )
        )
        return 0
    for dataset, name, path, recipe in loaded:
        print(f"{dataset} / {name}")
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            if not line.startswith("#"):
                break
            print(f"  {line.removeprefix('#').strip()}")
        for key, value in flatten(recipe).items():
            print(f"    {key} = {json.dumps(value)}")
        print()
    return 0
