"""Every page: valid, self-contained, escaped, and readable for everyone."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

import mnist_tfx.components.report.page.render as render_module
from mnist_tfx.components.report.page.monitoring import render_monitoring
from mnist_tfx.components.report.page.render import render_card, render_comparison, render_index, render_report
from tests.fixtures.monitoring import sample_report
from tests.fixtures.pages import attributes, by_id, find, parse, tag, text
from tests.fixtures.report_content import content_of_classes, sample_content, sample_index
from tests.fixtures.report_variants import (
    HOSTILE,
    data_rejected_content,
    empty_content,
    hostile_content,
    not_blessed_content,
)

PAGES: dict[str, Callable[[], str]] = {
    "pushed": lambda: render_report(sample_content()),
    "not blessed": lambda: render_report(not_blessed_content()),
    "data rejected": lambda: render_report(data_rejected_content()),
    "empty": lambda: render_report(empty_content()),
    "hostile": lambda: render_report(hostile_content()),
    "two classes": lambda: render_report(content_of_classes(2)),
    "many classes": lambda: render_report(content_of_classes(100)),
    "very many classes": lambda: render_report(content_of_classes(1000)),
    "comparison of seven": lambda: render_comparison(*map(sample_content, range(7))),
    "comparison": lambda: render_comparison(sample_content(), not_blessed_content()),
    "comparison with nothing": lambda: render_comparison(empty_content(), data_rejected_content()),
    "hostile comparison": lambda: render_comparison(hostile_content(), hostile_content()),
    "index": lambda: render_index(sample_index()),
    "empty index": lambda: render_index([]),
    "monitoring": lambda: render_monitoring(sample_report()),
    "hostile monitoring": lambda: render_monitoring(sample_report(HOSTILE)),
}
REPORTS = ("pushed", "not blessed", "data rejected", "empty", "hostile")


@functools.cache  # to parse a page strictly takes longer than to render it
def rendered(name: str) -> tuple[str, Element]:
    page = PAGES[name]()
    return page, parse(page)


@pytest.fixture(params=PAGES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def page(name: str) -> str:
    return rendered(name)[0]


@pytest.fixture
def root(name: str) -> Element:
    return rendered(name)[1]


def test_is_valid_html5(page, root):
    assert page.startswith("<!DOCTYPE html>")
    assert find(root, "html")[0].get("lang") == "en"
    assert text(find(root, "title")[0])


def test_refers_to_nothing_outside(root):
    assert not {tag(element) for element in root.iter()} & {"script", "iframe", "object", "embed", "form", "base"}
    for element, name, value in attributes(root):
        assert not name.startswith("on"), (element, name)
        assert name not in ("style", "action", "srcset", "poster", "background"), (element, name)
        if name in ("src", "xlink:href"):
            assert value.startswith(("data:image/png;base64,", "data:image/webp;base64,"))
        if name == "href":
            assert value == "data:," or not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|/", value), value
    style = text(find(root, "style")[0])
    assert "url(" not in style and "@import" not in style


def test_policy_forbids_all_but_its_own_style_and_images(root):
    [policy] = [
        meta.get("content") for meta in find(root, "meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = base64.b64encode(hashlib.sha256((find(root, "style")[0].text or "").encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_has_landmarks_and_headings_in_order(root):
    for landmark in ("header", "main", "footer"):
        assert len(find(root, landmark)) == 1
    skip = find(root, "a", "skip")[0]
    assert skip.get("href") == "#main" and by_id(root, "main").get("tabindex") == "-1"
    levels = [int(tag(element)[1]) for element in root.iter() if re.fullmatch("h[1-6]", tag(element))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    identifiers = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))
    for link in find(root, "a"):
        if link.get("href", "").startswith("#"):
            assert link.get("href", "")[1:] in identifiers


def test_pictures_have_words(root):
    hidden = {part for element in root.iter() if element.get("aria-hidden") == "true" for part in element.iter()}
    for picture in find(root, "svg"):
        if picture in hidden:
            continue
        assert picture.get("role") == "img"
        assert re.search(r"\d", picture.get("aria-label", "")), "a chart's text alternative has its numbers"
    for image in find(root, "img"):
        assert image.get("alt")


def test_each_chart_has_its_table(root):
    for figure in find(root, "figure", "card"):
        assert len([svg for svg in find(figure, "svg") if svg.get("role") == "img"]) == 1
        assert text(find(figure, "figcaption")[0])
        [details] = find(figure, "details")
        rows = find(details, "tr")
        assert len(rows) > 1
        widths = {len([cell for cell in row if tag(cell) in ("td", "th")]) for row in rows}
        assert len(widths) == 1


def test_wide_content_scrolls_in_a_box_that_the_keyboard_reaches(root):
    for box in [*find(root, "div", "scroll"), *find(root, "pre")]:
        assert box.get("tabindex") == "0" and box.get("role") == "region" and box.get("aria-label")
    inside = [element for box in find(root, "div", "scroll") for element in find(box, "table")]
    bars = find(root, "table", "bars")  # two short columns beside an image
    assert len(inside) + len(bars) == len(find(root, "table"))
    for each in find(root, "table"):
        assert find(each, "caption") or each.get("aria-label")


@pytest.mark.parametrize("name", ["hostile", "hostile comparison"])
def test_hostile_names_are_text_and_nothing_else(page, root):
    assert "<script" not in page and "<img src=http" not in page
    assert HOSTILE in text(root)
    assert any(HOSTILE in value for _, attribute, value in attributes(root) if attribute == "aria-label")
    assert {tag(element) for element in root.iter()} <= {
        tag(element) for other in PAGES if "hostile" not in other for element in rendered(other)[1].iter()
    }


def test_the_card_tells_hostile_names_as_text():
    card = render_card(hostile_content())
    lines = [line for line in card.splitlines() if not line.startswith("    ")]
    assert any("script" in line for line in lines)
    assert not any(re.search(r"(?<!\\)[<>]", line) for line in lines)
    assert render_card(empty_content()).endswith("The recipe of this run is not known.\n")


def test_the_card_says_how_a_project_of_ones_own_is_run():
    """There the command is refused that names the dataset, which is none of the shipped ones."""
    _, _, how = render_card(sample_content()).partition("## How to reproduce it\n")
    assert "    mnist-tfx run --dataset fashion_mnist --recipe recipe.toml\n" in how
    assert "in a project of your own: without --dataset" in how


def test_is_small(page):
    assert len(page.encode()) < 1_000_000  # of the 3 MB that a report may have


def test_same_content_makes_the_same_page(name, page):
    assert PAGES[name]() == page


def test_several_threads_render_at_once():
    expected = {name: rendered(name)[0] for name in REPORTS}
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda name: (name, PAGES[name]()), [*REPORTS, "pushed"]))
    assert all(page == expected[name] for name, page in pages)


def test_report_has_its_sections_in_order():
    for name in REPORTS:
        headings = [text(heading) for heading in find(rendered(name)[1], "h2")]
        assert headings[0].startswith("Verdict: ")
        assert headings[1:] == ["Data", "Model", "Training", "Quality", "Look at it", "Serving", "Lineage and time"]


def test_index_leads_to_each_report_and_to_no_other_place():
    rows = sample_index()
    evil = [
        replace(rows[0], run_id="a", report="javascript:alert(1)"),
        replace(rows[0], run_id="b", report="//evil.example/x"),
        replace(rows[0], run_id="c", report="https://evil.example/x"),
    ]
    links = [link.get("href", "") for link in find(parse(render_index([*rows, *evil])), "a", "")]
    assert {row.report for row in rows if row.report} <= set(links)
    assert not any(re.match(r"[a-z]+:|//", link) for link in links)


def test_index_tells_accuracy_over_time():
    root = rendered("index")[1]
    assert [text(heading) for heading in find(root, "h2")] == ["fashion_mnist", "mnist"]
    rows = [row for row in sample_index() if row.dataset == "mnist" and row.accuracy is not None]
    line = find(root, "svg", "spark")[1]
    label = line.get("aria-label", "")
    newest, oldest = (f"{100 * rows[index].accuracy:.2f}%" for index in (0, -1))
    assert f"from {oldest} to {newest}" in label
    points = find(line, "polyline")[0].get("points", "").split()
    assert len(points) == len(rows)


def test_templates_are_package_data():
    folder = Path(render_module.__file__).parent
    pyproject = tomllib.loads((folder.parents[2] / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["package-data"]["mnist_tfx.components.report.page"]
    packaged = {path for pattern in patterns for path in folder.glob(pattern)}
    assert packaged == {path for path in (folder / "templates").rglob("*") if path.is_file()}
