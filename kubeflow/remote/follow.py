"""Follows a remote run in the live table of a local one, and says how it ended in the same exit codes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mnist_tfx.contract.errors import DataRejected, ModelRejected, PipelineError
from mnist_tfx.kubeflow.remote.platform import (
    Job,
    Platform,
    RunState,
    Submitted,
    TaskPhase,
    TaskState,
    Told,
    Unreachable,
    in_words,
)
from mnist_tfx.pipeline.observer import Observer

_PATIENCE_SECONDS = 600.0  # that a platform may be unreachable while we only watch
_PUSHER = "Pusher"


@dataclass(frozen=True)
class Verdict:
    """How a run ended."""

    error: PipelineError | None  # None: it succeeded
    pushed_version: str = ""
    note: str = ""  # why nothing was pushed, or what could not be told from here


class Stopped(PipelineError):
    """Somebody stopped the run."""

    exit_code = 130


def follow(platform: Platform, job: Job, run: Submitted, observer: Observer, poll_seconds: float) -> Verdict:
    """Tells the observer of the run until it ends.

    Raises:
        KeyboardInterrupt: the user stopped watching; the run goes on.
        Unreachable: the platform was silent for ten minutes; the run goes on.
    """
    shown: dict[str, TaskPhase] = {}
    heard = time.monotonic()
    while True:
        try:
            state = platform.run_state(run.run_id, job.tasks)
        except Unreachable:
            if time.monotonic() - heard > _PATIENCE_SECONDS:
                raise
        else:
            heard = time.monotonic()
            for name in job.tasks:
                task = state.tasks.get(name)
                if task and task.phase != shown.get(name, "waiting"):
                    _show(observer, name, task, begun=name in shown)
                    shown[name] = task.phase
            if state.phase in ("succeeded", "failed", "stopped"):
                return verdict(platform, job, run, state)
        time.sleep(poll_seconds)


def verdict(platform: Platform, job: Job, run: Submitted, state: RunState) -> Verdict:
    """What an ended run means, by what its tasks tell of themselves."""
    if state.phase == "stopped":
        return Verdict(Stopped(f"the run was stopped by somebody else.\n  see {run.url}"))
    told = platform.verdicts(run.run_id, state)
    return Verdict(_failure(job, run, state, told)) if state.phase == "failed" else _success(job, run, told)


def _failure(job: Job, run: Submitted, state: RunState, told: Mapping[str, Told]) -> PipelineError:
    kind: type[PipelineError] = PipelineError
    lines = []
    for name in (name for name in job.tasks if name in state.tasks and state.tasks[name].phase == "failed"):
        its, reason = told.get(name, Told(None)), in_words(state.tasks[name].error, 500)
        if its.verdict is not None:
            reason = "\n    ".join((its.verdict.says or reason).splitlines())
            if isinstance(its.verdict.error(), DataRejected):
                kind = DataRejected
        lines.append(f"  {name}: {reason or 'no reason given'}" + (f"\n    log: {its.log}" if its.log else ""))
    lines = lines or [f"  {state.error or 'no reason given'}"]
    closer = "  to look closer on this machine: mnist-tfx compile ... --run-local"
    return kind("\n".join(["the run failed.", *lines, f"  see {run.url}", closer]))


def _success(job: Job, run: Submitted, told: Mapping[str, Told]) -> Verdict:
    verdicts = {name: its for name in job.tasks if name in told and (its := told[name].verdict) is not None}
    rejected = {name: its.says for name, its in verdicts.items() if isinstance(its.error(), ModelRejected)}
    if rejected:
        reasons = "".join(f"\n  {name}: {says}" for name, says in rejected.items() if says)
        return Verdict(
            ModelRejected(
                f"the model of {job.dataset} was not blessed by {' and '.join(rejected)}, it was not pushed.{reasons}\n"
                f"  see {run.url}\n"
                "  remedy: train a better one, or change the recipe's bounds in [evaluation] and [infra]."
            )
        )
    if _PUSHER not in job.tasks:  # the pipeline that watches
        return Verdict(None)
    if (pushed := verdicts.get(_PUSHER)) is None:
        return Verdict(None, note=f"whether the model was pushed cannot be told from here: see {_PUSHER} at {run.url}")
    return Verdict(None, pushed.pushed_version, note="" if pushed.pushed_version else f"not pushed: {pushed.says}")


def _show(observer: Observer, name: str, task: TaskState, *, begun: bool) -> None:
    if task.phase in ("waiting", "skipped"):
        return
    if not begun:
        observer.started(name)
    if task.phase in ("done", "cached"):
        observer.finished(name, task.seconds, task.phase == "cached", task.outputs)
    elif task.phase == "stopped":
        observer.failed(name, task.seconds, KeyboardInterrupt())
    elif task.phase == "failed":
        observer.failed(name, task.seconds, PipelineError(task.error or "failed"))


def describe(name: str, outputs: Mapping[str, Any]) -> str:
    """In the live table: what the artifacts' properties tell of the verdicts."""
    blessing, pushed = dict(outputs.get("blessing", {})), dict(outputs.get("pushed_model", {}))
    if "blessed" in blessing:
        return "blessed" if int(blessing["blessed"]) else "not blessed"
    if "pushed" in pushed:
        return f"version {pushed.get('pushed_version', '')}" if int(pushed["pushed"]) else "not pushed"
    return ""
