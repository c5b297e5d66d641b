"""The one verdict on a run: the closing table, `--json`, `runs`, `show`, the report and the exit code all say it.

It judges nothing anew: it tells what the artifacts and ML Metadata say. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mnist_tfx.contract import remedies
from mnist_tfx.contract.errors import DataRejected, ModelRejected, PipelineError

if TYPE_CHECKING:
    from mnist_tfx.components.report.run import Run

Outcome = Literal[
    "pushed",
    "not pushed",
    "not blessed",
    "data rejected",
    "complete",
    "failed",
    "stopped",
    "killed",
    "running",
    "unknown",  # what the component says of what only the run's end decides
]
State = Literal["passed", "failed", "withheld", "not reached"]

_STOPPED_EXIT_CODE = 130
_SHOWN = 5  # classes named in one sentence
_BOUNDS = 20  # told one by one
# Where a component's error has one of these, the run did not fail: it was refused.
_REFUSALS: dict[int, Outcome] = {DataRejected.exit_code: "data rejected", ModelRejected.exit_code: "not blessed"}
# Component: name of the gate, the output that tells of it, and the property that says yes; None: to be there says it.
_GATES = {
    "DataGate": ("Data gate", "blessing", None),
    "Evaluator": ("TFMA blessing", "blessing", "blessed"),
    "InfraValidator": ("Infra blessing", "blessing", "blessed"),
    "Pusher": ("Push", "pushed_model", "pushed"),
}
_HEADLINES: dict[Outcome, str] = {
    "not pushed": "The run is complete, and nothing was pushed.",
    "not blessed": "The model is not good enough: it was not pushed.",
    "data rejected": "The data gate rejected the data: nothing was trained.",
    "complete": "The run did not go as far as a push.",
    "failed": "The run failed.",
    "stopped": "The run was stopped before its end.",
    "killed": "The run's process was killed.",
    "running": "The run is still going on.",
    "unknown": "The run did not go as far as a push.",
}


@dataclass(frozen=True)
class Gate:
    """One thing that had to go well: the data gate, the TFMA blessing, the infra blessing, the push."""

    name: str
    state: State
    detail: str = ""  # one sentence, may be empty


@dataclass(frozen=True)
class Failure:
    """What went wrong and what to do about it; shown in red."""

    component: str
    message: str  # may have several lines
    remedy: str


@dataclass(frozen=True)
class Verdict:
    """What came of a run; `str` says it in a few words. Figures that were not measured, or not read, are None."""

    outcome: Outcome
    headline: str  # one sentence
    recipe: str  # its name; empty: unknown
    accuracy: float | None  # on split test, as TFMA measured it
    worst_class: str | None
    worst_class_accuracy: float | None
    baseline_version: str | None  # None: no baseline or unknown; "": no other model was served, the first
    baseline_accuracy: float | None
    pushed_version: str | None
    gates: tuple[Gate, ...]  # in the order of the pipeline
    failures: tuple[Failure, ...] = ()
    cautions: tuple[str, ...] = ()  # what the model did not have to pass, and would not have passed
    warnings: tuple[str, ...] = ()  # of a report: numbers that disagree, sections that could not be made
    not_pushed: str = ""  # why a model that is good enough was not pushed
    exit_code: int | None = None  # of the command line; None: the run goes on, or was killed
    detail: str = ""  # what `str` adds to the outcome

    def __str__(self) -> str:
        return f"{self.outcome}{self.detail}"

    @property
    def blessed(self) -> bool:
        """Whether the model kept all bounds, and serves."""
        return self.outcome in ("pushed", "not pushed")

    @property
    def good(self) -> bool:
        """Whether nothing failed, was rejected or broken off."""
        return self.outcome not in ("failed", "killed", "stopped", "not blessed", "data rejected")


def judge(run: Run) -> Verdict:
    """The verdict on a run; `Run.verdict` is the way to ask for it."""
    broken_off = tuple(_failures(run))
    gates = _gates(run, {failure.component for failure in broken_off})
    pusher, said = run.maker("Pusher"), run.push
    version = str(said["pushed_version"]) if said.get("pushed") else None
    not_pushed = str(said.get("not_pushed", ""))
    outcome = _outcome(run, gates)
    details: dict[Outcome, str] = {
        "pushed": f" version {version}{' (cached)' if pusher and pusher.cached else ''}",
        "not pushed": f": {not_pushed}" if not_pushed else "",
        "failed": f": {run.failed.component}" if run.failed else "",
    }
    quality = run.quality
    worst_class, worst_class_accuracy = quality.worst_class if quality else (None, None)
    return Verdict(
        outcome=outcome,
        headline=f"The model was pushed as version {version}." if outcome == "pushed" else _HEADLINES[outcome],
        recipe=run.plan.recipe_name,
        accuracy=quality.accuracy if quality else None,
        worst_class=worst_class,
        worst_class_accuracy=worst_class_accuracy,
        baseline_version=quality.baseline_version if quality else None,
        baseline_accuracy=quality.baseline.accuracy if quality and quality.baseline else None,
        pushed_version=version,
        gates=gates,
        failures=(*broken_off, *_rejections(run)),
        cautions=(*remedies.cautions(said), *_unbounded_failures(run)),
        not_pushed=not_pushed,
        exit_code=_exit_code(run, outcome),
        detail=details.get(outcome, ""),
    )


def _outcome(run: Run, gates: Sequence[Gate]) -> Outcome:
    if run.end == "failed":
        return _REFUSALS.get(_error_code(run), "failed")
    if run.end in ("stopped", "killed", "running"):
        return run.end
    _, quality, infra, push = (gate.state for gate in gates)
    if "failed" in (quality, infra):
        return "not blessed"
    if push == "passed":
        return "pushed"
    if push in ("failed", "withheld"):
        return "not pushed"
    return "complete" if run.end else "unknown"


def _exit_code(run: Run, outcome: Outcome) -> int | None:
    if run.end == "failed":
        return _error_code(run)
    if outcome in ("killed", "running", "unknown"):
        return None
    return {"not blessed": ModelRejected.exit_code, "stopped": _STOPPED_EXIT_CODE}.get(outcome, 0)


def _error_code(run: Run) -> int:
    """That of the command line for the error which ended the run."""
    noted = run.error or run.failed
    return (noted.exit_code if noted else None) or PipelineError.exit_code


def _gates(run: Run, broken_off: Container[str]) -> tuple[Gate, ...]:
    """Each gate by the artifact that its component left, if the run came so far."""
    failed = len(run.failed_checks)
    details = {
        ("DataGate", "passed"): "No anomaly, no drift or skew beyond the schema's bounds, every image decoded.",
        ("Evaluator", "passed"): "Every bound on accuracy was kept.",
        ("Evaluator", "failed"): "; ".join(_first(run.quality.broken_bounds)) if run.quality else "",
        ("InfraValidator", "passed"): f"{len(run.checks)} checks of the served model passed." if run.checks else "",
        ("InfraValidator", "failed"): f"{failed} checks of the served model failed." if failed else "",
        ("Pusher", "passed"): f"Version {run.push.get('pushed_version')}.",
        ("Pusher", "withheld"): f"{run.push.get('not_pushed')}.",
        ("Pusher", "failed"): "A model is pushed only with both blessings.",
    }
    gates = []
    for component, (name, output, flag) in _GATES.items():
        artifact = run.artifact(component, output)
        state: State
        if artifact is None:
            gates.append(Gate(name, "failed" if component in broken_off else "not reached"))
            continue
        if flag is None or artifact.properties.get(flag):
            state = "passed"
        else:
            state = "withheld" if artifact.properties.get("not_pushed") else "failed"
        gates.append(Gate(name, state, details.get((component, state), "")))
    return tuple(gates)


def _failures(run: Run) -> Iterable[Failure]:
    """Of executions that did not come to their end."""
    log = f" Log: {run.log}" if run.log else ""
    for execution in run.executions:
        if execution.state == "CANCELED":
            yield Failure(execution.component, "it was stopped", remedies.BROKEN_OFF)
        elif execution.killed:
            yield Failure(execution.component, execution.error or "", remedies.BROKEN_OFF + log)
        elif execution.state == "FAILED":
            rejected = execution.exit_code == DataRejected.exit_code
            remedy = remedies.REJECTED_DATA if rejected else remedies.FAILED
            yield Failure(execution.component, execution.error or "no reason was noted", remedy + log)


def _unbounded_failures(run: Run) -> Iterable[str]:
    """What a bound that nobody set would have caught."""
    quality = run.quality
    if quality and quality.never_recognized and not quality.min_class_accuracy:
        names = quality.never_recognized
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        yield remedies.never_recognized(shown)


def _first(bounds: Sequence[str]) -> Sequence[str]:
    """Of many classes, not each one that is not good enough."""
    return bounds if len(bounds) <= _BOUNDS else (*bounds[:_BOUNDS], f"and {len(bounds) - _BOUNDS} more")


def _rejections(run: Run) -> Iterable[Failure]:
    """Of a model that is not good enough."""
    if run.quality and run.quality.broken_bounds:
        yield Failure("Evaluator", "\n".join(_first(run.quality.broken_bounds)), remedies.BROKEN_BOUNDS)
    if run.failed_checks:
        yield Failure("InfraValidator", "\n".join(run.failed_checks), remedies.FAILED_CHECKS)
