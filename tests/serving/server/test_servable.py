"""Requests that are computed one by one, without batching."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mnist_tfx.serving.server import servable
from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.servable import Pool
from tests.fixtures.saved_models import rows_of, write_counter_model
from tests.serving.conftest import wait_until

ROW = np.zeros((1, 1), np.float32)


@pytest.fixture
def counter(tmp_path: Path) -> Engine:
    return Engine(str(write_counter_model(tmp_path / "counter")))


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Two requests may wait."""
    monkeypatch.setattr(servable, "MAX_WAITING", 2)
    pool = Pool()
    yield pool
    pool.close()


def test_an_expired_request_is_not_computed(pool: Pool, counter: Engine) -> None:
    expired = pool.submit(counter, "serving_default", {"x": ROW}, ["calls"], time.monotonic() - 1)
    with pytest.raises(ServingError) as caught:
        expired.result(30)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert rows_of(counter, ROW, "calls").tolist() == [0]


def test_more_requests_than_may_wait_are_refused_until_some_are_answered(pool: Pool, served_models: Path) -> None:
    slow = Engine(str(served_models / "slow" / "1"))

    def submit(steps: int) -> Any:
        return pool.submit(slow, "serving_default", {"steps": np.array([steps])}, ["counted"])

    in_hand = [submit(50_000) for _ in range(2)]
    with pytest.raises(ServingError, match="2 requests are waiting already") as caught:
        submit(1)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert [one.result(30)["counted"].tolist() for one in in_hand] == [[50_000]] * 2

    def has_room() -> bool:
        try:
            return submit(1).result(30)["counted"].tolist() == [1]
        except ServingError:
            return False

    wait_until(has_room, "room")
