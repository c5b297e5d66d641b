"""`--project DIR`, which every command but `init` takes: a dataset and a home of one's own. Imports no TensorFlow."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.projects import Project, is_project, project_in, shipped


def add_project_argument(parser: argparse.ArgumentParser) -> None:
    """Declares it, for each of the parser's verbs where it has any."""
    verbs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for verb in {id(each): each for action in verbs for each in action.choices.values()}.values():
        add_project_argument(verb)
    if not verbs:
        parser.add_argument(
            "--project",
            metavar="DIR",
            help="a project of your own, as `init` makes it (default: the current folder, if it is one)",
        )


def choose_project(args: argparse.Namespace) -> None:
    """Puts the chosen `Project`, or None, in the place of the option, and what follows from it into other options.

    Raises:
        UsageError: the folder is no project, or holds another dataset than the one that is named.
    """
    named = getattr(args, "project", None)
    dataset = getattr(args, "dataset", None)
    # `predict flowers` beside the folder flowers means that project, as `--project flowers` does.
    places = [Path.cwd(), *([Path(args.model)] if isinstance(getattr(args, "model", None), str) else [])]
    folder = Path(named) if named else next(filter(is_project, places), None)
    args.project = None
    if folder is None:
        return
    try:
        project = project_in(folder)
        if dataset not in (None, project.dataset, project.model):
            raise UsageError(
                f"project {folder} holds dataset {project.dataset!r}, not {dataset!r}: leave --dataset out."
            )
    except UsageError:
        if dataset and not named:  # a shipped one is meant
            return
        raise
    args.project = project
    if hasattr(args, "dataset"):
        args.dataset = project.model
    if hasattr(args, "home") and args.home is None and not os.environ.get("MNIST_TFX_HOME"):
        args.home = str(project.home)


def project_of(args: argparse.Namespace) -> Project:
    """The project of a command that needs one: that of `--project`, or the shipped one of `--dataset`.

    Raises:
        UsageError: neither is given, or there is no such shipped one.
    """
    if args.project is not None:
        return args.project  # type: ignore[no-any-return]
    if args.dataset is None:
        raise UsageError("name a dataset: --dataset NAME; or a project of your own: --project DIR.")
    return shipped(args.dataset)


def project_of_model(args: argparse.Namespace) -> Project:
    """The project whose model MODEL is: that of `--project`, or the shipped one of this name.

    Raises:
        UsageError: the project's model is another one, or there is no such shipped one.
    """
    project: Project = args.project or shipped(args.model)
    if project.model != args.model:
        raise UsageError(f"the project's model is {project.model!r}, not {args.model!r}.")
    return project
