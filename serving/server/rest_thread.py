"""The REST port's thread: its event loop, its connections, its end."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Sequence
from socket import socket
from typing import Any

from aiohttp import web

from mnist_tfx.serving.server.repeating import say
from mnist_tfx.serving.server.rest import RestServer

IDLE_SECONDS = 75.0
"""A connection on which nothing is asked for so long is closed (nginx's default)."""

_CLOSE_SECONDS = 0.5  # for connections on which nothing is asked any more
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_TELL_AGAIN_SECONDS = 600.0


class RestThread:
    """An event loop of its own for the REST port."""

    def __init__(self, server: RestServer, idle_seconds: float = IDLE_SECONDS) -> None:
        self._server = server
        self._idle_seconds = idle_seconds
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._on_error)
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest-loop", daemon=True)
        self._runner: web.AppRunner | None = None
        self._tell_again_at = 0.0

    def start(self, sockets: Sequence[socket]) -> None:
        """Serves on sockets that listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(sockets), self._loop).result()

    async def _serve(self, sockets: Sequence[socket]) -> None:
        self._runner = self._server.runner(keepalive_timeout=self._idle_seconds, shutdown_timeout=_CLOSE_SECONDS)
        await self._runner.setup()
        for one in sockets:
            await web.SockSite(self._runner, one).start()

    def stop(self, grace_seconds: float) -> None:
        """Closes the port, lets the requests in hand finish, ends the loop."""
        if self._loop.is_closed():
            return
        if self._thread.ident is not None:
            asyncio.run_coroutine_threadsafe(self._close(grace_seconds), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self._server.close()

    async def _close(self, grace_seconds: float) -> None:
        if self._runner is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        await self._server.finish(grace_seconds)
        await self._runner.cleanup()

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio tells of a connection that it cannot accept a hundred times a second, each time with a stack."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NO_DESCRIPTORS:
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._tell_again_at:
            self._tell_again_at = time.monotonic() + _TELL_AGAIN_SECONDS
            say(f"error: REST connections wait until others are closed: {error.strerror} (see: ulimit -n)")
