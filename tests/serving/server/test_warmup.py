from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from mnist_tfx.serving.server.config import LoadOptions
from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.lifecycle import Version
from mnist_tfx.serving.server.loader import ServableFactory
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.servable import Pool, Servable
from mnist_tfx.serving.server.tensors import encode_tensor
from mnist_tfx.serving.server.warmup import MAX_RECORDS, WARMUP_PATH, warm_up
from tests.fixtures.saved_models import rows_of, write_counter_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_counter_model(tmp_path / "model")


@pytest.fixture
def servable(path: Path) -> Iterator[Servable]:
    pool = Pool()
    servable = Servable("m", 1, Engine(str(path)), None, pool)
    yield servable
    servable.close()
    pool.close()


def record(value: float = 1.0) -> bytes:
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "recorded under another name"
    request.model_spec.version.value = 99
    request.inputs["x"].CopyFrom(encode_tensor(np.full((2, 1), value, np.float32), True))
    return log.SerializeToString()


def write(path: Path, records: list[bytes]) -> None:
    file = path / WARMUP_PATH
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for one in records:
            writer.write(one)


def calls(servable: Servable) -> int:
    return int(rows_of(servable._engine, np.zeros((1, 1), np.float32), "calls")[0])


def test_without_records_nothing_is_replayed(servable: Servable, path: Path) -> None:
    assert warm_up(servable, str(path)) == 0
    assert calls(servable) == 0


def test_each_record_is_replayed(servable: Servable, path: Path) -> None:
    write(path, [record()] * 3)
    assert warm_up(servable, str(path)) == 3
    assert calls(servable) == 3


@pytest.mark.parametrize(
    ("loading", "expected"),
    [(LoadOptions(), 3), (LoadOptions(warm_up_iterations=2), 6), (LoadOptions(warm_up=False), 0)],
    ids=["once", "twice", "not at all"],
)
def test_a_version_that_is_loaded_is_warmed_up_as_often_as_asked(
    path: Path, loading: LoadOptions, expected: int
) -> None:
    write(path, [record()] * 3)
    factory = ServableFactory(None, Metrics(), loading)
    servable = factory.make(Version("m", 1, str(path)))
    assert calls(servable) == expected
    servable.close()
    factory.close()


def test_a_failing_record_fails_the_load_and_is_named(servable: Servable, path: Path) -> None:
    write(path, [record(), record(-1.0)])
    with pytest.raises(ServingError, match=r"record 2 of .*negative input") as caught:
        warm_up(servable, str(path))
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_too_many_records(servable: Servable, path: Path) -> None:
    write(path, [record()] * (MAX_RECORDS + 1))
    with pytest.raises(ServingError, match="maximum \\(1000\\)"):
        warm_up(servable, str(path))


def test_records_of_a_classification_need_such_a_signature(servable: Servable, path: Path) -> None:
    log = PredictionLog()
    log.classify_log.request.input.example_list.examples.add()
    write(path, [log.SerializeToString()])
    with pytest.raises(ServingError, match="No classification inputs found"):
        warm_up(servable, str(path))


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"\xff\xff", "INVALID_ARGUMENT", "Failed to parse warmup record 2 from"),
        (b"", "UNIMPLEMENTED", "Unsupported log_type for warmup: None"),
    ],
    ids=["no message", "no request"],
)
def test_what_is_no_record_fails(servable: Servable, path: Path, data: bytes, code: str, words: str) -> None:
    write(path, [record(), data])
    with pytest.raises(ServingError, match=words) as caught:
        warm_up(servable, str(path))
    assert caught.value.code == grpc.StatusCode[code]


def test_a_damaged_file_fails(servable: Servable, path: Path) -> None:
    write(path, [record()])
    file = path / WARMUP_PATH
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ServingError, match="is damaged") as caught:
        warm_up(servable, str(path))
    assert caught.value.code == grpc.StatusCode.DATA_LOSS
