from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from mnist_tfx.serving.server.batching import Batcher
from mnist_tfx.serving.server.config import BatchingParameters
from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.rows import is_batchable, join
from tests.fixtures import saved_models
from tests.fixtures.saved_models import WIDTH, rows_of

MINUTE = 60_000_000  # as a batch timeout: nothing is computed but full batches
Make = Callable[..., Batcher]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    saved_models.write_dense_model(folder / "dense")
    saved_models.write_counter_model(folder / "counter")
    saved_models.write_text_model(folder / "text")
    return folder


@pytest.fixture(scope="module")
def dense(models: Path) -> Engine:
    return Engine(str(models / "dense"))


@pytest.fixture
def counter(models: Path) -> Engine:
    return Engine(str(models / "counter"))


@pytest.fixture
def make() -> Iterator[Make]:
    batchers: list[Batcher] = []

    def batcher(**parameters) -> Batcher:
        batchers.append(Batcher(BatchingParameters(**parameters), Metrics()))
        return batchers[-1]

    yield batcher
    for one in batchers:
        one.close()


def submit(batcher: Batcher, engine: Engine, x: np.ndarray, outputs: list[str], deadline=None) -> Future:
    return batcher.submit(engine, "serving_default", {"x": x}, outputs, deadline)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def calls_of(engine: Engine) -> int:
    """How often the counter model was computed before this call."""
    return int(rows_of(engine, np.zeros((1, 1), np.float32), "calls")[0])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_batch_size": 64, "allowed_batch_sizes": (8, 64)},
        {"max_batch_size": 64, "allowed_batch_sizes": (64,)},
    ],
    ids=str,
)
def test_rows_have_the_same_bits_alone_and_among_others(dense: Engine, make: Make, parameters: dict) -> None:
    batcher = make(num_batch_threads=1, batch_timeout_micros=500, **parameters)
    x = floats(300, WIDTH)
    expected = rows_of(dense, x, "probabilities")
    # AVX2's kernels, other than those of AVX-512, give other last bits for another size.
    by_size = (np.array_equal(rows_of(dense, x[:size], "probabilities"), expected[:size]) for size in range(2, 65))
    exact = all(by_size) or len(parameters.get("allowed_batch_sizes", ())) == 1
    equal = np.testing.assert_array_equal if exact else functools.partial(np.testing.assert_allclose, rtol=2e-6)
    sizes = random.Random(0).choices([1, 1, 1, 2, 5, 9], k=60)
    starts = np.cumsum([0, *sizes[:-1]]) % 280

    def one(start: int, size: int) -> np.ndarray:
        arguments = (dense, "serving_default", {"x": x[start : start + size]}, ["probabilities"])
        return batcher.submit(*arguments).result(30)["probabilities"]

    alone = [one(start, size) for start, size in zip(starts, sizes, strict=True)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(one, starts, sizes))
    for start, size, first, second in zip(starts, sizes, alone, together, strict=True):
        equal(first, second, strict=True)
        if not parameters:  # every size from 2 on gives the engine's own bits
            equal(first, expected[start : start + size], strict=True)


def test_requests_share_an_execution_and_each_gets_its_rows(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=4, batch_timeout_micros=MINUTE)
    futures = [submit(batcher, counter, np.zeros((size, 2), np.float32), ["calls", "rows"]) for size in (1, 2, 1)]
    answers = [future.result(30) for future in futures]
    assert [answer["calls"].tolist() for answer in answers] == [[0], [0, 0], [0]]
    assert [answer["rows"].tolist() for answer in answers] == [[4], [4, 4], [4]]


def test_a_batch_is_padded_to_an_allowed_size(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=8, allowed_batch_sizes=(4, 8))
    for rows, padded in ((1, 4), (4, 4), (5, 8)):
        answer = submit(batcher, counter, np.zeros((rows, 1), np.float32), ["rows"]).result(30)
        assert answer["rows"].tolist() == [padded] * rows


def test_an_empty_request_is_answered_with_no_rows(dense: Engine, counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=2, batch_timeout_micros=1000, allowed_batch_sizes=(2,))
    alone = submit(batcher, dense, floats(0, WIDTH), ["probabilities"]).result(30)
    assert alone["probabilities"].shape == (0, 10)
    futures = [submit(batcher, counter, np.zeros((rows, 1), np.float32), ["rows"]) for rows in (0, 2)]
    assert [len(future.result(30)["rows"]) for future in futures] == [0, 2]


