"""Makes page and model card of one run: for the pipeline's component and for the command alike."""

from __future__ import annotations

import html
import json
import logging
import os
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter
from tfx.dsl.io import fileio

from mnist_tfx.components.report.collect import collect, framed
from mnist_tfx.components.report.content import Drawn
from mnist_tfx.components.report.run import Run
from mnist_tfx.components.report.verdict import Verdict
from mnist_tfx.components.whole_files import write_whole

_DRAWN = "drawn.json"
_LOGGER = logging.getLogger(__name__)
_MINIMAL = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body>
<h1>{title}</h1>
<p>The report of this run could not be made. That says nothing of its model.</p>
<pre>{reason}</pre>
<p>The whole stack trace is in the log. Once the cause is mended: <code>mnist-tfx report RUN</code></p>
</body>
</html>
"""


@dataclass(frozen=True)
class Made:
    """A report; `card`, `verdict` and `drawn` are None where the page only says why there is none."""

    page: str  # HTML
    card: str | None = None  # Markdown
    verdict: Verdict | None = None
    drawn: Drawn | None = None


def make_report(run: Run, drawn: Drawn | None = None) -> Made:
    """Makes the report of a run; where it cannot be made, a page that says so.

    Args:
        run: the run.
        drawn: what is already drawn of it, which needs a run that is `measured`; else its artifacts are read.
    """
    try:
        # Here, so that a page that cannot even be imported costs no run its push.
        from mnist_tfx.components.report.page.render import draw, render_card, render_report

        content = framed(run, drawn.warnings) if drawn else collect(run)
        drawn = drawn or draw(content)
        return Made(render_report(content, drawn), render_card(content, drawn), content.verdict, drawn)
    except Exception as error:
        _LOGGER.exception("the report could not be made")
        return Made(minimal_page(run.dataset, run.run_id, error))


def minimal_page(dataset: str, run_id: str, error: Exception) -> str:
    """A page that says only why there is no report."""
    title = html.escape(" ".join(f"Run {run_id} of {dataset}".split()))
    return _MINIMAL.format(title=title, reason=html.escape(f"{type(error).__name__}: {error}"))


def keep(drawn: Drawn, uri: str) -> None:
    """Leaves it in an HTML artifact, where that is a folder (see `artifact.html_file`), so that it is drawn once.

    The end of the run adds what is known by then, and so does every run for which the cache answers the component:
    that says that artifacts and code are the same.
    """
    if fileio.isdir(uri):
        write_whole(os.path.join(uri, _DRAWN), json.dumps(asdict(drawn)).encode())


def kept(run: Run) -> Drawn | None:
    """What the component `Report` kept for a run; None where it did not run, or what it left cannot be read."""
    report = run.artifact("Report", "report")
    if report is None:
        return None
    try:
        with fileio.open(os.path.join(report.uri, _DRAWN), "rb") as file:
            return TypeAdapter(Drawn).validate_json(file.read())
    except Exception:
        _LOGGER.exception("what was drawn of run %s cannot be read: it is drawn anew", run.run_id)
        return None
