"""The artifact that holds a report: `system.HTML`, the type whose content Kubeflow Pipelines and Vertex AI show."""

from __future__ import annotations

import os

from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact

_FILE = "report.html"


class HTML(Artifact):
    """One HTML file; see `html_file`."""

    TYPE_NAME = "system.HTML"


def html_file(uri: str) -> str:
    """The file of an HTML artifact.

    Those that show it on a cluster take the artifact's URI for the file's; TFX on this machine makes a folder of it.
    """
    return os.path.join(uri, _FILE) if fileio.isdir(uri) else uri
