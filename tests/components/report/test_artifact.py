from __future__ import annotations

from pathlib import Path

from mnist_tfx.components.report.artifact import html_file


def test_the_html_lies_at_the_uri_where_that_is_no_folder(tmp_path: Path) -> None:
    assert html_file(str(tmp_path)) == str(tmp_path / "report.html")
    assert html_file(str(tmp_path / "report")) == str(tmp_path / "report")
