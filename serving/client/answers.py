"""Reads the server's messages into the client's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from mnist_tfx.serving.client import tensors
from mnist_tfx.serving.client.errors import MalformedAnswer
from mnist_tfx.serving.client.messages import SignatureDefMap, enum_values
from mnist_tfx.serving.client.results import ModelMetadata, Predictions, Signature, TensorSpec, VersionStatus

PROBABILITIES, CLASSES, LABELS = "probabilities", "classes", "labels"

_STATES = {number: name for name, number in enum_values("tensorflow.serving.ModelVersionStatus.State").items()}
_CODES = {number: name for name, number in enum_values("tensorflow.error.Code").items()}


def read_outputs(response: Any) -> dict[str, npt.NDArray[Any]]:
    """Every output of a PredictResponse, by name. Raises MalformedAnswer."""
    outputs = response.outputs
    return {name: _decode(name, outputs[name]) for name in outputs}


def read_predictions(response: Any, rows: int, class_names: tuple[str, ...] | None) -> Predictions:
    """A PredictResponse of one of our classifiers, for `rows` images. Raises MalformedAnswer."""
    outputs = response.outputs
    if not (PROBABILITIES in outputs and CLASSES in outputs and LABELS in outputs):
        raise MalformedAnswer(f"the answer holds {sorted(outputs)}, not {PROBABILITIES}, {CLASSES} and {LABELS}.")
    probabilities = _decode(PROBABILITIES, outputs[PROBABILITIES])
    classes = _decode(CLASSES, outputs[CLASSES])
    named = outputs[LABELS]
    # Most servers use the typed field; reading it straight saves the array in between.
    labels = named.string_val if len(named.string_val) == rows else np.atleast_1d(_decode(LABELS, named)).tolist()
    if probabilities.ndim != 2 or len(probabilities) != rows or classes.shape != (rows,) or len(labels) != rows:
        raise MalformedAnswer(
            f"{rows} images were sent; the answer holds {PROBABILITIES} {list(probabilities.shape)}, "
            f"{CLASSES} {list(classes.shape)} and {len(labels)} {LABELS}."
        )
    if probabilities.dtype.kind != "f" or not all(isinstance(label, bytes) for label in labels):
        raise MalformedAnswer(f"the answer's {PROBABILITIES} are no floats, or its {LABELS} no strings.")
    numbers = classes.tolist()  # of a few rows, quicker than NumPy's reductions
    if rows and not (classes.dtype.kind == "i" and 0 <= min(numbers) <= max(numbers) < probabilities.shape[1]):
        raise MalformedAnswer(f"the answer's {CLASSES} are not among its {probabilities.shape[1]} {PROBABILITIES}.")
    return Predictions(
        probabilities,
        classes,
        tuple([label.decode("utf-8", "replace") for label in labels]),
        (response.model_spec.version.value,) * rows,
        class_names,
    )


def _decode(name: str, tensor: Any) -> npt.NDArray[Any]:
    try:
        return tensors.decode(tensor)
    except ValueError as error:
        raise MalformedAnswer(f"the server's output {name!r} cannot be read: {error}.") from error


def read_metadata(response: Any) -> ModelMetadata:
    """A GetModelMetadataResponse with the field `signature_def`. Raises MalformedAnswer."""
    if "signature_def" not in response.metadata:
        raise MalformedAnswer("the server's metadata holds no signature_def.")
    try:
        definitions = SignatureDefMap.FromString(response.metadata["signature_def"].value).signature_def
    except DecodeError as error:
        raise MalformedAnswer(f"the server's signature_def cannot be read: {error}.") from error
    return ModelMetadata(
        name=response.model_spec.name,
        version=response.model_spec.version.value,
        signatures={
            name: Signature(
                inputs=_specs(definitions[name].inputs),
                outputs=_specs(definitions[name].outputs),
                method_name=definitions[name].method_name,
                optional=frozenset(definitions[name].defaults),
            )
            for name in sorted(definitions)
        },
    )


def _specs(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {name: _spec(infos[name]) for name in sorted(infos)}


def _spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    return TensorSpec(
        dtype=tensors.dtype_of(info.dtype),
        type_name=tensors.type_name(info.dtype),
        shape=None if shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in shape.dim),
    )


def read_statuses(response: Any) -> tuple[VersionStatus, ...]:
    """A GetModelStatusResponse, the newest version first."""
    statuses = [
        VersionStatus(
            version=one.version,
            state=_STATES.get(one.state, str(one.state)),
            error_code=_CODES.get(one.status.error_code, str(one.status.error_code)),
            error_message=one.status.error_message,
        )
        for one in response.model_version_status
    ]
    return tuple(sorted(statuses, key=lambda status: status.version, reverse=True))