def test_requests_of_other_shapes_are_not_joined(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=2, batch_timeout_micros=MINUTE)
    futures = [submit(batcher, counter, np.zeros((1, width), np.float32), ["rows"]) for width in (3, 4, 4, 3)]
    assert [future.result(30)["rows"].tolist() for future in futures] == [[2]] * 4


def test_lengths_are_padded_if_asked(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=2, batch_timeout_micros=MINUTE, pad_variable_length_inputs=True)
    futures = [submit(batcher, counter, np.ones((1, width), np.float32), ["calls"]) for width in (3, 7)]
    assert [future.result(30)["calls"].tolist() for future in futures] == [[0], [0]]


def test_each_request_is_padded_with_its_own_first_element() -> None:
    parts = [np.array([[1, 2], [3, 4]]), np.array([[5, 6, 7]]), np.array([[8, 9]])]
    joined = join([{"x": part} for part in parts], 5, True)["x"]
    assert joined.tolist() == [[1, 2, 1], [3, 4, 1], [5, 6, 7], [8, 9, 8], [1, 2, 1]]  # the last row fills the batch
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: Got empty tensor in batch of non-empty tensors"):
        join([{"x": parts[0][:, :0]}, {"x": parts[1]}], 3, True)


def test_lengths_too_different_are_computed_one_by_one(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=16, batch_timeout_micros=MINUTE, pad_variable_length_inputs=True)
    x = [np.ones((1, 1), np.float32)] * 15 + [np.ones((1, 10_000), np.float32)]
    answers = [future.result(30) for future in [submit(batcher, counter, one, ["calls"]) for one in x]]
    assert [int(answer["calls"][0]) for answer in answers] == list(range(16))


def test_a_bad_request_does_not_fail_its_neighbours(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=3, batch_timeout_micros=MINUTE)
    futures = [submit(batcher, counter, np.full((1, 1), value, np.float32), ["rows"]) for value in (1, -1, 2)]
    assert futures[0].result(30)["rows"].tolist() == [2]
    assert futures[2].result(30)["rows"].tolist() == [2]
    with pytest.raises(ServingError, match="negative input") as caught:
        futures[1].result(30)
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_full_queue_is_unavailable_and_what_is_in_it_is_answered(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=2, batch_timeout_micros=MINUTE, max_enqueued_batches=2)
    futures = [submit(batcher, counter, np.zeros((1, width), np.float32), ["rows"]) for width in (3, 4)]
    with pytest.raises(ServingError, match="queue to which this task was submitted is full") as caught:
        submit(batcher, counter, np.zeros((1, 5), np.float32), ["rows"])
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    futures += [submit(batcher, counter, np.zeros((1, width), np.float32), ["rows"]) for width in (3, 4)]
    assert [future.result(30)["rows"].tolist() for future in futures] == [[2]] * 4
    submit(batcher, counter, np.zeros((2, 5), np.float32), ["rows"]).result(30)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((3, 1), np.float32), "Task size 3 is larger than maximum input batch size 2"),
        (np.float32(1), "at least one dimension"),
    ],
)
def test_what_cannot_be_batched(counter: Engine, make: Make, x: np.ndarray, words: str) -> None:
    with pytest.raises(ServingError, match=words) as caught:
        make(max_batch_size=2).submit(counter, "serving_default", {"x": np.asarray(x)}, ["rows"])
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_inputs_of_different_sizes(counter: Engine, make: Make) -> None:
    with pytest.raises(ServingError, match="equal 0th-dimension size"):
        make().submit(counter, "serving_default", {"x": np.zeros((2, 1)), "y": np.zeros((3, 1))}, ["rows"])


def test_an_expired_request_is_not_computed(counter: Engine, make: Make) -> None:
    batcher = make()
    with pytest.raises(ServingError) as caught:
        submit(batcher, counter, np.zeros((1, 1), np.float32), ["calls"], time.monotonic() - 1).result(30)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert calls_of(counter) == 0


