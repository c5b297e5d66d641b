"""Makes the page of one run: for the pipeline's component and for the command alike."""

from __future__ import annotations

import html
import logging

from mnist_tfx.components.report.collect import collect
from mnist_tfx.components.report.content import ReportContent
from mnist_tfx.components.report.run import Run

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


def make_page(run: Run) -> tuple[str, ReportContent | None]:
    """The page with what it shows; where that cannot be made, a page that says so, and None."""
    try:
        # Here, so that a page that cannot even be imported costs no run its push.
        from mnist_tfx.components.report.page.render import render_report

        content = collect(run)
        return render_report(content), content
    except Exception as error:
        _LOGGER.exception("the report could not be made")
        return minimal_page(run.dataset, run.run_id, error), None


def minimal_page(dataset: str, run_id: str, error: Exception) -> str:
    """A page that says only why there is no report."""
    title = html.escape(" ".join(f"Run {run_id} of {dataset}".split()))
    return _MINIMAL.format(title=title, reason=html.escape(f"{type(error).__name__}: {error}"))
