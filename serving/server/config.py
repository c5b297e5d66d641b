"""The server's settings: TF Serving's flags, and what the files they name hold."""

from __future__ import annotations

from dataclasses import dataclass

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.errors import UsageError
from serving.server import config_files
from serving.server.config_files import BatchingParameters, MonitoringConfig, SslConfig

__all__ = ["BatchingParameters", "MonitoringConfig", "ServerOptions", "SslConfig"]


@dataclass(frozen=True)
class ServerOptions:
    """TF Serving's flags with its defaults, and `host`; the methods read the files that they name."""

    host: str = "127.0.0.1"
    port: int = 8500
    grpc_socket_path: str = ""
    rest_api_port: int = 0
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: float = 0
    file_system_poll_wait_seconds: float = 1
    allow_version_labels_for_unavailable_models: bool = False
    monitoring_config_file: str = ""
    enable_batching: bool = False
    batching_parameters_file: str = ""
    ssl_config_file: str = ""
    grpc_channel_arguments: str = ""
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    enable_serialization_as_tensor_content: bool = False

    def models(self) -> ModelServerConfig:
        """The models of `model_config_file`, or of `model_name` and `model_base_path`. Raises UsageError."""
        if self.model_config_file:
            return config_files.read_models(self.model_config_file)
        if not self.model_base_path:
            raise UsageError("Nothing to serve: give --model_config_file, or --model_name and --model_base_path.")
        return config_files.single_model(self.model_name, self.model_base_path)

    def batching(self) -> BatchingParameters | None:
        """The batching parameters; None where batching is off. Raises UsageError."""
        if not self.enable_batching:
            if self.batching_parameters_file:
                raise UsageError("--batching_parameters_file without --enable_batching has no effect: give both.")
            return None
        if not self.batching_parameters_file:
            return BatchingParameters()
        return config_files.read_batching(self.batching_parameters_file)

    def monitoring(self) -> MonitoringConfig:
        """The monitoring settings. Raises UsageError."""
        if not self.monitoring_config_file:
            return MonitoringConfig()
        return config_files.read_monitoring(self.monitoring_config_file)

    def ssl(self) -> SslConfig | None:
        """The TLS settings; None where the port is insecure. Raises UsageError."""
        return config_files.read_ssl(self.ssl_config_file) if self.ssl_config_file else None

    def channel_arguments(self) -> list[tuple[str, str | int]]:
        """`grpc_channel_arguments` ("key=value,key=value") as gRPC takes them, integers as such. Raises UsageError."""
        arguments: list[tuple[str, str | int]] = []
        for argument in filter(None, self.grpc_channel_arguments.split(",")):
            key, equals, value = (part.strip() for part in argument.partition("="))
            if not key or not equals:
                raise UsageError(f"--grpc_channel_arguments: {argument!r} is not of the form key=value.")
            arguments.append((key, int(value) if value.removeprefix("-").isdecimal() else value))
        return arguments
