"""TF Serving's command line flags, for both engines; imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from typing import Any

_FALSE = ("false", "0", "no", "f", "n")
_TRUE = ("true", "1", "yes", "t", "y")


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _flag(default: Any, metavar: str, text: str) -> Any:
    told = f" (default {str(default).lower()})" if default else ""
    return field(default=default, metadata={"metavar": metavar, "help": text + told})


@dataclass(frozen=True)
class Flags:
    """TF Serving's flags with its defaults, and those of our own server."""

    host: str = _flag("127.0.0.1", "HOST", "the name or address that our own server listens on (0.0.0.0: all)")
    enable_reload_config: bool | None = _flag(
        None,
        "BOOL",
        "whether clients of our own server may replace its list of models by HandleReloadConfigRequest (default: they "
        "may where it listens on loopback only, or with mutual TLS)",
    )
    request_log_max_megabytes: int = _flag(
        1024, "MB", "of a request log's files (logging_config) in our own server; the oldest are removed"
    )
    request_log_keep_days: float = _flag(30, "DAYS", "files of a request log that are older are removed")
    request_log_pixels: str = _flag(
        "full", "full|hash|N", "what a request log keeps of images: all, a SHA-256, or N x N averages"
    )
    port: int = _flag(8500, "PORT", "gRPC port (0: none beside --grpc_socket_path, else any; -1: any free one)")
    rest_api_port: int = _flag(0, "PORT", "REST port (0: none; -1: any free one)")
    grpc_socket_path: str = _flag("", "FILE", "also answer gRPC on this UNIX socket")
    rest_api_timeout_in_ms: int = _flag(30_000, "MS", "of a REST request, its arrival included")
    rest_api_enable_cors_support: bool = _flag(False, "BOOL", "pages of other origins may call the REST port")
    model_name: str = _flag("default", "NAME", "of the model at --model_base_path")
    model_base_path: str = _flag("", "DIR", "the folder of the one model to serve; its subfolders are versions")
    model_config_file: str = _flag("", "FILE", "ModelServerConfig: several models, version policies, labels")
    model_config_file_poll_wait_seconds: float = _flag(0, "S", "look at that file every so often (0: never again)")
    file_system_poll_wait_seconds: float = _flag(1, "S", "look for new versions every so often")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "BOOL", "a label may name a version that is loading"
    )
    monitoring_config_file: str = _flag("", "FILE", "MonitoringConfig: Prometheus metrics on the REST port")
    enable_batching: bool = _flag(False, "BOOL", "compute requests together")
    batching_parameters_file: str = _flag("", "FILE", "BatchingParameters")
    ssl_config_file: str = _flag("", "FILE", "SSLConfig: TLS or mutual TLS for gRPC")
    use_alts_credentials: bool = _flag(False, "BOOL", "Google's ALTS for gRPC, on its machines")
    grpc_channel_arguments: str = _flag("", "K=V,...", "for gRPC, such as grpc.max_receive_message_length=134217728")
    max_num_load_retries: int = _flag(5, "N", "how often a version that does not load is tried again")
    load_retry_interval_micros: int = _flag(60_000_000, "US", "how long to wait in between")
    saved_model_tags: str = _flag("serve", "TAG,...", "of the meta graph to load")
    enable_model_warmup: bool = _flag(True, "BOOL", "replay a version's warm-up requests before it serves")
    num_request_iterations_for_warmup: int = _flag(0, "N", "how often each is replayed (0: once)")
    tensorflow_session_config_file: str = _flag("", "FILE", "TensorFlow's ConfigProto")
    tensorflow_session_parallelism: int = _flag(0, "N", "threads that one large operation spreads over")
    tensorflow_intra_op_parallelism: int = _flag(0, "N", "the same; it wins")
    per_process_gpu_memory_fraction: float = _flag(0, "F", "of the GPU's memory, taken at the start")
    enable_serialization_as_tensor_content: bool = _flag(
        False, "BOOL", "outputs as tensor_content, not in typed fields"
    )


