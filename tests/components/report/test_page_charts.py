"""Charts as they are drawn: axes, points and colours. And numbers in words."""

from __future__ import annotations

import base64
import io
import json
import re
import tomllib
from dataclasses import replace
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib import rc_context
from PIL import Image

from mnist_tfx.components.evaluator.quality import Scores
from mnist_tfx.components.report import content as c
from mnist_tfx.components.report.page.charts import (
    curve_chart,
    intensity_charts,
    latency_chart,
    training_charts,
    whole_ticks,
)
from mnist_tfx.components.report.page.drawing import Chart
from mnist_tfx.components.report.page.images import data_uri, weights_uri
from mnist_tfx.components.report.page.quality_charts import (
    baseline_chart,
    change_chart,
    confidence_charts,
    scores_chart,
)
from mnist_tfx.components.report.page.render import render_comparison, render_report, sparkline
from mnist_tfx.components.report.page.words import UNKNOWN, bound, flat, percent, points, seconds, shorten, size
from tests.fixtures.pages import find, parse, tag, text
from tests.fixtures.report_content import sample_content
from tests.fixtures.report_variants import hostile_content, not_blessed_content

measured = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


def drawn(chart: Chart) -> Element:
    page = f"<!DOCTYPE html><html><head><title>x</title></head><body>{chart.svg}</body></html>"
    return find(parse(page), "svg")[0]


def group(svg: Element, css_class: str) -> Element:
    [element] = [each for each in find(svg, "g") if each.get("class") == css_class]
    return element


def places(element: Element) -> list[tuple[float, float]]:
    """Where its paths and marks go."""
    found = []
    for shape in element.iter():
        if tag(shape) == "use":
            found.append((float(shape.get("x", "")), float(shape.get("y", ""))))
        elif tag(shape) == "path" and not shape.get("id"):
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", shape.get("d", ""))]
            found += list(zip(numbers[::2], numbers[1::2], strict=True))
    return found


def up_labels(svg: Element) -> list[float]:
    """The numbers at the axis that goes up, from below."""
    factors = [text(each) for each in find(svg, "text") if re.fullmatch("1e.*", text(each))]
    factor = float(factors[0].replace("\N{MINUS SIGN}", "-")) if factors else 1.0
    labels = [text(each) for each in find(svg, "text") if each.get("text-anchor") == "end"]
    assert len(set(labels)) == len(labels)
    return [float(label.replace("\N{MINUS SIGN}", "-").replace(",", "").rstrip("%")) * factor for label in labels]


def losses(*values: float) -> Chart:
    epochs = [c.Epoch(number, value, 0.0, 0.0, 0.0, 1.0) for number, value in enumerate(values, start=1)]
    return curve_chart("loss", "Loss", epochs, {"train": values}, str)


@settings(max_examples=10, deadline=None)  # each draws a chart
@given(measured, measured)
@example(7e-06, 7e-06)
@example(0.417, 0.923)
@example(0.0, 0.0004)
@example(0.0, 1e6)
def test_axes_hold_the_values_between_few_equal_steps(one, other):
    marks = up_labels(drawn(losses(one, other)))
    low, high = min(one, other), max(one, other)
    slack = max(high - low, 1e-6) * 1e-6
    assert marks[0] <= low + slack and marks[-1] >= high - slack
    assert 2 <= len(marks) <= 10
    steps = np.diff(marks)
    assert np.allclose(steps, steps[0], rtol=1e-3)


def test_axes_have_round_numbers():
    assert up_labels(drawn(losses(0.417, 0.923))) == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    labels = [
        text(each) for each in find(drawn(confidence_charts(sample_content().quality.confidence, 0.1)[1]), "text")
    ]
    assert "1,000" in labels and "100%" in labels


def test_a_line_has_a_gap_where_a_value_is_no_number():
    curve = group(drawn(losses(1.0, float("nan"), 2.0, 3.0, float("inf"))), "curve train")
    assert len(find(curve, "use")) == 3
    [path] = [path for path in find(curve, "path") if not path.get("id")]
    assert path.get("d").count("M") == 2 and path.get("d").count("L") == 1
    assert not find(group(drawn(losses(float("nan"))), "curve train"), "use")


