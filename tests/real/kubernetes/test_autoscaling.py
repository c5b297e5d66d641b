"""kube-controller-manager's autoscaler finds the metric by the name that prometheus-adapter's values give it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.fixtures.manifests import K8S, own
from tests.real.kubernetes.api import NAMESPACE, Api, condition, wait
from tests.real.kubernetes.custom_metrics import Metric, custom_metrics

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(5400)]


def test_the_autoscaler_reads_its_metric_and_acts_on_it(api: Api, tmp_path: Path) -> None:
    api.kubectl("apply", "--kustomize", own(tmp_path, "cpu", "monitoring", "autoscaling"))
    autoscaler = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/tf-serving"

    def active(status: str) -> str:
        def said() -> str:
            its = condition(api.get(autoscaler), "ScalingActive")
            return f"{its['reason']}: {its['message']}" if its.get("status") == status else ""

        return wait(said, f"ScalingActive {status}")

    def replicas() -> int:
        return api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/tf-serving")["spec"]["replicas"]

    values = yaml.safe_load((K8S / "components" / "autoscaling" / "prometheus-adapter-values.yaml").read_text())
    [rule] = values["rules"]["custom"]
    name = rule["name"]["as"]
    without = active("False")
    assert without.startswith("FailedGetPodsMetric") and name in without
    metric = Metric(api, name, value="1000")  # an idle server's
    with custom_metrics(metric):
        found = active("True")
        assert found.startswith("ValidMetricFound") and name in found
        [current] = wait(lambda: api.get(autoscaler)["status"].get("currentMetrics"), "the value")
        assert current["pods"]["metric"]["name"] == name and current["pods"]["current"]["averageValue"] == "1k"
        assert replicas() == 2
        metric.value = "12000"  # three times the target
        wait(lambda: replicas() == 4, "twice the pods, and no more within a minute")
        api.kubectl("apply", "--kustomize", tmp_path)
        assert replicas() == 4, "an apply does not set the number back"
        wait(lambda: replicas() == 6, "maxReplicas, a minute later", 90)
