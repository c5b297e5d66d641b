"""What monitoring found, for Prometheus: as a text file for the node exporter, or on a port."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mnist_tfx.components.monitoring.watch import Report
from mnist_tfx.contract.errors import PipelineError

_LOGGER = logging.getLogger(__name__)


class _Newest(Collector):
    """The newest report as gauges; the alert rules in serving/k8s/components/drift-alerts use their names."""

    def __init__(self, report: Report | None = None) -> None:
        self.report = report

    def collect(self) -> Iterator[GaugeMetricFamily]:
        report = self.report
        if report is None:
            return
        told = _gauge("timestamp_seconds", "Unix time of the last report.")
        told.add_metric([report.model], report.until.timestamp())
        images = _gauge("images", "Logged images of the span.", "version")
        value = _gauge("value", "What a check measured.", "version", "check")
        bound = _gauge("bound", "Above this it is drift.", "version", "check")
        says = "1 where a check of the span, or of one of its hours, says drift, else 0."
        drift = _gauge("drift", says, "version", "check")
        for each in report.versions:
            images.add_metric([report.model, str(each.version)], each.images)
            drifting = {check.name for check in each.all_checks() if check.drifts}
            for check in each.checks:  # none where there are too few images
                labels = [report.model, str(each.version), check.name]
                value.add_metric(labels, check.value)
                bound.add_metric(labels, check.bound)
                drift.add_metric(labels, check.name in drifting)
        yield from (told, images, value, bound, drift)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mnist_tfx_monitor_{name}", text, labels=("model", *labels))


def _registry(newest: _Newest) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(newest)
    return registry


def to_text(report: Report) -> str:
    """All metrics, by model, version and check, in Prometheus' text exposition format."""
    return generate_latest(_registry(_Newest(report))).decode()


def listen(look: Callable[[], Report], port: int, every: float) -> None:
    """Answers GET of any path with the newest metrics until interrupted; looks anew every so many seconds.

    A look that fails, as before there are logs, is logged; the metrics stay, and their time tells how old they are.

    Raises:
        PipelineError: the port cannot be had.
    """
    newest = _Newest()
    try:
        start_http_server(port, registry=_registry(newest))
    except OSError as error:
        raise PipelineError(f"cannot listen on port {port}: {error.strerror}. Choose another one.") from error
    while True:
        try:
            newest.report = look()
        except PipelineError as error:
            _LOGGER.warning("%s", error)
        time.sleep(every)
