"""What the page is for: a person draws a digit, and the model knows which."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.fixtures.command import mnist_tfx
from tests.fixtures.demo_server import CHECKOUT, demo_server
from tests.fixtures.digit_strokes import DIGITS, draw
from tests.fixtures.watched_page import Pages


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_model_knows_digits_that_a_mouse_draws(browser: Browser, pages: Pages, tmp_path: Path) -> None:
    """Trains the default recipe on MNIST, from the checkout's prepared datasets where they are there."""
    prepared = CHECKOUT / "var" / "datasets"
    if prepared.is_dir():
        os.symlink(prepared, tmp_path / "datasets")
    answer = mnist_tfx("run", "--dataset", "mnist", "--home", tmp_path)
    assert answer.code == 0, answer.err
    told: dict[int, str] = {}
    with demo_server(tmp_path) as url:
        page = pages.open(f"{url}#mnist").page
        expect(page.locator("#bars li")).to_have_count(10)
        for digit in DIGITS:
            draw(page, digit)
            expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")  # nothing more is being asked
            told[digit] = page.inner_text("#headline")
    right = [digit for digit in DIGITS if told[digit] == str(digit)]
    assert len(right) >= 8, told
