"""The server's settings: TF Serving's flags, and what the files they name hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from components.errors import UsageError
from serving.server import config_files
from serving.server.config_files import BatchingParameters, MonitoringConfig
from serving.server.flags import Flags
from serving.server.listening import is_loopback

__all__ = ["BatchingParameters", "LoadOptions", "MonitoringConfig", "ServerOptions"]


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded."""

    session: ConfigProto | None = None
    tags: tuple[str, ...] = ("serve",)
    warm_up: bool = True
    warm_up_iterations: int = 1


@dataclass(frozen=True)
class ServerOptions(Flags):
    """The flags; the methods read the files that they name."""

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

    def ssl(self) -> Any:
        """The TLS settings, an SSLConfig; None where there are none. Raises UsageError."""
        return config_files.read_ssl(self.ssl_config_file) if self.ssl_config_file else None

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

    def channel_arguments(self) -> list[tuple[str, str | int]]:
        """`grpc_channel_arguments` ("key=value,key=value") as gRPC takes them, integers as such. Raises UsageError."""
        arguments: list[tuple[str, str | int]] = []
        for argument in filter(None, self.grpc_channel_arguments.split(",")):
            key, equals, value = (part.strip() for part in argument.partition("="))
            if not key or not equals:
                raise UsageError(f"--grpc_channel_arguments: {argument!r} is not of the form key=value.")
            arguments.append((key, int(value) if value.removeprefix("-").isdecimal() else value))
        return arguments
