"""The files that the ConfigMap ships, the Compose file that uses the same ones, and the alerts."""

from __future__ import annotations

import itertools
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mnist_tfx.serving.releases import plans
from mnist_tfx.serving.releases.apply import release
from mnist_tfx.serving.server.config import ServerOptions
from tests.fixtures.certificates import CertificateAuthority
from tests.fixtures.manifests import K8S, OVERLAYS, render
from tests.fixtures.served_home import store

COMPOSE = K8S.parent / "docker-compose.yaml"
WITH_SSL_CONFIG = K8S / "components" / "mtls" / "with_ssl_config.sh"

# What TF Serving exports, with the labels it sets: prometheus_exporter.cc, servables/tensorflow/util.cc,
# batching/batching_session.cc of tensorflow/serving; cc/saved_model/loader.cc and metrics.cc of TensorFlow.
METRICS: dict[str, set[str]] = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint", "le"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name", "le"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
    "up": set(),  # Prometheus' own: whether the scrape worked
}
HISTOGRAMS = {":tensorflow:serving:request_latency", ":tensorflow:serving:batching_session:queuing_latency"}
TARGET_LABELS = {"namespace", "pod", "job"}  # what the ServiceMonitor's scrape adds


def models(text: str) -> ModelServerConfig:
    return text_format.Parse(text, ModelServerConfig())


def mounted(overlay: str, folder: Path) -> dict[str, Path]:
    """The overlay's ConfigMap as files in a folder, as the container sees it at /config."""
    files = {path.removeprefix("/config/"): text for path, text in render(overlay).mounted_files().items()}
    for name, text in files.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in files}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_models_config_by_the_official_stub(overlay: str) -> None:
    config = models(render(overlay).mounted_files()["/config/models.config"])
    assert [model.name for model in config.model_config_list.config] == ["fashion_mnist", "mnist"]
    for model in config.model_config_list.config:
        assert model.model_platform == "tensorflow"
        assert model.base_path == f"/models/{model.name}"
        assert model.model_version_policy.latest.num_versions == 2, "a broken newest version is no outage at a restart"


def test_the_canary_in_the_comment_is_valid_too() -> None:
    text = (K8S / "base" / "config" / "models.config").read_text()
    lines = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#   "))
    config = models(f'model_config_list {{ config {{ name: "mnist" base_path: "/models/mnist" {lines} }} }}')
    [model] = config.model_config_list.config
    assert sorted(model.version_labels.values()) == list(model.model_version_policy.specific.versions)
    assert set(model.version_labels) == {"stable", "canary"}


def test_the_bucket_has_the_same_models() -> None:
    bucket = (K8S / "components" / "models-gcs-path" / "config" / "models.config").read_text()
    base = (K8S / "base" / "config" / "models.config").read_text()
    assert models(bucket.replace("gs://example-models", "/models")) == models(base)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_both_servers_read_the_same_files(overlay: str, tmp_path: Path) -> None:
    files, flags = mounted(overlay, tmp_path), render(overlay).flags
    options = ServerOptions(
        model_config_file=str(files["models.config"]),
        enable_batching=True,
        batching_parameters_file=str(files["batching_parameters.txt"]),
        monitoring_config_file=str(files["monitoring.config"]),
        grpc_channel_arguments=flags["grpc_channel_arguments"],
    )
    assert options.models() == models(files["models.config"].read_text())
    assert options.monitoring().enable
    assert dict(options.channel_arguments())["grpc.max_connection_age_ms"] == 30_000
    batching = options.batching()
    assert batching is not None
    requests = render(overlay).server["resources"]["requests"]
    assert batching.num_batch_threads == int(requests["cpu"])
    assert int(flags["grpc_max_threads"]) >= 2 * batching.max_batch_size, "else batches never fill"
    if overlay == "cpu":
        assert batching.allowed_batch_sizes == (), "padding costs a CPU as much as images"
    else:
        sizes = batching.allowed_batch_sizes
        assert sizes[-1] == batching.max_batch_size
        assert sizes[0] == 1
        assert all(larger <= 2 * smaller for smaller, larger in itertools.pairwise(sizes)), "over half is padding"


def with_ssl_config(secret: Path, output: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", WITH_SSL_CONFIG, secret, output, *command],
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
    )


def test_mtls_config_holds_the_secret(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    server = authority.issue("server")
    (tmp_path / "tls.key").write_bytes(server.key)
    # A chain, with Windows' line ends and no line end after the last line: cert-manager and people write all kinds.
    (tmp_path / "tls.crt").write_bytes((server.certificate + authority.certificate).replace(b"\n", b"\r\n").rstrip())
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    output = tmp_path / "ssl.config"
    run = with_ssl_config(tmp_path, output, "/bin/echo", "--port=8500", "two words")
    assert (run.returncode, run.stdout, run.stderr) == (0, "--port=8500 two words\n", "")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    ssl = ServerOptions(ssl_config_file=str(output)).ssl()
    assert ssl is not None
    assert ssl.server_key.encode() == server.key
    assert ssl.server_cert.encode() == server.certificate + authority.certificate
    assert ssl.custom_ca.encode() == authority.certificate
    assert ssl.client_verify


def test_mtls_without_a_certificate_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "tls.key").write_text("key")
    run = with_ssl_config(tmp_path, tmp_path / "ssl.config", "/bin/echo", "started")
    assert run.returncode == 1
    assert run.stdout == ""
    assert f"{tmp_path}/tls.crt is missing or empty" in run.stderr


