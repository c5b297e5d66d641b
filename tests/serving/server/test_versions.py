from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

from mnist_tfx.serving.server.versions import find_versions, wanted_versions
from tests.fixtures.object_store import object_store
from tests.fixtures.server_process import server_processes
from tests.serving.conftest import scale_request

THERE = {1: "m/1", 2: "m/2", 10: "m/10"}


def test_folders_with_a_number_are_versions(tmp_path: Path) -> None:
    for name in ("1", "0023", "x", "-4", "1.5", "2_0", "٣", str(2**63), ".5"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert find_versions(str(tmp_path)) == {1: str(tmp_path / "1"), 23: str(tmp_path / "0023")}


def test_a_missing_base_path_is_not_an_empty_one(tmp_path: Path) -> None:
    assert find_versions(str(tmp_path)) == {}
    with pytest.raises(OSError, match="none"):
        find_versions(str(tmp_path / "none"))


def test_the_folders_in_a_bucket_are_versions(served_models: Path, tmp_path: Path) -> None:
    bucket = "gs://my-bucket/serving/scale"
    with object_store(tmp_path / "store") as (store, environment):
        store.upload(served_models / "scale", bucket)
        with (
            server_processes("scale", bucket, tmp_path / "stderr", 1, env=environment) as [server],
            grpc.insecure_channel(server.address) as channel,
        ):
            answer = PredictionServiceStub(channel).Predict(scale_request())
        assert answer.model_spec.version.value == 3
        assert store.refused == []


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", [10]),
        ("latest {}", [10]),
        ("latest { num_versions: 2 }", [2, 10]),
        ("latest { num_versions: 9 }", [1, 2, 10]),
        ("all {}", [1, 2, 10]),
        ("specific { versions: 1 versions: 5 }", [1]),
    ],
)
def test_policies(policy: str, expected: list[int]) -> None:
    parsed = text_format.Parse(policy, FileSystemStoragePathSourceConfig.ServableVersionPolicy())
    assert sorted(wanted_versions(THERE, parsed)) == expected
    assert wanted_versions({}, parsed) == {}
