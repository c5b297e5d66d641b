"""Sends what a run prints and logs to a file, and leaves the terminal to the table. Imports no TensorFlow."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_CONTINUATION = "  | "
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
    terminal is written to a duplicate of descriptor 2 made before (`pipeline.live.make_observer` does so).
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    streams, handlers, level = (sys.stdout, sys.stderr), root.handlers[:], root.level
    for stream in streams:
        stream.flush()
    saved_out, saved_err = os.dup(1), os.dup(2)
    with open(log_file, "a", buffering=1, encoding="utf-8", errors="backslashreplace") as log, _absl_at_info():
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        # Python's own streams too: a caller (pytest, a notebook) may have put others there that bypass the descriptors.
        sys.stdout, sys.stderr = _stream_on(1), _stream_on(2)
        handler = logging.StreamHandler(log)
        handler.addFilter(lambda record: record.name != "apache_beam.typehints.native_type_compatibility")  # hundreds
        handler.setFormatter(_OneRecordPerLine("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
        root.handlers = [handler]
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = streams
            root.handlers = handlers
            root.setLevel(level)
            for saved, descriptor in ((saved_out, 1), (saved_err, 2)):
                os.dup2(saved, descriptor)
                os.close(saved)


def _stream_on(descriptor: int) -> TextIO:
    """A stream that stays usable after the block: TensorFlow's log handler keeps the one it finds at import."""
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


@contextmanager
def _absl_at_info() -> Iterator[None]:
    """Lets TFX's INFO lines through; absl drops them until told otherwise."""
    absl_logger = logging.getLogger("absl")
    before = absl_logger.level
    absl_logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        absl_logger.setLevel(before)


def original_stderr() -> TextIO:
    """A stream to what standard error is now, which `output_to` will not divert. The caller closes it."""
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (io.UnsupportedOperation, AttributeError):  # a test, or a notebook, has replaced sys.stderr
        return sys.stderr
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="replace")


def relevant_tail(log_file: Path, offset: int, lines: int = 8) -> list[str]:
    """The last lines of the log, from byte `offset` on, that are not TFX's bookkeeping."""
    with open(log_file, "rb") as log:
        log.seek(offset)
        text = log.read().decode("utf-8", "replace")
    kept: list[str] = []
    skipping = False
    for line in text.splitlines():
        if line.startswith(_CONTINUATION) and skipping:
            continue
        skipping = bool(_BOOKKEEPING.match(line))
        if not skipping and line.strip():
            kept.append(line)
    return kept[-lines:]
