"""Text files of this machine that others read at any time; without TensorFlow, unlike `components.whole_files`."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all; a link stays one, and the file that it leads to is written.

    Raises:
        OSError: it cannot be written.
    """
    target = path.resolve()
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")  # two processes may write at once
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
