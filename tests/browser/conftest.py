"""A browser for the tests of a module, pages that are watched, and the demo on a model that tests trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from playwright.sync_api import Browser, sync_playwright

from mnist_tfx.contract.names import METADATA_PATH
from scripts.browser import Unavailable, axe, chromium
from tests.fixtures.demo_server import demo_server
from tests.fixtures.saved_models import write_scale_model
from tests.fixtures.tiny_run import TinyRun
from tests.fixtures.watched_page import Pages

CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def _give_up(reason: Unavailable) -> NoReturn:
    """CI has to run these tests; elsewhere, a machine without a browser may go without."""
    if os.environ.get("CI"):
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))


# Playwright's synchronous calls keep an event loop running in this thread until they are stopped, and no other test
# could call asyncio.run meanwhile: so no scope beyond the module, though a browser takes half a second to start.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    try:
        executable = chromium()
    except Unavailable as reason:
        _give_up(reason)
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=executable)
        yield one
        one.close()


@pytest.fixture(scope="session")
def axe_script() -> Path:
    """The script of axe-core."""
    try:
        return axe()
    except Unavailable as reason:
        _give_up(reason)


@pytest.fixture
def pages(browser: Browser, axe_script: Path) -> Iterator[Pages]:
    """Opens pages; no test leaves one open."""
    with Pages(browser, axe_script) as pages:
        yield pages


@pytest.fixture(scope="session")
def demo_home(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Serves the tiny run's model as itself and as one of clothes, and a model that has nothing to do with images."""
    home = tmp_path_factory.mktemp("demo")
    pushed = tiny_run.home.serving("kmnist") / tiny_run.versions()[0]
    for name in ("kmnist", "fashion_mnist"):
        shutil.copytree(pushed, home / "serving" / name / "1")
    metadata_file = home / "serving" / "fashion_mnist" / "1" / METADATA_PATH
    metadata: dict[str, Any] = json.loads(metadata_file.read_text())
    metadata_file.write_text(json.dumps(metadata | {"dataset": "fashion_mnist", "class_names": CLOTHES}))
    write_scale_model(home / "serving" / "scale" / "1", 2)
    return home


@pytest.fixture(scope="module")
def demo(browser: Browser, demo_home: Path) -> Iterator[str]:
    """The URL of the page, on a server in a process of its own; after `browser`, without which none is needed."""
    with demo_server(demo_home) as url:
        yield url