@given(st.integers(1, 400))
def test_epoch_axis_has_both_ends(last):
    marks = whole_ticks(last)
    assert marks[0] == 1 and marks[-1] == last and len(marks) <= 12
    assert list(marks) == sorted(set(marks))


def test_every_value_is_drawn():
    content = sample_content()
    loss, *_, time = map(drawn, training_charts(content.training))
    epochs = content.training.epochs
    for name in ("train", "eval"):
        assert len(find(group(loss, f"curve {name}"), "use")) == len(epochs)
    ys = [y for _, y in places(group(loss, "curve train"))][-len(epochs) :]
    assert np.corrcoef(ys, [epoch.loss for epoch in epochs])[0, 1] == pytest.approx(-1, abs=1e-3)
    assert len(find(time, "g", "bars")) == len(find(time, "g", "waiting")) == len(epochs)
    reliability, confidence, selective = map(drawn, confidence_charts(content.quality.confidence, 0.1))
    filled = [a_bin for a_bin in content.quality.confidence if a_bin.examples]
    assert len(find(reliability, "g", "bars")) == len(filled)
    assert len(find(confidence, "g", "right")) == len(find(confidence, "g", "wrong")) == len(content.quality.confidence)
    assert len(find(group(selective, "curve share answered"), "use")) == len(content.quality.confidence)
    scores = drawn(scores_chart(content.quality))
    for name in ("precision", "recall", "F1"):
        assert len(find(group(scores, f"scores {name}"), "use")) == 10
    for chart in intensity_charts(content.data.splits):
        assert len({x for x, _ in places(group(drawn(chart), "bars"))}) == 52  # 51 bars
    latencies = content.serving.latencies_ms
    assert len({x for x, _ in places(group(drawn(latency_chart(latencies)), "bars"))}) == len(latencies) + 1


def test_changes_go_to_the_side_of_their_sign():
    svg = drawn(change_chart("changes", "Changes", "", [("a", 0.5, 0.6), ("b", 0.6, 0.5), ("c", 0.5, 0.52)]))
    zero = places(group(svg, "zero"))[0][0]
    assert all(x >= zero for bar in find(svg, "g", "better") for x, _ in places(bar))
    assert all(x <= zero for bar in find(svg, "g", "worse") for x, _ in places(bar))
    assert (len(find(svg, "g", "better")), len(find(svg, "g", "worse"))) == (2, 1)


@pytest.mark.parametrize(
    "page",
    [
        lambda: render_report(sample_content()),
        lambda: render_report(hostile_content()),
        lambda: render_comparison(sample_content(), not_blessed_content()),
    ],
)
def test_charts_take_all_colours_from_the_page_and_stay_in_their_places(page):
    root = parse(page())
    variables = set(re.findall(r"(--[\w-]+):", text(find(root, "style")[0])))
    identifiers = {element.get("id") for element in root.iter()}
    charts = find(root, "svg", "chart")
    assert charts
    for svg in charts:
        _, _, width, height = map(float, svg.get("viewBox").split())
        for element in svg.iter():
            for name in ("fill", "stroke"):
                colour = element.get(name, "none")
                assert colour == "none" or colour.removeprefix("var(").removesuffix(")") in variables, colour
            assert (tag(element) != "text") or element.get("fill", "").startswith("var(")
            assert element.get("href", "#").removeprefix("#") in {*identifiers, ""}
        for x, y in places(svg):
            assert -0.1 <= x <= width + 0.1 and -0.1 <= y <= height + 0.1
        assert any(text(each) for each in find(svg, "text"))


def test_names_are_never_taken_for_formulas():
    quality = sample_content().quality
    named = replace(
        quality, classes=tuple(replace(each, name=f"$x_{i}$ \n\x00名") for i, each in enumerate(quality.classes))
    )
    assert ">$x_3$ 名</text>" in scores_chart(named).svg


