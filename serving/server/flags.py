"""TF Serving's command line flags, for both engines; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

_FALSE = ("false", "0", "no", "f", "n")
_TRUE = ("true", "1", "yes", "t", "y")


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


# Name: (type, metavar, help). The names are fields of `ServerOptions`, but for those in `_NO_EFFECT`.
FLAGS: dict[str, tuple[Any, str, str]] = {
    "port": (int, "PORT", "gRPC port (default 8500; 0: any free one)"),
    "rest_api_port": (int, "PORT", "REST port (0: none; -1: any free one)"),
    "grpc_socket_path": (str, "FILE", "also answer gRPC on this UNIX socket"),
    "rest_api_timeout_in_ms": (int, "MS", "of a REST request, its arrival included (default 30000)"),
    "rest_api_enable_cors_support": (_boolean, "BOOL", "pages of other origins may call the REST port"),
    "model_name": (str, "NAME", "of the model at --model_base_path (default: default)"),
    "model_base_path": (str, "DIR", "the folder of the one model to serve; its subfolders are versions"),
    "model_config_file": (str, "FILE", "ModelServerConfig: several models, version policies, labels"),
    "model_config_file_poll_wait_seconds": (float, "S", "look at that file every so often (default 0: never again)"),
    "file_system_poll_wait_seconds": (float, "S", "look for new versions every so often (default 1)"),
    "allow_version_labels_for_unavailable_models": (_boolean, "BOOL", "a label may name a version that is loading"),
    "monitoring_config_file": (str, "FILE", "MonitoringConfig: Prometheus metrics on the REST port"),
    "enable_batching": (_boolean, "BOOL", "compute requests together"),
    "batching_parameters_file": (str, "FILE", "BatchingParameters"),
    "ssl_config_file": (str, "FILE", "SSLConfig: TLS or mutual TLS on the gRPC port"),
    "grpc_channel_arguments": (str, "K=V,...", "for gRPC, such as grpc.max_receive_message_length=134217728"),
    "max_num_load_retries": (int, "N", "how often a version that does not load is tried again (default 5)"),
    "load_retry_interval_micros": (int, "US", "how long to wait in between (default 60000000)"),
    "enable_serialization_as_tensor_content": (_boolean, "BOOL", "outputs as tensor_content, not in typed fields"),
    "enable_grpc_healthcheck_service": (_boolean, "BOOL", "accepted; our server always has grpc.health.v1"),
}
_NO_EFFECT = ("enable_grpc_healthcheck_service",)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declares all of them; one that is not given is None."""
    for name, (kind, metavar, text) in FLAGS.items():
        optional: dict[str, Any] = {"nargs": "?", "const": True} if kind is _boolean else {}
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=text, **optional)


def given_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that the command line gave."""
    return {name: getattr(args, name) for name in FLAGS if getattr(args, name) is not None}


def as_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `ServerOptions`."""
    return {name: value for name, value in given.items() if name not in _NO_EFFECT}


def as_command_line(given: Mapping[str, Any]) -> list[str]:
    """The flags as `tensorflow_model_server` takes them."""
    return [f"--{name}={_text(value)}" for name, value in given.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):  # TF Serving's are whole seconds
        return str(int(value))
    return str(value)
