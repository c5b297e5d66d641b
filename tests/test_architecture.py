"""The picture of the packages is that of the code."""

from __future__ import annotations

from scripts.architecture import PICTURE, draw


def test_the_picture_is_current() -> None:
    assert PICTURE.read_text() == draw(), "draw it anew: .venv/bin/python -m scripts.architecture"
