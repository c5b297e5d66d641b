"""Whether a failure came of a place that takes no more: a full disk, a quota, a limit, a read-only mount."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mnist_tfx.contract.errors import DataRejected, ModelRejected, PipelineError, UsageError

_STATES = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "takes no more of this user's files: the quota is used up",
    errno.EFBIG: "takes no file of that size (`ulimit -f`, or a limit of the file system)",
    errno.EROFS: "is read-only",
    errno.EIO: "fails to read or to write",
}
_REMEDIES = {
    errno.ENOSPC: "Free space there",
    errno.EDQUOT: "Remove files of yours there",
    errno.EFBIG: "Raise the limit",
    errno.EROFS: "See why (`dmesg` tells of a failing disk), mount it for writing",
    errno.EIO: "See why (`dmesg` tells of a failing disk, `ulimit -f` of a limit)",
}
# In these words C++ tells of it. They are those of the C library, and SQLite's own.
_WORDS = {os.strerror(code): code for code in _STATES} | {
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
}
_PROBE_BYTES = 65536


class DiskRefused(PipelineError):
    """A folder that is needed cannot be written to."""


def disk_error(error: BaseException, *folders: Path, told: str | None = None) -> DiskRefused | None:
    """The error to show for a failure that came of a full, limited or read-only disk; None where it did not.

    Two witnesses are heard. The disks themselves: a place that takes nothing now is named, for whatever failed there
    will fail again. And the failure with those that led to it: what a failed step had half written may be gone by now,
    and the disk be far from full.

    Args:
        error: the failure. Of wrong usage, and of rejected data and models, no disk is the cause.
        folders: where there was something to write; the folder for temporary files is looked at too.
        told: how the failure is told beside; its own words, where not given.
    """
    if isinstance(error, (DiskRefused, UsageError, DataRejected, ModelRejected)):
        return error if isinstance(error, DiskRefused) else None
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as none_usable:
        return DiskRefused(
            f"there is no folder for temporary files that can be written to: {none_usable.strerror}. "
            "Free space in one of them or name another one (TMPDIR=DIR), and repeat."
        )
    places = [_nearest(folder) for folder in (*folders, temporary)]
    refusing = (([place], code) for place in places if (code := _refusal(place)))
    blamed, code = next(refusing, None) or _witnessed(error, places) or ([], 0)
    if not blamed:
        return None
    if len(blamed) == 1:
        found = f"the disk of {blamed[0]} {_STATES[code]} ({_room(blamed[0])})"
    else:
        found = f"a disk {_STATES[code]}, one of {', '.join(f'{place} ({_room(place)})' for place in blamed)}"
    elsewhere = " or have temporary files elsewhere (TMPDIR=DIR)" if blamed[-1] == temporary else ""
    return DiskRefused(
        f"{found}. {_REMEDIES[code]}{elsewhere}, and repeat: what was finished is not done again."
        f"\n  what failed: {told or f'{type(error).__name__}: {error}'}"
    )


def _refusal(place: Path) -> int | None:
    """The number of the error with which `place` refuses a small file; None where it takes it, or another error."""
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())  # some file systems find out only then
    except OSError as error:
        return error.errno if error.errno in _STATES else None
    return None


def _witnessed(error: BaseException, places: list[Path]) -> tuple[list[Path], int] | None:
    """What the failure itself says: the place, or the `places` it may have been, and the number of the error."""
    for one in _chain(error):
        words = str(one)
        code = one.errno if isinstance(one, OSError) else None
        code = code if code in _STATES else next((code for text, code in _WORDS.items() if text in words), None)
        if code is None:
            continue
        if isinstance(one, OSError) and isinstance(one.filename, str):
            return [_nearest(Path(one.filename).absolute().parent)], code
        named = [place for place in places if str(place) in words]
        disks = {place.stat().st_dev: place for place in reversed(places)}
        return [max(named, key=lambda place: len(str(place)))] if named else [*disks.values()][::-1], code
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it, the first cause at the end."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [before for before in (one.__context__, one.__cause__) if before is not None]


def _nearest(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _room(place: Path) -> str:
    found = os.statvfs(place)
    files = ", and room for no more files" if found.f_files and not found.f_favail else ""
    return f"{shutil.disk_usage(place).free // 2**20} MiB free now{files}"
