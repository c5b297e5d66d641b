"""The rules that a deployment on GPU nodes has to keep, checked on the objects that kubectl renders."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.fixtures.manifests import DEFAULT_SOURCE, K8S, Rendered, combinations, matches, render

# The oldest Kubernetes that the manifests promise, and the newest whose schemas are here.
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
CUSTOM = {"ServiceMonitor", "PrometheusRule"}  # kinds of the Prometheus operator: Kubernetes has no schema for them


@pytest.fixture(params=list(combinations()), ids="+".join)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(*request.param)


def flag_of(rendered: Rendered, group: str, name: str) -> int:
    """A number out of a flag that is a list of key=value."""
    return int(dict(pair.split("=") for pair in rendered.flags[group].split(","))[name])


def mebibytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


@cache
def validate(text: str) -> None:
    """Validates an object, given as JSON: most are the same in every overlay."""
    kubernetes_validate.validate(json.loads(text), OLDEST, strict=True)
    kubernetes_validate.validate(json.loads(text), NEWEST, strict=True)


def test_valid_by_the_strict_schemas(rendered: Rendered) -> None:
    for each in rendered.objects:
        if each["kind"] not in CUSTOM:
            validate(json.dumps(each, sort_keys=True))


def test_the_schemas_would_notice_a_misspelt_field() -> None:
    deployment = yaml.safe_load(yaml.safe_dump(render("gpu").one("Deployment")))
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_no_more_rights_than_needed(rendered: Rendered) -> None:
    pod = rendered.pod["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert rendered.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == rendered.one("ServiceAccount")["metadata"]["name"]
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert min(security["runAsUser"], security["runAsGroup"], security["fsGroup"]) >= 10_000
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(pod)
    assert not any("hostPath" in volume for volume in pod["volumes"])
    assert "initContainers" not in pod
    container = rendered.server["securityContext"]
    assert container == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPort" in port for port in rendered.server["ports"])
    assert rendered.one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_object_is_in_the_one_namespace(rendered: Rendered) -> None:
    namespace = rendered.one("Namespace")["metadata"]["name"]
    for each in rendered.objects:
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == namespace, each["kind"]


def test_one_pinned_version(rendered: Rendered) -> None:
    gpu = "gpu" in rendered.name
    assert rendered.server["image"] == "tensorflow/serving:2.20.0" + ("-gpu" if gpu else "")


def test_a_gpu_where_there_is_one(rendered: Rendered) -> None:
    pod = rendered.pod["spec"]
    if rendered.name.startswith("cpu"):
        assert "nvidia" not in yaml.safe_dump(pod)
        assert "per_process_gpu_memory_fraction" not in rendered.flags
        return
    assert rendered.server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    selector = "cloud.google.com/gke-accelerator" if rendered.name.startswith("gke") else "nvidia.com/gpu.present"
    assert list(pod["nodeSelector"]) == [selector]
    assert 0 < float(rendered.flags["per_process_gpu_memory_fraction"]) < 1
    assert {"name": "TF_FORCE_GPU_ALLOW_GROWTH", "value": "true"} in rendered.server["env"]


def test_the_memory_plan_fits_the_gpu_and_the_host() -> None:
    """Two versions of both models at once, by the numbers in components/gpu/deployment.yaml, on a T4's 16 GB."""
    weights = 4 * (784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10)
    batch, threads = 256, 4
    activations = threads * batch * (784 + 512 + 512 + 10) * 4
    cublas = 32 * 2**20
    plan = (K8S / "components" / "gpu" / "deployment.yaml").read_text()
    for megabytes in (4 * weights / 1e6, 2 * weights / 1e6, activations / 1e6, cublas / 1e6):
        assert f"{megabytes:.1f} MB" in plan
    arena = float(render("gpu").flags["per_process_gpu_memory_fraction"]) * 15 * 2**30
    assert 6 * weights + activations + cublas < 60e6 < arena / 10


def test_resources_are_bounded(rendered: Rendered) -> None:
    resources = rendered.server["resources"]
    assert "cpu" in resources["requests"]
    assert "cpu" not in resources["limits"], "throttling delays whole batches"
    assert mebibytes(resources["requests"]["memory"]) <= mebibytes(resources["limits"]["memory"])
    assert all("sizeLimit" in volume["emptyDir"] for volume in rendered.volumes.values() if "emptyDir" in volume)


def test_files_that_the_flags_name_are_mounted_read_only(rendered: Rendered) -> None:
    files = rendered.mounted_files()
    named = {name: path for name, path in rendered.flags.items() if name.endswith("_file")}
    assert {"model_config_file", "monitoring_config_file", "batching_parameters_file"} <= set(named)
    for name, path in named.items():
        if name != "ssl_config_file":  # written when the container starts; see below
            assert path in files, name
    for path, mount in rendered.mounts.items():
        volume = rendered.volumes[mount["name"]]
        assert mount.get("readOnly", False) is ("emptyDir" not in volume), path
    assert {mount["name"] for mount in rendered.mounts.values()} == set(rendered.volumes), "each volume is mounted"


