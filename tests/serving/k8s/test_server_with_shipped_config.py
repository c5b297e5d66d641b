"""Our own server, started with the flags of the Deployment and the files of its ConfigMap."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from mnist_tfx.serving.client import Client
from mnist_tfx.serving.releases import plans
from mnist_tfx.serving.releases.apply import release
from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.flags import FLAGS, WITHOUT_EFFECT, add_flags, as_options, given_flags
from mnist_tfx.serving.server.main import ModelServer
from tests.fixtures.certificates import CertificateAuthority
from tests.fixtures.manifests import K8S, OVERLAYS, Rendered, kustomize, render
from tests.serving.conftest import wait_until

MODELS = ("fashion_mnist", "mnist")
ADAPTER_VALUES = K8S / "components" / "autoscaling" / "prometheus-adapter-values.yaml"


class Darkness(tf.Module):
    """A stand-in with the signature `images` of the pushed models: how dark and how bright each image is."""

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.uint8, name="images")])
    def images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        bright = tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2, 3]) / 255
        return {"probabilities": tf.stack([1 - bright, bright], axis=1)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the volume holds: a version of each model."""
    folder = tmp_path_factory.mktemp("models")
    module = Darkness()
    tf.saved_model.save(module, str(folder / "mnist" / "1"), signatures={"images": module.images})
    shutil.copytree(folder / "mnist", folder / "fashion_mnist")
    return folder


@contextmanager
def started(rendered: Rendered, models: Path, folder: Path, ssl_config: Path | None = None) -> Iterator[ModelServer]:
    """Serves with the Deployment's flags and mounted files; only ports and paths are this machine's."""
    for path, text in rendered.mounted_files().items():
        (folder / Path(path).name).write_text(text.replace('"/models/', f'"{models}/'))
    parser = argparse.ArgumentParser()
    add_flags(parser)
    known = [argument for argument in rendered.server["args"] if argument.removeprefix("--").split("=")[0] in FLAGS]
    flags = given_flags(parser.parse_args([argument.replace("=/config/", f"={folder}/") for argument in known]))
    flags |= {"port": 0, "rest_api_port": -1}
    if ssl_config is not None:
        flags["ssl_config_file"] = str(ssl_config)
    server = ModelServer(ServerOptions(**as_options(flags)))
    server.start()
    try:
        yield server
    finally:
        server.stop(grace_seconds=1)


def wait_ready(server: ModelServer, folder: Path) -> None:
    """Runs the startup probe until it succeeds."""
    deadline = time.monotonic() + 60
    while True:
        probe = subprocess.run(
            ["/bin/bash", folder / "models_available.sh", folder / "models.config", str(server.rest_port)],
            capture_output=True,
            text=True,
        )
        if probe.returncode == 0:
            return
        assert time.monotonic() < deadline, probe.stdout
        time.sleep(0.02)


def predict(channel: grpc.Channel, model: str, images: np.ndarray) -> PredictResponse:
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, "images"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    return PredictionServiceStub(channel).Predict(request, timeout=20)


def metrics_of(server: ModelServer) -> str:
    url = f"http://127.0.0.1:{server.rest_port}{server.options.monitoring().path}"
    return urllib.request.urlopen(url, timeout=20).read().decode()


def images(count: int) -> np.ndarray:
    return np.full((count, 28, 28, 1), 255, np.uint8)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_deployments_flags_are_known(overlay: str) -> None:
    assert render(overlay).flags.keys() <= FLAGS.keys() | WITHOUT_EFFECT.keys()


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_serves_both_models_as_configured(overlay: str, models: Path, tmp_path: Path) -> None:
    rendered = render(overlay)
    with started(rendered, models, tmp_path) as server, ThreadPoolExecutor(8) as pool:
        wait_ready(server, tmp_path)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            # What the liveness probe asks; our server's answer follows the models' states a moment later.
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
            assert any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in health)
            answers = list(pool.map(lambda number: predict(channel, MODELS[number % 2], images(1 + number)), range(16)))
            for number, answer in enumerate(answers):
                probabilities = answer.outputs["probabilities"]
                assert answer.model_spec.version.value == 1
                assert probabilities.tensor_content, "--enable_serialization_as_tensor_content"
                np.testing.assert_array_equal(tf.make_ndarray(probabilities), [[0, 1]] * (1 + number))
            batching = server.options.batching()
            assert batching is not None
            assert predict(channel, "mnist", images(batching.max_batch_size)).outputs
            with pytest.raises(grpc.RpcError) as error:
                predict(channel, "mnist", images(batching.max_batch_size + 1))
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        metrics = metrics_of(server)
    served = ':tensorflow:serving:request_latency_count{model_name="mnist",API="Predict",entrypoint="GRPC"} 9'
    assert served in metrics
    assert ':tensorflow:serving:request_latency_bucket{model_name="fashion_mnist",API="Predict"' in metrics


