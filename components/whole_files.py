"""Files that are written whole or not at all: after a kill at any moment, the old content is there or the new."""

from __future__ import annotations

import tensorflow as tf

PARTIAL = ".partial"  # what a kill may leave beside the file: its name and this


def write_whole(path: str, content: bytes) -> None:
    """Writes beside the file, which is then replaced; local or in a bucket."""
    partial = path + PARTIAL
    with tf.io.gfile.GFile(partial, "wb") as file:
        file.write(content)
    tf.io.gfile.rename(partial, path, overwrite=True)
