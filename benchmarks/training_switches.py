"""What each switch of the training loop, and each augmentation, costs or saves per epoch, for `benchmarks.training`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.settings import AugmentationSettings, ModelSettings, TrainingSettings
from mnist_tfx.components.trainer.dense import build_model
from mnist_tfx.components.trainer.optimization import make_optimizer
from mnist_tfx.components.trainer.soft_targets import SoftTargetsClassifier
from mnist_tfx.components.trainer.training_data import DecodedExamples, TrainingInput
from mnist_tfx.components.transform.preprocessing import Normalization

_SHAPE = (28, 28, 1)
_CLASSES = 10


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    batch_size: int = 256
    steps_per_execution: int = 50
    jit_compile: bool = False
    precision: str = "float32"
    autotune: bool = False
    fused_adam: bool = True
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)


OURS = Variant()
SWITCHES: Mapping[str, Variant] = {
    "ours": OURS,
    "jit_compile": replace(OURS, jit_compile=True),
    "mixed_bfloat16": replace(OURS, precision="mixed_bfloat16"),
    "steps_per_execution 1": replace(OURS, steps_per_execution=1),
    "steps_per_execution 10": replace(OURS, steps_per_execution=10),
    "batch size 128": replace(OURS, batch_size=128),
    "batch size 512": replace(OURS, batch_size=512),
    "batch size 1024": replace(OURS, batch_size=1024),
    "tf.data's autotuning": replace(OURS, autotune=True),
    "Keras' own Adam": replace(OURS, fused_adam=False),
}
_AUGMENTATIONS = {
    "none": AugmentationSettings(),
    "flip": AugmentationSettings(flip=True),
    "shift": AugmentationSettings(shift=2.0),
    "rotation, scale, shear": AugmentationSettings(rotation=10.0, scale=0.1, shear=10.0),
    "elastic": AugmentationSettings(elastic=1.0),
    "mixup": AugmentationSettings(mixup=0.2),
    "all of them": AugmentationSettings(
        flip=True, shift=2.0, rotation=10.0, scale=0.1, shear=10.0, elastic=1.0, mixup=0.2
    ),
}
AUGMENTATIONS: Mapping[str, Variant] = {
    name: replace(OURS, augmentation=augmentation) for name, augmentation in _AUGMENTATIONS.items()
}


@dataclass(frozen=True)
class Epochs:
    """Seconds of the first epoch, which traces, of the later ones in the mean and at most; input's share of those."""

    first: float
    mean: float
    longest: float
    input_wait_share: float


class _Clock(keras.callbacks.Callback):
    def __init__(self, data: TrainingInput) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.waited: list[float] = []
        self._data, self._started = data, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._data.epoch.assign(epoch)
        self._data.waited.assign(0.0)
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._started)
        self.waited.append(float(self._data.waited))


def measure(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], variant: Variant, epochs: int) -> Epochs:
    """Trains the recipe's 2 x 512 on uint8 [N, 28, 28, 1] for some epochs."""
    keras.utils.set_random_seed(0)
    settings = TrainingSettings(batch_size=variant.batch_size)
    data = TrainingInput(
        DecodedExamples(labels, _SHAPE, images.__getitem__),
        Normalization(np.full(_SHAPE, 1 / 255, np.float32), np.zeros(_SHAPE, np.float32)),
        variant.augmentation,
        num_classes=_CLASSES,
        batch_size=variant.batch_size,
        seed=0,
    )
    model = build_model(ModelSettings(), _SHAPE, _CLASSES, variant.precision)
    if variant.augmentation.mixup:
        model = SoftTargetsClassifier(model, mixup=variant.augmentation.mixup)
    model.compile(
        make_optimizer(settings, data.steps) if variant.fused_adam else keras.optimizers.Adam(settings.learning_rate),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=variant.steps_per_execution,
        jit_compile=variant.jit_compile,
    )
    options = tf.data.Options()
    options.autotune.enabled = variant.autotune
    clock = _Clock(data)
    model.fit(data.batches().with_options(options), epochs=epochs, callbacks=[clock], shuffle=False, verbose=0)
    first, *later = clock.seconds
    return Epochs(first, sum(later) / len(later), max(later), sum(clock.waited[1:]) / sum(later))
