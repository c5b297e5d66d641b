"""What we note in ML Metadata beside TFX."""

from __future__ import annotations

from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2 as pb

from mnist_tfx.pipeline.runs.records import forget_lost_pushes
from mnist_tfx.serving.releases import plans
from mnist_tfx.serving.releases.apply import release
from tests.fixtures.served_home import store


def pushed(database: mlmd.MetadataStore, folder: Path) -> int:
    artifact_type = database.put_artifact_type(pb.ArtifactType(name="PushedModel"))
    artifact = pb.Artifact(type_id=artifact_type, uri=str(folder), state=pb.Artifact.LIVE)
    artifact.custom_properties["pushed_destination"].string_value = str(folder)
    [artifact_id] = database.put_artifacts([artifact])
    return artifact_id


def test_a_deleted_version_is_forgotten_and_a_rolled_back_one_is_not(tmp_path: Path) -> None:
    """A forgotten push is made again by the next run of the same recipe; that would undo a rollback."""
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "metadata.db")
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    database = mlmd.MetadataStore(config)
    store(tmp_path, "mnist", 2, 3)
    deleted, kept, rolled_back = (pushed(database, tmp_path / "mnist" / name) for name in ("1", "2", "3"))
    release(tmp_path, "mnist", lambda state: plans.rollback(state, None))
    forget_lost_pushes(database)
    states = {artifact.id: artifact.state for artifact in database.get_artifacts()}
    assert states == {deleted: pb.Artifact.DELETED, kept: pb.Artifact.LIVE, rolled_back: pb.Artifact.LIVE}
