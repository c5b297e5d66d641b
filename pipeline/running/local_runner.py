"""Runs a pipeline in this process, node after node, telling an observer about each.

This is TFX's LocalDagRunner (tfx/orchestration/local/local_dag_runner.py) with what it lacks: LocalDagRunner has no
hooks to show progress, picks the run id itself, goes on after a node whose inputs could not be resolved, and leaves a
RUNNING execution behind when it is interrupted.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import compiler, constants
from tfx.dsl.io import fileio
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, outputs_utils, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import execution_lib
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2
from tfx.types.artifact import Artifact

from mnist_tfx.components.disk import disk_error
from mnist_tfx.components.report.run import End
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.log_capture import output_to, relevant_tail, size_of
from mnist_tfx.pipeline.observer import Observer
from mnist_tfx.pipeline.running.beam import BeamOperator
from mnist_tfx.pipeline.running.interrupts import StopSignals
from mnist_tfx.pipeline.runs import records
from mnist_tfx.pipeline.runs.store import open_store

_LOGGER = logging.getLogger(__name__)
_CACHED = metadata_store_pb2.Execution.CACHED


@dataclass(frozen=True)
class NodeResult:
    """One finished node; `outputs` are the artifacts as ML Metadata has them, of an earlier run where cached."""

    node_id: str
    cached: bool
    seconds: float
    outputs: Mapping[str, Sequence[Artifact]]


@dataclass(frozen=True)
class RunResult:
    """A run in which every node finished."""

    run_id: str
    seconds: float
    nodes: tuple[NodeResult, ...]


def run_pipeline(
    pipeline: Pipeline,
    *,
    run_id: str,
    log_file: Path,
    observer: Observer,
    only: Collection[str] | None = None,
    after: Mapping[str, Callable[[], None]] = MappingProxyType({}),
) -> RunResult:
    """Runs every node of `pipeline`, with its own ML Metadata connection; what is printed meanwhile goes to `log_file`.

    With `only`, the nodes of these ids; all that they need must be among them. What `after` has for a node's id is
    called when the node has been run, and not answered from the cache.

    The caller holds the home's lock: executions found RUNNING are taken for those of a killed process.

    Raises:
        ValueError: `run_id` was used before.
        PipelineError: ML Metadata cannot be read; or the disk takes no more; or an executor raised one (it comes
            through as it is), or any other exception, which is the cause.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP came; the execution is CANCELED, and the next run goes on from the
            cache. Where code does not give way within `interrupts.GRACE_SECONDS`, the process ends with status 130.
    """
    with output_to(log_file):
        run = _Run(pipeline, run_id, log_file, observer, only, after)
        try:
            return run.run()
        except Exception as error:
            if refused := disk_error(error, run.home):
                raise refused from error
            raise


class _Run:
    def __init__(
        self,
        pipeline: Pipeline,
        run_id: str,
        log_file: Path,
        observer: Observer,
        only: Collection[str] | None,
        after: Mapping[str, Callable[[], None]],
    ) -> None:
        self._run_id = run_id
        self._log_file = log_file
        self._observer = observer
        self._after = after
        self._ir = compiler.Compiler().compile(pipeline)
        runtime_parameter_utils.substitute_runtime_parameter(
            self._ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        )
        self._deployment = runner_utils.extract_local_deployment_config(self._ir)
        config = self._deployment.metadata_connection_config
        self._connection = getattr(config, config.WhichOneof("connection_config"))
        self._metadata_db = Path(self._connection.sqlite.filename_uri)
        self.home = self._metadata_db.parent
        nodes = [entry.pipeline_node for entry in self._ir.nodes]
        self._nodes = [node for node in nodes if only is None or node.node_info.id in only]
        self._started = time.monotonic()
        self._current: _Node | None = None

    def run(self) -> RunResult:
        open_store(self._metadata_db)  # a damaged one is known before any work
        store = self._store()
        if store.get_context_by_type_and_name(records.RUN_CONTEXT, self._run_id) is not None:
            raise ValueError(f"run id {self._run_id!r} was used before; TFX would take that run's executions for ours")
        records.close_killed_runs(store)
        records.forget_lost_pushes(store)
        try:
            with StopSignals(on_stuck=self._give_up) as signals:
                nodes = tuple(self._observed(node, signals) for node in self._nodes)
        except BaseException as error:
            end: End = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            with _at_best("how the run ended"):
                self._record_end(end)
            raise
        self._record_end("complete")
        return RunResult(self._run_id, self._seconds(), nodes)

    def _record_end(self, end: End) -> None:
        records.record_end(self._store(), self._run_id, end, self._seconds())

    def _observed(self, proto: pipeline_pb2.PipelineNode, signals: StopSignals) -> NodeResult:
        """Runs one node; tells the observer and ML Metadata how it ended."""
        node = self._current = _Node(proto.node_info.id, proto, size_of(self._log_file))
        try:
            self._observer.started(node.node_id)
            result = self._launched(node)
            if signals.requested:  # the node swallowed the KeyboardInterrupt
                raise KeyboardInterrupt
        except BaseException as error:
            # Beam turns a KeyboardInterrupt into a RuntimeError; a sys.exit() in a component is a failure like others.
            if signals.requested or isinstance(error, KeyboardInterrupt):
                self._cancel(node)
                raise KeyboardInterrupt from None
            failure = self._failure(node, error)
            self._observer.failed(node.node_id, node.seconds, failure)
            if failure is error:
                raise
            raise failure from error
        self._observer.finished(result.node_id, result.seconds, result.cached, result.outputs)
        if not result.cached and (then := self._after.get(result.node_id)):
            then()
        return result

    def _launched(self, node: _Node) -> NodeResult:
        info = launcher.Launcher(
            pipeline_node=node.proto,
            mlmd_connection=metadata.Metadata(self._connection),
            pipeline_info=self._ir.pipeline_info,
            pipeline_runtime_spec=self._ir.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(self._deployment, node.node_id),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(self._deployment, node.node_id),
            custom_executor_operators={executable_spec_pb2.BeamExecutableSpec: BeamOperator},
        ).launch()
        if info is None or not info.execution_id:  # the branch of a TFX conditional that is not taken
            return NodeResult(node.node_id, cached=False, seconds=node.seconds, outputs={})
        with metadata.Metadata(self._connection) as handle:
            [execution] = handle.store.get_executions_by_id([info.execution_id])
            if not execution_lib.is_execution_successful(execution):
                # The launcher raises nothing where inputs cannot be resolved, and LocalDagRunner would go on.
                result = execution_lib.get_execution_result(execution, ignore_parse_errors=True)
                reason = result.result_message.strip().splitlines()[-1:] if result else []
                raise PipelineError(f"{node.node_id} was not run, for want of inputs. {' '.join(reason)}")
            outputs = execution_lib.get_output_artifacts(handle, info.execution_id)
        return NodeResult(node.node_id, execution.last_known_state == _CACHED, node.seconds, outputs)

    def _failure(self, node: _Node, error: BaseException) -> PipelineError:
        """What the user is told; the traceback goes to the log, and a word of it to ML Metadata."""
        tail = relevant_tail(self._log_file, node.log_offset)
        _LOGGER.error("%s failed", node.node_id, exc_info=error)
        while isinstance(error, mlmd.errors.StatusError) and error.__context__ is not None:
            error = error.__context__  # TFX could not note down that the node failed: that shall not hide why it did
        frame = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{node.node_id} failed: {type(error).__name__}: {error} (at {frame.filename}:{frame.lineno})"
        refused = disk_error(error, self.home, told=at)
        with _at_best(f"why {node.node_id} failed"):
            store = self._store()
            execution = records.unfinished_execution(store, self._run_id)
            if execution is not None:
                records.record_failure(store, execution, refused or error)
        if refused is not None:
            return refused
        if isinstance(error, PipelineError):
            return error
        lines = [at, *(["last lines of its log:", *(f"    {line}" for line in tail)] if tail else [])]
        return PipelineError("\n  ".join([*lines, f"the whole log, with the stack trace: {self._log_file}"]))

    def _cancel(self, node: _Node) -> None:
        """Marks the node as canceled and removes its partial outputs, which TFX does only for an Exception."""
        with _at_best(f"that {node.node_id} was stopped"):
            store = self._store()
            execution = records.unfinished_execution(store, self._run_id)
            if execution is not None:
                records.record_canceled(store, execution)
                resolver = outputs_utils.OutputsResolver(node.proto, self._ir.pipeline_info, self._ir.runtime_spec)
                outputs = resolver.generate_output_artifacts(execution.id)
                there = {key: [a for a in artifacts if fileio.exists(a.uri)] for key, artifacts in outputs.items()}
                outputs_utils.remove_output_dirs(there)
        self._observer.failed(node.node_id, node.seconds, KeyboardInterrupt())

    def _give_up(self) -> None:
        """The last thing done, in another thread, before a process that does not react to Ctrl-C is ended."""
        if self._current is not None:
            self._cancel(self._current)
        self._record_end("stopped")

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _store(self) -> mlmd.MetadataStore:
        return mlmd.MetadataStore(self._connection)


@contextmanager
def _at_best(what: str) -> Iterator[None]:
    """Around notes in ML Metadata on what went wrong: where they fail too, as on a full disk, that is what is told."""
    try:
        yield
    except Exception:
        _LOGGER.exception("not noted in ML Metadata: %s", what)


@dataclass(frozen=True)
class _Node:
    """The node being run."""

    node_id: str
    proto: pipeline_pb2.PipelineNode
    log_offset: int  # where the node's part of the log begins, bytes
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started
