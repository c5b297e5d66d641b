"""Follows a remote run in the live table of a local one, and says how it ended in the same exit codes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_tfx.components.pusher import NOT_PUSHED, PUSHED
from mnist_tfx.contract.errors import DataRejected, ModelRejected, PipelineError
from mnist_tfx.kubeflow.remote.platform import Job, Platform, RunState, Submitted, TaskPhase, TaskState, Unreachable
from mnist_tfx.pipeline.observer import Observer

_PATIENCE_SECONDS = 600.0  # that a platform may be unreachable while we only watch
_GATE, _EVALUATOR, _INFRA, _PUSHER = "DataGate", "Evaluator", "InfraValidator", "Pusher"
_NOT_BLESSED = "was not blessed"  # in the log of the Pusher, by TFX's executor; the task then succeeds


@dataclass(frozen=True)
class Verdict:
    """How a run ended."""

    error: PipelineError | None  # None: it succeeded
    pushed_version: str = ""  # where the platform tells it
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
    silent_since: float | None = None
    while True:
        try:
            state = platform.run_state(run.run_id, job.tasks)
            silent_since = None
        except Unreachable:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > _PATIENCE_SECONDS:
                raise
            time.sleep(poll_seconds)
            continue
        for name in job.tasks:
            task = state.tasks.get(name)
            if task and task.phase != shown.get(name, "waiting"):
                _show(observer, name, task, begun=name in shown)
                shown[name] = task.phase
        if state.phase in ("succeeded", "failed", "stopped"):
            return verdict(platform, job, run, state)
        time.sleep(poll_seconds)


def verdict(platform: Platform, job: Job, run: Submitted, state: RunState) -> Verdict:
    """What an ended run means. Data count as rejected, and a model as not blessed, only where the platform shows it."""
    if state.phase == "stopped":
        return Verdict(Stopped(f"the run was stopped by somebody else.\n  see {run.url}"))
    if state.phase == "failed":
        return Verdict(_failure(platform, job, run, state))
    return _success(platform, job, run, state)


def _failure(platform: Platform, job: Job, run: Submitted, state: RunState) -> PipelineError:
    failed = [name for name in job.tasks if name in state.tasks and state.tasks[name].phase == "failed"]
    see = f"  see {run.url}\n  to look closer on this machine: mnist-tfx compile ... --run-local"
    if _GATE in failed:
        told = state.tasks[_GATE].error + "\n" + platform.task_log(run.run_id, _GATE)
        if DataRejected.__name__ in told:
            return DataRejected(f"the data gate rejected {job.dataset}:\n{_from(told, DataRejected.__name__)}\n{see}")
        see += f"\n  {_GATE} failed, but nothing here shows whether it was for the data: its log does"
    errors = [f"  {name}: {' '.join(state.tasks[name].error.split())[:500] or 'no reason given'}" for name in failed]
    return PipelineError("\n".join(["the run failed.", *(errors or [f"  {state.error or 'no reason given'}"]), see]))


def _success(platform: Platform, job: Job, run: Submitted, state: RunState) -> Verdict:
    pushed = _output(state, _PUSHER, "pushed_model")
    if "pushed" in pushed:
        if int(pushed["pushed"]):
            return Verdict(None, pushed_version=_version(pushed))
        if reason := pushed.get("not_pushed"):
            return Verdict(None, note=f"not pushed: {reason}")
        blamed = [name for name in (_EVALUATOR, _INFRA) if _output(state, name, "blessing").get("blessed") == 0]
        return Verdict(_rejected(job, run, blamed))
    log = platform.task_log(run.run_id, _PUSHER)
    if _NOT_BLESSED in log:
        return Verdict(_rejected(job, run, []))
    if PUSHED in log:
        return Verdict(None)
    if NOT_PUSHED in log:
        return Verdict(None, note="not pushed:" + log.partition(NOT_PUSHED)[2].partition("\n")[0].rstrip("."))
    return Verdict(None, note=f"whether the model was pushed cannot be told from here: see {_PUSHER} at {run.url}")


def _rejected(job: Job, run: Submitted, blamed: Sequence[str]) -> ModelRejected:
    by = f" by {' and '.join(blamed)}" if blamed else ""
    return ModelRejected(
        f"the model of {job.dataset} was not blessed{by}, it was not pushed.\n  see {run.url}\n"
        "  remedy: train a better one (recipe, epochs), or change the bounds in [evaluation] and [infra] of the recipe."
    )


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
    blessing = dict(outputs.get("blessing", {}))
    if name in (_EVALUATOR, _INFRA) and "blessed" in blessing:
        return "blessed" if int(blessing["blessed"]) else "not blessed"
    pushed = dict(outputs.get("pushed_model", {}))
    if name == _PUSHER and "pushed" in pushed:
        return f"version {_version(pushed)}" if int(pushed["pushed"]) else "not pushed"
    return ""


def _output(state: RunState, task: str, key: str) -> Mapping[str, Any]:
    return state.tasks[task].outputs.get(key, {}) if task in state.tasks else {}


def _version(pushed: Mapping[str, Any]) -> str:
    return str(pushed.get("pushed_version", ""))


def _from(text: str, word: str) -> str:
    """The lines from the one with `word` on: an exception's message, at the end of a traceback."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if word in line)
    return "\n".join(f"  {line}" for line in lines[first : first + 20])
