"""Which runs nobody needs any more, and their removal: their artifacts, logs and reports, and not their history."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2 as pb

from mnist_tfx.components.report.run import Artifact, Run
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs.records import close_killed_runs, forget_lost_pushes
from mnist_tfx.pipeline.runs.store import list_runs, pushing_runs


@dataclass(frozen=True)
class UnneededRun:
    """A run to be removed: its artifacts that no other run shares (by id, with their folders), and its files."""

    run: Run
    artifact_ids: tuple[int, ...]
    paths: tuple[Path, ...]


def unneeded_runs(home: Home, keep: int, versions: Collection[tuple[str, str]]) -> list[UnneededRun]:
    """All runs of a dataset but the `keep` newest, those that go on, and those that pushed a version that stays.

    An artifact that a run that stays has read or written, or was answered with from the cache, stays where it is.

    Args:
        home: where they were made.
        keep: how many of each dataset.
        versions: dataset and number of the versions that stay.
    """
    needed = {run_id for version, run_id in pushing_runs(home.metadata_db).items() if version in versions}
    kept: list[Run] = []
    unneeded: list[Run] = []
    seen: Counter[str] = Counter()
    for run in list_runs(home.metadata_db):  # the newest first
        seen[run.dataset] += 1
        stays = seen[run.dataset] <= keep or run.end == "running" or run.run_id in needed
        (kept if stays else unneeded).append(run)
    shared = {artifact.id for artifact in _artifacts(kept)}
    return [found for run in unneeded if (found := _plan(home, run, shared)).paths]


def _plan(home: Home, run: Run, shared: Collection[int | None]) -> UnneededRun:
    folder, report = home.runs(run.dataset) / run.run_id, home.report(run.dataset, run.run_id)
    # A home may have been named by another path when the run was made, such as one through a link.
    paths = {each.id: Path(each.uri).resolve() for each in _artifacts([run])}
    own = {number: path for number, path in paths.items() if path.is_relative_to(folder.resolve())}
    staying = [path for number, path in own.items() if number in shared]
    going = {number: path for number, path in own.items() if number is not None and number not in shared}
    files = [report, report.with_suffix(".json")]
    # With an artifact in it that stays, the folder keeps its log and its plan, too: they tell how that was made.
    files += going.values() if staying else [folder]
    return UnneededRun(run, tuple(going), tuple(path for path in files if path.exists()))


def _artifacts(runs: Iterable[Run]) -> list[Artifact]:
    return [each for run in runs for execution in run.executions for each in (*execution.inputs, *execution.outputs)]


def remove_runs(home: Home, unneeded: Sequence[UnneededRun]) -> None:
    """Marks artifacts as DELETED, then removes them; the caller holds the home's lock.

    TFX does not answer from the cache with an artifact that is not LIVE (cache_utils, `_get_outputs_of_execution`).
    """
    mode = pb.SqliteMetadataSourceConfig.READWRITE
    sqlite = pb.SqliteMetadataSourceConfig(filename_uri=str(home.metadata_db), connection_mode=mode)
    store = mlmd.MetadataStore(pb.ConnectionConfig(sqlite=sqlite))
    artifacts = store.get_artifacts_by_id(sorted({number for each in unneeded for number in each.artifact_ids}))
    for artifact in artifacts:
        artifact.state = pb.Artifact.DELETED
    store.put_artifacts(artifacts)
    forget_lost_pushes(store)  # of versions that were removed before
    close_killed_runs(store)  # while the home is locked, they would be told as going on
    for path in (path for each in unneeded for path in each.paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
