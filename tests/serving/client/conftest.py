"""A reference server, and clients of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.fixtures.any_client import KINDS, MakeClient
from tests.fixtures.reference_server import MODEL, ReferenceServer, serving


@pytest.fixture
def server() -> Iterator[ReferenceServer]:
    with serving() as running:
        yield running


@pytest.fixture(params=sorted(KINDS))
def connect(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Makes clients, once of each kind, and closes them."""
    with ExitStack() as stack:

        def make(where: ReferenceServer | str, model: str = MODEL, **options: Any) -> Any:
            address = where if isinstance(where, str) else f"127.0.0.1:{where.port}"
            return stack.enter_context(closing(KINDS[request.param](address, model, **options)))

        yield make
