"""The alerts on what `mnist-tfx monitor` exports name what it exports."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from mnist_tfx.components.monitoring.prometheus import to_text
from tests.fixtures.manifests import render
from tests.fixtures.monitoring import sample_report


def test_the_alerts_name_metrics_and_labels_that_monitor_exports() -> None:
    families = text_string_to_metric_families(to_text(sample_report('a "b" \\ \n c')))
    labels = {family.name: set(family.samples[0].labels) for family in families}
    assert set(labels) == {
        f"mnist_tfx_monitor_{name}" for name in ("timestamp_seconds", "drift", "value", "bound", "images")
    }
    [group] = render("cpu", "drift-alerts").one("PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        [(grouping, metric)] = re.findall(r"max by \(([\w, ]+)\) \((\w+)\)", rule["expr"])
        assert set(grouping.split(", ")) <= labels[metric]
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"])) <= set(grouping.split(", "))
        assert set(rule["annotations"]) == {"summary", "description", "action"}
