"""What the artifacts alone decide of a report, drawn: only its verdict, its lineage and its times differ between runs.

The component keeps it beside its page, so that it is drawn once: the end of the run adds what is known by then, and so
does every run for which the cache answers the component, as that says that artifacts and code are the same.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tfx.dsl.io import fileio

from mnist_tfx.components.report.run import Run
from mnist_tfx.components.whole_files import write_whole

_LOGGER = logging.getLogger(__name__)
_FILE = "drawn.json"


@dataclass(frozen=True)
class Drawn:
    """Parts of a page and of a model card.

    Attributes:
        sections: HTML, by the section's key.
        card: Markdown, what stands between the card's head and the run's cautions and warnings.
        warnings: what the report warns of.
    """

    sections: Mapping[str, str]
    card: str
    warnings: tuple[str, ...]


def keep(drawn: Drawn, uri: str) -> None:
    """Leaves it in an HTML artifact, where that is a folder (see `artifact.html_file`)."""
    if fileio.isdir(uri):
        write_whole(os.path.join(uri, _FILE), json.dumps(asdict(drawn)).encode())


def kept(run: Run) -> Drawn | None:
    """What the component `Report` kept for a run; None where it did not run, or what it left cannot be read."""
    report = run.artifact("Report", "report")
    if report is None:
        return None
    try:
        with fileio.open(os.path.join(report.uri, _FILE), "rb") as file:
            fields = json.load(file)
        return Drawn(dict(fields["sections"]), str(fields["card"]), tuple(fields["warnings"]))
    except Exception:
        _LOGGER.exception("what was drawn of run %s cannot be read: it is drawn anew", run.run_id)
        return None
