"""The one error that reaches a client."""

from __future__ import annotations

import grpc

MAX_MESSAGE = 1024
"""TF Serving cuts its messages here, so that they fit into an HTTP/2 header."""


class ServingError(Exception):
    """A request that cannot be answered: the status code and the words that go to the client."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message[:MAX_MESSAGE]

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"
