"""The server's settings: TF Serving's flags, and its configuration files in protobuf's text format."""

from __future__ import annotations

from dataclasses import dataclass

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined; TF Serving's `BatchingParameters`, with its defaults."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False


@dataclass(frozen=True)
class MonitoringConfig:
    """Whether, and at which path of the REST port, Prometheus metrics are."""

    enable: bool = False
    path: str = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class SslConfig:
    """PEM texts for the gRPC port; `client_verify` asks clients for a certificate of `custom_ca`."""

    server_key: str
    server_cert: str
    custom_ca: str = ""
    client_verify: bool = False


@dataclass(frozen=True)
class ServerOptions:
    """The server's flags, by TF Serving's names; `models()` and the like read the files they name."""

    host: str = "127.0.0.1"
    port: int = 8500
    grpc_socket_path: str = ""
    rest_api_port: int = 0
    rest_api_timeout_in_ms: int = 30_000
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: float = 0
    file_system_poll_wait_seconds: float = 1
    monitoring_config_file: str = ""
    enable_batching: bool = False
    batching_parameters_file: str = ""
    ssl_config_file: str = ""
    grpc_channel_arguments: str = ""
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    enable_serialization_as_tensor_content: bool = False

    def models(self) -> ModelServerConfig:
        """The models to serve, from `model_config_file` or from `model_name` and `model_base_path`. Raises UsageError."""
        raise NotImplementedError

    def batching(self) -> BatchingParameters | None:
        """The batching parameters; None where batching is off. Raises UsageError."""
        raise NotImplementedError

    def monitoring(self) -> MonitoringConfig:
        """The monitoring settings. Raises UsageError."""
        raise NotImplementedError

    def ssl(self) -> SslConfig | None:
        """The TLS settings; None where the port is insecure. Raises UsageError."""
        raise NotImplementedError

    def channel_arguments(self) -> list[tuple[str, str | int]]:
        """`grpc_channel_arguments` ("key=value,key=value") as gRPC takes them. Raises UsageError."""
        raise NotImplementedError
