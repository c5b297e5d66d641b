"""How a run of one dataset ended, for the closing table and for `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from mnist_tfx.contract import remedies
from mnist_tfx.contract.errors import ModelRejected, PipelineError


@dataclass(frozen=True)
class Quality:
    """The measured part of an outcome."""

    accuracy: float
    worst_class: str
    worst_class_accuracy: float
    baseline_version: str | None  # None: evaluated without a baseline; "": the candidate itself
    baseline_accuracy: float | None
    broken_bounds: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """One dataset's run."""

    dataset: str
    run: str
    seconds: float
    components: tuple[dict[str, Any], ...]  # id, seconds, cached; empty if the run did not get to its end
    quality: Quality | None  # None: it did not get as far as the Evaluator
    failed_checks: tuple[str, ...]  # of the infra validator, in words
    pushed_version: str | None
    error: PipelineError | None
    not_pushed: str = ""  # why a model that is good enough was not pushed
    cautions: tuple[str, ...] = ()  # checks that the pushed model did not have to pass, in words
    report: str | None = None  # the HTML file; None: not made

    @property
    def blessed(self) -> bool:
        """Whether the model kept all bounds, and serves."""
        return self.quality is not None and not self.quality.broken_bounds and not self.failed_checks

    def rejection(self) -> PipelineError | None:
        """The error that decides the exit code: the run's own, or that the model is not good enough."""
        if self.error or self.quality is None or self.blessed:
            return self.error
        found = []
        if self.quality.broken_bounds:
            found.append(remedies.BROKEN_BOUNDS)
        if self.failed_checks:
            found.append(remedies.FAILED_CHECKS)
        return ModelRejected(
            "\n".join(
                [
                    f"the model of {self.dataset} is not good enough, it was not pushed:",
                    *(f"  {reason}" for reason in (*self.quality.broken_bounds, *self.failed_checks)),
                    *(f"  remedy: {remedy}" for remedy in found),
                ]
            )
        )

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        rejection = self.rejection()
        return {
            "dataset": self.dataset,
            "run": self.run,
            "seconds": round(self.seconds, 2),
            "components": list(self.components),
            **(asdict(self.quality) if self.quality else {"accuracy": None}),
            "failed_checks": list(self.failed_checks),
            "blessed": self.blessed,
            "pushed_version": self.pushed_version,
            "not_pushed": self.not_pushed or None,
            "cautions": list(self.cautions),
            "report": self.report,
            "exit_code": rejection.exit_code if rejection else 0,
            "error": str(rejection) if rejection else None,
        }


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """The closing table: a row per dataset."""
    table = Table(title="result", title_justify="left")
    for heading in (
        "dataset",
        "accuracy",
        "worst class",
        "vs. baseline",
        "verdict",
        "pushed version",
        "seconds",
    ):
        table.add_column(heading, justify="right" if heading in ("accuracy", "seconds") else "left")
    for outcome in outcomes:
        quality = outcome.quality
        table.add_row(
            outcome.dataset,
            f"{quality.accuracy:.4f}" if quality else "",
            f"{quality.worst_class} {quality.worst_class_accuracy:.4f}" if quality else "",
            _against_baseline(quality) if quality else "",
            _verdict(outcome),
            outcome.pushed_version or (f"not pushed: {outcome.not_pushed}" if outcome.not_pushed else ""),
            f"{outcome.seconds:.1f}",
        )
    warnings = [f"warning: {outcome.dataset}: {words}" for outcome in outcomes for words in outcome.cautions]
    if warnings:
        table.caption, table.caption_justify = Text("\n".join(warnings), "bold yellow"), "left"
    return table


def _against_baseline(quality: Quality) -> str:
    if quality.baseline_accuracy is None:
        return "ignored"
    if not quality.baseline_version:
        return "first model"
    return f"{quality.accuracy - quality.baseline_accuracy:+.4f}"


def _verdict(outcome: Outcome) -> Text:
    if outcome.error:
        return Text("data rejected" if outcome.error.exit_code == 3 else "failed", "bold red")
    if outcome.blessed:
        return Text("blessed", "green")
    return Text("not blessed", "bold red")
