"""Past runs, read from ML Metadata, whose database a full disk, a kill or a hand may have damaged. No TensorFlow."""

from __future__ import annotations

import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2 as pb

from mnist_tfx.components.report.run import KILLED, Artifact, End, Execution, Run, values_of
from mnist_tfx.contract.errors import PipelineError, UsageError, unknown_name
from mnist_tfx.contract.remedies import FIRST_RUN
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs import records
from mnist_tfx.pipeline.runs.ids import dataset_of
from mnist_tfx.pipeline.runs.plan import read_plan, remembered_plan

LATEST = "latest"  # what `load_run` takes for the newest run


def open_store(metadata_db: Path) -> mlmd.MetadataStore | None:
    """ML Metadata to read from, also while a run writes; None where no run has made it yet.

    Raises:
        PipelineError: it is damaged, or cannot be read.
    """
    if not metadata_db.exists() or (metadata_db.is_file() and metadata_db.stat().st_size == 0):
        return None  # where it is empty, a run is only just making it
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(metadata_db)
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READONLY
    try:
        _check(metadata_db)
        return mlmd.MetadataStore(config)
    except (sqlite3.Error, RuntimeError, mlmd.errors.StatusError) as error:
        raise PipelineError(
            f"cannot read {metadata_db} as ML Metadata: {error}\nIf it is damaged, move it away: runs go on without "
            "their history and their cache, and the models that are served stay as they are."
        ) from error


def list_runs(metadata_db: Path) -> list[Run]:
    """Every run, the newest first; none where nothing has run yet."""
    store = open_store(metadata_db)
    if store is None:
        return []
    loaded = (_load(store, context, metadata_db) for context in _contexts(store))
    return [run for run in loaded if run is not None]


def load_run(metadata_db: Path, run_id: str) -> Run:
    """The run named by its id, by a beginning of it that no other run has, or by `latest`.

    Raises:
        UsageError: no run, or more than one, is named so.
    """
    store = open_store(metadata_db)
    contexts = _contexts(store) if store is not None else []
    if store is None or not contexts:
        raise UsageError(f"there is no run in {metadata_db.parent} yet. {FIRST_RUN}")
    named = contexts[:1] if run_id == LATEST else [c for c in contexts if c.name == run_id]
    named = named or [c for c in contexts if run_id and c.name.startswith(run_id)]
    if not named:
        raise unknown_name("run", run_id, [LATEST, *(context.name for context in contexts[:10])])
    if len(named) > 1:
        raise UsageError(f"{run_id!r} begins the names of {len(named)} runs: {', '.join(c.name for c in named[:10])}.")
    run = _load(store, named[0], metadata_db)
    if run is None:
        raise UsageError(f"run {named[0].name} is only just starting; ask again in a second.")
    return run


def pushing_runs(metadata_db: Path) -> Mapping[tuple[str, str], str]:
    """The run that pushed a version, by (dataset, version): the oldest, as later ones took the push from the cache.

    Raises:
        PipelineError: the database cannot be read.
    """
    verdicts = ((run, run.verdict()) for run in list_runs(metadata_db))  # the newest first
    return {(run.dataset, verdict.pushed_version): run.run_id for run, verdict in verdicts if verdict.pushed_version}


def known_pushing_runs(metadata_db: Path) -> Mapping[tuple[str, str], str]:
    """`pushing_runs` for those to whom they are an extra: none, and a warning on stderr, where they cannot be read."""
    try:
        return pushing_runs(metadata_db)
    except PipelineError as error:
        print(f"warning: which run pushed a version is not known: {error}", file=sys.stderr)
        return {}


def _check(metadata_db: Path) -> None:
    """Raises sqlite3.Error for a database whose pages are not in order, which would fail in the middle of a run.

    SQLite also takes back here what a killed process has half written. ML Metadata's connection for reading cannot: it
    would refuse the database until the next run.
    """
    with closing(sqlite3.connect(f"{metadata_db.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        [(found,), *_] = connection.execute("PRAGMA quick_check(1)")
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _contexts(store: mlmd.MetadataStore) -> list[pb.Context]:
    contexts = store.get_contexts_by_type(records.RUN_CONTEXT)
    return sorted(contexts, key=lambda context: context.id, reverse=True)  # a clock may be set back


def _load(store: mlmd.MetadataStore, context: pb.Context, metadata_db: Path) -> Run | None:
    """None where a run has its context, but no execution yet."""
    found = sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id)
    if not found:
        return None
    pipeline = _context_name(store, found[0], "pipeline")
    events = defaultdict(list)
    for event in store.get_events_by_execution_ids([execution.id for execution in found]):
        events[event.execution_id].append(event)
    artifact_ids = {event.artifact_id for of_one in events.values() for event in of_one}
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id(sorted(artifact_ids))}
    executions = tuple(
        _execution(execution, context, component, events[execution.id], artifacts)
        for execution in found
        for component in [_context_name(store, execution, "node").removeprefix(f"{pipeline}.")]
    )
    home, dataset = Home(metadata_db.parent), dataset_of(context.name, pipeline)
    properties = values_of(context.custom_properties)
    seconds = properties.get(records.SECONDS)
    report = home.report(dataset, context.name)
    return Run(
        run_id=context.name,
        dataset=dataset,
        executions=executions,
        plan=read_plan(home.runs(dataset) / context.name) or remembered_plan(executions),
        pipeline=pipeline,
        started=datetime.fromtimestamp(context.create_time_since_epoch / 1000, UTC),
        seconds=float(seconds) if seconds is not None else None,
        end=_end(properties.get(records.ENDED), home),
        log=home.log(dataset, context.name),
        report=str(report) if report.exists() else None,
    )


def _execution(
    execution: pb.Execution,
    run: pb.Context,
    component: str,
    events: Iterable[pb.Event],
    artifacts: Mapping[int, pb.Artifact],
) -> Execution:
    values: dict[str, Any] = values_of({**execution.properties, **execution.custom_properties})
    ours = (records.ERROR, records.ERROR_TYPE, records.EXIT_CODE)
    error, error_type, exit_code = (values.pop(key, None) for key in ours)
    state = pb.Execution.State.Name(execution.last_known_state)
    inputs: list[Artifact] = []
    outputs: list[Artifact] = []
    for event in events:
        artifact = artifacts[event.artifact_id]
        record = Artifact(
            name=event.path.steps[0].key if event.path.steps else "",  # an event without a path is not one of TFX's
            id=artifact.id,
            type=artifact.type,
            uri=artifact.uri,
            properties=values_of({**artifact.properties, **artifact.custom_properties}),
        )
        is_input = event.type in (pb.Event.INPUT, pb.Event.DECLARED_INPUT, pb.Event.INTERNAL_INPUT)
        (inputs if is_input else outputs).append(record)
    milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
    ticked = milliseconds >= 0  # else the clock was set back
    return Execution(
        id=execution.id,
        component=component,
        state=state,
        begun=max(0.0, (execution.create_time_since_epoch - run.create_time_since_epoch) / 1000),
        seconds=milliseconds / 1000 if state != "RUNNING" and error_type != KILLED and ticked else None,
        error_type=error_type,
        error=error,
        exit_code=exit_code,
        parameters=values,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )


def _end(noted: object, home: Home) -> End:
    """How a run ended; one of which no end is noted goes on, or was killed."""
    if noted in get_args(End):
        return cast(End, noted)
    return "running" if home.is_locked() else "killed"


def _context_name(store: mlmd.MetadataStore, execution: pb.Execution, context_type: str) -> str:
    return next((c.name for c in store.get_contexts_by_execution(execution.id) if c.type == context_type), "")
