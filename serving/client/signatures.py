"""Checks what is to be sent against the model's signature, before it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.serving.client import answers, images
from mnist_tfx.serving.client.errors import InvalidInput, SignatureNotFound
from mnist_tfx.serving.client.results import Signature, TensorSpec


def as_tensor(value: Any) -> npt.NDArray[Any]:
    """An array as it is; lists of bytes and str as an array of objects: NumPy's own string type cuts zeros off."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, bytes | str):
        return np.array(value, object)
    if isinstance(value, Sequence) and value and all(isinstance(one, bytes | str) for one in value):
        array = np.empty(len(value), object)
        array[:] = value
        return array
    return images.as_array(value)


def image_input(signature: str, found: Signature) -> TensorSpec:
    """The input of an image classifier's signature, which bears the signature's name.

    Raises:
        SignatureNotFound: the signature takes or answers something else.
    """
    missing = [name for name in (answers.PROBABILITIES, answers.CLASSES, answers.LABELS) if name not in found.outputs]
    if signature not in found.inputs or missing:
        raise SignatureNotFound(
            f"the signature {signature!r} is not an image classifier's: it takes {', '.join(found.inputs)} and answers "
            f"{', '.join(found.outputs)}. Call it with run()."
        )
    return found.inputs[signature]


def check_inputs(signature: str, found: Signature, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raises InvalidInput unless names, dtypes and shapes fit the signature."""
    extra = sorted(arrays.keys() - found.inputs.keys())
    missing = sorted(found.inputs.keys() - found.optional - arrays.keys())
    if extra or missing:
        wrong = [f"unknown: {', '.join(extra)}"] * bool(extra) + [f"missing: {', '.join(missing)}"] * bool(missing)
        raise InvalidInput(
            f"the inputs do not fit the signature {signature!r} ({'; '.join(wrong)}). It takes: "
            + ", ".join(f"{name} ({spec})" for name, spec in found.inputs.items())
        )
    for name, array in arrays.items():
        spec = found.inputs[name]
        is_text = array.dtype.kind == "U" and spec.dtype == object
        if array.dtype != spec.dtype and not is_text:
            raise InvalidInput(f"input {name!r} of signature {signature!r} is {spec}; got dtype {array.dtype}.")
        if spec.shape is not None and not images.fits(array.shape, spec.shape):
            raise InvalidInput(f"input {name!r} of signature {signature!r} is {spec}; got shape {list(array.shape)}.")
