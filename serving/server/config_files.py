"""TF Serving's configuration files, in protobuf's text format: the same files drive both servers."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config.logging_config_pb2 import LoggingConfig
from tensorflow_serving.config.model_server_config_pb2 import TENSORFLOW, ModelServerConfig

from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.serving.client.messages import build_pool, message_class

PLATFORM = "tensorflow"
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
LOG_COLLECTOR = "tfrecord"

# The messages that `tensorflow-serving-api` does not ship, by name, in a descriptor pool of their own, so that
# protobuf's own parser reads the files: its syntax, its error positions. Sources: `session_bundle_config.proto`,
# `monitoring_config.proto` and `ssl_config.proto` of tensorflow/serving. Only the text format is used, so the field
# numbers do not matter.
_PACKAGE = "tensorflow.serving"
_POOL = build_pool(
    {
        f"{_PACKAGE}.BatchingParameters": (
            "google.protobuf.Int64Value max_batch_size = 1",
            "google.protobuf.Int64Value batch_timeout_micros = 2",
            "google.protobuf.Int64Value max_enqueued_batches = 3",
            "google.protobuf.Int64Value num_batch_threads = 4",
            "google.protobuf.BoolValue enable_large_batch_splitting = 5",
            "google.protobuf.Int64Value max_execution_batch_size = 6",
            "google.protobuf.StringValue thread_pool_name = 7",
            "repeated int64 allowed_batch_sizes = 8",
            "bool pad_variable_length_inputs = 9",
        ),
        f"{_PACKAGE}.PrometheusConfig": ("bool enable = 1", "string path = 2"),
        f"{_PACKAGE}.MonitoringConfig": (f"{_PACKAGE}.PrometheusConfig prometheus_config = 1",),
        f"{_PACKAGE}.SSLConfig": (
            "string server_key = 1",
            "string server_cert = 2",
            "string custom_ca = 3",
            "bool client_verify = 4",
        ),
    },
    {},
    (_PACKAGE,),
)


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
    """Raises ValueError for a list of models that TF Serving refuses, LookupError for an unknown log collector.

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
        if model.HasField("logging_config"):
            _check_logging(model.name, model.logging_config)


def _check_logging(model: str, config: LoggingConfig) -> None:
    collector, rate = config.log_collector_config, config.sampling_config.sampling_rate
    if collector.type != LOG_COLLECTOR:  # TF Serving's words and code (core/log_collector.cc)
        raise LookupError(
            f"Cannot find LogCollector::Factory for type: {collector.type} (model {model}; this server has one of "
            f"type {LOG_COLLECTOR!r})"
        )
    if not os.path.isabs(collector.filename_prefix):
        raise ValueError(
            f"Expected the log of model {model} to have an absolute path; got "
            f"filename_prefix()={collector.filename_prefix}"
        )
    if not 0 <= rate <= 1:
        raise ValueError(f"model {model} has the sampling_rate {rate}; it must be from 0 to 1")


def checked(config: ModelServerConfig, where: str) -> ModelServerConfig:
    """The list, if it can be served. Raises UsageError, which tells `where` it was given."""
    try:
        check_models(config)
    except (LookupError, ValueError) as error:
        raise UsageError(f"{where}: {error}.") from None
    return config


def read_models(path: str) -> ModelServerConfig:
    """Reads a `--model_config_file`. Raises UsageError."""
    return checked(read(path, ModelServerConfig()), path)


def read(path: str, message: Any) -> Any:
    """Reads a file in protobuf's text format into a message, and returns it. Raises UsageError."""
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        kind = message.DESCRIPTOR.name
        raise UsageError(f"{path} is no {kind} in protobuf's text format (line:column): {error}") from None


def new_message(name: str) -> Any:
    """An empty message: "BatchingParameters", "MonitoringConfig" or "SSLConfig"."""
    return message_class(f"{_PACKAGE}.{name}", _POOL)()
