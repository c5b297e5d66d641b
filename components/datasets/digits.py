"""The handwritten digits that scikit-learn ships: 1,797 images of 8 x 8, which need no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

_LEVELS = 16  # of ink
_TEST_EXAMPLES = 360  # a fifth; 345 of them are 0.9583


class Digits(tfds.core.GeneratorBasedBuilder):
    """`sklearn.datasets.load_digits` (Alpaydin and Kaynak 1998, its test set), divided at random once and for all."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1)),
                "label": tfds.features.ClassLabel(names=list(map(str, range(10)))),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        levels = np.round(images.reshape(-1, 8, 8, 1) * 255 / _LEVELS).astype(np.uint8)
        train, test, train_labels, test_labels = train_test_split(
            levels, labels, test_size=_TEST_EXAMPLES, random_state=0, stratify=labels
        )
        return {
            "train": self._generate_examples(train, train_labels),
            "test": self._generate_examples(test, test_labels),
        }

    def _generate_examples(
        self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield number, {"image": image, "label": int(label)}
