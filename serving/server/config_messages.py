"""The messages of TF Serving's configuration files that `tensorflow-serving-api` does not ship.

They are declared here by name, in a descriptor pool of their own, so that protobuf's own parser reads the files: its
syntax, its error positions. Sources: `session_bundle_config.proto`, `monitoring_config.proto` and
`ssl_config.proto` of tensorflow/serving. Only the text format is used, so the field numbers do not matter.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_PACKAGE = "tensorflow.serving"
_Field = descriptor_pb2.FieldDescriptorProto
_INT64_VALUE = ".google.protobuf.Int64Value"

_MESSAGES: dict[str, dict[str, int | str]] = {
    "BatchingParameters": {
        "max_batch_size": _INT64_VALUE,
        "batch_timeout_micros": _INT64_VALUE,
        "max_enqueued_batches": _INT64_VALUE,
        "num_batch_threads": _INT64_VALUE,
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": _INT64_VALUE,
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": _Field.TYPE_INT64,
        "pad_variable_length_inputs": _Field.TYPE_BOOL,
    },
    "PrometheusConfig": {"enable": _Field.TYPE_BOOL, "path": _Field.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": f".{_PACKAGE}.PrometheusConfig"},
    "SSLConfig": {
        "server_key": _Field.TYPE_STRING,
        "server_cert": _Field.TYPE_STRING,
        "custom_ca": _Field.TYPE_STRING,
        "client_verify": _Field.TYPE_BOOL,
    },
}
_REPEATED = {"allowed_batch_sizes"}


def _build() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    file = descriptor_pb2.FileDescriptorProto(
        name="server_config.proto", package=_PACKAGE, syntax="proto3", dependency=[wrappers.name]
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for number, (name, kind) in enumerate(fields.items(), start=1):
            field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
            if name in _REPEATED:
                field.label = _Field.LABEL_REPEATED
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, kind
            else:
                field.type = kind  # type: ignore[assignment]
    pool.Add(file)
    return pool


_POOL = _build()


def new_message(name: str) -> Any:
    """An empty message: "BatchingParameters", "MonitoringConfig" or "SSLConfig"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))()
