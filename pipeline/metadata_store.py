"""The one way to ML Metadata's database, which a full disk, a kill or a hand may have damaged. No TensorFlow."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2 as pb

from mnist_tfx.contract.errors import PipelineError


def open_store(metadata_db: Path) -> mlmd.MetadataStore | None:
    """ML Metadata to read from, also while a run writes; None where no run has made it yet.

    Raises:
        PipelineError: it is damaged, or cannot be read.
    """
    if not metadata_db.exists() or (metadata_db.is_file() and metadata_db.stat().st_size == 0):
        return None  # where it is empty, a run is only just making it
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(metadata_db)
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READONLY
    try:
        _check(metadata_db)
        return mlmd.MetadataStore(config)
    except (sqlite3.Error, RuntimeError, mlmd.errors.StatusError) as error:
        raise PipelineError(
            f"cannot read {metadata_db} as ML Metadata: {error}\nIf it is damaged, move it away: runs go on without "
            "their history and their cache, and the models that are served stay as they are."
        ) from error


def _check(metadata_db: Path) -> None:
    """Raises sqlite3.Error for a database whose pages are not in order, which would fail in the middle of a run.

    SQLite also takes back here what a killed process has half written. ML Metadata's connection for reading cannot: it
    would refuse the database until the next run.
    """
    with closing(sqlite3.connect(f"{metadata_db.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        [(found,), *_] = connection.execute("PRAGMA quick_check(1)")
    if found != "ok":
        raise sqlite3.DatabaseError(found)