def test_a_request_that_expires_in_the_queue_is_not_computed(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=2, batch_timeout_micros=MINUTE)
    bad = np.full((1, 1), -1, np.float32)  # computed, it would fail the batch, and the other be computed again
    expired = submit(batcher, counter, bad, ["calls"], time.monotonic() + 0.05)
    time.sleep(0.06)
    neighbour = submit(batcher, counter, np.zeros((1, 1), np.float32), ["calls"])
    with pytest.raises(ServingError) as caught:
        expired.result(30)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert neighbour.result(30)["calls"].tolist() == [0]


def test_where_no_thread_can_be_had_those_that_run_answer_or_the_next_request_starts_one(
    counter: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher, start, can_start = make(), threading.Thread.start, iter([False, True, False])

    def start_if_there_is_room(thread: threading.Thread) -> None:
        if not next(can_start):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_there_is_room)
    one, other = (np.zeros((1, width), np.float32) for width in (3, 4))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        submit(batcher, counter, one, ["rows"])
    with batcher._changed:  # the first one's thread is not idle yet: the second asks for another
        futures = [submit(batcher, counter, x, ["rows"]) for x in (one, other)]
    assert [future.result(30)["rows"].tolist() for future in futures] == [[2]] * 2
    assert next(can_start, None) is None
    batcher.close()


def test_a_queue_that_is_closed_computes_what_is_in_it(counter: Engine, make: Make) -> None:
    batcher = make(batch_timeout_micros=MINUTE)
    waiting = submit(batcher, counter, np.zeros((1, 1), np.float32), ["rows"])
    batcher.close()
    assert waiting.result(0)["rows"].tolist() == [2]


def test_a_cancelled_request_is_not_computed(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=2, batch_timeout_micros=MINUTE)
    cancelled = submit(batcher, counter, np.zeros((1, 1), np.float32), ["calls"])
    assert cancelled.cancel()
    other = submit(batcher, counter, np.full((1, 1), 5, np.float32), ["calls"])
    assert other.result(30)["calls"].tolist() == [0]


def test_no_thread_is_lost_and_nobody_waits_forever(dense: Engine, counter: Engine, make: Make) -> None:
    """Errors, deadlines and full queues at once; afterwards everything is at rest."""
    threads = 2
    batcher = make(max_batch_size=8, batch_timeout_micros=200, max_enqueued_batches=3, num_batch_threads=threads)
    outcomes: list[str] = []

    def client(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(150):
            deadline = time.monotonic() + chance.choice([0.0002, 0.002, 30])
            if chance.random() < 0.5:
                engine, x, output = dense, floats(chance.randint(0, 3), WIDTH), "probabilities"
            else:
                value = chance.choice([1, 1, -1])
                engine, x, output = counter, np.full((1, chance.randint(1, 2)), value, np.float32), "rows"
            arguments = (engine, "serving_default", {"x": x}, [output], deadline)
            try:
                answer = batcher.submit(*arguments).result(60)
                outcomes.append("ok" if len(answer[output]) == len(x) else "wrong size")
            except ServingError as error:
                outcomes.append(error.code.name)

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(12)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(60)
    assert not any(one.is_alive() for one in clients)
    assert len(outcomes) == 12 * 150
    assert set(outcomes) <= {"ok", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
    assert outcomes.count("ok") > 0
    again = [submit(batcher, dense, floats(8, WIDTH), ["probabilities"]) for _ in range(3)]
    assert all(future.result(30)["probabilities"].shape == (8, 10) for future in again)


def test_signatures_without_rows_are_not_batchable(models: Path) -> None:
    signatures = Engine(str(models / "text")).signatures
    assert is_batchable(signatures["serving_default"])
    assert not is_batchable(signatures["whole"])


def test_a_large_request_is_computed_in_parts(counter: Engine, make: Make) -> None:
    batcher = make(max_batch_size=20, enable_large_batch_splitting=True, max_execution_batch_size=8)
    before = calls_of(counter)
    answer = submit(batcher, counter, np.zeros((20, 1), np.float32), ["rows"]).result(30)
    assert answer["rows"].tolist() == [8] * 16 + [4] * 4
    assert calls_of(counter) == before + 4
    with pytest.raises(ServingError, match="larger than maximum input batch size 20"):
        submit(batcher, counter, np.zeros((21, 1), np.float32), ["rows"])
