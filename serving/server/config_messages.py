"""The messages of TF Serving's configuration files that `tensorflow-serving-api` does not ship.

They are declared here by name, in a descriptor pool of their own, so that protobuf's own parser reads the files: its
syntax, its error positions. Sources: `session_bundle_config.proto`, `monitoring_config.proto` and
`ssl_config.proto` of tensorflow/serving. Only the text format is used, so the field numbers do not matter.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory

from mnist_tfx.serving.client.messages import build_pool

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


def new_message(name: str) -> Any:
    """An empty message: "BatchingParameters", "MonitoringConfig" or "SSLConfig"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))()
