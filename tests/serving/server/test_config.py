from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorflow.core.protobuf.config_pb2 import ConfigProto

from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.serving.server.config import BatchingParameters, LoadOptions, MonitoringConfig, ServerOptions

PEM = "-----BEGIN CERTIFICATE-----\\nabc\\n-----END CERTIFICATE-----\\n"
TLS = f'server_key: "{PEM}" server_cert: "{PEM}" custom_ca: "{PEM}"'
MUTUAL_TLS = f"{TLS} client_verify: true"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "file.config"
    path.write_text(text)
    return str(path)


def test_one_model_by_flags_has_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (model,) = ServerOptions(model_name="m", model_base_path="models/m").models().model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("m", str(tmp_path / "models/m"), "tensorflow")


def test_the_address_of_a_bucket_stays_as_it_is(tmp_path: Path) -> None:
    listed = 'model_config_list { config { name: "m" base_path: "gs://bucket/m" model_platform: "tensorflow" } }'
    for options in (
        ServerOptions(model_name="m", model_base_path="gs://bucket/m"),
        ServerOptions(model_config_file=written(tmp_path, listed)),
    ):
        [model] = options.models().model_config_list.config
        assert model.base_path == "gs://bucket/m"


def test_model_config_file(tmp_path: Path) -> None:
    text = """model_config_list { config {
      name: "m" base_path: "/models/m" model_platform: "tensorflow"
      model_version_policy { specific { versions: 1 versions: 2 } }
      version_labels { key: "stable" value: 1 } } }"""
    (model,) = ServerOptions(model_config_file=written(tmp_path, text)).models().model_config_list.config
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('config { name: "m" base_path: "models/m" }', "absolute path or URI; got base_path()=models/m"),
        ('config { name: "m" }', "absolute path or URI; got base_path()="),
        ('config { base_path: "/m" }', "has no name"),
        (
            'config { name: "m" base_path: "/m" model_platform: "tensorflow" } '
            'config { name: "m" base_path: "/n" model_platform: "tensorflow" }',
            "twice",
        ),
        ('config { name: "m" base_path: "/m" model_platform: "onnx" }', "'onnx'"),
        ('config { name: "m" base_path: "/m" }', "Illegal setting neither"),
        ('config { name: "m" base_path: "/m" model_version_policy { specific {} } }', "no version"),
    ],
)
def test_models_that_tf_serving_refuses(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, f"model_config_list {{ {text} }}")
    with pytest.raises(UsageError) as caught:
        ServerOptions(model_config_file=path).models()
    assert words in str(caught.value)
    assert path in str(caught.value)


def test_a_syntax_error_names_file_line_and_column(tmp_path: Path) -> None:
    path = written(tmp_path, "model_config_list {\n  config { nome: 'm' }\n}")
    with pytest.raises(UsageError, match=r'2:12.*no field named "nome"') as caught:
        ServerOptions(model_config_file=path).models()
    assert path in str(caught.value)


def test_a_missing_file_and_a_binary_file_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        ServerOptions(model_config_file=str(tmp_path / "none")).models()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="text format"):
        ServerOptions(model_config_file=str(tmp_path / "binary")).models()


def test_nothing_to_serve() -> None:
    with pytest.raises(UsageError, match="Nothing to serve"):
        ServerOptions().models()


def test_batching_is_off_unless_enabled(tmp_path: Path) -> None:
    assert ServerOptions().batching() is None
    assert ServerOptions(enable_batching=True).batching() == BatchingParameters()
    with pytest.raises(UsageError, match="--enable_batching"):
        ServerOptions(batching_parameters_file=written(tmp_path, "")).batching()


def test_batching_parameters_file(tmp_path: Path) -> None:
    text = """max_batch_size { value: 64 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 7 }
      num_batch_threads { value: 3 } thread_pool_name { value: "p" } allowed_batch_sizes: 8 allowed_batch_sizes: 64
      pad_variable_length_inputs: true"""
    options = ServerOptions(enable_batching=True, batching_parameters_file=written(tmp_path, text))
    assert options.batching() == BatchingParameters(
        max_batch_size=64,
        batch_timeout_micros=0,
        max_enqueued_batches=7,
        num_batch_threads=3,
        allowed_batch_sizes=(8, 64),
        pad_variable_length_inputs=True,
    )


def test_rows_that_are_computed_at_once() -> None:
    assert BatchingParameters(max_batch_size=64, max_execution_batch_size=32).execution_rows == 64  # without splitting
    assert BatchingParameters(max_batch_size=64, enable_large_batch_splitting=True).execution_rows == 64
    split = BatchingParameters(
        max_batch_size=64, enable_large_batch_splitting=True, max_execution_batch_size=32, allowed_batch_sizes=(8, 32)
    )
    assert split.execution_rows == 32


def test_batches_that_are_computed_at_once_share_the_cores() -> None:
    cores = cpu_count()
    assert BatchingParameters(num_batch_threads=1).threads_per_batch == cores
    assert BatchingParameters(num_batch_threads=cores).threads_per_batch == 1
    assert BatchingParameters(num_batch_threads=4 * cores).threads_per_batch == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size is 0"),
        ("num_batch_threads { value: -1 }", "num_batch_threads is -1"),
        ("batch_timeout_micros { value: -5 }", "batch_timeout_micros is -5"),
        ("max_batch_size { value: 64 } allowed_batch_sizes: 32", "must equal max_batch_size, 64"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [16, 8]", "increase"),
        ("max_batch_size: 64", "1:17"),
        (
            "max_batch_size { value: 64 } allowed_batch_sizes: 64 enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 32 }",
            "must equal max_execution_batch_size, 32",
        ),
        (
            "max_batch_size { value: 64 } enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 128 }",
            "must not exceed max_batch_size, 64",
        ),
    ],
)
def test_batching_parameters_that_tf_serving_refuses(tmp_path: Path, text: str, words: str) -> None:
    options = ServerOptions(enable_batching=True, batching_parameters_file=written(tmp_path, text))
    with pytest.raises(UsageError) as caught:
        options.batching()
    assert words in str(caught.value)


