"""`mnist-tfx schema`: what the data as they are now would change in a project's curated schema."""

from __future__ import annotations

import argparse
import json

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.recipe import add_recipe_arguments
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.projects import KEPT

SUMMARY = "what the data would change in the curated schema; change it"
EXAMPLE = "mnist-tfx schema diff --project flowers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verbs and their options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, words in (
        ("diff", "print what a schema made of the data as they are now says otherwise; change nothing"),
        ("update", f"put that schema in the place of the curated one, which is kept as schema.pbtxt{KEPT}"),
    ):
        subparser = verbs.add_parser(verb, help=words, description=words.capitalize() + ".")
        add_recipe_arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the differences, field by field, and writes the file if told to."""
    from mnist_tfx.pipeline.init_project import propose_for
    from mnist_tfx.pipeline.recipes import load_recipe

    project = project_of(args)
    if args.verb == "update" and project.home is None:
        raise UsageError("the shipped schemas are edited by hand: `schema update` is for projects of your own.")
    recipe, home = load_recipe(project, args.recipe, args.set), Home.resolve(args.home)
    home.prepare()
    before = project.curated_schema()
    after, _ = propose_for(recipe, home)
    from mnist_tfx.components.schema.proposal import schema_differences

    try:
        differences = schema_differences(before, after)
    except ValueError as error:
        raise UsageError(f"{project.schema_file}: {error}") from error
    written = args.verb == "update" and bool(differences)
    if written:
        project.schema_file.with_name(project.schema_file.name + KEPT).write_text(before, encoding="utf-8")
        project.schema_file.write_text(after, encoding="utf-8")
    if args.json:
        print(
            json.dumps({"schema": str(project.schema_file), "differences": differences, "written": written}, indent=2)
        )
        return 0
    print("\n".join(differences) or f"{project.schema_file} says what the data say")
    if written:
        print(f"wrote {project.schema_file}; what it was is in {project.schema_file.name}{KEPT}")
    elif differences:
        remedy = "`mnist-tfx schema update` takes these over" if project.home else "a shipped schema is edited by hand"
        print(f"nothing was changed; {remedy}")
    return 0
