"""Compiles a recipe into a `Job`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.kubeflow.compile import Upload, compile_prepared, uploads
from mnist_tfx.kubeflow.ir import read_content
from mnist_tfx.kubeflow.profiles import Profile
from mnist_tfx.kubeflow.remote.platform import Job
from mnist_tfx.pipeline.recipes import Recipe

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.prepared import PreparedDataset


def compile_job(
    dataset: PreparedDataset, recipe_name: str, recipe: Recipe, profile: Profile, folder: Path
) -> tuple[Job, list[Upload]]:
    """The pipeline, compiled into `folder` and checked, and what must lie in the bucket.

    Raises:
        UsageError: a setting does not fit the target.
        BrokenRules: the compiled pipeline would not run at its target.
    """
    file = folder / ("pipeline.json" if profile.target == "vertex" else "pipeline.yaml")
    compile_prepared(dataset, recipe, profile, file)
    return read_job(file, dataset.name, plain_name(recipe_name)), uploads(dataset, recipe.project, profile)


def read_job(file: Path, dataset: str, recipe: str) -> Job:
    """A file that was compiled here, of either kind."""
    content = read_content(file)
    spec = content.get("pipelineSpec", content)
    return Job(dataset, recipe, file, spec["pipelineInfo"]["name"], spec, root=spec["defaultPipelineRoot"])


def plain_name(recipe_name: str) -> str:
    """A recipe's name as labels and schedules take it: of a file, its stem."""
    return re.sub(r"[^a-z0-9]+", "-", Path(recipe_name).stem.lower()).strip("-") or "recipe"