def test_a_broken_newest_version_is_no_outage_at_the_next_start(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    (folder / "mnist" / "2").mkdir()
    (folder / "mnist" / "2" / "saved_model.pb").write_bytes(b"half a fi")
    with started(render("gpu"), folder, tmp_path) as server:
        wait_ready(server, tmp_path)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            assert predict(channel, "mnist", images(1)).model_spec.version.value == 1


def test_a_cluster_takes_the_file_that_promote_writes(models: Path, tmp_path: Path) -> None:
    """As serving/README.md says it: the pins, a canary and a rollback come by the ConfigMap."""
    serving = tmp_path / "serving"
    shutil.copytree(models, serving)
    shutil.copytree(serving / "mnist" / "1", serving / "mnist" / "2")
    shutil.copytree(serving / "mnist" / "1", serving / "mnist" / "3")
    (serving / "mnist" / "3" / "saved_model.pb").write_bytes(b"broken, and pinned by nobody")
    shutil.copytree(serving / "mnist" / "3", serving / "fashion_mnist" / "3")
    release(serving, "mnist", lambda state: plans.promote(state, 1))
    release(serving, "mnist", lambda state: plans.canary(state, 2))
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(serving / "models.container.config", mine / "models.config")
    readme = (K8S.parent / "README.md").read_text()
    [generator] = re.findall(r"```yaml\n(configMapGenerator:.*?)```", readme, re.DOTALL)
    own = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    own["resources"] = [os.path.relpath(K8S / "overlays" / "gpu", mine)]
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(own | yaml.safe_load(generator)))
    rendered = Rendered("mine", kustomize(mine))
    shipped = render("gpu")
    assert rendered.volumes["config"]["configMap"]["name"] != shipped.volumes["config"]["configMap"]["name"]
    assert rendered.mounted_files().keys() == shipped.mounted_files().keys()
    with started(rendered, serving, tmp_path) as server:
        wait_ready(server, tmp_path)
        with Client(f"127.0.0.1:{server.grpc_port}", "fashion_mnist") as client:
            assert client.wait_ready(20) == 1, "nobody pinned it; the version before its broken newest one answers"
        for label, version in (("stable", 1), ("canary", 2)):
            with Client(f"127.0.0.1:{server.grpc_port}", "mnist", label=label) as client:
                assert client.wait_ready(20) == version


def queries(rendered: Rendered) -> list[str]:
    """The PromQL of the alert rules, and of the metric that the autoscaler reads."""
    [rule] = yaml.safe_load(ADAPTER_VALUES.read_text())["rules"]["custom"]
    groups = rendered.one("PrometheusRule")["spec"]["groups"]
    return [*(one["expr"] for group in groups for one in group["rules"]), rule["seriesQuery"], rule["metricsQuery"]]


def test_alerts_and_autoscaler_read_metrics_that_our_server_has_too(models: Path, tmp_path: Path) -> None:
    rendered = render("cpu", "monitoring", "autoscaling")
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    (folder / "mnist" / "2").mkdir()  # a version that cannot be loaded
    with started(rendered, folder, tmp_path) as server, ThreadPoolExecutor(4) as pool:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            wait_until(lambda: ',status="fail"}' in metrics_of(server), "the version that cannot be loaded")
            shutil.rmtree(folder / "mnist" / "2")
            wait_ready(server, tmp_path)
            list(pool.map(lambda number: predict(channel, MODELS[number % 2], images(1)), range(8)))
        text = metrics_of(server)
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for name in {sample.name, sample.name.removesuffix("_total")}:  # the parser adds `_total` to counters
                labels.setdefault(name, set()).update(sample.labels)
    of_kubernetes = {"namespace", "pod", "job"}
    read = set()
    for query in queries(rendered):
        for name, matchers in re.findall(r"(:tensorflow[\w:]+)\{(.*?)\}", query.replace("<<.LabelMatchers>>", "")):
            assert name in labels, f"{name} of {query}"
            asked = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", matchers))
            grouped = {label.strip() for by in re.findall(r"by \(([\w, ]+)\)", query) for label in by.split(",")}
            assert (asked | grouped) - of_kubernetes <= labels[name], query
            read.add(name)
    assert {
        ":tensorflow:serving:request_count",
        ":tensorflow:serving:request_latency_bucket",
        ":tensorflow:serving:batching_session:queuing_latency_sum",
        ":tensorflow:serving:batching_session:queuing_latency_count",
        ":tensorflow:cc:saved_model:load_attempt_count",
    } == read


def test_mtls_lets_in_who_has_a_certificate(models: Path, tmp_path: Path) -> None:
    authority = CertificateAuthority()
    server_pair, client_pair = authority.issue("server"), authority.issue("client")
    secret = tmp_path / "tls"
    secret.mkdir()
    for name, pem in {
        "tls.key": server_pair.key,
        "tls.crt": server_pair.certificate,
        "ca.crt": authority.certificate,
    }.items():
        (secret / name).write_bytes(pem)
    rendered = render("gpu", "mtls")
    ssl_config = tmp_path / "ssl.config"
    script = K8S / "components" / "mtls" / "with_ssl_config.sh"
    subprocess.run(["/bin/bash", script, secret, ssl_config, "/bin/true"], check=True)
    strangers = CertificateAuthority().issue("client")
    with started(rendered, models, tmp_path, ssl_config) as server:
        wait_ready(server, tmp_path)
        address = f"127.0.0.1:{server.grpc_port}"
        known = grpc.ssl_channel_credentials(authority.certificate, client_pair.key, client_pair.certificate)
        with grpc.secure_channel(address, known) as channel:
            assert predict(channel, "mnist", images(1)).outputs
        for credentials in (
            grpc.ssl_channel_credentials(authority.certificate),
            grpc.ssl_channel_credentials(authority.certificate, strangers.key, strangers.certificate),
        ):
            with grpc.secure_channel(address, credentials) as channel, pytest.raises(grpc.RpcError) as error:
                predict(channel, "mnist", images(1))
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        liveness = rendered.server["livenessProbe"]["exec"]["command"]
        port = str(server.rest_port)
        assert subprocess.run([part.replace("8501", port) for part in liveness], timeout=20).returncode == 0
    assert subprocess.run([part.replace("8501", port) for part in liveness], timeout=20).returncode != 0
