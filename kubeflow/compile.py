"""Compiles the pipeline for Vertex AI or Kubeflow Pipelines. Needs no network, no bucket and no credentials."""

from __future__ import annotations

from pathlib import Path

from kubeflow.profiles import Profile
from pipeline.home import Home
from pipeline.recipes import Recipe


def compile_pipeline(dataset: str, recipe: Recipe, profile: Profile, output: Path, *, home: Home | None = None) -> None:
    """Writes the compiled pipeline to `output`; the same input gives the same bytes.

    Args:
        dataset: its name; it must be prepared in `home`, whence the pipeline gets fingerprint and class names.
        recipe: what the pipeline does.
        profile: where it runs.
        output: a file ending in `.json` (Vertex AI) or `.yaml` (Kubeflow Pipelines, Vertex AI).
        home: where the prepared dataset lies; None: the default home.

    Raises:
        UsageError: a setting does not fit, or the file's ending does not.
        NotPrepared: the dataset is not prepared in `home`.
        PipelineError: the compiled file breaks a rule of its target (see `kubeflow.check`).
    """
    raise NotImplementedError
