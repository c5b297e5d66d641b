"""Past runs, read from ML Metadata. No TensorFlow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2 as pb

from mnist_tfx.contract.errors import DataRejected, ModelRejected, UsageError, unknown_name
from mnist_tfx.pipeline import run_record
from mnist_tfx.pipeline.metadata_store import open_store
from mnist_tfx.pipeline.running.home import Home

LATEST = "latest"  # what `load_run` takes for the newest run

Value = str | int | float | bool


@dataclass(frozen=True)
class ArtifactRecord:
    """An artifact as an execution read or wrote it; `name` is the channel, `properties` without TFX's own."""

    name: str
    id: int
    type: str
    uri: str
    properties: Mapping[str, Value]


@dataclass(frozen=True)
class ExecutionRecord:
    """One execution of a node.

    `seconds` is None where it is going on, its process was killed, or the clock was set back meanwhile.
    """

    id: int
    component: str
    state: str  # COMPLETE, CACHED, FAILED, CANCELED, RUNNING
    begun: float  # seconds after the run's start
    seconds: float | None
    error_type: str | None
    error: str | None
    exit_code: int | None  # that of the command line where this execution failed the run
    parameters: Mapping[str, Value]
    inputs: tuple[ArtifactRecord, ...]
    outputs: tuple[ArtifactRecord, ...]


@dataclass(frozen=True)
class RunSummary:
    """One run. `seconds` is None where it is going on or its process was killed."""

    run_id: str
    pipeline: str
    dataset: str
    started: datetime  # UTC
    seconds: float | None
    verdict: str
    report: str | None  # the HTML file, where it was made

    @property
    def good(self) -> bool:
        """Whether nothing failed, was rejected or broken off."""
        return not self.verdict.startswith(("failed", "killed", "stopped", "not blessed", "data rejected"))


@dataclass(frozen=True)
class RunDetail:
    """A run with its executions, in the order in which they began."""

    summary: RunSummary
    executions: tuple[ExecutionRecord, ...]


def list_runs(metadata_db: Path) -> list[RunSummary]:
    """Every run, the newest first; none where nothing has run yet."""
    store = open_store(metadata_db)
    if store is None:
        return []
    details = (_load(store, context, metadata_db) for context in _contexts(store))
    return [detail.summary for detail in details if detail is not None]


def load_run(metadata_db: Path, run_id: str) -> RunDetail:
    """The run named by its id, by a beginning of it that no other run has, or by `latest`.

    Raises:
        UsageError: no run, or more than one, is named so.
    """
    store = open_store(metadata_db)
    contexts = _contexts(store) if store is not None else []
    if store is None or not contexts:
        raise UsageError(f"there is no run in {metadata_db.parent} yet. Make one: mnist-tfx run --dataset mnist")
    named = contexts[:1] if run_id == LATEST else [c for c in contexts if c.name == run_id]
    named = named or [c for c in contexts if run_id and c.name.startswith(run_id)]
    if not named:
        raise unknown_name("run", run_id, [LATEST, *(context.name for context in contexts[:10])])
    if len(named) > 1:
        raise UsageError(f"{run_id!r} begins the names of {len(named)} runs: {', '.join(c.name for c in named[:10])}.")
    detail = _load(store, named[0], metadata_db)
    if detail is None:
        raise UsageError(f"run {named[0].name} is only just starting; ask again in a second.")
    return detail


def _contexts(store: mlmd.MetadataStore) -> list[pb.Context]:
    contexts = store.get_contexts_by_type(run_record.RUN_CONTEXT)
    return sorted(contexts, key=lambda context: context.id, reverse=True)  # a clock may be set back


def _load(store: mlmd.MetadataStore, run: pb.Context, metadata_db: Path) -> RunDetail | None:
    """None where a run has its context, but no execution yet."""
    executions = sorted(store.get_executions_by_context(run.id), key=lambda execution: execution.id)
    if not executions:
        return None
    pipeline = _context_name(store, executions[0], "pipeline")
    events = defaultdict(list)
    for event in store.get_events_by_execution_ids([execution.id for execution in executions]):
        events[event.execution_id].append(event)
    artifact_ids = {event.artifact_id for of_one in events.values() for event in of_one}
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id(sorted(artifact_ids))}
    records = tuple(
        _execution(execution, run, _context_name(store, execution, "node"), pipeline, events[execution.id], artifacts)
        for execution in executions
    )
    properties = _values(run.custom_properties)
    dataset = pipeline.replace("-", "_")
    report = Home(metadata_db.parent).report(dataset, run.name)
    seconds = properties.get(run_record.SECONDS)
    summary = RunSummary(
        run_id=run.name,
        pipeline=pipeline,
        dataset=dataset,
        started=datetime.fromtimestamp(run.create_time_since_epoch / 1000, UTC),
        seconds=float(seconds) if seconds is not None else None,
        verdict=_verdict(properties.get(run_record.ENDED), records, metadata_db),
        report=str(report) if report.exists() else None,
    )
    return RunDetail(summary, records)


