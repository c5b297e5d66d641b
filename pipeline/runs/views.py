"""Runs in words for people and as JSON for programs: those just made, past ones, and one alone. No TensorFlow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mnist_tfx.components.report.run import Artifact, Run, Value
from mnist_tfx.components.report.verdict import Verdict
from mnist_tfx.pipeline.log_capture import lost_from

if TYPE_CHECKING:
    from mnist_tfx.components.evaluator.quality import Quality

_PIPED_WIDTH = 500  # columns: in a file or a pipe no row is folded, so that grep finds whole rows
_CLOSING_WIDTH = 120  # of the closing table there, which is read rather than searched
_MAX_PARAMETER = 100  # characters shown of one parameter; the JSON has all

_STYLES = {"COMPLETE": "green", "CACHED": "cyan", "FAILED": "bold red", "CANCELED": "yellow", "RUNNING": "bold"}


def tell_runs(runs: Sequence[Run], *, as_json: bool, seeds: Sequence[Mapping[str, Any]] | None = None) -> int:
    """Prints how runs ended, as a table or JSON on stdout, and what went wrong on stderr; returns the exit code."""
    if as_json:
        told = [closing_json(run) for run in runs]
        print(json.dumps(told if seeds is None else {"runs": told, "seeds": seeds}, indent=2))
    else:
        stdout_console(_CLOSING_WIDTH).print(closing_table(runs))
        for study in seeds or ():
            print(_seeds_words(study))
    errors = [error for run in runs if (error := _error(run))]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    for run in runs:
        if run.log:
            lost = lost_from(run.log)
            print(f"log of {run.dataset}: {run.log}{f' (not whole: {lost})' if lost else ''}", file=sys.stderr)
    for run in runs:
        if run.report:
            print(f"report of {run.dataset}: {run.report}", file=sys.stderr)
    for study in seeds or ():
        if study["report"]:
            print(f"comparison of {study['dataset']}: {study['report']}", file=sys.stderr)
    codes = {code for run in runs if (code := run.verdict().exit_code)}
    return codes.pop() if len(codes) == 1 else int(bool(codes))


def closing_table(runs: Sequence[Run]) -> Table:
    """One row per run that was just made."""
    table = Table(title="result", title_justify="left")
    for heading in ("dataset", "accuracy", "worst class", "vs. baseline", "verdict", "pushed version", "seconds"):
        table.add_column(heading, justify="right" if heading in ("accuracy", "seconds") else "left")
    cautions, spans = [], []
    for run in runs:
        verdict = run.verdict()
        if run.quality and run.quality.spans:
            spans.append(f"{run.dataset}: accuracy {', '.join(map(str, run.quality.spans))}")
        cautions += [f"warning: {run.dataset}: {words}" for words in verdict.cautions]
        table.add_row(
            run.dataset,
            f"{verdict.accuracy:.4f}" if verdict.accuracy is not None else "",
            f"{verdict.worst_class} {verdict.worst_class_accuracy:.4f}" if verdict.worst_class else "",
            _against_baseline(run.quality) if run.quality else "",
            Text("blessed", "green") if verdict.blessed else Text(verdict.outcome, "bold red"),
            verdict.pushed_version or (f"not pushed: {verdict.not_pushed}" if verdict.not_pushed else ""),
            _seconds(run.seconds),
        )
    if cautions or spans:
        lines = [*((line, "bold yellow") for line in cautions), *((line, "") for line in spans)]
        table.caption = Text("\n").join(Text(line, style) for line, style in lines)
        table.caption_justify = "left"
    return table


def closing_json(run: Run) -> dict[str, Any]:
    """A run that was just made, for programs."""
    verdict, quality = run.verdict(), run.quality
    measured: dict[str, Any] = {"accuracy": verdict.accuracy}
    if quality:
        measured |= {
            "worst_class": verdict.worst_class,
            "worst_class_accuracy": verdict.worst_class_accuracy,
            "baseline_version": verdict.baseline_version,
            "baseline_accuracy": quality.baseline_accuracy,
            "broken_bounds": list(quality.broken_bounds),
            "spans": [asdict(span) for span in quality.spans],
        }
        areas = {"auc": quality.overall.auc, "pr_auc": quality.overall.pr_auc}
        measured |= {name: value for name, value in areas.items() if value is not None}  # of two classes
    components = [
        {"id": each.component, "seconds": _rounded(each.seconds), "cached": each.cached} for each in run.executions
    ]
    return {
        "dataset": run.dataset,
        "run": run.run_id,
        "seconds": _rounded(run.seconds),
        "components": components if run.end == "complete" else [],
        **measured,
        "failed_checks": list(run.failed_checks),
        "blessed": verdict.blessed,
        "pushed_version": verdict.pushed_version,
        "not_pushed": verdict.not_pushed or None,
        "cautions": list(verdict.cautions),
        "report": run.report,
        "exit_code": verdict.exit_code,
        "error": _error(run),
    }


def runs_table(runs: Iterable[Run]) -> Table:
    """One row per past run."""
    table = _table("run", "dataset", "started (UTC)", ">seconds", "verdict", "report")
    for run in runs:
        table.add_row(
            run.run_id, run.dataset, _started(run), _seconds(run.seconds), _words(run.verdict()), _report(run)
        )
    return table


def run_page(run: Run) -> RenderableType:
    """One run: its executions with the artifacts they read and made, those artifacts, the parameters, the errors."""
    executions = _table(">id", "component", "state", ">seconds", "read", "made")
    parameters = _table("component", "parameter", "value")
    artifacts: dict[int | None, Artifact] = {}
    errors = []
    for execution in run.executions:
        state = Text(execution.state, _STYLES.get(execution.state, ""))
        seconds = _seconds(execution.seconds)
        read, made = _names(execution.inputs), _names(execution.outputs)
        executions.add_row(str(execution.id), execution.component, state, seconds, read, made)
        artifacts |= {artifact.id: artifact for artifact in (*execution.inputs, *execution.outputs)}
        for key, value in execution.parameters.items():
            parameters.add_row(execution.component, key, Text(_short(value)))
        if execution.error is not None:
            errors.append(Text(f"\n{execution.component}: {execution.error_type}: {execution.error}", "red"))
    of_artifacts = _table(">id", "type", "uri", "properties")
    for artifact in sorted(artifacts.values(), key=lambda artifact: artifact.id or 0):
        of_artifacts.add_row(str(artifact.id), artifact.type, artifact.uri, Text(_pairs(artifact.properties)))
    seconds = f" for {run.seconds:.1f} s" if run.seconds is not None else ""
    head = Text.assemble(
        f"{run.run_id}  {run.pipeline}  ", _words(run.verdict()), f"\nstarted {_started(run)} UTC{seconds}"
    )
    titled = (("executions", executions), ("artifacts", of_artifacts), ("parameters", parameters))
    return Group(head, *errors, *(part for title, table in titled for part in (Text(f"\n{title}", "bold"), table)))


def run_json(run: Run) -> dict[str, Any]:
    """A past run in a list, for programs; the start in ISO format."""
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline,
        "dataset": run.dataset,
        "started": run.started.isoformat() if run.started else None,
        "seconds": run.seconds,
        "verdict": str(run.verdict()),
        "report": run.report,
    }


def run_page_json(run: Run) -> dict[str, Any]:
    """One run with all that is known of its executions."""
    return {"summary": run_json(run), "executions": [asdict(execution) for execution in run.executions]}


def stdout_console(piped_width: int = _PIPED_WIDTH) -> Console:
    """A console on standard output, which takes text as it is: names of classes may look like rich's markup.

    A file has no width: rich would fold tables to 80 columns there.
    """
    return Console(width=None if sys.stdout.isatty() else piped_width, markup=False, emoji=False)


def _seeds_words(study: Mapping[str, Any]) -> str:
    mean, deviation = ("unknown" if study[key] is None else f"{study[key]:.4f}" for key in ("mean", "deviation"))
    return f"{study['dataset']}: accuracy {mean} ± {deviation} over {len(study['accuracies'])} seeds"


def _error(run: Run) -> str | None:
    """What went wrong, in full: the run's own error, or why the model was not pushed."""
    verdict = run.verdict()
    if run.error or verdict.outcome != "not blessed":
        return str(run.error) if run.error else None
    reasons = [line for failure in verdict.failures for line in failure.message.splitlines()]
    return "\n".join(
        [
            f"the model of {run.dataset} is not good enough, it was not pushed:",
            *(f"  {reason}" for reason in reasons),
            *(f"  remedy: {failure.remedy}" for failure in verdict.failures),
        ]
    )


def _against_baseline(quality: Quality) -> str:
    if quality.baseline_accuracy is None:
        return "ignored"
    if not quality.baseline_version:
        return "first model"
    return f"{quality.accuracy - quality.baseline_accuracy:+.4f}"


def _table(*columns: str) -> Table:
    """A table; a column whose name begins with `>` is right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        name = column.removeprefix(">")
        table.add_column(name, justify="right" if column != name else "left", overflow="fold")
    return table


def _report(run: Run) -> Text:
    """The report's path, which terminals that can do so make a link of."""
    if run.report is None:
        return Text("")
    path = Path(run.report)
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return Text(str(near), Style(link=path.as_uri()))


def _words(verdict: Verdict) -> Text:
    return Text(str(verdict), "green" if verdict.good else "yellow")


def _started(run: Run) -> str:
    return f"{run.started:%Y-%m-%d %H:%M:%S}" if run.started else ""


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _names(artifacts: Iterable[Artifact]) -> str:
    return ", ".join(f"{artifact.name} {artifact.id}" for artifact in artifacts)


def _pairs(properties: Mapping[str, Value]) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in properties.items())


def _short(value: Value) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _MAX_PARAMETER else f"{text[: _MAX_PARAMETER - 3]}..."
