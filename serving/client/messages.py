"""TensorFlow Serving's messages, as far as a client needs them, without TensorFlow.

The messages are declared here in the words of their .proto files (tensorflow/core/framework, tensorflow_serving/apis;
Apache License 2.0) and built in a descriptor pool of their own. Full names and field numbers are TensorFlow Serving's,
so the bytes are the same, and a program that also imports `tensorflow_serving` meets no "duplicate symbol" in the
default pool. What a field left out here would hold travels through as an unknown field.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

# A type is a scalar's name or a full name; `map<string, T>` and `repeated T` are as in .proto files, and
# `choice: T name = 1` puts the field into the oneof `choice`. A message comes before the messages nested in it.
_MESSAGES: Mapping[str, Sequence[str]] = {
    "tensorflow.TensorShapeProto": (
        "repeated tensorflow.TensorShapeProto.Dim dim = 2",
        "bool unknown_rank = 3",
    ),
    "tensorflow.TensorShapeProto.Dim": ("int64 size = 1", "string name = 2"),
    "tensorflow.TensorProto": (
        "tensorflow.DataType dtype = 1",
        "tensorflow.TensorShapeProto tensor_shape = 2",
        "int32 version_number = 3",
        "bytes tensor_content = 4",
        "repeated float float_val = 5",
        "repeated double double_val = 6",
        "repeated int32 int_val = 7",
        "repeated bytes string_val = 8",
        "repeated float scomplex_val = 9",
        "repeated int64 int64_val = 10",
        "repeated bool bool_val = 11",
        "repeated double dcomplex_val = 12",
        "repeated int32 half_val = 13",
        "repeated uint32 uint32_val = 16",
        "repeated uint64 uint64_val = 17",
        "bytes float8_val = 18",
    ),
    "tensorflow.TensorInfo": (
        "encoding: string name = 1",
        "tensorflow.DataType dtype = 2",
        "tensorflow.TensorShapeProto tensor_shape = 3",
        "encoding: tensorflow.TensorInfo.CooSparse coo_sparse = 4",
    ),
    "tensorflow.TensorInfo.CooSparse": (
        "string values_tensor_name = 1",
        "string indices_tensor_name = 2",
        "string dense_shape_tensor_name = 3",
    ),
    "tensorflow.SignatureDef": (
        "map<string, tensorflow.TensorInfo> inputs = 1",
        "map<string, tensorflow.TensorInfo> outputs = 2",
        "string method_name = 3",
        "map<string, tensorflow.TensorProto> defaults = 4",
    ),
    "tensorflow.serving.ModelSpec": (
        "string name = 1",
        "version_choice: google.protobuf.Int64Value version = 2",
        "string signature_name = 3",
        "version_choice: string version_label = 4",
    ),
    "tensorflow.serving.PredictRequest": (
        "tensorflow.serving.ModelSpec model_spec = 1",
        "map<string, tensorflow.TensorProto> inputs = 2",
        "repeated string output_filter = 3",
    ),
    "tensorflow.serving.PredictResponse": (
        "map<string, tensorflow.TensorProto> outputs = 1",
        "tensorflow.serving.ModelSpec model_spec = 2",
    ),
    "tensorflow.serving.GetModelMetadataRequest": (
        "tensorflow.serving.ModelSpec model_spec = 1",
        "repeated string metadata_field = 2",
    ),
    "tensorflow.serving.GetModelMetadataResponse": (
        "tensorflow.serving.ModelSpec model_spec = 1",
        "map<string, google.protobuf.Any> metadata = 2",
    ),
    "tensorflow.serving.SignatureDefMap": ("map<string, tensorflow.SignatureDef> signature_def = 1",),
    "tensorflow.serving.GetModelStatusRequest": ("tensorflow.serving.ModelSpec model_spec = 1",),
    "tensorflow.serving.ModelVersionStatus": (
        "int64 version = 1",
        "tensorflow.serving.ModelVersionStatus.State state = 2",
        "tensorflow.serving.StatusProto status = 3",
    ),
    "tensorflow.serving.GetModelStatusResponse": (
        "repeated tensorflow.serving.ModelVersionStatus model_version_status = 1",
    ),
    "tensorflow.serving.StatusProto": ("tensorflow.error.Code error_code = 1", "string error_message = 2"),
}

_DATA_TYPES = (
    "INVALID", "FLOAT", "DOUBLE", "INT32", "UINT8", "INT16", "INT8", "STRING", "COMPLEX64", "INT64", "BOOL",
    "QINT8", "QUINT8", "QINT32", "BFLOAT16", "QINT16", "QUINT16", "UINT16", "COMPLEX128", "HALF", "RESOURCE",
    "VARIANT", "UINT32", "UINT64", "FLOAT8_E5M2", "FLOAT8_E4M3FN", "FLOAT8_E4M3FNUZ", "FLOAT8_E4M3B11FNUZ",
    "FLOAT8_E5M2FNUZ", "INT4", "UINT4", "INT2", "UINT2", "FLOAT4_E2M1FN",
)  # fmt: skip

# Every type but the invalid one has a `_REF` type, 100 further on.
_ENUMS: Mapping[str, Mapping[str, int]] = {
    "tensorflow.DataType": {f"DT_{name}": number for number, name in enumerate(_DATA_TYPES)}
    | {f"DT_{name}_REF": 100 + number for number, name in enumerate(_DATA_TYPES) if number},
    "tensorflow.serving.ModelVersionStatus.State": {
        "UNKNOWN": 0,
        "START": 10,
        "LOADING": 20,
        "AVAILABLE": 30,
        "UNLOADING": 40,
        "END": 50,
    },
    "tensorflow.error.Code": {code.name: code.value[0] for code in grpc.StatusCode}
    | {"DO_NOT_USE_RESERVED_FOR_FUTURE_EXPANSION_USE_DEFAULT_IN_SWITCH_INSTEAD_": 20},
}

_FIELD = re.compile(r"(?:(\w+): )?(repeated )?(?:map<string, ([\w.]+)>|([\w.]+)) (\w+) = (\d+)")
_FieldProto = descriptor_pb2.FieldDescriptorProto


def _add_field(message: Any, full_name: str, line: str, enums: Container[str]) -> None:
    """Adds one declared field, and the entry message that a map stands for."""
    match = _FIELD.fullmatch(line)
    assert match, line
    oneof, repeated, map_value, kind, name, number = match.groups()
    field = message.field.add(name=name, number=int(number), label=_FieldProto.LABEL_OPTIONAL)
    if repeated or map_value:
        field.label = _FieldProto.LABEL_REPEATED
    if map_value:
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "", "string key = 1", ())
        _add_field(entry, "", f"{map_value} value = 2", enums)
        kind = f"{full_name}.{entry.name}"
    if "." not in kind:
        field.type = _FieldProto.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type = _FieldProto.TYPE_ENUM if kind in enums else _FieldProto.TYPE_MESSAGE
        field.type_name = f".{kind}"
    if oneof:
        if oneof not in [declared.name for declared in message.oneof_decl]:
            message.oneof_decl.add(name=oneof)
        field.oneof_index = [declared.name for declared in message.oneof_decl].index(oneof)


def build_pool(
    declared: Mapping[str, Sequence[str]], enums: Mapping[str, Mapping[str, int]], packages: Sequence[str]
) -> descriptor_pool.DescriptorPool:
    """A pool with declarations of the form above; `packages` are all of theirs, each after those that it needs."""
    files: dict[str, Any] = {
        package: descriptor_pb2.FileDescriptorProto(
            name=f"serving/client/{package}.proto",
            package=package,
            syntax="proto3",
            dependency=[
                any_pb2.DESCRIPTOR.name,
                wrappers_pb2.DESCRIPTOR.name,
                *(f"serving/client/{needed}.proto" for needed in packages[:order]),
            ],
        )
        for order, package in enumerate(packages)
    }
    messages: dict[str, Any] = {}
    for full_name, lines in declared.items():
        parent, _, name = full_name.rpartition(".")
        nested_in = messages.get(parent)
        siblings = files[parent].message_type if nested_in is None else nested_in.nested_type
        messages[full_name] = message = siblings.add(name=name)
        for line in lines:
            _add_field(message, full_name, line, enums)
    for full_name, values in enums.items():
        parent, _, name = full_name.rpartition(".")
        enum = (messages.get(parent) or files[parent]).enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    pool = descriptor_pool.DescriptorPool()
    for well_known in (any_pb2, wrappers_pb2):
        pool.AddSerializedFile(well_known.DESCRIPTOR.serialized_pb)
    for file in files.values():
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = build_pool(_MESSAGES, _ENUMS, ("tensorflow.error", "tensorflow", "tensorflow.serving"))

NAMES = tuple(_MESSAGES)
"""The full name of every message of this module."""


def message_class(full_name: str, pool: descriptor_pool.DescriptorPool = _POOL) -> Any:
    """The class of the message with this full name, such as `tensorflow.TensorProto`."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(full_name))


def enum_values(full_name: str) -> dict[str, int]:
    """The values of the enum with this full name, such as `tensorflow.DataType`, by name."""
    return {value.name: value.number for value in _POOL.FindEnumTypeByName(full_name).values}


TensorProto = message_class("tensorflow.TensorProto")
TensorShapeProto = message_class("tensorflow.TensorShapeProto")
SignatureDefMap = message_class("tensorflow.serving.SignatureDefMap")
ModelSpec = message_class("tensorflow.serving.ModelSpec")
PredictRequest = message_class("tensorflow.serving.PredictRequest")
PredictResponse = message_class("tensorflow.serving.PredictResponse")
GetModelMetadataRequest = message_class("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = message_class("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusRequest = message_class("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = message_class("tensorflow.serving.GetModelStatusResponse")