_KINDS = {"int": int, "float": float, "str": str, "bool": _boolean, "bool | None": _boolean}
OWN = ("host", "enable_reload_config", "request_log_max_megabytes", "request_log_keep_days", "request_log_pixels")
"""The flags that TF Serving does not have."""

# Name: (type, metavar, help).
_ALL: dict[str, tuple[Any, str, str]] = {
    one.name: (_KINDS[str(one.type)], one.metadata["metavar"], one.metadata["help"]) for one in fields(Flags)
} | {"version": (_boolean, "BOOL", "tell the version and end")}
FLAGS = {name: entry for name, entry in _ALL.items() if name not in OWN}
"""Those of TF Serving 2.20 that our own server obeys."""
# Name: (type, why our own server need not obey it, or cannot).
WITHOUT_EFFECT: dict[str, tuple[Any, str]] = {
    "enable_grpc_healthcheck_service": (_boolean, "grpc.health.v1 is always there"),
    "enable_signature_method_name_check": (_boolean, "a signature's method_name is never checked"),
    "rest_api_num_threads": (int, "the number of threads is fixed"),
    "grpc_max_threads": (int, "the number of threads is fixed"),
    "num_load_threads": (int, "each version is loaded in a thread of its own"),
    "num_unload_threads": (int, "each version is unloaded in a thread of its own"),
    "tensorflow_inter_op_parallelism": (int, "the operations of a request run one after the other"),
    "enable_per_model_batching_parameters": (_boolean, "--batching_parameters_file is for all models"),
    "flush_filesystem_caches": (_boolean, "the system's caches are left alone"),
    "remove_unused_fields_from_bundle_metagraph": (_boolean, "the meta graph is not kept"),
    "platform_config_file": (str, "there is no platform but TensorFlow"),
    "thread_pool_factory_config_file": (str, "there are no other thread pools"),
    "prefer_tflite_model": (_boolean, "there is no TensorFlow Lite"),
    "num_tflite_pools": (int, "there is no TensorFlow Lite"),
    "num_tflite_interpreters_per_pool": (int, "there is no TensorFlow Lite"),
    "xla_cpu_compilation_enabled": (_boolean, "TensorFlow's own settings hold"),
    "xla_gpu_compilation_enabled": (_boolean, "TensorFlow's own settings hold"),
    "mixed_precision": (str, "models compute in the types that they were saved with"),
    "skip_initialize_tpu": (_boolean, "TPUs are not used"),
    "enable_profiler": (_boolean, "there is no profiler service"),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declares all of them, and those of our own server; one that is not given is None."""
    no_effect = {name: (kind, "X", f"without effect here: {why}") for name, (kind, why) in WITHOUT_EFFECT.items()}
    for name, (kind, metavar, text) in (_ALL | no_effect).items():
        optional: dict[str, Any] = {"nargs": "?", "const": True} if kind is _boolean else {}
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=text, **optional)


def given_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that the command line gave."""
    return {name: getattr(args, name) for name in _ALL | WITHOUT_EFFECT if getattr(args, name) is not None}


def as_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `ServerOptions`; tells on stderr of those that have no effect."""
    for name in given:
        if name in WITHOUT_EFFECT:
            print(f"--{name} has no effect in this server: {WITHOUT_EFFECT[name][1]}", file=sys.stderr)
    return {name: value for name, value in given.items() if name not in WITHOUT_EFFECT}


def as_command_line(given: Mapping[str, Any]) -> list[str]:
    """The flags as `tensorflow_model_server` takes them."""
    return [f"--{name}={_text(value)}" for name, value in given.items()]


def tell_version() -> int:
    """What `--version` asks for; returns the exit code."""
    print(f"mnist-tfx model server: {version('mnist-tfx')}\nTensorFlow Library: {version('tensorflow')}")
    return 0


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):  # TF Serving's are whole seconds
        return str(int(value))
    return str(value)