def _execution(
    execution: pb.Execution,
    run: pb.Context,
    node: str,
    pipeline: str,
    events: Iterable[pb.Event],
    artifacts: Mapping[int, pb.Artifact],
) -> ExecutionRecord:
    values = _values({**execution.properties, **execution.custom_properties})
    ours = (run_record.ERROR, run_record.ERROR_TYPE, run_record.EXIT_CODE)
    error, error_type, exit_code = (values.pop(key, None) for key in ours)
    state = pb.Execution.State.Name(execution.last_known_state)
    inputs: list[ArtifactRecord] = []
    outputs: list[ArtifactRecord] = []
    for event in events:
        artifact = artifacts[event.artifact_id]
        # An event without a path is not one of TFX's.
        record = ArtifactRecord(
            name=event.path.steps[0].key if event.path.steps else "",
            id=artifact.id,
            type=artifact.type,
            uri=artifact.uri,
            properties=_values({**artifact.properties, **artifact.custom_properties}),
        )
        is_input = event.type in (pb.Event.INPUT, pb.Event.DECLARED_INPUT, pb.Event.INTERNAL_INPUT)
        (inputs if is_input else outputs).append(record)
    milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
    ticked = milliseconds >= 0  # else the clock was set back
    return ExecutionRecord(
        id=execution.id,
        component=node.removeprefix(f"{pipeline}."),
        state=state,
        begun=max(0.0, (execution.create_time_since_epoch - run.create_time_since_epoch) / 1000),
        seconds=milliseconds / 1000 if state != "RUNNING" and error_type != run_record.KILLED and ticked else None,
        error_type=None if error_type is None else str(error_type),
        error=None if error is None else str(error),
        exit_code=None if exit_code is None else int(exit_code),
        parameters=values,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )


def _verdict(ended: Value | None, executions: Iterable[ExecutionRecord], metadata_db: Path) -> str:
    if ended is None:
        return "running" if Home(metadata_db.parent).is_locked() else "killed"
    if ended == "failed":
        failed = next((e for e in executions if e.state == "FAILED"), None)
        reasons = {DataRejected.exit_code: "data rejected", ModelRejected.exit_code: "not blessed"}
        return reasons.get(failed.exit_code or 1, f"failed: {failed.component}") if failed else "failed"
    if ended != "complete":
        return str(ended)
    verdict = "complete"
    for execution in executions:
        for artifact in execution.outputs:
            if artifact.type in ("ModelBlessing", "InfraBlessing") and not artifact.properties.get("blessed"):
                return "not blessed"
            if artifact.type == "PushedModel":
                version = artifact.properties.get("pushed_version")
                cached = " (cached)" if execution.state == "CACHED" else ""
                pushed = artifact.properties.get("pushed")
                reason = artifact.properties.get("not_pushed")
                verdict = f"pushed version {version}{cached}" if pushed else f"not pushed: {reason}"
    return verdict


def _context_name(store: mlmd.MetadataStore, execution: pb.Execution, context_type: str) -> str:
    return next((c.name for c in store.get_contexts_by_execution(execution.id) if c.type == context_type), "")


def _values(properties: Mapping[str, pb.Value]) -> dict[str, Value]:
    """Python values of MLMD properties, without those that TFX keeps for itself."""
    hidden = ("tfx_version", "is_external", "name", "pipeline_name", "producer_component", "state")
    return {
        key: getattr(value, value.WhichOneof("value"))
        for key, value in sorted(properties.items())
        if not key.startswith("__") and key not in hidden and value.WhichOneof("value") in _SIMPLE
    }


_SIMPLE = ("string_value", "int_value", "double_value", "bool_value")
