"""The README's pictures: the report of a home's last Fashion-MNIST run, and the demo of its pushed models.

`python -m scripts.screenshots --home DIR` writes them into docs/, each below 150 kB. The home needs a pushed model of
both datasets, as `make run` leaves it.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from mnist_tfx.pipeline.home import Home
from scripts.browser import Unavailable, chromium
from tests.fixtures.demo_server import demo_server
from tests.fixtures.digit_strokes import draw

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / "docs"
MAX_BYTES = 150_000
COLOURS = (256, 128, 64, 32)  # as many as fit

DESK: ViewportSize = {"width": 1100, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}

REPORT_PICTURES: tuple[tuple[str, str, Literal["light", "dark"]], ...] = (
    ("report.png", "verdict", "light"),
    ("report-quality.png", "quality", "light"),
    ("report-look.png", "look", "dark"),
)


def main() -> int:
    """Takes all pictures; 1 where there is no browser, or no run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", metavar="DIR", help="where the run is (default: MNIST_TFX_HOME, else var/)")
    home = Home.resolve(parser.parse_args().home).root
    try:
        executable = chromium()
        report = _report(home)
    except (Unavailable, LookupError) as reason:
        print(reason, file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright, demo_server(home) as url:
        browser = playwright.chromium.launch(executable_path=executable)
        _take_report(browser, report)
        _take_demo(browser, url)
        browser.close()
    return 0


def _report(home: Path) -> Path:
    """Makes the report of the last run of Fashion-MNIST. Raises LookupError."""
    program = Path(sys.executable).with_name("mnist-tfx")

    def answer(*arguments: str) -> str:
        result = subprocess.run([program, *arguments, f"--home={home}", "--json"], capture_output=True, text=True)
        if result.returncode != 0:
            raise LookupError(f"mnist-tfx {' '.join(arguments)} failed: {result.stderr.strip()}")
        return result.stdout

    runs = [run["run_id"] for run in json.loads(answer("runs")) if run["dataset"] == "fashion_mnist"]
    if not runs:
        raise LookupError(f"there is no run of Fashion-MNIST in {home}. Make one with: make run")
    return Path(json.loads(answer("report", runs[0]))["report"])  # the newest


def _take_report(browser: Browser, report: Path) -> None:
    for name, section, scheme in REPORT_PICTURES:
        page = browser.new_page(viewport=DESK, color_scheme=scheme, reduced_motion="reduce")  # it jumps to the section
        page.goto(report.as_uri())
        if section != "verdict":  # above which stands the page's title
            page.evaluate(f"document.querySelector('section#{section}').scrollIntoView()")
        _save(page.screenshot(), name)
        page.close()


def _take_demo(browser: Browser, url: str) -> None:
    page = _drawn(browser, url, digit=5, viewport=DESK, color_scheme="light")
    _save(page.screenshot(), "demo.png")
    page.close()
    page = _drawn(browser, url, digit=3, viewport=PHONE, color_scheme="dark", has_touch=True, is_mobile=True)
    _save(page.screenshot(), "demo-phone.png")
    page.close()


def _drawn(browser: Browser, url: str, *, digit: int, **options: object) -> Page:
    page = browser.new_page(**options)  # type: ignore[arg-type]
    page.goto(f"{url}#mnist")
    expect(page.locator("#bars li")).to_have_count(10)
    draw(page, digit)
    expect(page.locator("#headline")).to_have_text(str(digit))
    expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")
    page.wait_for_timeout(300)  # the bars come to rest
    return page


def _save(png: bytes, name: str) -> None:
    """With the most colours that keep it small."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in COLOURS:
        small = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        if small.tell() <= MAX_BYTES:
            break
    (FOLDER / name).write_bytes(small.getvalue())
    print(f"{FOLDER / name}  {small.tell() / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
