"""Renders the pages, each one file: no script, no address outside of it, a policy that forbids both; and the card.

The templates ask the functions of this package for charts and tables, each in the section that shows it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType, ModuleType
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from mnist_tfx.components.report.content import Drawn, IndexRow, ReportContent
from mnist_tfx.components.report.page import charts, comparison, images, quality_charts, views, words


def draw(content: ReportContent) -> Drawn:
    """The parts of page and card that the artifacts alone decide."""
    sections = {
        key: _part("section.html", content, key=key, title=title) for key, title in views.SECTIONS if key in views.DRAWN
    }
    return Drawn(sections, _part("sections/card.md", content), content.verdict.warnings)


def _part(template: str, content: ReportContent, **values: str) -> str:
    return _environment().get_template(template).render(content=content, **values)


def render_report(content: ReportContent, drawn: Drawn | None = None) -> str:
    """The report of one run, as a complete HTML page. The same content gives the same page, byte by byte.

    Args:
        content: what it shows.
        drawn: what is already drawn of it.
    """
    return render("report.html", content=content, drawn=(drawn or draw(content)).sections, sections=views.SECTIONS)


def render_comparison(*runs: ReportContent) -> str:
    """Two or more runs beside each other: where they differ, and what came of it; of two, what the second changed."""
    return render("comparison.html", runs=runs)


def render_card(content: ReportContent, drawn: Drawn | None = None) -> str:
    """The model card of one run, in Markdown; see `render_report`."""
    card = drawn.card if drawn else _part("sections/card.md", content)
    return _environment().get_template("card.md").render(content=content, drawn=card)


def render_index(rows: Iterable[IndexRow]) -> str:
    """All runs, by dataset, with a sparkline of accuracy over time. `rows` begin with the newest run."""
    by_dataset: dict[str, list[IndexRow]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(row)
    return render("index.html", datasets=sorted(by_dataset.items()))


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


def _functions(*modules: ModuleType) -> dict[str, Callable[..., Any]]:
    """What templates may call, by name: what is defined there, not what is imported."""
    found = (each for module in modules for each in vars(module).values() if each.__class__ is FunctionType)
    return {each.__name__: each for each in found if each.__module__ in {module.__name__ for module in modules}}


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_tfx.components.report.page"),
        autoescape=lambda name: not str(name).endswith(".md"),  # which have words of their own for that: `plain`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _functions(words, images) | {"relative_url": relative_url}
    environment.globals |= _functions(charts, comparison, images, quality_charts, views)
    environment.globals |= {"sparkline": sparkline}
    environment.globals |= {"MEASURES": views.MEASURES, "MANY_CLASSES": words.MANY_CLASSES}
    return environment


def render(template: str, **values: Any) -> str:
    """A page of a template."""
    style = _environment().get_template("style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    page = _environment().get_template(template)
    return page.render(style=Markup(style), style_hash=f"sha256-{digest}", **values)
