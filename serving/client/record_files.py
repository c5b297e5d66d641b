"""Records in gzipped TFRecord files that are rotated and bounded, written by a thread beside the program's work.

The framing is TFRecord's (tensorflow/tsl, lib/io/record_writer.cc): a length, its masked CRC-32C, the record, its
masked CRC-32C. Each write appends a whole gzip member, so a file can be read before it is complete, and after a crash.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mnist_tfx.serving.client.errors import InvalidOption

MAX_QUEUED_BYTES = 16 * 2**20
"""Of records that wait to be written; one more is dropped."""

MAX_FILE_BYTES = 64 * 2**20
MAX_FILE_SECONDS = 3600.0
"""A file that is larger (or an eighth of the limit) or older than that is followed by another."""

_MEMBER_BYTES = 2**20  # of records, not compressed
_WRITE_SECONDS = 1.0
_RETRY_SECONDS = 5.0  # after a failed write
_PRUNE_SECONDS = 60.0

logger = logging.getLogger(__name__)

Record = tuple[str, bytes]
"""A record, behind the name of the model that it is counted under."""


class RecordFiles:
    """The files `PREFIX-<UTC time>-<process>.tfrecord.gz`. Safe for use by several threads."""

    def __init__(
        self, prefix: str, *, max_bytes: int, keep_seconds: float, count: Callable[[str, str, int], None]
    ) -> None:
        """Makes no file before there is a record.

        Args:
            prefix: the beginning of the files' paths.
            max_bytes: of all files of the prefix; the oldest are removed.
            keep_seconds: files that were last written longer ago are removed.
            count: hears of so many records of a model: "OK" (written), "RESOURCE_EXHAUSTED" (dropped: the queue is
                full, or the record too large) or "UNAVAILABLE" (dropped: the disk takes none).

        Raises:
            InvalidOption: google-crc32c is not installed.
        """
        try:
            from google_crc32c import value
        except ImportError as error:
            raise InvalidOption("a request log needs google-crc32c: pip install google-crc32c") from error
        self._crc32c: Callable[[bytes], int] = value
        self._folder, self._name = os.path.split(os.path.join(os.getcwd(), prefix))
        self._ours = re.compile(re.escape(self._name) + r"-\d{8}T\d{6}\.\d{6}Z-\d+\.tfrecord\.gz")
        self._max_bytes, self._keep_seconds, self.count = max_bytes, keep_seconds, count
        self._max_file_bytes = min(MAX_FILE_BYTES, max_bytes // 8)
        self._changed = threading.Condition()  # guards the next four
        self._queue: list[Record] = []
        self._queued_bytes = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        # Of the thread.
        self._path = Path()
        self._begun = -MAX_FILE_SECONDS
        self._pruned = 0.0
        self._failing_until = 0.0
        self._failing = False

    def add(self, model: str, record: bytes) -> None:
        """Queues a record, or drops it; returns at once."""
        with self._changed:
            size = self._queued_bytes + len(record)
            has_room = size <= MAX_QUEUED_BYTES and len(record) <= self._max_file_bytes and not self._closed
            if has_room:
                if self._thread is None:
                    thread = threading.Thread(target=self._work, name="request log", daemon=True)
                    thread.start()  # where none can be had, the next record tries again
                    self._thread = thread
                self._queue.append((model, record))
                self._queued_bytes = size
                if size - len(record) < _MEMBER_BYTES <= size:
                    self._changed.notify()
        if not has_room:
            self.count(model, "RESOURCE_EXHAUSTED", 1)

    def close(self, timeout: float | None = None) -> None:
        """Takes no more records, and waits so long until those in the queue are written."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    # The thread.

    def _work(self) -> None:
        closed = False
        while not closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._queued_bytes >= _MEMBER_BYTES, _WRITE_SECONDS)
                closed, records = self._closed, self._queue
                self._queue, self._queued_bytes = [], 0
            for some in _parts(records, min(_MEMBER_BYTES, self._max_file_bytes)):
                self._write(some)
            if time.monotonic() > self._pruned + _PRUNE_SECONDS:
                with suppress(OSError):
                    self._prune(0)

    def _write(self, records: Sequence[Record]) -> None:
        written = time.monotonic() >= self._failing_until and self._has_written(records)
        for model, many in Counter(model for model, _ in records).items():
            self.count(model, "OK" if written else "UNAVAILABLE", many)

    def _has_written(self, records: Sequence[Record]) -> bool:
        """Tries to; that it fails, or does so no more, is told once."""
        frames = b"".join(part for _, record in records for part in self._frame(record))
        try:
            self._append(gzip.compress(frames, 1))
        except Exception as error:  # whatever it is, the thread goes on
            if not self._failing:
                logger.warning("error: the request log %s/%s-* stops: %s", self._folder, self._name, error)
            self._failing, self._failing_until = True, time.monotonic() + _RETRY_SECONDS
            return False
        if self._failing:
            logger.warning("the request log %s/%s-* goes on", self._folder, self._name)
            self._failing = False
        return True

    def _frame(self, record: bytes) -> tuple[bytes, ...]:
        length = struct.pack("<Q", len(record))
        return length, self._masked_crc(length), record, self._masked_crc(record)

    def _masked_crc(self, data: bytes) -> bytes:
        crc = self._crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def _append(self, member: bytes) -> None:
        """Writes the whole member or nothing. Raises OSError."""
        size = self._path.stat().st_size if self._path.is_file() else 0
        if not size or size + len(member) > self._max_file_bytes or time.monotonic() > self._begun + MAX_FILE_SECONDS:
            os.makedirs(self._folder, exist_ok=True)
            self._prune(max(self._max_file_bytes, len(member)))
            now = datetime.now(UTC)
            self._path = Path(self._folder, f"{self._name}-{now:%Y%m%dT%H%M%S.%f}Z-{os.getpid()}.tfrecord.gz")
            self._begun, size = time.monotonic(), 0
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            left = memoryview(member)
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError:
            if size:
                os.truncate(descriptor, size)
            else:
                self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def _prune(self, room: int) -> None:
        """Removes old files, and then the oldest until there is room below the limit. Raises OSError."""
        self._pruned = time.monotonic()
        stats = []
        for name in sorted(filter(self._ours.fullmatch, os.listdir(self._folder))):
            path = Path(self._folder, name)
            with suppress(FileNotFoundError):  # another process that logs here removes old files, too
                stats.append((path, path.stat()))
        left = sum(stat.st_size for _, stat in stats)
        for path, stat in stats:
            if left + room > self._max_bytes or stat.st_mtime < time.time() - self._keep_seconds:
                path.unlink(missing_ok=True)
                left -= stat.st_size


def _parts(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    """The records in order, each part of about `size` bytes."""
    part: list[Record] = []
    held = 0
    for record in records:
        part.append(record)
        held += len(record[1])
        if held >= size:
            yield part
            part, held = [], 0
    if part:
        yield part
