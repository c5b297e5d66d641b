"""The messages of the V2 (Open Inference) protocol that the load generator needs, as MLServer speaks it over gRPC.

Declared here, in a descriptor pool of their own, so that the generator needs no package of MLServer's; with the field
numbers of `grpc_predict_v2.proto` (https://github.com/kserve/open-inference-protocol). Fields left out here are neither
sent nor read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

INFER = "/inference.GRPCInferenceService/ModelInfer"

_Field = descriptor_pb2.FieldDescriptorProto
_TENSOR = {"name": (1, _Field.TYPE_STRING), "datatype": (2, _Field.TYPE_STRING), "shape": (3, _Field.TYPE_INT64)}
_MESSAGES: dict[str, dict[str, tuple[int, int | str]]] = {
    "Tensor": dict(_TENSOR),  # InferInputTensor and InferOutputTensor agree so far
    "ModelInferRequest": {
        "model_name": (1, _Field.TYPE_STRING),
        "inputs": (5, ".inference.Tensor"),
        "raw_input_contents": (7, _Field.TYPE_BYTES),
    },
    "ModelInferResponse": {"outputs": (5, ".inference.Tensor"), "raw_output_contents": (6, _Field.TYPE_BYTES)},
}
_REPEATED = {"shape", "inputs", "outputs", "raw_input_contents", "raw_output_contents"}
_DTYPES = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="v2.proto", package="inference", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if field_name in _REPEATED else _Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, kind
            else:
                field.type = kind  # type: ignore[assignment]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in _MESSAGES
    }


_CLASSES = _messages()


def infer_request(model: str, images: npt.NDArray[np.uint8]) -> bytes:
    """A ModelInferRequest of images (uint8 [N, 784]) as raw contents, which MLServer decodes faster than typed ones."""
    request = _CLASSES["ModelInferRequest"](model_name=model, raw_input_contents=[images.tobytes()])
    request.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    return bytes(request.SerializeToString())


def read_outputs(answer: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a ModelInferResponse with raw contents, by name."""
    response = _CLASSES["ModelInferResponse"].FromString(answer)
    return {
        tensor.name: np.frombuffer(content, _DTYPES[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }
