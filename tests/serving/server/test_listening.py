"""Where the server listens, who may do what there, and what becomes of connections."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.serving.server.calls import Calls
from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.listening import addresses_of, listening_sockets
from mnist_tfx.serving.server.main import ModelServer
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.rest import RestServer
from mnist_tfx.serving.server.rest_thread import RestThread
from tests.fixtures.certificates import CertificateAuthority
from tests.fixtures.server_process import CHECKOUT
from tests.serving.conftest import Running, refused, running, scale_request, wait_until

IPV6 = socket.has_dualstack_ipv6()
LOOPBACKS = ("127.0.0.1", "[::1]") if IPV6 else ("127.0.0.1",)


def options_for(served_models: Path, **more: object) -> ServerOptions:
    base_path = str(served_models / "scale")
    return ServerOptions(port=0, model_name="scale", model_base_path=base_path, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["0.0.0.0", *(["::"] if IPV6 else [])])
def test_grpc_and_rest_listen_on_all_addresses_of_a_wildcard(served_models: Path, host: str) -> None:
    with running(options_for(served_models, host=host, rest_api_port=-1)) as one:
        for address in LOOPBACKS:
            with grpc.insecure_channel(f"{address}:{one.server.grpc_port}") as channel:
                assert PredictionServiceStub(channel).Predict(scale_request()).model_spec.version.value == 3
            with urllib.request.urlopen(f"http://{address}:{one.server.rest_port}/v1/models/scale") as response:
                assert "AVAILABLE" in response.read().decode()
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            one.models.HandleReloadConfigRequest(reload_request(served_models))
        assert "--enable_reload_config" in words[0]


def reload_request(served_models: Path) -> model_management_pb2.ReloadConfigRequest:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(
        name="scale", base_path=str(served_models / "scale"), model_platform="tensorflow"
    )
    return request


@pytest.mark.parametrize(
    ("host", "flag", "allowed"), [("127.0.0.1", None, True), ("127.0.0.1", False, False), ("0.0.0.0", True, True)]
)
def test_replacing_the_list_of_models(served_models: Path, host: str, flag: bool | None, allowed: bool) -> None:
    with running(options_for(served_models, host=host, enable_reload_config=flag)) as one:
        if allowed:
            assert one.models.HandleReloadConfigRequest(reload_request(served_models)).status.error_code == 0
        else:
            with refused(grpc.StatusCode.PERMISSION_DENIED):
                one.models.HandleReloadConfigRequest(reload_request(served_models))


def test_addresses_of_a_host() -> None:
    assert addresses_of("0.0.0.0") == addresses_of("") == ["::"]
    assert "127.0.0.1" in addresses_of("localhost")
    with pytest.raises(PipelineError, match=r"--host no\.such\.host\.invalid"):
        addresses_of("no.such.host.invalid")
    with pytest.raises(PipelineError, match=r"--host 192\.0\.2\.1 is no address of this machine"):
        addresses_of("192.0.2.1")
    two = listening_sockets(["127.0.0.1", "127.0.0.2"], 0)
    try:
        assert two[0].getsockname()[1] == two[1].getsockname()[1]
    finally:
        for one in two:
            one.close()


def test_health_has_tf_servings_names(model_server: Running) -> None:
    for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
        assert model_server.is_serving(service)
    assert model_server.is_serving("PredictionService") and model_server.is_serving("ModelService")


def test_mutual_tls_guards_the_port_and_the_unix_socket(served_models: Path, tmp_path: Path) -> None:
    authority = CertificateAuthority()
    server, client = authority.issue("server"), authority.issue("client")
    pems = {"server_key": server.key, "server_cert": server.certificate, "custom_ca": authority.certificate}
    config = tmp_path / "ssl.config"
    config.write_text(
        "\n".join([*(f"{field}: {json.dumps(pem.decode())}" for field, pem in pems.items()), "client_verify: true"])
    )
    base_path = str(served_models / "scale")
    model_server = ModelServer(
        ServerOptions(
            host="0.0.0.0",
            port=-1,
            grpc_socket_path=str(tmp_path / "grpc.sock"),
            model_name="scale",
            model_base_path=base_path,
            ssl_config_file=str(config),
        )
    )
    model_server.start()
    known = grpc.ssl_channel_credentials(authority.certificate, client.key, client.certificate)
    stranger = grpc.ssl_channel_credentials(authority.certificate)
    name = [("grpc.ssl_target_name_override", "localhost")]
    try:
        for address in (f"127.0.0.1:{model_server.grpc_port}", f"unix:{tmp_path}/grpc.sock"):
            with grpc.secure_channel(address, known, name) as channel:
                assert PredictionServiceStub(channel).Predict(scale_request()).model_spec.version.value == 3
                ModelServiceStub(channel).HandleReloadConfigRequest(reload_request(served_models))
            for channel in (grpc.insecure_channel(address), grpc.secure_channel(address, stranger, name)):
                with channel, refused(grpc.StatusCode.UNAVAILABLE):
                    PredictionServiceStub(channel).Predict(scale_request())
    finally:
        model_server.stop(1)


@pytest.mark.parametrize("at", ["port", "UNIX socket"])
def test_pem_texts_that_do_not_fit_are_no_taken_port(served_models: Path, tmp_path: Path, at: str) -> None:
    authority = CertificateAuthority()
    pems = {"server_key": authority.issue("other").key, "server_cert": authority.issue("server").certificate}
    config = tmp_path / "ssl.config"
    config.write_text("\n".join(f"{field}: {json.dumps(pem.decode())}" for field, pem in pems.items()))
    unix = {"grpc_socket_path": str(tmp_path / "grpc.sock")} if at == "UNIX socket" else {}
    server = ModelServer(options_for(served_models, ssl_config_file=str(config), **unix))
    with pytest.raises(UsageError, match=r"ssl\.config: gRPC cannot use these PEM texts"):
        server.start()
    server.stop(0)


def test_a_unix_socket_alone_takes_no_port(served_models: Path, tmp_path: Path) -> None:
    unix = tmp_path / "grpc.sock"
    server = ModelServer(options_for(served_models, grpc_socket_path=str(unix)))
    server.start()
    try:
        assert server.grpc_port == 0
        with grpc.insecure_channel(f"unix:{unix}") as channel:
            assert PredictionServiceStub(channel).Predict(scale_request()).model_spec.version.value == 3
    finally:
        server.stop(1)


def test_an_idle_rest_connection_is_closed(model_server: Running) -> None:
    manager = model_server.server.manager
    calls = Calls(manager.acquire, Metrics())
    rest = RestThread(RestServer(manager, calls, timeout_seconds=5, metrics_path=None), idle_seconds=0.5)
    sockets = listening_sockets(["127.0.0.1"], 0)
    rest.start(sockets)
    try:
        for sent in (b"", b"GET /v1/mo", b"GET /v1/models/scale HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.create_connection(sockets[0].getsockname(), timeout=10) as connection:
                connection.sendall(sent)
                received = b"".join(iter(lambda one=connection: one.recv(65536), b""))
            assert (b"AVAILABLE" in received) == sent.endswith(b"\r\n\r\n")
    finally:
        rest.stop(0)


def test_running_out_of_descriptors_fills_no_disk(served_models: Path) -> None:
    """Also: a flag without effect is told, once."""
    command = [sys.executable, "-m", "mnist_tfx.serving.server", "--port=0", "--rest_api_port=-1", "--model_name=scale"]
    command += [f"--model_base_path={served_models}/scale", "--num_load_threads=4"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
    reader.start()
    try:
        wait_until(lambda: any("AVAILABLE" in line for line in said), "the model")
        assert said[0].startswith("--num_load_threads has no effect in this server")
        where = said[-1].split()
        grpc_address, rest_port = where[where.index("gRPC") + 1].rstrip(","), int(where[-1].rpartition(":")[2])
        open_files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_files + 10, hard))
        with ExitStack() as stack:
            for port in (rest_port, int(grpc_address.rpartition(":")[2])):
                for _ in range(40):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            time.sleep(3)
            assert any("ulimit -n" in line for line in said), said
            assert len(said) < 20, said
        with grpc.insecure_channel(grpc_address) as channel:
            answer = PredictionServiceStub(channel).Predict(scale_request(), wait_for_ready=True, timeout=30)
        assert answer.model_spec.version.value == 3
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
