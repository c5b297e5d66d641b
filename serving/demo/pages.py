"""The page's files and what it asks beyond TF Serving's REST interface, as an aiohttp application."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import tensorflow as tf
from aiohttp import web

from mnist_tfx.contract.names import METADATA_PATH
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.manager import ModelManager

SIGNATURE = "images"
IMAGE_SHAPE = (-1, 28, 28, 1)

_PHOTOGRAPHED = ("fashion_mnist",)  # the datasets of which nobody draws an example with a finger

_CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    # No inline scripts or styles, no eval, nothing from elsewhere, and no way to any other server.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class DemoModel:
    """A model that the page can ask."""

    name: str
    input: str
    """`drawing`, or `photo`."""
    class_names: tuple[str, ...] | None
    """None where the model's metadata does not tell; the page learns them from the answers."""


def application(manager: ModelManager) -> web.Application:
    """The page, to be mounted at a path of its own; `manager` knows which models are available."""
    pages = web.Application(middlewares=[_with_headers])
    for file in (files("mnist_tfx.serving.demo") / "page").iterdir():
        content_type = _CONTENT_TYPES.get(os.path.splitext(file.name)[1])
        if content_type is None:  # an editor's copy, or a .DS_Store
            continue
        pages.router.add_get(f"/{file.name}", _file(file.read_bytes(), content_type))
        if file.name == "index.html":
            pages.router.add_get("/", _file(file.read_bytes(), "text/html"))

    async def whole_path(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{request.path}/")  # without the slash, the page's own links would miss

    async def models(_request: web.Request) -> web.Response:
        found = await asyncio.to_thread(demo_models, manager)
        return web.json_response({"models": [asdict(model) for model in found]})

    pages.router.add_get("", whole_path)
    pages.router.add_get("/models.json", models)
    return pages


def demo_models(manager: ModelManager) -> list[DemoModel]:
    """The available models of 28 x 28 images, by name."""
    found: list[DemoModel] = []
    for name in sorted(manager.names()):
        with suppress(ServingError), manager.acquire(name) as servable:  # one that is not available is left out
            inputs = servable.signatures[SIGNATURE].inputs if SIGNATURE in servable.signatures else {}
            if SIGNATURE in inputs and tuple(one.size for one in inputs[SIGNATURE].tensor_shape.dim) == IMAGE_SHAPE:
                found.append(_described(name, _metadata(servable.path)))
    return found


def _described(name: str, metadata: Mapping[str, Any]) -> DemoModel:
    names = metadata.get("class_names")
    return DemoModel(
        name=name,
        input="photo" if metadata.get("dataset", name) in _PHOTOGRAPHED else "drawing",
        class_names=tuple(str(one) for one in names) if names else None,
    )


def _metadata(version: str) -> dict[str, Any]:
    """What the Trainer wrote into the model; empty where another hand made it."""
    with suppress(OSError, ValueError, tf.errors.OpError):
        path = os.path.join(version, METADATA_PATH)
        with tf.io.gfile.GFile(path) as file:
            return dict(json.load(file))
    return {}


def _file(body: bytes, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return answer


@web.middleware
async def _with_headers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    response = await handler(request)
    response.headers.update(_HEADERS)
    return response
