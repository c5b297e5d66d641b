"""Options that the commands for Vertex AI and Kubeflow share, and what they stand for. Imports no TensorFlow."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import TARGETS
from mnist_tfx.pipeline.commands.options.recipe import add_recipe_arguments
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.log_capture import output_to

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.prepared import PreparedDataset
    from mnist_tfx.kubeflow.compile import Upload
    from mnist_tfx.kubeflow.profiles import Profile
    from mnist_tfx.kubeflow.remote.platform import Job, Platform
    from mnist_tfx.pipeline.recipes import Recipe


def add_target_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Where to: the target and its profile."""
    parser.add_argument("--target", required=required, choices=TARGETS, help="Vertex AI or Kubeflow Pipelines")
    parser.add_argument("--profile", required=required, help="a shipped profile's name, or a .toml file")
    parser.add_argument(
        "--profile-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the profile; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """How the platform is asked."""
    parser.add_argument(
        "--request-timeout",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="for each single request (default: %(default)g)",
    )


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """What: dataset and recipe."""
    add_recipe_arguments(
        parser,
        dataset="a prepared dataset that has recipes",
        home="where the data are prepared",
    )
    parser.add_argument(
        "--pipeline",
        choices=("train", "monitor"),
        default="train",
        help="monitor: the one that looks at the request logs, and fails on drift (default: %(default)s)",
    )


def read_profile(args: argparse.Namespace) -> Profile:
    """The profile of `--profile` and `--profile-set`.

    Raises:
        UsageError: it is not for `--target`, or does not fit.
    """
    from mnist_tfx.kubeflow.profiles import load_profile

    profile = load_profile(args.profile, args.profile_set)
    if profile.target != args.target:
        raise UsageError(f"profile {args.profile} is for {profile.target}, not for {args.target}.")
    return profile


def compile_into(
    file: Path, args: argparse.Namespace, recipe: Recipe, profile: Profile
) -> tuple[PreparedDataset, list[Upload]]:
    """Compiles the pipeline and checks it; returns its dataset, and what must lie in the bucket.

    Raises:
        UsageError: a setting, or the file's ending, does not fit the target.
        NotPrepared: the dataset is not prepared in the home.
        BrokenRules: the compiled pipeline would not run at its target.
    """
    with output_to(Path(os.devnull)):  # TensorFlow and TFX are chatty from their import on
        from mnist_tfx.kubeflow.compile import check_ending, compile_prepared, uploads
        from mnist_tfx.pipeline.data import find_dataset

        check_ending(profile, file)
        dataset = find_dataset(recipe, Home.resolve(args.home))
        monitor = args.pipeline == "monitor"
        compile_prepared(dataset, recipe, profile, file, monitor=monitor)
        return dataset, uploads(dataset, recipe.project, profile, monitor=monitor)


@contextmanager
def compiled_job(args: argparse.Namespace, recipe: Recipe, profile: Profile) -> Iterator[Job]:
    """The pipeline, compiled and checked; the file lasts as long as the context. What must lie in the bucket is told.

    Raises what `compile_into` does.
    """
    from mnist_tfx.kubeflow.remote.platform import Job, plain_recipe_name

    with TemporaryDirectory(prefix="mnist-tfx-") as folder:
        file = Path(folder) / ("pipeline.json" if profile.target == "vertex" else "pipeline.yaml")
        dataset, needed = compile_into(file, args, recipe, profile)
        for upload in needed:
            print(f"needed in the bucket: {upload.command()}", file=sys.stderr)
        yield Job.read(file, dataset.name, plain_recipe_name(args.recipe))


def open_platform(profile: Profile, timeout_seconds: float) -> Platform:
    """The platform that a profile describes; no request is made yet.

    Raises:
        PipelineError: there are no credentials.
        UsageError: a file that the profile names cannot be read.
    """
    from mnist_tfx.kubeflow.profiles import VertexProfile

    if isinstance(profile, VertexProfile):
        from mnist_tfx.kubeflow.remote.vertex import VertexPlatform

        return VertexPlatform(profile, timeout_seconds)
    from mnist_tfx.kubeflow.remote.kfp import KubeflowPlatform

    return KubeflowPlatform(profile, timeout_seconds)


def seconds(text: str) -> float:
    """Parses an option: a number of seconds, above 0 and up to an hour."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to 3600")
    return value
