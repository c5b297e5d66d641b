"""Renders the pages. Each is one file: no script, no address outside of it, and a policy that forbids both."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from mnist_tfx.components.report.content import IndexRow, ReportContent
from mnist_tfx.components.report.page import (
    comparison,
    confidence_charts,
    data_charts,
    look_view,
    quality_charts,
    quality_view,
    training_charts,
    words,
)
from mnist_tfx.components.report.page.gantt import gantt
from mnist_tfx.components.report.page.images import weights_scale_uri
from mnist_tfx.components.report.page.sparkline import Sparkline, sparkline
from mnist_tfx.components.report.page.verdict_view import OUTCOMES, SECTIONS, missing_reasons, tiles

_COMPARISON_SECTIONS = (
    ("verdict", "Verdict"),
    ("changes", "What was changed"),
    ("quality", "Quality by class"),
    ("training", "Training"),
    ("time", "Time"),
)


@dataclass(frozen=True)
class _DatasetRuns:
    """The runs of one dataset; `description` says in words what the sparkline shows."""

    name: str
    rows: tuple[IndexRow, ...]
    line: Sparkline | None
    description: str


def render_report(content: ReportContent) -> str:
    """The report of one run, as a complete HTML page. The same content gives the same page, byte by byte."""
    return _render(
        "report.html",
        content=content,
        sections=SECTIONS,
        outcome=OUTCOMES[content.verdict.outcome],
        tiles=tiles(content),
        missing=missing_reasons(content),
        **_data_parts(content),
        **_training_parts(content),
        **_quality_parts(content),
        **_look_parts(content),
        **_lineage_parts(content),
    )


def render_comparison(a: ReportContent, b: ReportContent) -> str:
    """Two runs beside each other: what was changed from `a` to `b`, and what came of it."""
    return _render(
        "comparison.html",
        a=a,
        b=b,
        runs=tuple((name, run, OUTCOMES[run.verdict.outcome]) for name, run in (("A", a), ("B", b))),
        sections=_COMPARISON_SECTIONS,
        headline=comparison.headline(a, b),
        warnings=comparison.warnings(a, b),
        measures=comparison.measure_changes(a, b),
        recipe=comparison.recipe_changes(a, b),
        data=comparison.data_changes(a, b),
        versions=comparison.version_changes(a, b),
        by_class=comparison.class_chart(a, b),
        confusions=comparison.confusion_changes(a, b),
        history=comparison.history_charts(a, b),
        times=comparison.time_changes(a, b),
    )


def render_index(rows: Iterable[IndexRow]) -> str:
    """All runs, by dataset, with a sparkline of accuracy over time. `rows` begin with the newest run."""
    by_dataset: dict[str, list[IndexRow]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(row)
    return _render("index.html", datasets=tuple(_dataset_runs(name, by_dataset[name]) for name in sorted(by_dataset)))


def _data_parts(content: ReportContent) -> dict[str, Any]:
    data = content.data
    return {
        "samples": look_view.sample_views(data) if data else (),
        "intensity": data_charts.intensity_charts(data.splits) if data else (),
    }


def _training_parts(content: ReportContent) -> dict[str, Any]:
    training = content.training
    latencies = content.serving.latencies_ms if content.serving else ()
    return {
        "history": training_charts.training_charts(training) if training and training.epochs else (),
        "latency": training_charts.latency_chart(latencies) if latencies else None,
    }


def _quality_parts(content: ReportContent) -> dict[str, Any]:
    quality = content.quality
    if quality is None:
        return {}
    error = quality.overall.expected_calibration_error
    return {
        "overall": quality_view.overall_rows(quality),
        "mistakes": quality_charts.frequent_mistakes(quality),
        "matrix": quality_charts.matrix_rows(quality.confusion),
        "scores": quality_charts.scores_chart(quality),
        "against_baseline": None if quality.baseline_version == "" else quality_charts.baseline_chart(quality.classes),
        "calibration": (
            confidence_charts.reliability_chart(quality.confidence, error),
            confidence_charts.confidence_chart(quality.confidence),
            confidence_charts.selective_chart(quality.confidence),
        )
        if quality.confidence
        else (),
    }


def _look_parts(content: ReportContent) -> dict[str, Any]:
    look = content.look
    if look is None:
        return {}
    return {
        "confident": tuple(look_view.example_view(item, look.class_names) for item in look.mistakes),
        "uncertain": tuple(look_view.example_view(item, look.class_names) for item in look.uncertain),
        "filters": look_view.filter_views(look.filters),
        "weights_scale": weights_scale_uri(),
    }


def _lineage_parts(content: ReportContent) -> dict[str, Any]:
    lineage = content.lineage
    if lineage is None:
        return {}
    return {"gantt": gantt(lineage.executions), "recipe": tuple(words.flat(lineage.recipe))}


def _dataset_runs(name: str, rows: list[IndexRow]) -> _DatasetRuns:
    measured = [row.accuracy for row in reversed(rows) if row.accuracy is not None]
    description = ""
    if measured:
        description = (
            f"Accuracy of {len(measured)} run{'s' if len(measured) != 1 else ''}, the oldest first: from "
            f"{words.percent(measured[0])} to {words.percent(measured[-1])}; best {words.percent(max(measured))}."
        )
    return _DatasetRuns(name, tuple(rows), sparkline(measured), description)


def _relative_url(path: str) -> str:
    """A relative address and nothing else: neither a scheme nor a host survives."""
    return quote(path.lstrip("/"), safe="/%#?=&~")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_tfx.components.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (words.percent, words.number, words.general, words.points, words.count, words.seconds, words.size):
        environment.filters[function.__name__] = function
    environment.filters |= {
        "moment": words.moment,
        "flat": words.flat,
        "shorten": words.shorten,
        "relative_url": _relative_url,
    }
    return environment


def _render(template: str, **values: Any) -> str:
    style = _environment().get_template("style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    page = _environment().get_template(template)
    return page.render(style=Markup(style), style_hash=f"sha256-{digest}", **values)