def test_a_changed_file_means_new_pods() -> None:
    """ConfigMaps are named after their content, so that a change rolls out rather than seeps in."""
    base, bucket = render("gpu"), render("gpu", "models-gcs-path")
    assert base.volumes["config"]["configMap"]["name"] != bucket.volumes["config"]["configMap"]["name"]


def test_models_come_from_one_place(rendered: Rendered) -> None:
    overlay, *components = rendered.name.split("+")
    source = next((part for part in components if part.startswith("models-")), DEFAULT_SOURCE[overlay])
    bases = re.findall(r'base_path: "(.+)"', rendered.mounted_files()["/config/models.config"])
    claims = [each["metadata"]["name"] for each in rendered.of_kind("PersistentVolumeClaim")]
    egress = rendered.one("NetworkPolicy")["spec"]["egress"]
    assert bool(egress) is (source != "models-pvc"), "only a bucket needs the network"
    if source == "models-gcs-path":
        assert all(base.startswith("gs://") for base in bases)
        assert "models" not in rendered.volumes
    else:
        assert all(base.startswith("/models/") for base in bases)
        assert rendered.mounts["/models"]["name"] == "models"
    if source == "models-pvc":
        assert claims == [rendered.volumes["models"]["persistentVolumeClaim"]["claimName"]]
        assert rendered.volumes["models"] == {
            "name": "models",
            "persistentVolumeClaim": {"claimName": "models", "readOnly": True},
        }
    else:
        assert claims == []
    annotations = rendered.pod["metadata"].get("annotations", {})
    assert annotations.get("gke-gcsfuse/volumes") == ("true" if source == "models-gcs-fuse" else None), "GKE's sidecar"
    if source == "models-gcs-fuse":
        csi = rendered.volumes["models"]["csi"]
        assert set(rendered.volumes["models"]) == {"name", "csi"}
        assert csi["driver"] == "gcsfuse.csi.storage.gke.io"
        assert csi["readOnly"] is True
        options = csi["volumeAttributes"]["mountOptions"].split(",")
        security = rendered.pod["spec"]["securityContext"]
        assert {f"uid={security['runAsUser']}", f"gid={security['runAsGroup']}", "implicit-dirs"} <= set(options)
        [ttl] = [int(option.rpartition(":")[2]) for option in options if option.startswith("metadata-cache:ttl-secs")]
        assert ttl < int(rendered.flags["file_system_poll_wait_seconds"]), "a new version is seen at the next poll"


def test_probes_look_at_the_models_state(rendered: Rendered) -> None:
    for name in ("startupProbe", "readinessProbe"):
        probe = rendered.server[name]
        shell, script = probe["exec"]["command"]
        assert shell == "bash"
        assert script in rendered.mounted_files()
        # The script looks at both models, and waits 2 s for a line.
        assert probe["timeoutSeconds"] >= 5
    startup = rendered.server["startupProbe"]
    tries = int(rendered.flags["max_num_load_retries"]) * int(rendered.flags["load_retry_interval_micros"]) / 1e6
    # A start waits for the tries of a broken version, though the one before it serves; pulls and warm-up come on top.
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 2 * tries, (
        "not killed while it still tries to load"
    )
    assert rendered.one("Deployment")["spec"]["progressDeadlineSeconds"] > tries


def test_liveness_asks_the_server_and_not_the_models(rendered: Rendered) -> None:
    probe = rendered.server["livenessProbe"]
    if "mtls" in rendered.name:
        assert "grpc" not in probe, "the kubelet speaks no TLS"
        assert f"/dev/tcp/127.0.0.1/{rendered.flags['rest_api_port']}" in probe["exec"]["command"][-1]
    else:
        assert rendered.flags["enable_grpc_healthcheck_service"] == "true"
        assert probe["grpc"]["port"] == int(rendered.flags["port"])
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 30, "a busy server is not a dead one"


