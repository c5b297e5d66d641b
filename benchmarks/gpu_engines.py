"""What `benchmarks.gpu` has a device do, through TensorFlow or PyTorch: add arrays, multiply matrices, classify.

Each method gives a function that does the work once, and returns when the device is done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.trainer.export import read_weights
from mnist_tfx.contract.names import IMAGES, PROBABILITIES

Work = Callable[[], object]


class TensorFlowEngine:
    """The first GPU that TensorFlow sees, or the processor."""

    torch_device: str | None = None  # where PyTorch has the device: what it calls it

    def __init__(self) -> None:
        gpus = tf.config.list_physical_devices("GPU")
        self.device = tf.config.experimental.get_device_details(gpus[0]).get("device_name") if gpus else "the processor"
        self.library = f"TensorFlow {tf.__version__}"

    def add(self, count: int) -> Work:
        """One array of so many float32 to another in place: two are read, one is written."""
        total, one = tf.Variable(tf.zeros([count])), tf.ones([count])
        return lambda: (total.assign_add(one), tf.test.experimental.sync_devices())

    def multiply(self, size: int) -> Work:
        """Two square float32 matrices, as the exported model multiplies: TF32, where TensorFlow does by default."""
        left = tf.random.stateless_normal([size, size], [0, 0])
        return lambda: (left @ left, tf.test.experimental.sync_devices())

    def classify(self, folder: Path, images: np.ndarray) -> Work:
        """From uint8 [N, height, width, channels] in main memory to probabilities there."""
        signature = tf.saved_model.load(str(folder)).signatures[IMAGES]
        return lambda: signature(**{IMAGES: tf.constant(images)})[PROBABILITIES].numpy()


class TorchEngine:
    """PyTorch's GPU or processor, with the exported model's weights in a loop of PyTorch's own."""

    def __init__(self) -> None:
        import torch  # which the pipeline does without

        self._torch, cuda = torch, torch.cuda.is_available()
        self.torch_device: str | None = "cuda" if cuda else "cpu"
        self.device = torch.cuda.get_device_name() if cuda else "the processor"
        self.library = f"PyTorch {torch.__version__}, with the exported model's weights"
        self._wait: Work = torch.cuda.synchronize if cuda else lambda: None
        torch.set_float32_matmul_precision("high")  # TF32

    def add(self, count: int) -> Work:
        """As TensorFlow's."""
        total, one = (make(count, device=self.torch_device) for make in (self._torch.zeros, self._torch.ones))
        return lambda: (total.add_(one), self._wait())

    def multiply(self, size: int) -> Work:
        """As TensorFlow's."""
        left = self._torch.randn(size, size, device=self.torch_device)
        return lambda: (left @ left, self._wait())

    def classify(self, folder: Path, images: np.ndarray) -> Work:
        """As TensorFlow's; of pixels in [0, 1], and without a calibration."""
        settings = read_metadata(str(folder))["model"]
        activation = getattr(self._torch.nn.functional, settings["activation"])
        *hidden, (last_kernel, last_bias) = self._layers(folder)

        def probabilities(pixels: Any) -> Any:
            for kernel, bias in hidden:
                pixels = activation(pixels @ kernel + bias)
            return (pixels @ last_kernel + last_bias).softmax(dim=1)

        def work() -> np.ndarray:
            pixels = self._torch.from_numpy(images).to(self.torch_device) / 255
            answer = probabilities(pixels.flatten(1))
            if settings["mirrored_averaging"]:
                answer = (answer + probabilities(pixels.flip(2).flatten(1))) / 2
            return np.asarray(answer.cpu())

        return work

    def _layers(self, folder: Path) -> list[tuple[Any, Any]]:
        """Kernel and bias of each dense layer, batch normalization multiplied into them."""
        weights, layers = [weight.numpy() for weight in read_weights(tf.saved_model.load(str(folder)))], []
        starts = [index for index, weight in enumerate(weights) if weight.ndim == 2]
        for start, end in zip(starts, [*starts[1:], len(weights)], strict=True):
            kernel, *vectors = weights[start:end]
            if len(vectors) == 4:
                gamma, beta, mean, variance = vectors
                scale = gamma / np.sqrt(variance + 1e-3)  # Keras' epsilon
                kernel, vectors = kernel * scale, [beta - mean * scale]
            layers.append(tuple(self._torch.from_numpy(each).to(self.torch_device) for each in (kernel, *vectors)))
        return layers
