"""Renders the pages. Each is one file: no script, no address outside of it, and a policy that forbids both.

The templates ask the functions of this package for charts and tables, each in the section that shows it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from mnist_tfx.components.report.content import IndexRow, ReportContent
from mnist_tfx.components.report.page import charts, comparison, images, quality_charts, views, words

_COMPARISON_SECTIONS = (
    ("verdict", "Verdict"),
    ("changes", "What was changed"),
    ("quality", "Quality by class"),
    ("training", "Training"),
    ("time", "Time"),
)


def render_report(content: ReportContent) -> str:
    """The report of one run, as a complete HTML page. The same content gives the same page, byte by byte."""
    return _render(
        "report.html", content=content, sections=views.SECTIONS, outcome=views.OUTCOMES[content.verdict.outcome]
    )


def render_comparison(a: ReportContent, b: ReportContent) -> str:
    """Two runs beside each other: what was changed from `a` to `b`, and what came of it."""
    runs = tuple((name, run, views.OUTCOMES[run.verdict.outcome]) for name, run in (("A", a), ("B", b)))
    return _render("comparison.html", a=a, b=b, runs=runs, sections=_COMPARISON_SECTIONS)


def render_index(rows: Iterable[IndexRow]) -> str:
    """All runs, by dataset, with a sparkline of accuracy over time. `rows` begin with the newest run."""
    by_dataset: dict[str, list[IndexRow]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(row)
    return _render("index.html", datasets=sorted(by_dataset.items()))


def sparkline(values: Sequence[float]) -> list[tuple[float, float]]:
    """The points of a curve in 240 x 48 units, the size of a line of text, from left to right."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:  # a flat line lies in the middle
        low, high = low - 1, high + 1
    xs, ys = np.linspace(6, 234, len(values)), np.interp(values, (low, high), (42, 6))
    return list(zip(xs.round(1).tolist(), ys.round(1).tolist(), strict=True))


def relative_url(path: str) -> str:
    """A relative address and nothing else: neither a scheme nor a host survives."""
    return quote(path.lstrip("/"), safe="/%#?=&~")


_FILTERS = (
    *(words.percent, words.number, words.general, words.points, words.count, words.seconds, words.size),
    *(words.moment, words.flat, words.shorten, images.data_uri, images.weights_uri),
    relative_url,
)
_FUNCTIONS = (
    *(views.tiles, views.missing_reasons, views.accuracy_bounds, views.matrix_rows, views.frequent_mistakes),
    *(views.gantt, views.gantt_seconds, views.gantt_caption, images.told_classes, images.weights_scale_uri),
    *(charts.intensity_charts, charts.training_charts, charts.latency_chart),
    *(quality_charts.scores_chart, quality_charts.baseline_chart, quality_charts.confidence_charts),
    *(comparison.headline, comparison.warnings, comparison.measure_changes, comparison.input_changes),
    *(comparison.time_changes, comparison.class_chart, comparison.confusion_changes, comparison.history_charts),
    sparkline,
)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_tfx.components.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in _FILTERS}
    environment.globals |= {function.__name__: function for function in _FUNCTIONS} | {"MEASURES": views.MEASURES}
    return environment


def _render(template: str, **values: Any) -> str:
    style = _environment().get_template("style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    page = _environment().get_template(template)
    return page.render(style=Markup(style), style_hash=f"sha256-{digest}", **values)
