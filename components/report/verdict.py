"""Section "verdict": what came of the run, and what to do where something failed."""

from __future__ import annotations

from collections.abc import Sequence

from mnist_tfx.components.infra_validator.checks import Check
from mnist_tfx.components.report.content import Failure, Gate, Outcome, Quality, Serving, Verdict
from mnist_tfx.components.report.sources import Sources
from mnist_tfx.contract import remedies

_HEADLINES: dict[Outcome, str] = {
    "not pushed": "The run is complete, and nothing was pushed.",
    "not blessed": "The model is not good enough: it was not pushed.",
    "data rejected": "The data gate rejected the data: nothing was trained.",
    "failed": "The run failed.",
    "stopped": "The run was stopped before its end.",
    "killed": "The run's process was killed.",
    "running": "The run is still going on.",
    "unknown": "The run did not go as far as a push.",
}


def collect_verdict(
    sources: Sources, quality: Quality | None, serving: Serving | None, warnings: Sequence[str]
) -> Verdict:
    """Judges nothing anew: it tells what the artifacts and ML Metadata say."""
    gates = (_data_gate(sources), _quality_gate(sources, quality), _infra_gate(sources, serving), _push(sources))
    pushed = sources.artifact("Pusher", "pushed_model")
    version = str(pushed.properties["pushed_version"]) if pushed and pushed.properties.get("pushed") else None
    outcome = sources.outcome or _outcome(gates)
    # A class without examples has no accuracy.
    tested = [each for each in quality.classes if each.examples] if quality else []
    worst = min(tested, key=lambda each: each.scores.recall, default=None)
    return Verdict(
        outcome=outcome,
        headline=f"The model was pushed as version {version}." if outcome == "pushed" else _HEADLINES[outcome],
        recipe=sources.recipe_name,
        accuracy=quality.overall.accuracy if quality else None,
        worst_class=worst.name if worst else None,
        worst_class_accuracy=worst.scores.recall if worst else None,
        baseline_version=quality.baseline_version if quality else None,
        baseline_accuracy=quality.baseline.accuracy if quality and quality.baseline else None,
        pushed_version=version,
        gates=gates,
        failures=(*sources.failures, *_rejections(quality, serving)),
        cautions=remedies.cautions(pushed.properties) if pushed else (),
        warnings=tuple(warnings),
    )


def _outcome(gates: Sequence[Gate]) -> Outcome:
    """That of a run whose every component has run, as far as they have."""
    data, quality, infra, push = (gate.state for gate in gates)
    if data == "failed":
        return "data rejected"
    if "failed" in (quality, infra):
        return "not blessed"
    if push == "passed":
        return "pushed"
    return "not pushed" if push in ("failed", "withheld") else "unknown"


def _data_gate(sources: Sources) -> Gate:
    name = "Data gate"
    if sources.artifact("DataGate", "blessing"):
        return Gate(name, "passed", "No anomaly, no drift or skew beyond the schema's bounds, every image decoded.")
    return Gate(name, "failed" if _failed(sources, "DataGate") else "not reached")


def _quality_gate(sources: Sources, quality: Quality | None) -> Gate:
    name = "TFMA blessing"
    blessing = sources.artifact("Evaluator", "blessing")
    if blessing is None:
        return Gate(name, "failed" if _failed(sources, "Evaluator") else "not reached")
    if blessing.properties.get("blessed"):
        return Gate(name, "passed", "Every bound on accuracy was kept.")
    return Gate(name, "failed", "; ".join(quality.broken_bounds) if quality else "")


def _infra_gate(sources: Sources, serving: Serving | None) -> Gate:
    name = "Infra blessing"
    blessing = sources.artifact("InfraValidator", "blessing")
    if blessing is None:
        return Gate(name, "failed" if _failed(sources, "InfraValidator") else "not reached")
    failed = [check for check in serving.checks if not check.passed] if serving else []
    if blessing.properties.get("blessed"):
        return Gate(name, "passed", f"{len(serving.checks)} checks of the served model passed." if serving else "")
    return Gate(name, "failed", f"{len(failed)} checks of the served model failed." if failed else "")


def _push(sources: Sources) -> Gate:
    name = "Push"
    pushed = sources.artifact("Pusher", "pushed_model")
    if pushed is None:
        return Gate(name, "failed" if _failed(sources, "Pusher") else "not reached")
    if pushed.properties.get("pushed"):
        return Gate(name, "passed", f"Version {pushed.properties.get('pushed_version')}.")
    if reason := pushed.properties.get("not_pushed"):
        return Gate(name, "withheld", f"{reason}.")
    return Gate(name, "failed", "A model is pushed only with both blessings.")


def _failed(sources: Sources, component: str) -> bool:
    return any(failure.component == component for failure in sources.failures)


def _rejections(quality: Quality | None, serving: Serving | None) -> list[Failure]:
    found = []
    if quality and quality.broken_bounds:
        found.append(Failure("Evaluator", "\n".join(quality.broken_bounds), remedies.BROKEN_BOUNDS))
    failed = [check for check in serving.checks if not check.passed] if serving else []
    if failed:
        words = [str(Check(each.name, each.measured, each.limit, each.unit, each.detail)) for each in failed]
        found.append(Failure("InfraValidator", "\n".join(words), remedies.FAILED_CHECKS))
    return found