def test_monitoring_config_file(tmp_path: Path) -> None:
    assert ServerOptions().monitoring() == MonitoringConfig(enable=False)
    path = written(tmp_path, 'prometheus_config { enable: true path: "/metrics" }')
    assert ServerOptions(monitoring_config_file=path).monitoring() == MonitoringConfig(enable=True, path="/metrics")
    path = written(tmp_path, "prometheus_config { enable: true }")
    assert ServerOptions(monitoring_config_file=path).monitoring().path == "/monitoring/prometheus/metrics"
    path = written(tmp_path, 'prometheus_config { path: "metrics" }')
    with pytest.raises(UsageError, match="must begin with '/'"):
        ServerOptions(monitoring_config_file=path).monitoring()


def test_ssl_config_file(tmp_path: Path) -> None:
    assert ServerOptions().ssl() is None
    ssl = ServerOptions(ssl_config_file=written(tmp_path, MUTUAL_TLS)).ssl()
    assert ssl is not None
    assert ssl.client_verify
    assert ssl.server_key == PEM.replace("\\n", "\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'server_cert: "{PEM}"', "server_key holds no PEM text"),
        (f'server_key: "{PEM}" server_cert: "/etc/cert.pem"', "server_cert holds no PEM text"),
        (f'server_key: "{PEM}" server_cert: "{PEM}" client_verify: true', "custom_ca"),
    ],
)
def test_ssl_config_that_cannot_work(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ServerOptions(ssl_config_file=written(tmp_path, text)).ssl()


@pytest.mark.parametrize(
    ("ssl", "flags", "addresses", "may"),
    [
        ("", {}, ["127.0.0.1", "::1"], True),
        ("", {}, ["127.0.0.1", "::"], False),
        (TLS, {}, ["::"], False),  # it keeps nobody out
        (MUTUAL_TLS, {}, ["::"], True),
        ("", {"use_alts_credentials": True}, ["::"], True),
        ("", {"port": 0, "grpc_socket_path": "/run/grpc.sock"}, ["::"], True),
        ("", {"grpc_socket_path": "/run/grpc.sock"}, ["::"], False),  # there is the port, too
        ("", {"port": 0}, ["::"], False),  # any port
        (TLS, {"enable_reload_config": True}, ["::"], True),
        (MUTUAL_TLS, {"enable_reload_config": False}, ["127.0.0.1"], False),
    ],
)
def test_who_may_replace_the_list_of_models(
    tmp_path: Path, ssl: str, flags: dict[str, Any], addresses: list[str], may: bool
) -> None:
    options = ServerOptions(ssl_config_file=ssl and written(tmp_path, ssl), **flags)
    assert (options.reload_refused(addresses) == "") is may


def test_how_versions_are_loaded(tmp_path: Path) -> None:
    assert ServerOptions().loading() == LoadOptions(session=ConfigProto())
    options = ServerOptions(
        saved_model_tags="serve,gpu",
        enable_model_warmup=False,
        num_request_iterations_for_warmup=3,
        tensorflow_session_config_file=written(tmp_path, "intra_op_parallelism_threads: 7 log_device_placement: true"),
        tensorflow_session_parallelism=3,
        per_process_gpu_memory_fraction=0.25,
    )
    session = ConfigProto(intra_op_parallelism_threads=3, log_device_placement=True)
    session.gpu_options.per_process_gpu_memory_fraction = 0.25
    assert options.loading() == LoadOptions(session, ("serve", "gpu"), warm_up=False, warm_up_iterations=3)
    options = ServerOptions(tensorflow_session_parallelism=3, tensorflow_intra_op_parallelism=5)
    assert options.loading().session == ConfigProto(intra_op_parallelism_threads=5)


def test_channel_arguments() -> None:
    given = "grpc.max_connection_age_ms=2000,grpc.primary_user_agent=x, grpc.http2.max_pings_without_data=-1"
    assert ServerOptions(grpc_channel_arguments=given).channel_arguments() == [
        ("grpc.max_connection_age_ms", 2000),
        ("grpc.primary_user_agent", "x"),
        ("grpc.http2.max_pings_without_data", -1),
    ]
    with pytest.raises(UsageError, match="key=value"):
        ServerOptions(grpc_channel_arguments="grpc.x").channel_arguments()
    for number in ("4294967296", "-2147483648"):  # gRPC would fail with an OverflowError
        with pytest.raises(UsageError, match=f"'grpc.x={number}' is more than gRPC takes"):
            ServerOptions(grpc_channel_arguments=f"grpc.x={number}").channel_arguments()


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("port", 70_000, "from -1 to 65535"),
        ("port", -5, "from -1 to 65535"),
        ("rest_api_port", 70_000, "from -1 to 65535"),
        ("rest_api_timeout_in_ms", 0, "from 1 to"),
        ("max_num_load_retries", -1, "from 0 to"),
    ],
)
def test_numbers_that_cannot_be_meant(flag: str, value: int, words: str) -> None:
    with pytest.raises(UsageError, match=f"--{flag} is {value}; it must be {words}"):
        ServerOptions(**{flag: value})
