"""The server's settings: TF Serving's flags, and what the files they name hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.serving.client import InvalidOption
from mnist_tfx.serving.client.pixels import parse_pixels
from mnist_tfx.serving.server import config_files
from mnist_tfx.serving.server.config_files import BatchingParameters, MonitoringConfig
from mnist_tfx.serving.server.flags import Flags
from mnist_tfx.serving.server.listening import is_loopback

__all__ = ["BatchingParameters", "LoadOptions", "MonitoringConfig", "ServerOptions"]

_INT32_MAX = 2**31 - 1
_RANGES = {
    "port": (-1, 65535),
    "rest_api_port": (-1, 65535),
    "rest_api_timeout_in_ms": (1, _INT32_MAX),
    "max_num_load_retries": (0, _INT32_MAX),
}


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded."""

    session: ConfigProto | None = None
    tags: tuple[str, ...] = ("serve",)
    warm_up: bool = True
    warm_up_iterations: int = 1


@dataclass(frozen=True)
class ServerOptions(Flags):
    """The flags; the methods read the files that they name. Raises UsageError for a number out of its range."""

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"--{name} is {getattr(self, name)}; it must be from {least} to {most}.")

    def models(self) -> ModelServerConfig:
        """The models of `model_config_file`, or of `model_name` and `model_base_path`. Raises UsageError."""
        if self.model_config_file:
            return config_files.read_models(self.model_config_file)
        if not self.model_base_path:
            raise UsageError("Nothing to serve: give --model_config_file, or --model_name and --model_base_path.")
        config = ModelServerConfig()
        base_path = self.model_base_path if "://" in self.model_base_path else os.path.abspath(self.model_base_path)
        config.model_config_list.config.add(
            name=self.model_name, base_path=base_path, model_platform=config_files.PLATFORM
        )
        return config_files.checked(config, "--model_name, --model_base_path")

    def batching(self) -> BatchingParameters | None:
        """The batching parameters; None where batching is off. Raises UsageError."""
        if not self.enable_batching:
            if self.batching_parameters_file:
                raise UsageError("--batching_parameters_file without --enable_batching has no effect: give both.")
            return None
        if not self.batching_parameters_file:
            return BatchingParameters()
        message = config_files.read(self.batching_parameters_file, config_files.new_message("BatchingParameters"))
        given = {field.name: getattr(value, "value", value) for field, value in message.ListFields()}
        given.pop("thread_pool_name", None)  # there is one pool
        given["allowed_batch_sizes"] = tuple(message.allowed_batch_sizes)
        try:
            return BatchingParameters(**given)
        except ValueError as error:
            raise UsageError(f"{self.batching_parameters_file}: {error}.") from None

    def monitoring(self) -> MonitoringConfig:
        """The monitoring settings. Raises UsageError."""
        path = self.monitoring_config_file
        if not path:
            return MonitoringConfig()
        prometheus = config_files.read(path, config_files.new_message("MonitoringConfig")).prometheus_config
        where = prometheus.path or config_files.PROMETHEUS_PATH
        if not where.startswith("/"):
            raise UsageError(f"{path}: prometheus_config.path is {where!r}; it must begin with '/'.")
        return MonitoringConfig(enable=prometheus.enable, path=where)

    def ssl(self) -> Any:
        """The TLS settings, an SSLConfig of PEM texts; None where there are none. Raises UsageError."""
        path = self.ssl_config_file
        if not path:
            return None
        message = config_files.read(path, config_files.new_message("SSLConfig"))
        for name in ("server_key", "server_cert"):
            if "-----BEGIN " not in getattr(message, name):
                raise UsageError(f"{path}: {name} holds no PEM text (the text itself is expected there, not a path).")
        if message.client_verify and not message.custom_ca:
            raise UsageError(f"{path}: client_verify needs custom_ca, the PEM text of the CA that signs the clients.")
        return message

    def credentials(self) -> grpc.ServerCredentials | None:
        """Of the gRPC port and the UNIX socket; None where they are open to all. Raises UsageError."""
        ssl = self.ssl()
        if self.use_alts_credentials:
            if ssl is not None:
                raise UsageError("Either --use_alts_credentials or --ssl_config_file: leave one of them out.")
            return grpc.alts_server_credentials()
        if ssl is None:
            return None
        return grpc.ssl_server_credentials(
            [(ssl.server_key.encode(), ssl.server_cert.encode())],
            root_certificates=ssl.custom_ca.encode() or None,
            require_client_auth=ssl.client_verify,
        )

    def reload_refused(self, addresses: Sequence[str]) -> str:
        """Why clients at these addresses may not replace the list of models; empty where they may. Raises UsageError.

        Who may, decides what everybody is served: beyond this machine that takes a certificate, or the user's word.
        """
        if self.enable_reload_config is False:
            return "HandleReloadConfigRequest is switched off by --enable_reload_config=false"
        ssl = self.ssl()
        has_tcp = self.port or not self.grpc_socket_path
        if (
            self.enable_reload_config
            or self.use_alts_credentials
            or (ssl and ssl.client_verify)
            or not has_tcp
            or is_loopback(addresses)
        ):
            return ""
        return (
            "HandleReloadConfigRequest is off where the server listens beyond loopback without mutual TLS "
            "(--ssl_config_file with client_verify); --enable_reload_config switches it on"
        )

    def loading(self) -> LoadOptions:
        """How versions are loaded. Raises UsageError."""
        session = ConfigProto()
        if self.tensorflow_session_config_file:
            config_files.read(self.tensorflow_session_config_file, session)
        if threads := self.tensorflow_intra_op_parallelism or self.tensorflow_session_parallelism:
            session.intra_op_parallelism_threads = threads
        if self.per_process_gpu_memory_fraction:
            session.gpu_options.per_process_gpu_memory_fraction = self.per_process_gpu_memory_fraction
        return LoadOptions(
            session=session,
            tags=tuple(filter(None, self.saved_model_tags.split(","))),
            warm_up=self.enable_model_warmup,
            warm_up_iterations=max(1, self.num_request_iterations_for_warmup),
        )

    def request_log_limits(self) -> dict[str, Any]:
        """What bounds a request log, as `RequestLogs` takes it. Raises UsageError."""
        for name in ("request_log_max_megabytes", "request_log_keep_days"):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name} is {getattr(self, name)}; it must be above 0.")
        try:
            pixels = parse_pixels(self.request_log_pixels)
        except InvalidOption as error:
            raise UsageError(f"--request_log_pixels: {error}") from None
        return {
            "max_bytes": self.request_log_max_megabytes * 2**20,
            "keep_days": self.request_log_keep_days,
            "pixels": pixels,
        }

    def channel_arguments(self) -> list[tuple[str, str | int]]:
        """`grpc_channel_arguments` ("key=value,key=value") as gRPC takes them, integers as such. Raises UsageError."""
        arguments: list[tuple[str, str | int]] = []
        for argument in filter(None, self.grpc_channel_arguments.split(",")):
            key, equals, value = (part.strip() for part in argument.partition("="))
            if not key or not equals:
                raise UsageError(f"--grpc_channel_arguments: {argument!r} is not of the form key=value.")
            given = int(value) if value.removeprefix("-").isdecimal() else value
            if isinstance(given, int) and abs(given) > _INT32_MAX:
                raise UsageError(f"--grpc_channel_arguments: {argument!r} is more than gRPC takes, {_INT32_MAX}.")
            arguments.append((key, given))
        return arguments
