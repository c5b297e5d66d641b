"""Which disk is to blame for a failure, asked of real disks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mnist_tfx.components.disk import disk_error
from mnist_tfx.contract.errors import DataRejected
from tests.fixtures.small_disk import small_disk


def refused(folder: Path, number: int) -> OSError:
    return OSError(number, os.strerror(number), str(folder / "file"))


def test_a_failure_on_a_disk_in_order_is_not_the_disks(tmp_path: Path) -> None:
    assert disk_error(ValueError("NaN in the weights"), tmp_path) is None
    assert disk_error(refused(tmp_path, errno.EACCES), tmp_path) is None


def test_a_full_disk_is_found_whatever_the_failure_says_and_once_freed_by_what_it_says(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        disk.fill()
        found = disk_error(RuntimeError("a worker died"), tmp_path, disk.seen)
        assert found is not None
        assert f"the disk of {disk.seen} is full (0 MiB free now). Free space there, and repeat" in str(found)
        assert "what failed: RuntimeError: a worker died" in str(found)
        with pytest.raises(OSError) as caught:
            (disk.seen / "file").write_bytes(bytes(10_000))
        disk.free()
        assert disk_error(RuntimeError("a worker died"), disk.seen) is None
        wrapped = RuntimeError("a worker died")
        wrapped.__cause__ = caught.value
        found = str(disk_error(wrapped, disk.seen))  # writing fails without a word on the file
        assert f"a disk is full, one of {disk.seen} (3" in found and tempfile.gettempdir() in found


def test_a_read_only_disk_is_found(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        disk.make_read_only()
        assert f"the disk of {disk.seen} is read-only" in str(disk_error(RuntimeError("?"), disk.seen / "not" / "made"))
        disk.make_writable()
        assert disk_error(RuntimeError("?"), disk.seen) is None


def test_a_full_folder_for_temporary_files_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk.seen))
        disk.fill()
        found = str(disk_error(RuntimeError("?"), tmp_path))
        assert f"the disk of {disk.seen} is full" in found and "have temporary files elsewhere (TMPDIR=DIR)" in found


def test_without_any_folder_for_temporary_files_they_are_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import resource, mnist_tfx.components.disk as d; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
            "print(d.disk_error(RuntimeError('?')))"
        )
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=os.getcwd())
        assert "no folder for temporary files" in answer.stdout and folder.rpartition("/")[0] in answer.stdout


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EFBIG, "takes no file of that size"),
        (errno.EROFS, "is read-only"),
    ],
)
def test_a_quota_a_limit_and_a_read_only_mount_are_kin_of_a_full_disk(tmp_path: Path, number: int, words: str) -> None:
    for error in (
        refused(tmp_path, number),
        RuntimeError(f"RESOURCE_EXHAUSTED: {tmp_path}/model/saved_model.pb; {os.strerror(number)} [while running 'x']"),
    ):
        found = str(disk_error(error, Path("/"), tmp_path))
        assert f"the disk of {tmp_path}" in found and words in found


def test_sqlites_own_words_are_known(tmp_path: Path) -> None:
    for words, state in (("database or disk is full", "is full"), ("disk I/O error", "fails to read or to write")):
        found = str(disk_error(RuntimeError(f"Error when executing query: {words} query: COMMIT;"), tmp_path))
        assert f"the disk of {tmp_path} {state} (" in found  # on which temporary files are, too


def test_rejected_data_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        disk.fill()
        assert disk_error(DataRejected("label 11"), disk.seen) is None
