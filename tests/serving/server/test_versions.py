from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

from mnist_tfx.serving.server.versions import find_versions, wanted_versions

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
