"""The page of `mnist-tfx serve --demo` in a real browser, on a real server with a model that tests trained."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Request, expect

from mnist_tfx.serving.demo.pages import application
from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.main import ModelServer
from tests.fixtures.command import mnist_tfx
from tests.fixtures.demo_reference import clothing, digit
from tests.fixtures.digit_strokes import draw
from tests.fixtures.pages import parse
from tests.fixtures.saved_models import write_scale_model
from tests.fixtures.watched_page import Pages, WatchedPage

SHARES = "#bars .share"


def open_demo(pages: Pages, url: str, model: str = "kmnist", **options: Any) -> WatchedPage:
    """The page with a model chosen, ready for input."""
    watched = pages.open(f"{url}#{model}", **options)
    expect(watched.page.locator("#bars li")).to_have_count(10)
    return watched


def is_prediction(request: Request) -> bool:
    return request.url.endswith(":predict")


def sent(request: Request) -> np.ndarray:
    """The one image of a predict call: [28, 28, 1]."""
    body = request.post_data_json
    assert isinstance(body, dict) and body["signature_name"] == "images"
    [image] = body["instances"]
    return np.array(image)


def shown(page: Page) -> np.ndarray:
    """What the page says the model sees: grey levels [28, 28]."""
    rgba = page.evaluate(
        "[...document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data]",
    )
    return np.array(rgba).reshape(28, 28, 4)[..., 0]


def put_down_files(page: Page, *, kind: str, content: bytes, name: str) -> None:
    """Drops a file on the zone, as a file manager does."""
    transfer = page.evaluate_handle(
        """({kind, content, name}) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], name, {type: kind}));
            return transfer;
        }""",
        {"kind": kind, "content": list(content), "name": name},
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#zone", event, {"dataTransfer": transfer})


def test_bars_move_while_drawing_by_the_rest_call_of_any_client(pages: Pages, demo: str) -> None:
    watched = open_demo(pages, demo)
    page = watched.page
    expect(page.locator("#headline")).to_have_text("Draw a digit.")
    box = page.locator("#paper").bounding_box()
    assert box is not None
    seen: list[list[str]] = []
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    for x, y in ((60, 220), (220, 220), (220, 40)):
        with page.expect_request_finished(is_prediction):  # the button is still down
            page.mouse.move(box["x"] + x, box["y"] + y, steps=4)
        expect(page.locator("#headline")).to_have_class("found")
        seen.append(page.locator(SHARES).all_inner_texts())
    page.mouse.up()
    assert len({tuple(shares) for shares in seen}) > 1
    expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")  # the last stroke is answered

    with page.expect_request_finished(is_prediction) as finished:
        page.locator("#paper").press(" ")
    request = finished.value
    assert request.method == "POST"
    assert request.url == demo.removesuffix("/demo/") + "/v1/models/kmnist:predict"
    assert np.array_equal(sent(request)[..., 0], shown(page))
    response = request.response()
    assert response is not None
    [prediction] = response.json()["predictions"]
    expect(page.locator("#headline")).to_have_text(prediction["labels"])
    best = page.locator("#bars .best")
    expect(best).to_have_count(1)
    expect(best.locator(".share")).to_have_text(f"{round(100 * max(prediction['probabilities']))} %")
    expect(page.locator("#spoken")).to_contain_text(f"Most likely {prediction['labels']}, ")
    assert watched.complaints == []


def test_a_model_that_does_not_tell_its_classes_gets_a_row_for_each(pages: Pages, demo: str) -> None:
    rows = pages.open(demo).page.evaluate(
        """async (url) => {
            const [bars, headline, spoken] = ["ul", "p", "p"].map((tag) => document.createElement(tag));
            const answer = new (await import(url)).Answer(bars, headline, spoken);
            answer.begin(Array.from({ length: 10 }, (_, index) => `class ${index}`));
            answer.show([0.25, 0.7, 0.05], 1, "boot");
            return [...bars.children].map((row) => [row.children[0].textContent, row.children[2].textContent]);
        }""",
        f"{demo}answer.js",
    )
    assert rows == [["class 0", "25 %"], ["boot", "70 %"], ["class 2", "5 %"]]


def test_clear_takes_everything_back(pages: Pages, demo: str) -> None:
    watched = open_demo(pages, demo)
    page = watched.page
    draw(page, 5)
    expect(page.locator("#headline")).to_have_class("found")
    assert shown(page).any()
    page.click("#clear")
    expect(page.locator("#headline")).to_have_text("Draw a digit.")
    expect(page.locator("#bars .best")).to_have_count(0)
    assert not shown(page).any()


def test_keys_draw(pages: Pages, demo: str) -> None:
    watched = open_demo(pages, demo)
    page, paper = watched.page, watched.page.locator("#paper")
    for key in ("ArrowUp", " ", "ArrowDown", "ArrowDown", "ArrowRight"):
        paper.press(key)
    expect(page.locator("#headline")).to_have_class("found")
    paper.press("Delete")
    expect(page.locator("#headline")).to_have_text("Draw a digit.")


def test_a_finger_draws_and_does_not_scroll(pages: Pages, demo: str) -> None:
    watched = open_demo(pages, demo, phone=True)
    page = watched.page
    box = page.locator("#paper").bounding_box()
    assert box is not None
    touch = page.context.new_cdp_session(page)
    for kind, y in (("touchStart", 250), ("touchMove", 150), ("touchMove", 50), ("touchEnd", 0)):
        points = [] if kind == "touchEnd" else [{"x": box["x"] + 100, "y": box["y"] + y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(page.locator("#headline")).to_have_class("found")
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollHeight > innerHeight")  # it could have scrolled
    assert shown(page)[6:23, 14].all()


@pytest.mark.parametrize("seed", range(3))
def test_drawings_are_prepared_as_mnist_was(pages: Pages, demo: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ink = np.zeros((60, 80), np.uint8)
    top, left, height, width = 5 * seed, 40 - 20 * seed, *rng.integers(9, 40, 2)
    ink[top : top + height, left : left + width] = rng.integers(1, 256, (height, width))
    page = open_demo(pages, demo).page
    got = prepared(page, "digit", ink)
    assert got == pytest.approx(digit(ink), abs=1)  # halves may be rounded to either side
    rows, columns = np.indices(got.shape)
    assert [(got * index).sum() / got.sum() for index in (rows, columns)] == pytest.approx([14, 14], abs=0.51)
    assert max(np.ptp(np.nonzero(got), axis=1)) + 1 == 20


def test_photographs_are_prepared_as_fashion_mnist_was(pages: Pages, demo: str) -> None:
    photograph = np.full((50, 70), 240, np.uint8)
    photograph[10:30, 5:60] = 100
    page = open_demo(pages, demo).page
    on_grey = np.where(photograph == 100, 250, 160).astype(np.uint8)
    for image in (photograph, 255 - photograph, on_grey):  # darker than the background, and lighter
        got = prepared(page, "clothing", image)
        assert got == pytest.approx(clothing(image), abs=1)
        assert got[:, 0].any() and got[:, -1].any() and not got[0].any() and not got[-1].any()
    own = np.zeros((28, 28), np.uint8)
    own[3:20, 5:9] = 77
    assert np.array_equal(prepared(page, "clothing", own), own)


def prepared(page: Page, function: str, image: np.ndarray) -> np.ndarray:
    """What a function of preprocess.js makes of an image: [28, 28]."""
    height, width = image.shape
    values = page.evaluate(
        """async ({url, name, width, height, values}) => {
            const module = await import(url);
            return [...module[name]({width, height, values: Uint8Array.from(values)}).values];
        }""",
        {
            "url": page.url.partition("#")[0] + "preprocess.js",
            "name": function,
            "width": width,
            "height": height,
            "values": image.ravel().tolist(),
        },
    )
    return np.array(values).reshape(28, 28)


def test_an_image_is_dropped_or_chosen(pages: Pages, demo: str, tmp_path: Path) -> None:
    image = np.full((90, 120), 250, np.uint8)
    image[20:80, 30:90] = 60
    file = tmp_path / "shirt.png"
    Image.fromarray(image).save(file)
    watched = open_demo(pages, demo, "fashion_mnist")
    page = watched.page
    expect(page.locator("#headline")).to_have_text("Drop an image of clothing.")
    assert page.locator("#bars .name").all_inner_texts()[-1] == "Ankle boot"
    with page.expect_request_finished(is_prediction) as finished:
        put_down_files(page, kind="image/png", content=file.read_bytes(), name=file.name)
    assert finished.value.url.endswith("/v1/models/fashion_mnist:predict")
    assert sent(finished.value)[..., 0] == pytest.approx(clothing(image), abs=1)
    expect(page.locator("#headline")).to_have_class("found")
    page.click("#clear")
    expect(page.locator("#headline")).to_have_text("Drop an image of clothing.")
    with page.expect_request_finished(is_prediction):
        page.set_input_files("#file", file)
    expect(page.locator("#photo")).to_be_visible()
    Image.new("L", (40, 40), 200).save(file)
    page.set_input_files("#file", file)
    expect(page.locator("#headline")).to_have_text("Nothing stands out in this image.")
    assert watched.complaints == []


@pytest.mark.parametrize("level", [0, 255])
def test_nothing_stands_out_of_a_black_or_a_white_image(pages: Pages, demo: str, tmp_path: Path, level: int) -> None:
    Image.new("L", (40, 40), level).save(tmp_path / "plain.png")
    watched = open_demo(pages, demo, "fashion_mnist")
    watched.page.set_input_files("#file", tmp_path / "plain.png")
    expect(watched.page.locator("#headline")).to_have_text("Nothing stands out in this image.")
    assert not [url for url in watched.requests if url.endswith(":predict")]


@pytest.mark.parametrize(
    ("kind", "words"), [("text/plain", "That is no image"), ("image/png", "notes.txt cannot be read as an image")]
)
def test_what_is_no_image_is_refused_in_words(pages: Pages, demo: str, kind: str, words: str) -> None:
    watched = open_demo(pages, demo, "fashion_mnist")
    put_down_files(watched.page, kind=kind, content=b"no pixels", name="notes.txt")
    expect(watched.page.get_by_role("alert")).to_contain_text(words)
    assert not [url for url in watched.requests if url.endswith(":predict")]


def test_a_server_that_is_gone_is_told_of_and_comes_back(pages: Pages, demo: str) -> None:
    watched = open_demo(pages, demo)
    page = watched.page
    page.context.set_offline(True)
    draw(page, 1)
    expect(page.get_by_role("alert")).to_contain_text("mnist-tfx serve --demo")
    page.context.set_offline(False)
    draw(page, 7)
    expect(page.locator("#headline")).to_have_class("found")
    expect(page.locator("#problem")).to_be_empty()


def test_only_models_of_images_are_offered_and_the_choice_is_in_the_address(pages: Pages, demo: str) -> None:
    page = open_demo(pages, demo).page
    radios = page.get_by_role("radio")
    assert [radio.get_attribute("value") for radio in radios.all()] == ["fashion_mnist", "kmnist"]
    expect(radios.nth(1)).to_be_checked()
    radios.nth(0).check()
    expect(page.locator("#zone")).to_be_visible()
    expect(page.locator("#paper")).to_be_hidden()
    assert page.url.endswith("#fashion_mnist")


@pytest.mark.parametrize("model", ["kmnist", "fashion_mnist"])
@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
def test_everybody_can_use_it(pages: Pages, demo: str, model: str, phone: bool) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        watched = open_demo(pages, demo, model, scheme=scheme, phone=phone)
        if model == "kmnist":
            draw(watched.page, 2)
            expect(watched.page.locator("#headline")).to_have_class("found")
        assert watched.barriers() == []
        assert not watched.scrolls_sideways()
        assert watched.complaints == []
        origin = demo.removesuffix("demo/")
        assert [url for url in watched.requests if not url.startswith(origin)] == []
        grounds.append(watched.brightness())
    assert grounds[0] > 0.8 and grounds[1] < 0.2


def test_the_page_is_valid_and_locked_up(pages: Pages, demo: str) -> None:
    with urllib.request.urlopen(demo.rstrip("/")) as answer:  # without the slash, too
        assert answer.url == demo
        parse(answer.read().decode())  # strictly
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    watched = open_demo(pages, demo)
    watched.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'stop()'}))")
    assert "Content Security Policy" in watched.complaints[0]


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    write_scale_model(tmp_path / "scale" / "1", 2)
    server = ModelServer(
        ServerOptions(port=0, rest_api_port=-1, model_name="scale", model_base_path=str(tmp_path / "scale"))
    )
    try:
        server.start()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}/demo/")
        assert refused.value.code == 404
        assert json.loads(refused.value.read()) == {"error": "Not Found: /demo/"}
        refused.value.close()
    finally:
        server.stop(1)


def test_what_lies_beside_the_page_s_files_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page").mkdir()
    for name in ("index.html", "demo.js", "demo.js~", ".DS_Store"):
        (tmp_path / "page" / name).touch()
    monkeypatch.setattr("mnist_tfx.serving.demo.pages.files", lambda _package: tmp_path)
    paths = {resource.canonical for resource in application(None).router.resources()}  # type: ignore[arg-type]
    assert paths == {"", "/", "/index.html", "/demo.js", "/models.json"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--engine", "tensorflow_model_server"), "Add --engine python"),
        (("--rest_api_port", "0"), "--rest_api_port 0 switches off"),
    ],
)
def test_a_demo_that_cannot_be_served_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    answer = mnist_tfx("serve", "--demo", "--home", tmp_path, *options)
    assert answer.code == 2
    assert words in answer.err
