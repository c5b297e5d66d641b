"""Executions as bars over the time of their run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnist_tfx.components.report.page.words import UNKNOWN, seconds
from mnist_tfx.components.report.run import Execution

_UNITS = 1000.0  # width of the column of bars
_LEAST = 5.0  # so that an execution answered from the cache can be seen at all


@dataclass(frozen=True)
class GanttRow:
    """One execution; `x` and `width` are None where its times are not known."""

    component: str
    id: str
    begun: str
    took: str
    state: str
    style: str
    tone: str
    x: float | None
    width: float | None


@dataclass(frozen=True)
class Gantt:
    """All executions on one axis of `seconds`."""

    rows: tuple[GanttRow, ...]
    seconds: float
    caption: str


_STATES = {  # in words, style of the bar, tone of the tag
    "COMPLETE": ("run", "run", ""),
    "CACHED": ("cached", "cached", "soft"),
    "FAILED": ("✗ failed", "failed", "is-bad"),
    "CANCELED": ("canceled", "cached", "is-open"),
    "RUNNING": ("running", "run", "is-open"),
}


def gantt(executions: Sequence[Execution]) -> Gantt:
    """Rows in the order of the executions. One that is still running, or was killed, has no bar."""
    ends = [e.begun + (e.seconds or 0.0) for e in executions if e.begun is not None]
    total = max(ends, default=0.0) or 1.0
    cached = sum(execution.cached for execution in executions)
    longest = max(executions, key=lambda e: e.seconds or 0.0, default=None)
    caption = f"{len(executions)} executions, {cached} of them answered from the cache (hollow bars)."
    if longest is not None and longest.seconds:
        caption += f" The longest: {longest.component}, {seconds(longest.seconds)}."
    return Gantt(tuple(_row(execution, total) for execution in executions), total, caption)


def _row(execution: Execution, total: float) -> GanttRow:
    state, style, tone = _STATES.get(execution.state, (execution.state.lower() or "unknown", "run", "is-open"))
    x = width = None
    if execution.begun is not None and execution.seconds is not None:
        width = max(_UNITS * execution.seconds / total, _LEAST)
        x = round(min(_UNITS * execution.begun / total, _UNITS - width), 1)
        width = round(width, 1)
    return GanttRow(
        component=execution.component,
        id=UNKNOWN if execution.id is None else str(execution.id),
        begun=UNKNOWN if execution.begun is None else seconds(execution.begun),
        took=seconds(execution.seconds),
        state=state,
        style=style,
        tone=tone,
        x=x,
        width=width,
    )
