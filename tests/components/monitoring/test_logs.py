"""Logs while they are read: more images than are kept, files that the server removes, a bucket that does not answer."""

from __future__ import annotations

import io
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from mnist_tfx.components.monitoring import sample
from mnist_tfx.components.monitoring.prometheus import listen, to_text
from mnist_tfx.components.monitoring.records import LogReader, log_files
from mnist_tfx.components.monitoring.sample import read_logs
from mnist_tfx.components.monitoring.watch import Report
from mnist_tfx.contract.errors import PipelineError
from tests.fixtures.monitoring import sample_report

MODEL, VERSION = "digits", 7


def write_log(path: Path, encoded: list[bytes]) -> None:
    """One request with these images."""
    log = PredictionLog()
    log.log_metadata.model_spec.name, log.log_metadata.timestamp_secs = MODEL, 1_790_000_000
    log.log_metadata.model_spec.version.value = VERSION
    log.predict_log.request.inputs["encoded_images"].CopyFrom(tf.make_tensor_proto(encoded))
    answers = np.full((len(encoded), 10), 0.1, np.float32)
    log.predict_log.response.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(answers))
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        writer.write(log.SerializeToString())


def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), 100).save(file, "PNG")
    return file.getvalue()


def test_the_share_that_cannot_be_decoded_is_that_of_the_logs_however_many_are_read(tmp_path: Path) -> None:
    write_log(tmp_path / "log-1.tfrecord.gz", ([png()] * 9 + [b"no image"]) * 900)
    read = read_logs(f"{tmp_path}/log", MODEL, {VERSION: (8, 8, 1)}, since=0, max_images=600)
    sample = read.samples[VERSION]
    assert sample.seen == 9000
    share = sample.unreadable / (len(sample.images) + sample.unreadable)
    assert share == pytest.approx(0.1, abs=0.05)


def test_of_large_images_no_fewer_are_kept_than_a_check_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "MAX_BYTES", 64 * 7)
    write_log(tmp_path / "log-1.tfrecord.gz", [png()] * 300)
    for min_images, kept in ((100, 100), (150, 150), (250, 200)):
        read = read_logs(f"{tmp_path}/log", MODEL, {VERSION: (8, 8, 1)}, since=0, max_images=200, min_images=min_images)
        assert len(read.samples[VERSION].images) == kept


def test_a_prefix_may_have_a_patterns_signs_and_be_a_pattern(tmp_path: Path) -> None:
    for folder in ("logs[eu]", "logse"):
        (tmp_path / folder).mkdir()
        write_log(tmp_path / folder / "log-1.tfrecord.gz", [png()])
        (tmp_path / folder / "log-1.tfrecord.gz.partial").touch()
    assert log_files(f"{tmp_path}/logs[eu]/log") == [f"{tmp_path}/logs[eu]/log-1.tfrecord.gz"]
    assert log_files(f"{tmp_path}/logs?/log") == [f"{tmp_path}/logse/log-1.tfrecord.gz"]
    assert log_files(f"{tmp_path}/nowhere/log") == []


def test_a_file_that_the_server_removes_meanwhile_is_left_out(tmp_path: Path) -> None:
    files = [tmp_path / f"log-{number}.tfrecord.gz" for number in range(3)]
    for file in files:
        write_log(file, [png()])
    reader = LogReader(f"{tmp_path}/log", MODEL)
    images = iter(reader)
    next(images)
    files[1].unlink()
    assert len(list(images)) == 1 and reader.notes == []


def test_metrics_outlive_a_look_that_fails() -> None:
    """What is answered before each look: nothing until one has found something, and that from then on."""
    report, unavailable = sample_report(), tf.errors.UnavailableError(None, None, "the bucket does not answer")
    failing = [PipelineError("there are no request logs"), unavailable]
    looks: Iterator[Report | BaseException] = iter([*failing, report, *failing, KeyboardInterrupt()])
    answers: list[str] = []
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]

    def look() -> Report:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            answers.append(response.read().decode())
        found = next(looks)
        if isinstance(found, BaseException):
            raise found
        return found

    with pytest.raises(KeyboardInterrupt):
        listen(look, port, every=0.0)
    assert answers == ["", "", "", *[to_text(report)] * 3]


def test_a_port_that_there_is_not_is_told() -> None:
    with pytest.raises(PipelineError, match="cannot listen on port 70000"):
        listen(sample_report, 70000, every=0.0)
