"""Sends what a run prints and logs to a file, and leaves the terminal to the table. Imports no TensorFlow."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_CONTINUATION = "  | "
_TAIL_BYTES = 1 << 18  # where the last lines are looked for
# What TFX and Beam say of their own steps, with whole protos in it, and what TFX warns of in every run.
_BOOKKEEPING = re.compile(
    r"^\S+ (INFO (absl|apache_beam)\b|\w+ absl: (ArtifactQuery|Fallback to non-ZetaSQL|Execution \d+ failed))"
)


class _OneRecordPerLine(logging.Formatter):
    """Marks the further lines of a record, so that they can be told from what C++ wrote in between."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", f"\n{_CONTINUATION}")


@contextmanager
def output_to(log_file: Path) -> Iterator[None]:
    """Appends to `log_file` whatever is logged, printed or written to file descriptors 1 and 2 inside the block.

    The descriptors themselves are moved: the log lines of TensorFlow's C++ code, and those of child processes, come by
    no other way. Wrap the imports of TensorFlow too, they are chatty. Blocks may be nested. What must still reach the
    terminal is written to a duplicate of descriptor 2 made before (`pipeline.running.live_view.make_observer` does so).

    A log that cannot be written, as on a full disk, fails nothing: `lost_from` tells of it.
    """
    root = logging.getLogger()
    streams, handlers, level = (sys.stdout, sys.stderr), root.handlers[:], root.level
    for stream in streams:
        stream.flush()
    with ExitStack() as restore:
        log = restore.enter_context(_opened(log_file))
        absl_logger = logging.getLogger("absl")
        restore.callback(absl_logger.setLevel, absl_logger.level)
        absl_logger.setLevel(logging.INFO)  # TFX's lines, which absl drops until told otherwise
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            restore.callback(os.close, saved)
            restore.callback(os.dup2, saved, descriptor)
            os.dup2(log.fileno(), descriptor)
        # Python's own streams too: a caller (pytest, a notebook) may have put others there that bypass the descriptors.
        sys.stdout, sys.stderr = (_writer(_Tolerant(number, log_file)) for number in (1, 2))
        handler = logging.StreamHandler(log)
        handler.addFilter(lambda record: record.name != "apache_beam.typehints.native_type_compatibility")  # hundreds
        handler.setFormatter(_OneRecordPerLine("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
        root.handlers = [handler]
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            diverted = (sys.stdout, sys.stderr)
            sys.stdout, sys.stderr = streams
            root.handlers = handlers
            root.setLevel(level)
            for stream in diverted:
                stream.flush()


def lost_from(log_file: Path) -> str | None:
    """Why `log_file` does not have all that was written to it in this process; None where nothing is known to lack."""
    return _LOST.get(log_file)


_LOST: dict[Path, str] = {}


class _Tolerant(io.FileIO):
    """A file whose writer is told that all went well: what fails is noted for `lost_from`."""

    def __init__(self, descriptor: int, log_file: Path | None, closefd: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=closefd)
        self._log_file = log_file

    def write(self, content: ReadableBuffer) -> int:
        """Writes what can be written."""
        try:
            return super().write(content)
        except BrokenPipeError:  # the reader of our output went away, which is not to be kept from us
            raise
        except OSError as error:
            if self._log_file is not None:
                _LOST.setdefault(self._log_file, error.strerror or str(error))
            return memoryview(content).nbytes


def _opened(log_file: Path) -> TextIO:
    """The log, to append to; the null device where it cannot be had."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log_file, flags, 0o666)
    except OSError as error:
        _LOST.setdefault(log_file, error.strerror or str(error))
        descriptor = os.open(os.devnull, flags)
    return _writer(_Tolerant(descriptor, log_file, closefd=True))


def _writer(file: io.FileIO, encoding: str = "utf-8") -> TextIO:
    """Text, line by line.

    It stays usable after `output_to`: TensorFlow's log handler keeps the stream that it finds at import.
    """
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, "backslashreplace", line_buffering=True)


@contextmanager
def original_stderr() -> Iterator[TextIO]:
    """A stream to what standard error is now, which `output_to` will not divert."""
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (io.UnsupportedOperation, AttributeError):  # a test, or a notebook, has replaced sys.stderr
        yield sys.stderr
        return
    with _writer(_Tolerant(descriptor, None, closefd=True), sys.stderr.encoding) as stream:
        yield stream


def size_of(log_file: Path) -> int:
    """Where the next line of the log will begin, in bytes."""
    return log_file.stat().st_size if log_file.exists() else 0


def relevant_tail(log_file: Path, offset: int, lines: int = 8) -> list[str]:
    """The last lines of the log, from byte `offset` on, that are not TFX's bookkeeping."""
    try:
        with open(log_file, "rb") as log:
            size = os.fstat(log.fileno()).st_size
            begin = log.seek(max(offset, size - _TAIL_BYTES))
            text = log.read(max(size - begin, 0)).decode("utf-8", "replace")
    except OSError:  # it could not even be made
        return []
    kept: list[str] = []
    skipping = False
    for line in text.splitlines():
        if line.startswith(_CONTINUATION) and skipping:
            continue
        skipping = bool(_BOOKKEEPING.match(line))
        if not skipping and line.strip():
            kept.append(line)
    return kept[-lines:]