def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())["services"]["tf-serving"]


def test_compose_serves_as_the_gpu_nodes_do() -> None:
    service, gpu = compose(), render("gpu")
    assert service["image"] == gpu.server["image"]
    assert service["entrypoint"] == gpu.server["command"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in service["command"])
    assert flags.pop("model_config_file_poll_wait_seconds") == "1", "what promote writes is followed"
    assert flags.pop("model_config_file") == f"${{MODELS_CONFIG:-{gpu.flags['model_config_file']}}}"
    assert flags.items() <= gpu.flags.items()
    left_out = set(gpu.flags) - set(flags) - {"model_config_file"}
    assert left_out == {
        # For the kubelet, the pods' drain and what is paid for on a bucket.
        "enable_grpc_healthcheck_service",
        "grpc_channel_arguments",
        "file_system_poll_wait_seconds",
    }
    assert service["environment"] == {each["name"]: each["value"] for each in gpu.server["env"]}
    assert service["user"].split(":")[0] == str(gpu.pod["spec"]["securityContext"]["runAsUser"])


def test_compose_mounts_the_files_of_the_config_map() -> None:
    shipped = render("gpu").mounted_files()
    mounts = {}
    for volume in compose()["volumes"]:
        found = re.fullmatch(r"(?P<source>.+):(?P<path>/[^:]+):ro", volume)
        assert found, "everything is mounted read-only"
        mounts[found["path"]] = found["source"]
    assert set(mounts) == {"/models", *shipped}
    assert mounts.pop("/models") == "${MODELS:-../var/serving}"
    for path, source in mounts.items():
        assert (COMPOSE.parent / source).read_text() == shipped[path]
    health = compose()["healthcheck"]
    config = f"${{MODELS_CONFIG:-{render('gpu').flags['model_config_file']}}}"
    assert health["test"] == ["CMD", *render("gpu").server["readinessProbe"]["exec"]["command"], config]
    assert "start_interval" not in health, "Docker Engine before 25 does not know it"


def test_compose_finds_the_file_that_promote_writes(tmp_path: Path) -> None:
    store(tmp_path, "mnist", 3, 4)
    release(tmp_path, "mnist", lambda state: plans.promote(state, 3))
    [folder] = [
        path for volume in compose()["volumes"] for source, path, _ in [volume.rsplit(":", 2)] if "MODELS" in source
    ]
    [path] = re.findall(r"MODELS_CONFIG=(\S+) docker compose", COMPOSE.read_text())
    assert Path(path).parent == Path(folder), "in a mounted folder, since each change puts a new file there"
    [model] = models((tmp_path / Path(path).name).read_text()).model_config_list.config
    assert (model.base_path, list(model.model_version_policy.specific.versions)) == (f"{folder}/mnist", [3])


def test_compose_gives_one_gpu_and_no_more_rights_than_needed() -> None:
    service = compose()
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def promql() -> list[str]:
    rendered = render("gpu", "monitoring")
    [group] = rendered.one("PrometheusRule")["spec"]["groups"]
    values = yaml.safe_load((K8S / "components" / "autoscaling" / "prometheus-adapter-values.yaml").read_text())
    [rule] = values["rules"]["custom"]
    return [alert["expr"] for alert in group["rules"]] + [rule["seriesQuery"], rule["metricsQuery"]]


def test_alerts_name_metrics_and_labels_that_tf_serving_exports() -> None:
    for expression in promql():
        selectors = re.findall(r"([:\w]+)\{([^}]*)\}", expression)
        assert len(re.findall(r":tensorflow:|\bup\b", expression)) == len(selectors) > 0, "each metric has a selector"
        for name, matchers in selectors:
            labels = set(re.findall(r"(\w+)\s*(?:!=|=~|!~|=)", matchers)) - TARGET_LABELS
            metric = re.sub(r"_(bucket|sum|count)$", "", name)
            assert labels <= METRICS[metric if metric in HISTOGRAMS else name], name
        assert expression.count("(") == expression.count(")")
        for grouping in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(re.split(", *", grouping)) <= TARGET_LABELS.union(*METRICS.values())


def test_alerts_tell_what_to_do() -> None:
    [group] = render("gpu", "monitoring").one("PrometheusRule")["spec"]["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names) == 5
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"]}
    assert severities["TfServingModelLoadFails"] == "critical", "one more, and the next restart is an outage"
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "action"}
        assert re.fullmatch(r"\d+m", rule.get("for", "0m"))


def test_the_scrape_keeps_every_metric_that_is_asked_for() -> None:
    [endpoint] = render("gpu", "monitoring").one("ServiceMonitor")["spec"]["endpoints"]
    [keep] = endpoint["metricRelabelings"]
    assert all(re.fullmatch(keep["regex"], metric) for metric in METRICS if metric != "up")
    assert not re.fullmatch(keep["regex"], ":tensorflow:core:graph_runs")
