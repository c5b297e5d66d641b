"""Past runs as tables for people and as JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mnist_tfx.pipeline.history import ArtifactRecord, RunDetail, RunSummary, Value

_PIPED_WIDTH = 500  # columns: in a file or a pipe no row is folded, so that grep finds whole rows
_MAX_PARAMETER = 100  # characters shown of one parameter; the JSON has all

_STYLES = {"COMPLETE": "green", "CACHED": "cyan", "FAILED": "bold red", "CANCELED": "yellow", "RUNNING": "bold"}


def stdout_console() -> Console:
    """A console on standard output."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def runs_table(runs: Iterable[RunSummary]) -> Table:
    """One row per run."""
    table = _table("run", "dataset", "started (UTC)", ">seconds", "verdict", "report")
    for run in runs:
        started = f"{run.started:%Y-%m-%d %H:%M:%S}"
        verdict = Text(run.verdict, _verdict_style(run))
        table.add_row(run.run_id, run.dataset, started, _seconds(run.seconds), verdict, _report(run))
    return table


def run_page(detail: RunDetail) -> RenderableType:
    """One run: its executions with the artifacts they read and made, those artifacts, the parameters, the errors."""
    run = detail.summary
    executions = _table(">id", "component", "state", ">seconds", "read", "made")
    parameters = _table("component", "parameter", "value")
    artifacts: dict[int, ArtifactRecord] = {}
    errors = []
    for execution in detail.executions:
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
    for artifact in sorted(artifacts.values(), key=lambda artifact: artifact.id):
        of_artifacts.add_row(str(artifact.id), artifact.type, artifact.uri, Text(_pairs(artifact.properties)))
    seconds = f" for {run.seconds:.1f} s" if run.seconds is not None else ""
    head = Text.assemble(
        f"{run.run_id}  {run.pipeline}  ",
        (run.verdict, _verdict_style(run)),
        f"\nstarted {run.started:%Y-%m-%d %H:%M:%S} UTC{seconds}",
    )
    titled = (("executions", executions), ("artifacts", of_artifacts), ("parameters", parameters))
    return Group(head, *errors, *(part for title, table in titled for part in (f"\n[bold]{title}[/bold]", table)))


def as_json(record: RunSummary | RunDetail) -> dict[str, Any]:
    """The record as JSON takes it: the fields by their names, the start in ISO format."""
    fields = asdict(record)
    summary = fields.get("summary", fields)
    summary["started"] = summary["started"].isoformat()
    return fields


def _table(*columns: str) -> Table:
    """A table; a column whose name begins with `>` is right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        name = column.removeprefix(">")
        table.add_column(name, justify="right" if column != name else "left", overflow="fold")
    return table


def _report(run: RunSummary) -> Text:
    """The report's path, which terminals that can do so make a link of."""
    if run.report is None:
        return Text("")
    path = Path(run.report)
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return Text(str(near), Style(link=path.as_uri()))


def _verdict_style(run: RunSummary) -> str:
    return "green" if run.good else "yellow"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"


def _names(artifacts: Iterable[ArtifactRecord]) -> str:
    return ", ".join(f"{artifact.name} {artifact.id}" for artifact in artifacts)


def _pairs(properties: Mapping[str, Value]) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in properties.items())


def _short(value: Value) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _MAX_PARAMETER else f"{text[: _MAX_PARAMETER - 3]}..."
