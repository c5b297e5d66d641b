"""Compiles a recipe into a `Job`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kubeflow.ir import read_content
from kubeflow.profiles import Profile
from kubeflow.remote.platform import Job
from pipeline.recipes import Recipe
from pipeline.running.home import Home
from pipeline.running.log_capture import output_to

if TYPE_CHECKING:
    from kubeflow.compile import Upload


@contextmanager
def compiled_job(
    dataset: str, recipe_name: str, recipe: Recipe, profile: Profile, home: Home
) -> Iterator[tuple[Job, list[Upload]]]:
    """The pipeline, compiled and checked, and what must lie in the bucket; the file lasts as long as the context.

    Raises:
        UsageError: a setting does not fit the target.
        NotPrepared: the dataset is not prepared in `home`.
        BrokenRules: the compiled pipeline would not run at its target.
    """
    with TemporaryDirectory(prefix="mnist-tfx-") as folder:
        file = Path(folder) / ("pipeline.json" if profile.target == "vertex" else "pipeline.yaml")
        with output_to(Path(folder) / "compile.log"):  # TensorFlow and TFX are chatty from their import on
            from components.datasets.prepared import load_prepared
            from kubeflow.compile import compile_prepared, uploads

            prepared = load_prepared(dataset, recipe.data.version, home.datasets)
            compile_prepared(prepared, recipe, profile, file)
            needed = uploads(prepared, profile)
        yield read_job(file, dataset, plain_name(recipe_name)), needed


def read_job(file: Path, dataset: str, recipe: str) -> Job:
    """A file that was compiled here, of either kind."""
    content = read_content(file)
    spec = content.get("pipelineSpec", content)
    return Job(dataset, recipe, file, spec["pipelineInfo"]["name"], spec, root=spec["defaultPipelineRoot"])


def plain_name(recipe_name: str) -> str:
    """A recipe's name as labels and schedules take it: of a file, its stem."""
    return re.sub(r"[^a-z0-9]+", "-", Path(recipe_name).stem.lower()).strip("-") or "recipe"
