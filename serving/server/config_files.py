"""TF Serving's configuration files, in protobuf's text format: the same files drive both servers."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import TENSORFLOW, ModelServerConfig

from components.cpus import cpu_count
from components.errors import UsageError
from serving.server.config_messages import new_message

PLATFORM = "tensorflow"
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined: TF Serving's `BatchingParameters`, with its defaults.

    `max_batch_size` and `allowed_batch_sizes` count rows. Raises ValueError for values that TF Serving refuses.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = cpu_count()
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0  # with splitting; 0: as max_batch_size

    @property
    def execution_rows(self) -> int:
        """The most rows that are computed at once; a larger request, of up to `max_batch_size`, is split."""
        return (self.enable_large_batch_splitting and self.max_execution_batch_size) or self.max_batch_size

    @property
    def threads_per_batch(self) -> int:
        """A batch's share of the cores, where all `num_batch_threads` compute at once; at least 1.

        More would take turns, and waking them costs: one image through 784-512-512-10 takes 80 us in one thread and
        210 us or more in two; a batch of 64 takes a fifth less CPU time (benchmarks/serving_engine.py).
        """
        return max(1, cpu_count() // self.num_batch_threads)

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "execution_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.batch_timeout_micros < 0:
            raise ValueError(f"batch_timeout_micros is {self.batch_timeout_micros}; it must not be negative")
        sizes = self.allowed_batch_sizes
        if sizes and (sizes[0] < 1 or any(a >= b for a, b in itertools.pairwise(sizes))):
            raise ValueError(f"allowed_batch_sizes {list(sizes)} must be positive and increase")
        if self.execution_rows > self.max_batch_size:
            raise ValueError(
                f"max_execution_batch_size is {self.execution_rows}; it must not exceed max_batch_size, "
                f"{self.max_batch_size}"
            )
        if sizes and sizes[-1] != self.execution_rows:
            limit = "max_execution_batch_size" if self.enable_large_batch_splitting else "max_batch_size"
            raise ValueError(
                f"the last of allowed_batch_sizes is {sizes[-1]}; it must equal {limit}, {self.execution_rows}"
            )


@dataclass(frozen=True)
class MonitoringConfig:
    """Whether, and at which path of the REST port, Prometheus metrics are."""

    enable: bool = False
    path: str = PROMETHEUS_PATH


def check_models(config: ModelServerConfig) -> None:
    """Raises ValueError for a list of models that TF Serving refuses.

    Base paths must be absolute (or a URI): the server's working directory is nobody's contract.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise ValueError("custom_model_config is not supported; list the models in model_config_list")
    names: set[str] = set()
    for model in config.model_config_list.config:
        if not model.name:
            raise ValueError("a model of model_config_list has no name")
        if model.name in names:
            raise ValueError(f"model {model.name} is listed twice; the names must be unique")
        names.add(model.name)
        if not (os.path.isabs(model.base_path) or "://" in model.base_path):
            raise ValueError(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
        policy = model.model_version_policy
        if policy.WhichOneof("policy_choice") == "specific" and not policy.specific.versions:
            raise ValueError(f"model {model.name} has the version policy specific, with no version")
        if not model.model_platform and model.model_type != TENSORFLOW:
            raise ValueError(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                f"ModelServerConfig::model_platform, model name is {model.name}: add model_platform: {PLATFORM!r}"
            )
        if model.model_platform not in ("", PLATFORM):
            raise ValueError(
                f"model {model.name} has model_platform {model.model_platform!r}; only {PLATFORM!r} is served"
            )


def single_model(name: str, base_path: str) -> ModelServerConfig:
    """What `--model_name` and `--model_base_path` mean. Raises UsageError."""
    config = ModelServerConfig()
    if "://" not in base_path:
        base_path = os.path.abspath(base_path)
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=PLATFORM)
    try:
        check_models(config)
    except ValueError as error:
        raise UsageError(f"--model_name, --model_base_path: {error}.") from None
    return config


def read_models(path: str) -> ModelServerConfig:
    """Reads a `--model_config_file`. Raises UsageError."""
    config = ModelServerConfig()
    read(path, config)
    try:
        check_models(config)
    except ValueError as error:
        raise UsageError(f"{path}: {error}.") from None
    return config


def read_batching(path: str) -> BatchingParameters:
    """Reads a `--batching_parameters_file`. Raises UsageError."""
    message = read(path, new_message("BatchingParameters"))
    known = {field.name for field in fields(BatchingParameters)}
    given = {field.name: value for field, value in message.ListFields() if field.name in known}
    sizes = tuple(given.pop("allowed_batch_sizes", ()))
    try:
        return BatchingParameters(
            allowed_batch_sizes=sizes, **{name: getattr(value, "value", value) for name, value in given.items()}
        )
    except ValueError as error:
        raise UsageError(f"{path}: {error}.") from None


def read_monitoring(path: str) -> MonitoringConfig:
    """Reads a `--monitoring_config_file`. Raises UsageError."""
    prometheus = read(path, new_message("MonitoringConfig")).prometheus_config
    where = prometheus.path or PROMETHEUS_PATH
    if not where.startswith("/"):
        raise UsageError(f"{path}: prometheus_config.path is {where!r}; it must begin with '/'.")
    return MonitoringConfig(enable=prometheus.enable, path=where)


def read_ssl(path: str) -> Any:
    """The SSLConfig of an `--ssl_config_file`: PEM texts. Raises UsageError."""
    message = read(path, new_message("SSLConfig"))
    for name in ("server_key", "server_cert"):
        if "-----BEGIN " not in getattr(message, name):
            raise UsageError(f"{path}: {name} holds no PEM text (the text itself is expected there, not a path).")
    if message.client_verify and not message.custom_ca:
        raise UsageError(f"{path}: client_verify needs custom_ca, the PEM text of the CA that signs the clients.")
    return message


def read(path: str, message: Any) -> Any:
    """Reads a file in protobuf's text format into a message, and returns it. Raises UsageError."""
    try:
        return text_format.Parse(Path(path).read_text(), message)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        kind = message.DESCRIPTOR.name
        raise UsageError(f"{path} is no {kind} in protobuf's text format (line:column): {error}") from None
