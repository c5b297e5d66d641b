"""The reports in a real browser: of a real small run, and of contents that are odd, failed or hostile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_tfx.components.report.page.render import render_comparison, render_index, render_report
from tests.fixtures.pages import parse
from tests.fixtures.report_content import content_of_classes, sample_content, sample_index
from tests.fixtures.report_variants import data_rejected_content, empty_content, hostile_content, not_blessed_content
from tests.fixtures.tiny_run import TinyRun
from tests.fixtures.watched_page import Pages, WatchedPage

MAKERS: dict[str, Callable[[], str]] = {
    "sample": lambda: render_report(sample_content()),
    "not-blessed": lambda: render_report(not_blessed_content()),
    "data-rejected": lambda: render_report(data_rejected_content()),
    "empty": lambda: render_report(empty_content()),
    "hostile": lambda: render_report(hostile_content()),
    "very-many-classes": lambda: render_report(content_of_classes(1000)),
    "comparison": lambda: render_comparison(sample_content(0), sample_content(1)),
    "comparison-of-seven": lambda: render_comparison(*map(sample_content, range(7))),
    "index": lambda: render_index(sample_index()),
}
LOOKS = [("light", False), ("dark", True)]  # each scheme and each width once


def check(pages: Pages, file: Path) -> WatchedPage:
    """What holds for every page, in light on a desk and in dark on a phone; gives the last."""
    parse(file.read_text())  # strictly
    for scheme, phone in LOOKS:
        watched = pages.open(file.as_uri(), scheme=scheme, phone=phone)
        assert not watched.scrolls_sideways(), f"{scheme}: {watched.too_wide()}"
        assert watched.barriers() == []
        assert (watched.brightness() < 0.2) == (scheme == "dark")
        assert (
            watched.page.evaluate("[...document.images].filter(one => !one.complete || !one.naturalWidth).length") == 0
        )
        assert [url for url in watched.requests if not url.startswith("data:")] == [file.as_uri()]
        assert watched.complaints == []
    return watched


def test_the_report_of_a_real_run(pages: Pages, tiny_run: TinyRun) -> None:
    page = check(pages, tiny_run.home.report("kmnist", tiny_run.run_id)).page
    for key in ("verdict", "data", "model", "training", "quality", "look", "serving", "lineage"):
        assert page.locator(f"section#{key}").is_visible(), key
    charts = page.locator("figure svg[role=img]")
    assert charts.count() >= 10
    for chart in charts.all():
        box = chart.bounding_box()
        assert box is not None and box["width"] > 200 and box["height"] > 100
        assert chart.locator("path, rect, circle, polyline, polygon").count() > 0
    assert page.locator("section#look img").count() >= 24


def test_the_index_of_all_runs_leads_to_each(pages: Pages, tiny_run: TinyRun) -> None:
    page = check(pages, tiny_run.home.reports / "index.html").page
    page.locator(f"a[href$='{tiny_run.run_id}.html']").first.click()
    page.wait_for_url(tiny_run.home.report("kmnist", tiny_run.run_id).as_uri())


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_page_holds_in_a_browser(pages: Pages, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"{kind}.html"
    file.write_text(MAKERS[kind]())
    check(pages, file)