def test_a_class_without_examples_has_no_recall():
    quality = sample_content().quality
    nothing = Scores(0.0, 0.0, 0.0)  # as the Evaluator counts it
    unseen = replace(quality.classes[9], name="unseen", examples=0, scores=nothing, baseline=nothing)
    chart = scores_chart(replace(quality, classes=(*quality.classes[:9], unseen)))
    assert len(find(group(drawn(chart), "scores recall"), "use")) == 9
    average = np.mean([each.scores.recall for each in quality.classes[:9]])
    assert chart.table.rows[0][3] == f"{100 * average:.2f}%" and "unseen" not in chart.note
    changes = baseline_chart((*quality.classes[:2], unseen))
    assert {row[0] for row in changes.table.rows} == {each.name for each in quality.classes[:2]}
    assert baseline_chart((unseen,)) is None


def test_the_users_own_settings_of_matplotlib_change_nothing():
    expected = losses(1.0, 2.0).svg
    with rc_context({"axes.facecolor": "#123456", "font.size": 30, "xtick.direction": "in", "svg.fonttype": "path"}):
        assert losses(1.0, 2.0).svg == expected


def test_twelve_lines_differ_and_have_their_names_above_the_plot():
    epochs = [c.Epoch(number, 0.0, 0.0, 0.0, 0.0, 1.0) for number in (1, 2, 3)]
    curves = {f"run {number}": (number, number + 1.0, number + 2.0) for number in range(12)}
    svg = drawn(curve_chart("loss", "Loss", epochs, curves, str))
    looks = {
        (path.get("stroke"), path.get("stroke-dasharray", ""))
        for name in curves
        for path in find(group(svg, f"curve {name}"), "path")
        if path.get("stroke-width") == "2"
    }
    assert len(looks) == 12
    names = [each for each in find(svg, "text") if text(each).startswith("run ")]
    heights = {float(each.get("y", "")) for each in names}
    assert len(names) == 12 and len(heights) == 3
    assert max(heights) < min(y for name in curves for _, y in places(group(svg, f"curve {name}"))[-3:])


def test_sparkline_of_few_runs():
    assert sparkline([]) == []
    assert len(sparkline([0.5])) == 1
    flat_line = sparkline([0.5, 0.5])
    assert flat_line[0][1] == flat_line[1][1]


def test_words():
    assert percent(0.89776) == "89.78%" and percent(None) == UNKNOWN and percent(float("nan")) == "nan"
    assert bound(0.65) == "65%" and bound(0.983) == "98.3%"
    assert points(0.00431) == "+0.43" and points(-0.001) == "\N{MINUS SIGN}0.10" and points(0.0) == "±0.00"
    assert [seconds(value) for value in (0.03, 66.84, 185, 9000, None)] == [
        "30 ms",
        "66.8 s",
        "3 min 5 s",
        "2 h 30 min",
        UNKNOWN,
    ]
    assert [size(value) for value in (12, 2_731_008, 3.1e9)] == ["12 bytes", "2.7 MB", "3.1 GB"]
    assert shorten("Ankle boot", 10) == "Ankle boot" and shorten("T-shirt or top", 8) == "T-shirt…"


def test_recipe_is_told_as_toml():
    recipe = {"data": {"splits": {"train": 'a"b'}}, "model": {"hidden_layers": [512, 256], "dropout": 0.3}, "seed": 0}
    lines = [f"{name} = {value}" for name, value in flat(recipe)]
    assert tomllib.loads("\n".join(lines)) == recipe
    assert json.loads(dict(flat({"name": "Größe"}))["name"]) == "Größe"
    classes = {"data": {"classes": {"no. 5": ["a"], 'say "b"': ["b"], "ä": ["c"]}}}
    assert tomllib.loads("\n".join(f"{name} = {value}" for name, value in flat(classes))) == classes


def test_weights_are_blue_or_vermilion():
    uri = weights_uri(np.array([[[1], [128], [255]]], np.uint8))
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(213, 94, 0), (247, 247, 245), (0, 114, 178)]
    colour = np.zeros((2, 2, 3), np.uint8)
    assert weights_uri(colour) == data_uri(colour)
