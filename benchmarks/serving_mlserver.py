"""The dense classifier as an MLServer runtime, in NumPy. Runs in MLServer's own environment; imports nothing of ours.

`weights` of the model's parameters is an .npz file: kernel and bias of each layer in order, as k0, b0, k1, b1, ...
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class DenseModel(MLModel):
    """Images (uint8 [N, 784]) to `probabilities` (float32 [N, 10]) and `classes` (int64 [N])."""

    async def load(self) -> bool:
        """Reads the weights."""
        assert self.settings.parameters is not None
        extra: dict[str, Any] = self.settings.parameters.extra or {}
        arrays = np.load(extra["weights"])
        self._layers = [(arrays[f"k{index}"], arrays[f"b{index}"]) for index in range(len(arrays) // 2)]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One request; MLServer runs it in its event loop, where no other thread has to be woken."""
        values = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32) / np.float32(255)
        for kernel, bias in self._layers[:-1]:
            values = np.maximum(values @ kernel + bias, 0)
        kernel, bias = self._layers[-1]
        logits = values @ kernel + bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                NumpyCodec.encode_output("probabilities", probabilities),
                NumpyCodec.encode_output("classes", probabilities.argmax(axis=1)),
            ],
        )
