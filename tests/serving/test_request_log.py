"""The request log, read back as the pipeline reads it: from servers over real sockets, and from the client."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.models_config import ModelsConfig
from mnist_tfx.serving.client import AsyncClient, Client, InvalidOption, RequestLog, record_files
from mnist_tfx.serving.client.record_files import RecordFiles
from mnist_tfx.serving.server.config import MonitoringConfig, ServerOptions
from tests.fixtures.image_model import noise, write_image_model
from tests.fixtures.server_process import CHECKOUT
from tests.fixtures.small_disk import small_disk
from tests.serving.conftest import Running, refused, running, scale_request, wait_until
from tests.serving.server.test_metrics import read, value
from tests.serving.server.test_service import CLASSIFY, REGRESS, classification, multi, regression


def logged(folder: Path, name: str = "log") -> list[PredictionLog]:
    """All records of a prefix, in order."""
    paths = sorted(map(str, folder.glob(f"{name}-*.tfrecord.gz")))
    records = tf.data.TFRecordDataset(paths, compression_type="GZIP").as_numpy_iterator()
    return [PredictionLog.FromString(record) for record in records]


def log_of(prefix: Path, rate: float = 1.0, collector: str = "tfrecord") -> str:
    return (
        f'logging_config {{ log_collector_config {{ type: "{collector}" filename_prefix: "{prefix}" }} '
        f"sampling_config {{ sampling_rate: {rate} }} }}"
    )


def config_of(models: Path, **logs: str) -> str:
    """A ModelServerConfig of these models, each with its logging_config."""
    listed = (
        f'config {{ name: "{name}" base_path: "{models}/{name}" model_platform: "tensorflow" {log} }}'
        for name, log in logs.items()
    )
    return f"model_config_list {{ {' '.join(listed)} }}"


def options_of(folder: Path, config: str) -> ServerOptions:
    path = folder / "models.config"
    path.write_text(config)
    return ServerOptions(port=0, rest_api_port=-1, enable_batching=True, model_config_file=str(path))


METRICS = MonitoringConfig(enable=True)


def counted(one: Running, code: str, model: str = "scale") -> float:
    text = read(one)
    return value(text, "request_log_count", model_name=model, status_code=code)


def wait_counted(one: Running, count: int, code: str = "OK", model: str = "scale") -> None:
    wait_until(lambda: counted(one, code, model) == count, f"{count} records counted as {code}")


def post(one: Running, path: str, body: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{one.rest}/v1/models/{path}", body.encode())).read()


def reload(one: Running, config: str) -> None:
    request = ReloadConfigRequest(config=text_format.Parse(config, ModelServerConfig()))
    assert one.models.HandleReloadConfigRequest(request, timeout=30).status.error_code == 0


def test_every_kind_of_request_is_logged_with_its_answer(served_models: Path, tmp_path: Path) -> None:
    config = config_of(served_models, scale=log_of(tmp_path / "log"), examples=log_of(tmp_path / "log"))
    start = int(time.time())
    with running(options_of(tmp_path, config), monitoring=METRICS) as one:
        predict = scale_request(2)
        classify = classification(0.25, 1, signature="classify")
        regress = regression(1, 2, signature="regress")
        both = multi(("examples", "classify", CLASSIFY), ("examples", "regress", REGRESS))
        calls = [
            ("predict_log", predict, one.prediction.Predict(predict)),
            ("classify_log", classify, one.prediction.Classify(classify)),
            ("regress_log", regress, one.prediction.Regress(regress)),
            ("multi_inference_log", both, one.prediction.MultiInference(both)),
        ]
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            one.prediction.Predict(_unknown_signature())
        wait_counted(one, 1)
        wait_counted(one, 3, model="examples")
        records = logged(tmp_path)
    assert [record.WhichOneof("log_type") for record in records] == [kind for kind, _, _ in calls]
    for record, (kind, request, response) in zip(records, calls, strict=True):
        assert (getattr(record, kind).request, getattr(record, kind).response) == (request, response)
        metadata = record.log_metadata
        assert metadata.sampling_config.sampling_rate == 1.0
        assert start <= metadata.timestamp_secs <= time.time()
        spec = response.results[0].model_spec if kind == "multi_inference_log" else response.model_spec
        assert metadata.model_spec == spec and spec.version.value
    [path] = tmp_path.glob("log-*")
    assert path.stat().st_mode & 0o777 == 0o600  # requests are nobody else's business


def _unknown_signature() -> object:
    request = scale_request()
    request.model_spec.signature_name = "none"
    return request


def test_what_comes_as_json_is_logged_as_the_same_call_over_grpc(served_models: Path, tmp_path: Path) -> None:
    config = config_of(served_models, scale=log_of(tmp_path / "log"), examples=log_of(tmp_path / "log"))
    with running(options_of(tmp_path, config), monitoring=METRICS) as one:
        by_grpc = one.prediction.Predict(scale_request(2))
        post(one, "scale:predict", '{"instances": [[1, 2, 3], [1, 2, 3]]}')
        rows = ",".join(["[1, 2, 3" + 80 * " " + "]"] * 1000)  # so long that it is read in a process of its own
        post(one, "scale/versions/3:predict", f'{{"inputs": [{rows}]}}')
        post(one, "examples:classify", '{"signature_name": "classify", "examples": [{"x": 0.25}]}')
        wait_counted(one, 3)
        wait_counted(one, 1, model="examples")
        grpc_log, rest_log, large_log, classify_log = logged(tmp_path)
    assert rest_log.predict_log.response == by_grpc == grpc_log.predict_log.response
    assert rest_log.log_metadata.model_spec == grpc_log.log_metadata.model_spec
    assert rest_log.predict_log.request.model_spec.name == "scale"
    for log, count in ((grpc_log, 2), (rest_log, 2), (large_log, 1000)):
        sent = tf.make_ndarray(log.predict_log.request.inputs["x"])
        assert sent.dtype == np.float32 and np.array_equal(sent, np.tile([1, 2, 3], (count, 1)))
    assert large_log.predict_log.request.model_spec.version.value == 3
    scores = classify_log.classify_log.response.result.classifications[0].classes
    assert [(one.label, one.score) for one in scores] == [("yes", 0.25), ("no", 0.75)]


def test_the_share_that_is_sampled(served_models: Path, tmp_path: Path) -> None:
    calls, rate = 2000, 0.2
    with running(options_of(tmp_path, config_of(served_models, scale=log_of(tmp_path / "log", rate)))) as one:
        random.seed(7)
        for future in [one.prediction.Predict.future(scale_request()) for _ in range(calls)]:
            future.result(30)
    found = len(logged(tmp_path))  # the server's stop has written the last
    assert abs(found - rate * calls) < 4 * (calls * rate * (1 - rate)) ** 0.5, found


def test_a_reload_switches_the_log_on_and_off(served_models: Path, tmp_path: Path) -> None:
    without, first, second = (
        config_of(served_models, scale=log) for log in ("", log_of(tmp_path / "a"), log_of(tmp_path / "b"))
    )
    with running(options_of(tmp_path, without), monitoring=METRICS) as one:
        for count, config in enumerate((None, first, second, without)):
            if config is not None:
                reload(one, config)
            one.prediction.Predict(scale_request(1 + count))
        wait_counted(one, 2)
        for name, rows in (("a", 2), ("b", 3)):
            [log] = logged(tmp_path, name)
            assert log.predict_log.request.inputs["x"].tensor_shape.dim[0].size == rows


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        (log_of(Path("/log"), collector="kafka"), "NOT_FOUND", "Cannot find LogCollector::Factory for type: kafka"),
        ("logging_config {}", "NOT_FOUND", "Cannot find LogCollector::Factory for type: "),
        (log_of(Path("log")), "INVALID_ARGUMENT", "filename_prefix()=log"),
        (log_of(Path("/log"), 1.5), "INVALID_ARGUMENT", "sampling_rate 1.5"),
    ],
)
def test_a_log_that_cannot_be_is_refused(served_models: Path, tmp_path: Path, log: str, code: str, words: str) -> None:
    bad = config_of(served_models, scale=log)
    with pytest.raises(UsageError) as caught:
        options_of(tmp_path, bad).models()
    assert words in str(caught.value) and "models.config" in str(caught.value)
    with running(options_of(tmp_path, config_of(served_models, scale=""))) as one:
        with refused(grpc.StatusCode[code]) as told:
            reload(one, bad)
        assert words in told[0]
        one.prediction.Predict(scale_request())


def test_limits_must_be_above_nothing(served_models: Path) -> None:
    for flag in ("request_log_max_megabytes", "request_log_keep_days"):
        with pytest.raises(UsageError, match=flag):
            ServerOptions(**{flag: 0}).request_log_limits()


def test_a_full_disk_stops_the_log_and_not_the_server(
    served_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(record_files, "_RETRY_SECONDS", 0.5)
    caplog.set_level(logging.WARNING)
    with small_disk(tmp_path) as disk:
        config = config_of(served_models, scale=log_of(disk.seen / "log"))
        with running(options_of(tmp_path, config), monitoring=METRICS) as one:
            one.prediction.Predict(scale_request())
            wait_counted(one, 1)
            disk.fill()
            dropped = 0
            while dropped < 5:  # noise, for what can be packed might still fit into the file's last page
                request = scale_request()
                request.inputs["x"].tensor_content = np.random.default_rng(dropped).bytes(12 * 1000)
                request.inputs["x"].tensor_shape.dim[0].size = 1000
                one.prediction.Predict(request)
                dropped += 1
                wait_counted(one, dropped, "UNAVAILABLE")
            assert len(logged(disk.seen)) == 1  # nothing half
            disk.free()

            def goes_on() -> bool:
                one.prediction.Predict(scale_request())
                return counted(one, "OK") > 1

            wait_until(goes_on, "the log to go on")
            assert all(log.HasField("predict_log") for log in logged(disk.seen))
    said = [record.getMessage() for record in caplog.records if "request log" in record.getMessage()]
    assert len(said) == 2 and "No space left" in said[0] and said[1].endswith("goes on"), said


class Written:
    """What a RecordFiles counts."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __call__(self, model: str, code: str, count: int) -> None:
        self.counts[code] = self.counts.get(code, 0) + count


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Callable[..., tuple[RecordFiles, Written]]]:
    made: list[RecordFiles] = []

    def make(max_bytes: int = 100_000, keep_seconds: float = 1e6) -> tuple[RecordFiles, Written]:
        written = Written()
        made.append(RecordFiles(str(tmp_path / "log"), max_bytes=max_bytes, keep_seconds=keep_seconds, count=written))
        return made[-1], written

    yield make
    for one in made:
        one.close()


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in sorted(folder.glob("log-*"))]


