"""TensorProto to NumPy and back."""

from __future__ import annotations

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto


def decode_tensor(proto: TensorProto) -> np.ndarray:
    """The array a TensorProto holds; strings are bytes in an array of dtype object. Raises ValueError."""
    raise NotImplementedError


def encode_tensor(array: np.ndarray, as_content: bool) -> TensorProto:
    """A TensorProto of the array: `tensor_content` if `as_content` (strings never), typed fields otherwise."""
    raise NotImplementedError
