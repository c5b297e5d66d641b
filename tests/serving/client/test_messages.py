"""The client's messages are TF Serving's: the same descriptors and the same bytes, both ways."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    status_pb2,
)

from mnist_tfx.serving.client import messages

OFFICIAL: dict[str, Any] = {
    message.DESCRIPTOR.full_name: message
    for message in (
        tensor_shape_pb2.TensorShapeProto,
        tensor_shape_pb2.TensorShapeProto.Dim,
        tensor_pb2.TensorProto,
        meta_graph_pb2.TensorInfo,
        meta_graph_pb2.TensorInfo.CooSparse,
        meta_graph_pb2.SignatureDef,
        model_pb2.ModelSpec,
        predict_pb2.PredictRequest,
        predict_pb2.PredictResponse,
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
        get_model_metadata_pb2.SignatureDefMap,
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
        get_model_status_pb2.ModelVersionStatus,
        status_pb2.StatusProto,
    )
}

# What a client of image classifiers has no use for.
LEFT_OUT = {
    "tensorflow.TensorProto": {"resource_handle_val", "variant_val"},
    "tensorflow.TensorInfo": {"composite_tensor"},
    "tensorflow.serving.PredictRequest": {"predict_streamed_options", "client_id", "request_options"},
}

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
}
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    **_INTEGERS,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_STRING: st.text(max_size=8),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
}


def field_facts(field: FieldDescriptor) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return (field.number, field.type, field.is_repeated, field.is_packed, kind and kind.full_name, oneof)


def content(descriptor: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    """Values for any subset of a message's fields: scalars, lists, dicts (maps and messages), by the field's name."""

    def one(field: FieldDescriptor) -> st.SearchStrategy[Any]:
        if field.enum_type:
            return st.sampled_from([value.number for value in field.enum_type.values])
        if field.message_type:
            return content(field.message_type)
        return _SCALARS[field.type]

    def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
        if field.message_type and field.message_type.GetOptions().map_entry:
            return st.dictionaries(st.text(max_size=4), one(field.message_type.fields_by_name["value"]), max_size=2)
        return st.lists(one(field), max_size=3) if field.is_repeated else one(field)

    return st.fixed_dictionaries({}, optional={field.name: values(field) for field in descriptor.fields})


def fill(message: Any, values: dict[str, Any]) -> Any:
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.message_type and field.message_type.GetOptions().map_entry:
            for key, item in value.items():
                fill(getattr(message, name)[key], item)
        elif field.message_type and field.is_repeated:
            for item in value:
                fill(getattr(message, name).add(), item)
        elif field.message_type:
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        elif field.is_repeated:
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


def encoded(message: Any) -> bytes:
    return message.SerializeToString(deterministic=True)


def test_every_message_is_compared() -> None:
    assert set(OFFICIAL) == set(messages.NAMES)


@pytest.mark.parametrize("name", messages.NAMES)
def test_fields_are_the_official_ones(name: str) -> None:
    ours = {field.name: field_facts(field) for field in messages.message_class(name).DESCRIPTOR.fields}
    official = {field.name: field_facts(field) for field in OFFICIAL[name].DESCRIPTOR.fields}
    assert official.keys() - ours.keys() == LEFT_OUT.get(name, set())
    assert ours == {field: facts for field, facts in official.items() if field in ours}


def test_enums_are_the_official_ones() -> None:
    assert messages.enum_values("tensorflow.DataType") == dict(types_pb2.DataType.items())
    states = get_model_status_pb2.ModelVersionStatus.State
    assert messages.enum_values("tensorflow.serving.ModelVersionStatus.State") == dict(states.items())
    assert messages.enum_values("tensorflow.error.Code") == dict(
        error_codes_pb2.xla_dot_tsl_dot_protobuf_dot_error__codes__pb2.Code.items()
    )


@pytest.mark.parametrize("name", messages.NAMES)
def test_bytes_are_the_same_both_ways(name: str) -> None:
    ours, official = messages.message_class(name), OFFICIAL[name]

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(content(ours.DESCRIPTOR))
    def check(values: dict[str, Any]) -> None:
        from_us, from_them = fill(ours(), values), fill(official(), values)
        wire = encoded(from_us)
        assert wire == encoded(from_them)
        assert encoded(official.FromString(wire)) == wire
        assert ours.FromString(encoded(from_them)) == from_us

    check()


def test_fields_left_out_survive_a_round_trip() -> None:
    request = predict_pb2.PredictRequest(client_id=b"someone", output_filter=["labels"])
    request.inputs["x"].resource_handle_val.add(name="table")
    through_us = messages.PredictRequest.FromString(request.SerializeToString()).SerializeToString()
    assert predict_pb2.PredictRequest.FromString(through_us) == request


def test_the_messages_are_not_those_of_the_default_pool() -> None:
    assert messages.TensorProto.DESCRIPTOR.full_name == tensor_pb2.TensorProto.DESCRIPTOR.full_name
    assert messages.TensorProto.DESCRIPTOR.file.pool is not tensor_pb2.TensorProto.DESCRIPTOR.file.pool
