"""What a run tells of itself while it goes on, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Describe = Callable[[str, Mapping[str, Any]], str]
"""Says in a few words what a node made: takes its id and its outputs by name, as its runner has them."""


class Observer(Protocol):
    """What a runner tells about a run. `seconds` count from the start of the node; `outputs` are by name."""

    def started(self, node_id: str) -> None: ...

    def progress(self, node_id: str, message: str) -> None: ...

    def finished(self, node_id: str, seconds: float, cached: bool, outputs: Mapping[str, Any]) -> None: ...

    def failed(self, node_id: str, seconds: float, error: BaseException) -> None: ...
