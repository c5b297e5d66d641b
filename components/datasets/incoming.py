"""Putting a dataset into a data_dir so that a kill at any moment leaves all of it, or nothing that is taken for it.

Work happens in `<data_dir>/.incoming-*`, which only the holder of `<data_dir>/.lock` makes and removes: the kernel
drops the lock of a killed process, so whoever holds it knows that every such folder is a dead run's.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_tfx.components.datasets.progress import Progress
from mnist_tfx.contract.errors import PipelineError

_PREFIX = ".incoming-"
# TFDS's own runs in this data_dir take no lock of ours; what none has touched for a day is taken for dead.
_TFDS_LEFTOVER_AGE_S = 24 * 3600
_TFDS_LEFTOVERS = ("downloads/*.tmp.*", "downloads/extracted/*.incomplete_*", "*/incomplete.*", "*/*/incomplete.*")


@contextmanager
def incoming_folder(data_dir: Path, progress: Progress) -> Iterator[Path]:
    """A private, empty folder inside `data_dir`, removed at the end. Waits while another process prepares there.

    Raises:
        PipelineError: `data_dir` cannot be written to.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / ".lock").touch()
    except OSError as error:
        raise PipelineError(
            f"cannot write to {data_dir}: {error.strerror}. Name another folder with --home DIR."
        ) from error
    with open(data_dir / ".lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that prepares a dataset in {data_dir}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_leftovers(data_dir)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=data_dir))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def publish(prepared: Path, target: Path, incoming: Path) -> None:
    """Moves the complete dataset folder `prepared` to `target`; what is there already is dropped with `incoming`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(incoming / "replaced")
    prepared.rename(target)


def _remove_leftovers(data_dir: Path) -> None:
    for folder in data_dir.glob(f"{_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for pattern in _TFDS_LEFTOVERS:
        for path in data_dir.glob(pattern):
            newest = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
            if time.time() - newest > _TFDS_LEFTOVER_AGE_S:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