def test_files_are_rotated_by_size_and_the_oldest_removed(
    files: Callable[..., tuple[RecordFiles, Written]], tmp_path: Path
) -> None:
    other = tmp_path / "log-of-somebody-else.tfrecord.gz"
    other.write_bytes(bytes(200_000))
    rng = np.random.default_rng(1)
    records = [rng.bytes(1000) for _ in range(500)]
    for number in range(5):  # five runs of a program
        one, written = files()
        for record in records[number * 100 : (number + 1) * 100]:
            one.add("m", record)
        one.close()
        assert written.counts == {"OK": 100}
    other.unlink()
    assert 50_000 < sum(sizes(tmp_path)) <= 100_000 and max(sizes(tmp_path)) <= 2 * 100_000 / 8
    paths = sorted(map(str, tmp_path.glob("log-*")))
    kept = list(tf.data.TFRecordDataset(paths, compression_type="GZIP").as_numpy_iterator())
    assert kept == records[-len(kept) :] and len(kept) > 50  # the newest, whole and in order


def test_files_are_rotated_and_removed_by_age(
    files: Callable[..., tuple[RecordFiles, Written]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MAX_FILE_SECONDS", 0.05)
    monkeypatch.setattr(record_files, "_WRITE_SECONDS", 0.02)
    monkeypatch.setattr(record_files, "_PRUNE_SECONDS", 0.02)
    one, written = files(keep_seconds=2)
    for number in range(3):
        one.add("m", b"record")
        wait_until(lambda: written.counts.get("OK") == number + 1, "the record")  # noqa: B023
        time.sleep(0.1)
    assert len(sizes(tmp_path)) == 3
    wait_until(lambda: not list(tmp_path.glob("log-*")), "their removal")  # although nothing is logged any more


def test_a_full_queue_and_a_record_that_is_too_large_are_dropped(
    files: Callable[..., tuple[RecordFiles, Written]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MAX_QUEUED_BYTES", 20_000)
    one, written = files(max_bytes=80_000)
    one.add("m", bytes(10_001))  # a file has an eighth of the limit
    for _ in range(25):
        one.add("m", bytes(1000))
    one.close()
    one.add("m", b"too late")
    assert written.counts == {"OK": 20, "RESOURCE_EXHAUSTED": 7}


def test_logs_that_remove_each_others_old_files_lose_no_record(
    files: Callable[..., tuple[RecordFiles, Written]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "_WRITE_SECONDS", 0.001)
    logs = [files() for _ in range(3)]
    record = np.random.default_rng(1).bytes(9000)  # each needs a new file
    for _ in range(300):
        for one, _ in logs:
            one.add("m", record)
        time.sleep(0.002)
    for one, written in logs:
        one.close()
        assert written.counts == {"OK": 300}


def test_a_thread_that_cannot_be_had_is_tried_for_again(
    files: Callable[..., tuple[RecordFiles, Written]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, written = files()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            one.add("m", b"not logged, which the caller counts")
    one.add("m", b"logged")
    one.close()
    assert written.counts == {"OK": 1}


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, sys; from mnist_tfx.serving.client.record_files import RecordFiles\n"
        "def count(model, code, many):\n    print(code, many, flush=True)\n"
        "files = RecordFiles(sys.argv[1], max_bytes=10**6, keep_seconds=1e6, count=count)\n"
        "for number in range(1000): files.add('m', os.urandom(300))\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("OK")
        process.kill()
    paths = sorted(map(str, tmp_path.glob("log-*")))
    records = list(tf.data.TFRecordDataset(paths, compression_type="GZIP").as_numpy_iterator())
    assert records and {len(record) for record in records} == {300}


def test_what_is_in_the_queue_is_written_when_python_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from mnist_tfx.serving.client import RequestLog\n"
        "log = RequestLog(sys.argv[1])\n"
        "for _ in range(3): log.add('predict_log', 'm', lambda: (b'', b'', b''))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=CHECKOUT, check=True)
    assert len(logged(tmp_path, "requests")) == 3


@pytest.fixture(scope="module")
def image_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_image_model(root / "image" / "5")
    return root


def test_the_clients_log_is_the_servers(image_models: Path, tmp_path: Path) -> None:
    options = options_of(tmp_path, config_of(image_models, image=log_of(tmp_path / "log")))
    with running(options) as one:
        log = RequestLog(tmp_path)
        with Client(f"127.0.0.1:{one.server.grpc_port}", "image", log=log) as client:
            labels = client.predict(noise(3)).labels
            client.run({"images": noise(1)}, signature="images", outputs=["classes"])
        log.close()
    assert (log.written, log.dropped) == (2, 0)
    by_server, by_client = logged(tmp_path), logged(tmp_path, "requests")
    assert len(by_server) == 2
    for record in (*by_server, *by_client):
        assert abs(record.log_metadata.timestamp_secs - time.time()) < 60
        record.log_metadata.timestamp_secs = 0  # each by its own clock
    assert by_client == by_server
    answer = by_client[0].predict_log.response.outputs["labels"].string_val
    assert [label.decode() for label in answer] == list(labels)


async def _ask(address: str, log: RequestLog) -> None:
    async with AsyncClient(address, "image", batch_size=1, log=log) as client:
        await client.predict(noise(200))


def test_the_client_samples(image_models: Path, tmp_path: Path) -> None:
    options = options_of(tmp_path, config_of(image_models, image=""))
    with running(options) as one:
        log = RequestLog(tmp_path / "to" / "be" / "made", sampling=0.5)
        random.seed(3)
        asyncio.run(_ask(f"127.0.0.1:{one.server.grpc_port}", log))
        log.close()
        assert len(logged(tmp_path / "to" / "be" / "made", "requests")) == log.written
        assert abs(log.written - 100) < 4 * (200 * 0.25) ** 0.5
    with pytest.raises(InvalidOption, match="share from 0 to 1"):
        RequestLog(tmp_path, sampling=2)


def test_a_container_is_not_told_to_log(tmp_path: Path) -> None:
    """TF Serving's own build has no log collector: it would not start."""
    path = tmp_path / "models.config"
    path.write_text(config_of(tmp_path, scale=log_of(tmp_path / "log")))
    ModelsConfig.read(tmp_path).with_pin("scale", None, ()).write()
    assert "logging_config" in path.read_text()
    assert "logging_config" not in (tmp_path / "models.container.config").read_text()
