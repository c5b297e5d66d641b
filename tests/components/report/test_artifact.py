from __future__ import annotations

from pathlib import Path

from kfp.pipeline_spec import pipeline_spec_pb2 as pb
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as entrypoint

from mnist_tfx.components.report.artifact import HTML, html_file


def test_a_container_finds_the_class_of_the_report() -> None:
    """As TFX's entry point goes about it: the classes of a task's inputs first, then those of its outputs."""
    given = pb.RuntimeArtifact(uri="gs://bucket/blessing")
    given.type.instance_schema = "title: mnist_tfx.DataBlessing\ntype: object\n"
    entrypoint.parse_raw_artifact_dict({"data_blessing": pb.ArtifactList(artifacts=[given])})
    made = pb.RuntimeArtifact(uri="gs://bucket/report")
    made.type.schema_title = "system.HTML"
    [report] = entrypoint.parse_raw_artifact_dict({"report": pb.ArtifactList(artifacts=[made])})["report"]
    assert isinstance(report, HTML) and report.uri == "gs://bucket/report"


def test_the_html_lies_at_the_uri_where_that_is_no_folder(tmp_path: Path) -> None:
    assert html_file(str(tmp_path)) == str(tmp_path / "report.html")
    assert html_file(str(tmp_path / "report")) == str(tmp_path / "report")
