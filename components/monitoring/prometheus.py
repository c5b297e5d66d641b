"""What monitoring found, for Prometheus: as a text file for the node exporter, or on a port.

The format is Prometheus' text exposition format, version 0.0.4
(https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mnist_tfx.components.monitoring.watch import Report
from mnist_tfx.contract.errors import PipelineError

_LOGGER = logging.getLogger(__name__)
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Name and help of each; the alert rules in serving/k8s/components/drift-alerts use them.
_TIME = "mnist_tfx_monitor_timestamp_seconds", "Unix time of the last report."
_DRIFT = "mnist_tfx_monitor_drift", "1 where a check of the span, or of one of its hours, says drift, else 0."
_VALUE = "mnist_tfx_monitor_value", "What a check measured."
_BOUND = "mnist_tfx_monitor_bound", "Above this it is drift."
_IMAGES = "mnist_tfx_monitor_images", "Logged images of the span."


def to_text(report: Report) -> str:
    """All metrics: gauges, by model, version and check. Where there are too few images, a version has no checks."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    model = f'model="{_escaped(report.model)}"'
    yield from _gauge(*_TIME)
    yield f"{_TIME[0]}{{{model}}} {report.until.timestamp():.0f}"
    yield from _gauge(*_IMAGES)
    for each in report.versions:
        yield f'{_IMAGES[0]}{{{model},version="{each.version}"}} {each.images}'
    drifting = {(each.version, check.name) for each in report.versions for check in each.all_checks() if check.drifts}
    for (name, text), of in (
        (_VALUE, lambda version, check: check.value),
        (_BOUND, lambda version, check: check.bound),
        (_DRIFT, lambda version, check: int((version, check.name) in drifting)),
    ):
        yield from _gauge(name, text)
        for each in report.versions:
            for check in each.checks:
                labels = f'{model},version="{each.version}",check="{_escaped(check.name)}"'
                yield f"{name}{{{labels}}} {of(each.version, check):g}"


def _gauge(name: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} gauge"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def listen(look: Callable[[], Report], port: int, every: float) -> None:
    """Answers GET of any path with the newest metrics until interrupted; looks anew every so many seconds.

    A look that fails, as before there are logs, is logged; the metrics stay, and their time tells how old they are.

    Raises:
        PipelineError: the port cannot be had.
    """
    newest = ""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = newest.encode()
            self.send_response(200)
            self.send_header("Content-Type", _TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass  # a line for each scrape tells nobody anything

    try:
        server = ThreadingHTTPServer(("", port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PipelineError(f"cannot listen on port {port}: {reason}. Choose another one.") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server:
        while True:
            try:
                newest = to_text(look())
            except PipelineError as error:
                _LOGGER.warning("%s", error)
            except Exception:  # such as a bucket that does not answer for a while
                _LOGGER.exception("the logs could not be looked at")
            time.sleep(every)
