"""Which run pushed which version, read from ML Metadata."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline import run_record
from mnist_tfx.pipeline.metadata_store import open_store


def pushing_runs(metadata_db: Path) -> Mapping[tuple[str, str], str]:
    """The run that pushed a version, by (dataset, version); later runs that took the push from the cache do not count.

    Raises:
        PipelineError: the database cannot be read.
    """
    store = open_store(metadata_db)
    if store is None:
        return {}
    runs: dict[tuple[str, str], str] = {}
    for artifact in store.get_artifacts_by_type("PushedModel"):
        version = artifact.custom_properties["pushed_version"].string_value
        if not version:
            continue
        contexts = store.get_contexts_by_artifact(artifact.id)
        pipelines = [context.name for context in contexts if context.type == "pipeline"]
        of_runs = [context for context in contexts if context.type == run_record.RUN_CONTEXT]
        if pipelines and of_runs:
            first = min(of_runs, key=lambda run: run.id)  # not by time: a clock may be set back
            runs[pipelines[0].replace("-", "_"), version] = first.name
    return runs


def known_pushing_runs(metadata_db: Path) -> Mapping[tuple[str, str], str]:
    """`pushing_runs` for those to whom they are an extra: none, and a warning on stderr, where they cannot be read."""
    try:
        return pushing_runs(metadata_db)
    except PipelineError as error:
        print(f"warning: which run pushed a version is not known: {error}", file=sys.stderr)
        return {}
