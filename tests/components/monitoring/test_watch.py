"""Logs of a real server, read and judged: every signature, versions, hours, bounded memory, what is damaged."""

from __future__ import annotations

import gzip
import io
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tfx.utils import io_utils

from mnist_tfx.components.data_gate.executor import read_statistics
from mnist_tfx.components.live.model import is_same_model
from mnist_tfx.components.monitoring import reference
from mnist_tfx.components.monitoring.reference import read_references
from mnist_tfx.components.monitoring.sample import read_logs
from mnist_tfx.components.monitoring.schema_checks import check_schema
from mnist_tfx.components.monitoring.watch import Report, watch
from mnist_tfx.components.settings import MonitoringSettings
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.names import DATA_STATISTICS_PATH, REFERENCE_PATH, TEST
from mnist_tfx.serving.client import Client, RequestLog
from mnist_tfx.serving.server.config import ServerOptions
from tests.fixtures.tiny_run import TinyRun, decode, read_examples, read_split
from tests.serving.conftest import running

MODEL, SHAPE = "kmnist", (28, 28, 1)
Images = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def images(tiny_run: TinyRun) -> Images:
    """Those of split test, uint8 [200, 28, 28, 1]."""
    encoded, _ = zip(*read_split(tiny_run.examples, "test"), strict=True)
    return decode(list(encoded))


@pytest.fixture(scope="module")
def version(tiny_run: TinyRun) -> int:
    return int(tiny_run.versions()[-1])


