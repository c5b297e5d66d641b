"""Axes, and numbers in words."""

from __future__ import annotations

import base64
import io
import json
import tomllib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mnist_tfx.components.report.page.charts import epoch_ticks
from mnist_tfx.components.report.page.images import data_uri, weights_uri
from mnist_tfx.components.report.page.scales import Scale, tick_labels, ticks
from mnist_tfx.components.report.page.sparkline import sparkline
from mnist_tfx.components.report.page.words import UNKNOWN, bound, flat, percent, points, seconds, shorten, size

measured = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


@given(measured, measured, st.integers(2, 8))
@example(7e-06, 7e-06, 5)  # 1e-5 and 1.2e-5 were both called 1e-5
def test_ticks_hold_the_values_between_few_equal_steps(one, other, most):
    low, high = min(one, other), max(one, other)
    marks = ticks(low, high, most)
    span = max(high - low, 1e-6)
    assert marks[0] <= low + span * 1e-6 and marks[-1] >= high - span * 1e-6
    assert 2 <= len(marks) <= most + 3
    steps = np.diff(marks)
    assert np.allclose(steps, steps[0], rtol=1e-6)
    assert len(set(tick_labels(marks))) == len(marks)


def test_ticks_are_round():
    assert ticks(0.417, 0.923) == (0.4, 0.6, 0.8, 1.0)
    assert tick_labels(ticks(0, 6000, 4)) == ("0", "2,000", "4,000", "6,000")
    assert tick_labels(ticks(0, 0.0004, 3)) == ("0", "2e-4", "4e-4")
    with pytest.raises(ValueError, match="no axis"):
        ticks(float("nan"), 1)


@given(st.integers(1, 400))
def test_epoch_axis_has_both_ends(last):
    marks = epoch_ticks(last)
    assert marks[0] == 1 and marks[-1] == last and len(marks) <= 12
    assert list(marks) == sorted(set(marks)) and all(mark == int(mark) for mark in marks)


def test_scale_keeps_values_inside():
    scale = Scale(0, 10, 100, 0)
    assert [scale(value) for value in (0, 5, 10, 20, -1)] == [100, 50, 0, 0, 100]


def test_sparkline_of_few_runs():
    assert sparkline([]) is None
    assert len(sparkline([0.5]).points) == 1
    flat_line = sparkline([0.5, 0.5])
    assert flat_line.points[0][1] == flat_line.points[1][1]


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


def test_weights_are_blue_or_vermilion():
    uri = weights_uri(np.array([[[1], [128], [255]]], np.uint8))
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(213, 94, 0), (247, 247, 245), (0, 114, 178)]
    colour = np.zeros((2, 2, 3), np.uint8)
    assert weights_uri(colour) == data_uri(colour)
