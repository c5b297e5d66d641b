"""What we add to TFX's records in ML Metadata: how a run ended, and why an execution failed. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2 as pb

from mnist_tfx.components.report.run import KILLED, End
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.versions import ROLLED_BACK

RUN_CONTEXT = "pipeline_run"  # TFX's context type; the context's name is the run id

# Custom properties of the run's context. A run without them is going on, or was killed.
ENDED, SECONDS = "ended", "seconds"

# Custom properties of an execution.
ERROR, ERROR_TYPE, EXIT_CODE = "error", "error_type", "exit_code"

_MAX_ERROR = 2000  # characters


def record_end(store: mlmd.MetadataStore, run_id: str, end: End, seconds: float) -> None:
    """Notes on a run's context how and after how many seconds it ended. No-op where no node was ever started."""
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    if context is not None:
        context.custom_properties[ENDED].string_value = end
        context.custom_properties[SECONDS].double_value = seconds
        store.put_contexts([context])


def unfinished_execution(store: mlmd.MetadataStore, run_id: str) -> pb.Execution | None:
    """The execution that a run began last, unless it succeeded; None too where its node got no execution at all."""
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    executions = store.get_executions_by_context(context.id) if context is not None else []
    newest = max(executions, key=lambda execution: execution.id, default=None)
    if newest is None or newest.last_known_state in (pb.Execution.COMPLETE, pb.Execution.CACHED):
        return None
    return newest


def record_failure(store: mlmd.MetadataStore, execution: pb.Execution, error: BaseException) -> None:
    """Marks an execution as FAILED and notes why; TFX notes no reason when an executor raises."""
    execution.last_known_state = pb.Execution.FAILED
    execution.custom_properties[ERROR].string_value = str(error)[:_MAX_ERROR]
    execution.custom_properties[ERROR_TYPE].string_value = type(error).__name__
    execution.custom_properties[EXIT_CODE].int_value = getattr(error, "exit_code", PipelineError.exit_code)
    store.put_executions([execution])


def record_canceled(store: mlmd.MetadataStore, execution: pb.Execution) -> None:
    """Marks an execution as CANCELED: the user stopped it."""
    execution.last_known_state = pb.Execution.CANCELED
    store.put_executions([execution])


def forget_lost_pushes(store: mlmd.MetadataStore) -> None:
    """Marks pushed models as DELETED whose version is no longer there, so that the next run pushes anew.

    A version that was rolled back is not lost: the same run pushed again would undo the rollback.
    """
    lost = []
    for artifact in store.get_artifacts_by_type("PushedModel"):
        destination = artifact.custom_properties["pushed_destination"].string_value
        path = Path(destination)
        is_there = path.exists() or (path.parent / ROLLED_BACK / path.name).exists()
        if artifact.state == pb.Artifact.LIVE and destination and not is_there:
            artifact.state = pb.Artifact.DELETED
            lost.append(artifact)
    store.put_artifacts(lost)


def close_killed_runs(store: mlmd.MetadataStore) -> None:
    """Closes what killed processes left open. To be called while no run goes on, by the only writer.

    Left as RUNNING, an execution would show for ever as going on.
    """
    for context in store.get_contexts_by_type(RUN_CONTEXT):
        if ENDED in context.custom_properties:
            continue
        for execution in store.get_executions_by_context(context.id):
            if execution.last_known_state == pb.Execution.RUNNING:
                execution.last_known_state = pb.Execution.FAILED
                execution.custom_properties[ERROR].string_value = "the process was killed"
                execution.custom_properties[ERROR_TYPE].string_value = KILLED
                store.put_executions([execution])
        context.custom_properties[ENDED].string_value = KILLED
        store.put_contexts([context])
