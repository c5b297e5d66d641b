"""Compiles a recipe into a `Job`, and reads compiled files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from components.errors import UsageError
from kubeflow.profiles import Profile
from kubeflow.remote.platform import Job
from pipeline.home import Home
from pipeline.recipes import Recipe


@contextmanager
def compiled_job(dataset: str, recipe_name: str, recipe: Recipe, profile: Profile, home: Home) -> Iterator[Job]:
    """The pipeline, compiled and checked; its file lasts as long as the context."""
    from kubeflow.compile import compile_pipeline

    with TemporaryDirectory(prefix="mnist-tfx-") as folder:
        file = Path(folder) / ("pipeline.json" if profile.target == "vertex" else "pipeline.yaml")
        compile_pipeline(dataset, recipe, profile, file, home=home)
        yield read_job(file, dataset, _plain(recipe_name), profile.root)


def read_job(file: Path, dataset: str, recipe: str, default_root: str) -> Job:
    """A compiled file, of either kind: a pipeline specification, or a Vertex job around one.

    Raises:
        UsageError: it is neither.
    """
    content = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    spec = content.get("pipelineSpec", content) if isinstance(content, dict) else {}
    if not {"pipelineInfo", "root"} <= spec.keys():
        raise UsageError(f"{file} is no compiled pipeline; `mnist-tfx compile` writes one.")
    root = content.get("runtimeConfig", {}).get("gcsOutputDirectory") or spec.get("defaultPipelineRoot") or default_root
    return Job(dataset, recipe, file, pipeline=spec["pipelineInfo"]["name"], spec=spec, root=root)


def _plain(recipe_name: str) -> str:
    """A recipe's name as labels and schedules take it: of a file, its stem."""
    return re.sub(r"[^a-z0-9]+", "-", Path(recipe_name).stem.lower()).strip("-") or "recipe"
