"""The picture of the packages is that of the code."""

from __future__ import annotations

from scripts import pipeline_picture
from scripts.architecture import PICTURE, draw


def test_the_picture_is_current() -> None:
    assert PICTURE.read_text() == draw(), "draw it anew: .venv/bin/python -m scripts.architecture"


def test_the_picture_of_the_pipeline_is_current() -> None:
    drawn = pipeline_picture.draw()
    assert pipeline_picture.PICTURE.read_text() == drawn, "draw it anew: .venv/bin/python -m scripts.pipeline_picture"