def test_drain_outlasts_every_connection(rendered: Rendered) -> None:
    deployment = rendered.one("Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    sleep = rendered.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = rendered.pod["spec"]["terminationGracePeriodSeconds"]
    assert 0 < grace - sleep <= 10, "SIGTERM is ignored: what is left after the sleep only delays the end"
    age = flag_of(rendered, "grpc_channel_arguments", "grpc.max_connection_age_ms") / 1000
    leaves_service, dns_ttl, jitter = 1, 5, 1.1
    assert leaves_service + dns_ttl + age * jitter < sleep, "a client may still hold a connection when the pod dies"
    assert flag_of(rendered, "grpc_channel_arguments", "grpc.max_connection_age_grace_ms") >= 10_000


def test_selectors_select_the_pods(rendered: Rendered) -> None:
    labels = rendered.pod["metadata"]["labels"]
    deployment = rendered.one("Deployment")["spec"]
    selectors = [deployment["selector"], rendered.one("PodDisruptionBudget")["spec"]["selector"]]
    selectors += [rendered.one("NetworkPolicy")["spec"]["podSelector"]]
    selectors += [service["spec"]["selector"] for service in rendered.of_kind("Service")]
    selectors += [spread["labelSelector"] for spread in rendered.pod["spec"]["topologySpreadConstraints"]]
    assert all(matches(selector, labels) for selector in selectors)


def test_services_reach_the_servers_ports(rendered: Rendered) -> None:
    ports = {port["name"]: port["containerPort"] for port in rendered.server["ports"]}
    assert ports == {"grpc": int(rendered.flags["port"]), "rest": int(rendered.flags["rest_api_port"])}
    services = {service["metadata"]["name"]: service["spec"] for service in rendered.of_kind("Service")}
    assert services["tf-serving-headless"]["clusterIP"] == "None"
    assert [port["name"] for port in services["tf-serving-headless"]["ports"]] == ["grpc"]
    assert services["tf-serving"]["type"] == "ClusterIP"
    assert [port["name"] for port in services["tf-serving"]["ports"]] == ["grpc", "rest"]
    for service in services.values():
        assert all(ports[port["targetPort"]] == port["port"] for port in service["ports"])


def test_network_policy_lets_in_labeled_clients_and_monitoring(rendered: Rendered) -> None:
    policy = rendered.one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    rules = {rule["ports"][0]["port"]: rule for rule in policy["ingress"]}
    assert set(rules) == {8500, 8501}
    for rule in rules.values():
        assert len(rule["ports"]) == 1
        assert all(peer.get("podSelector", {}).get("matchLabels") for peer in rule["from"]), "only labeled pods"
    for peer in rules[8500]["from"]:
        assert peer["podSelector"] == {"matchLabels": {"mnist-tfx/client": "true"}}
    [monitoring] = rules[8501]["from"]
    assert monitoring["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    assert not any(not rule.get("to") for rule in policy["egress"]), "no rule that lets everything out"


def test_disruptions_take_one_pod_at_a_time(rendered: Rendered) -> None:
    budget = rendered.one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    scaler = rendered.of_kind("HorizontalPodAutoscaler")
    least = scaler[0]["spec"]["minReplicas"] if scaler else rendered.one("Deployment")["spec"]["replicas"]
    assert least > budget["maxUnavailable"]


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "gke-gpu"])
def test_autoscaling_on_the_queue(overlay: str) -> None:
    rendered = render(overlay, "monitoring", "autoscaling")
    assert "replicas" not in rendered.one("Deployment")["spec"], "an apply must not undo the autoscaler"
    scaler = rendered.one("HorizontalPodAutoscaler")["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", rendered.one("Deployment")["metadata"]["name"])
    [metric] = scaler["metrics"]
    values = yaml.safe_load((K8S / "components" / "autoscaling" / "prometheus-adapter-values.yaml").read_text())
    [rule] = values["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    timeout = re.search(
        r"batch_timeout_micros \{ value: (\d+) \}", rendered.mounted_files()["/config/batching_parameters.txt"]
    )
    assert timeout
    target_us = int(metric["pods"]["target"]["averageValue"])
    assert target_us >= 4 * int(timeout[1]), "an idle server waits for company too"


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "gke-gpu"])
def test_each_pod_is_scraped_once(overlay: str) -> None:
    rendered = render(overlay, "monitoring")
    monitor = rendered.one("ServiceMonitor")["spec"]
    [endpoint] = monitor["endpoints"]
    services: list[Any] = [
        service
        for service in rendered.of_kind("Service")
        if matches(monitor["selector"], service["metadata"]["labels"])
        and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    ]
    assert [service["metadata"]["name"] for service in services] == ["tf-serving"]
    assert f'path: "{endpoint["path"]}"' in rendered.mounted_files()["/config/monitoring.config"]


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "gke-gpu"])
def test_mtls_writes_the_file_that_the_server_reads(overlay: str) -> None:
    rendered = render(overlay, "mtls")
    shell, script, secret, output, *server = rendered.server["command"]
    assert (shell, server) == ("bash", render(overlay).server["command"])
    assert script in rendered.mounted_files()
    assert rendered.volumes[rendered.mounts[secret]["name"]]["secret"]["secretName"] == "tf-serving-tls"
    assert output == rendered.flags["ssl_config_file"]
    folder = rendered.mounts[output.rpartition("/")[0]]
    assert rendered.volumes[folder["name"]]["emptyDir"]["medium"] == "Memory", "keys stay off the node's disk"