@pytest.fixture(scope="module")
def logs(tiny_run: TinyRun, images: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of logs by what was asked: as they are (in all three signatures), inverted, by few, of other sizes."""
    root = tmp_path_factory.mktemp("logs")
    base = str(tiny_run.home.serving(MODEL))
    options = ServerOptions(port=0, rest_api_port=-1, model_name=MODEL, model_base_path=base)
    png = [
        example.features.feature["image"].bytes_list.value[0] for example in read_examples(tiny_run.examples, "test")
    ]
    examples = [example.SerializeToString() for example in read_examples(tiny_run.examples, "test")]
    asked: dict[str, list[tuple[str, Sequence[Any]]]] = {
        "clean": [("images", images), ("encoded_images", png), ("serving_default", examples)],
        "inverted": [("images", 255 - images)],
        "few": [("images", images[:20])],
        "photos": [("encoded_images", [photo(image) for image in images])],
    }
    with running(options) as one:
        for name, calls in asked.items():
            log = RequestLog(root / name)
            with Client(f"127.0.0.1:{one.server.grpc_port}", MODEL, log=log) as client:
                for signature, rows in calls:
                    array = rows if isinstance(rows, np.ndarray) else np.array(rows, object)
                    [entry] = {"serving_default": ["examples"]}.get(signature, [signature])
                    for start in range(0, len(array), 50):
                        client.run({entry: array[start : start + 50]}, signature=signature)
            log.close()
    return {name: root / name / "requests" for name in asked}


def photo(image: Images) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).resize((64, 48)).save(file, "PNG")
    return file.getvalue()


def look(
    tiny_run: TinyRun,
    prefix: Path | str,
    hours: float = 1,
    version: int | None = None,
    any_size: bool = False,
    **given: Any,
) -> Report:
    settings = MonitoringSettings(logs=str(prefix), **given)
    since = datetime.now(UTC) - timedelta(hours=hours)
    serving, schema = str(tiny_run.home.serving(MODEL)), schema_of(tiny_run)
    return watch(MODEL, serving, schema, settings, since=since, version=version, any_size=any_size)


def schema_of(tiny_run: TinyRun) -> schema_pb2.Schema:
    [path] = tiny_run.artifact("ImportSchemaGen", "schema").iterdir()
    return io_utils.parse_pbtxt_file(str(path), schema_pb2.Schema())


def rewritten(source: Path, target: Path, seconds: Sequence[int], **spec: Any) -> None:
    """The log again, its records at other times in turn, and of another model or version."""
    [path] = source.parent.glob("*.gz")
    records = list(tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator())
    with tf.io.TFRecordWriter(f"{target}-1.tfrecord.gz", "GZIP") as writer:
        for index, record in enumerate(records):
            log = PredictionLog.FromString(record)
            log.log_metadata.timestamp_secs = seconds[index % len(seconds)]
            log.log_metadata.model_spec.name = spec.get("model", MODEL)
            log.log_metadata.model_spec.version.value = spec.get("version", log.log_metadata.model_spec.version.value)
            writer.write(log.SerializeToString())


def test_split_test_as_traffic_is_in_order_in_every_signature(
    tiny_run: TinyRun, logs: dict[str, Path], images: Images, version: int
) -> None:
    sample = read_logs(str(logs["clean"]), MODEL, {version: SHAPE}, since=0, max_images=10_000).samples[version]
    assert np.array_equal(sample.images, np.concatenate([images] * 3)) and sample.seen == 600
    thirds = sample.probabilities.reshape(3, 200, 10)
    assert np.allclose(thirds, thirds[:1], atol=1e-5) and not sample.other_size.any()
    report = look(tiny_run, logs["clean"])
    [found] = report.versions
    assert (found.version, found.images, found.sampled) == (version, 600, 600)
    assert not report.drifts and report.sentence().startswith("in order"), report.sentence()
    names = [check.name for check in found.checks]
    assert names[:2] == ["unreadable", "other size"] and "label in the schema" in names and "entropy" in names


def test_inverted_images_are_drift_and_shown(tiny_run: TinyRun, logs: dict[str, Path], images: Images) -> None:
    report = look(tiny_run, logs["inverted"])
    [found] = report.versions
    assert report.drifts and {"layout", "brightness"} <= {check.name for check in found.checks if check.drifts}
    offs = [each.off for each in found.unusual]
    assert offs == sorted(offs, reverse=True) and len(offs) == 24
    assert any(np.array_equal(found.unusual[0].image, 255 - image) for image in images)


def test_images_of_another_size_are_told_unless_they_are_expected(tiny_run: TinyRun, logs: dict[str, Path]) -> None:
    [found] = look(tiny_run, logs["photos"]).versions
    [size] = [check for check in found.checks if check.name == "other size"]
    assert size.value == 1.0 and size.drifts
    [expected] = look(tiny_run, logs["photos"], any_size=True).versions
    assert expected.checks and "other size" not in [check.name for check in expected.checks]


def test_what_the_schema_forbids_is_drift(tiny_run: TinyRun, images: Images, version: int) -> None:
    """One class alone, where split test has ten, and larger files than the schema allows."""
    schema, folder = schema_of(tiny_run), str(tiny_run.home.serving(MODEL) / str(version))
    [image] = [feature for feature in schema.feature if feature.name == "image"]
    image.image_domain.max_image_byte_size = 100
    [reference] = read_references(folder)
    trained_on = read_statistics(f"{folder}/{DATA_STATISTICS_PATH}", [TEST])[TEST]
    found = check_schema(images, np.zeros(len(images), np.int64), reference, schema, trained_on, 1e-5)
    checks = {check.name: check for check in found}
    assert set(checks) == {"label in the schema", "image in the schema"}
    label = checks["label in the schema"]
    assert label.value == pytest.approx(0.9) and 0.03 < label.bound < 0.5 and label.drifts
    assert checks["image in the schema"].drifts and "byte" in checks["image in the schema"].told


def test_too_few_say_nothing(tiny_run: TinyRun, logs: dict[str, Path]) -> None:
    report = look(tiny_run, logs["few"])
    assert not report.drifts and not report.versions[0].checks
    assert report.sentence().startswith("too few to say") and "50 images" in report.sentence()
    assert look(tiny_run, logs["few"], min_images=20).versions[0].checks


def test_hours_are_judged_by_themselves(tiny_run: TinyRun, logs: dict[str, Path], tmp_path: Path, version: int) -> None:
    now = int(time.time())
    clean, drifting = now - 3 * 3600, now - 7200
    rewritten(logs["clean"], tmp_path / "log-a", [clean, clean - 3600 * 2])
    rewritten(logs["inverted"], tmp_path / "log-b", [drifting])
    report = look(tiny_run, tmp_path / "log", hours=9)
    [found] = report.versions
    by_hour = {int(hour.begin.timestamp()): any(check.drifts for check in hour.checks) for hour in found.hours}
    assert by_hour == {each // 3600 * 3600: each == drifting for each in (clean, clean - 7200, drifting)}
    in_order = tuple(check for check in found.checks if not check.drifts)
    one_hour = replace(report, versions=(replace(found, checks=in_order),))
    assert one_hour.drifts and one_hour.sentence().startswith("drift: ") and "layout" in one_hour.sentence()
    assert look(tiny_run, tmp_path / "log", hours=2.5).versions[0].images == 200  # the clean ones came before
    assert not look(tiny_run, tmp_path / "log", hours=0.5).versions


def test_memory_is_that_of_the_sample(logs: dict[str, Path], version: int, images: Images) -> None:
    read = read_logs(str(logs["clean"]), MODEL, {version: SHAPE}, since=0, max_images=90)
    sample = read.samples[version]
    assert len(sample.images) == len(sample.probabilities) == 90 and sample.seen == 600
    thirds = np.bincount([_place(image, images) // 50 for image in sample.images], minlength=4)
    assert thirds.min() > 8  # from everywhere, and not the first


def _place(image: Images, images: Images) -> int:
    return int(np.flatnonzero((images == image).all(axis=(1, 2, 3)))[0])


def test_what_cannot_be_used_is_told(tiny_run: TinyRun, logs: dict[str, Path], tmp_path: Path, version: int) -> None:
    now = int(time.time())
    rewritten(logs["clean"], tmp_path / "log-a", [now])
    rewritten(logs["clean"], tmp_path / "log-b", [now], model="another")
    rewritten(logs["clean"], tmp_path / "log-c", [now], version=17)
    whole = gzip.decompress((tmp_path / "log-a-1.tfrecord.gz").read_bytes())
    (tmp_path / "log-d-1.tfrecord.gz").write_bytes(gzip.compress(whole[: len(whole) // 4] + b"damage" * 9))
    with tf.io.TFRecordWriter(f"{tmp_path}/log-e-1.tfrecord.gz", "GZIP") as writer:
        log = PredictionLog()
        log.log_metadata.model_spec.name, log.log_metadata.timestamp_secs = MODEL, now
        log.log_metadata.model_spec.version.value = version
        log.predict_log.request.inputs["encoded_images"].CopyFrom(tf.make_tensor_proto([b"no image", b""] * 20))
        answers = np.full((40, 10), 0.1, np.float32)
        log.predict_log.response.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(answers))
        writer.write(log.SerializeToString())
    report = look(tiny_run, tmp_path / "log")
    [found] = report.versions
    assert found.images - found.sampled == 40
    [unreadable] = [check for check in found.checks if check.name == "unreadable"]
    assert unreadable.drifts and unreadable.value == pytest.approx(40 / found.images)
    (tmp_path / "log-e-1.tfrecord.gz").rename(tmp_path / "only-1.tfrecord.gz")
    [nothing] = look(tiny_run, tmp_path / "only", min_images=40).versions
    assert [check.name for check in nothing.checks if check.drifts] == ["unreadable"] and nothing.sampled == 0
    damaged, left_out = report.notes
    assert "log-d-1.tfrecord.gz is damaged" in damaged and left_out.startswith("12 requests were left out")


def test_without_logs_or_reference_the_remedy_is_told(
    tiny_run: TinyRun, logs: dict[str, Path], tmp_path: Path, version: int
) -> None:
    with pytest.raises(PipelineError, match="serve --log-requests"):
        look(tiny_run, tmp_path / "nothing")
    with pytest.raises(UsageError, match="unknown version '5'"):
        look(tiny_run, logs["clean"], version=5)
    (tmp_path / "kmnist" / "1").mkdir(parents=True)
    settings = MonitoringSettings(logs=str(logs["clean"]))
    with pytest.raises(PipelineError, match="has a reference to compare with"):
        watch(MODEL, str(tmp_path / "kmnist"), schema_pb2.Schema(), settings, since=datetime.now(UTC))


def test_a_reference_that_is_damaged_is_named_with_the_remedy(
    tiny_run: TinyRun, logs: dict[str, Path], tmp_path: Path, version: int
) -> None:
    damaged = tmp_path / MODEL / "1" / REFERENCE_PATH
    damaged.parent.mkdir(parents=True)
    settings = MonitoringSettings(logs=str(logs["clean"]))
    whole = (tiny_run.home.serving(MODEL) / str(version) / REFERENCE_PATH).read_bytes()
    for content in (b"", bytes(40), whole[:-9], b"[{}]", b'{"images": 3}'):
        damaged.write_bytes(content)
        with pytest.raises(PipelineError, match=f"{REFERENCE_PATH} is damaged, .*Remove it"):
            watch(MODEL, str(tmp_path / MODEL), schema_pb2.Schema(), settings, since=datetime.now(UTC))


@pytest.mark.parametrize(("max_bytes", "count"), [(150 * 28 * 28, 150), (1, 100)])
def test_of_large_images_the_reference_has_fewer(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, max_bytes: int, count: int
) -> None:
    monkeypatch.setattr(reference, "MAX_BYTES", max_bytes)
    files = [str(path) for path in sorted((tiny_run.examples / "Split-test").iterdir())]
    [made] = reference.make_references(str(tiny_run.model), files, tuple("abcdefghij"), [1])
    assert made.images == count


def test_a_push_takes_the_reference_along(tiny_run: TinyRun, images: Images, version: int) -> None:
    folder = tiny_run.home.serving(MODEL) / str(version)
    assert is_same_model(str(tiny_run.model), str(folder))  # the reference is no part of the model
    [made] = read_references(str(folder))
    assert made.images == 200 and made.image_shape == SHAPE
    answers = tf.saved_model.load(str(folder)).signatures["images"](images=tf.constant(images))
    probabilities = answers["probabilities"].numpy()
    assert np.array_equal(made.classes, np.bincount(probabilities.argmax(axis=1), minlength=10))
    assert made.less_confident(0.7) == (probabilities.max(axis=1) < 0.7).sum()
