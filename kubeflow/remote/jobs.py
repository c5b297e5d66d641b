"""Compiles a recipe into a `Job`, and reads compiled files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from components.errors import UsageError
from kubeflow.profiles import Profile
from kubeflow.remote.platform import Job
from pipeline.home import Home
from pipeline.log_capture import output_to
from pipeline.recipes import Recipe

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
        yield read_job(file, dataset, plain_name(recipe_name), profile.root), needed


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


def plain_name(recipe_name: str) -> str:
    """A recipe's name as labels and schedules take it: of a file, its stem."""
    return re.sub(r"[^a-z0-9]+", "-", Path(recipe_name).stem.lower()).strip("-") or "recipe"
