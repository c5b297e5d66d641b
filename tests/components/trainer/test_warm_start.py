"""A training that begins with a served model's weights: which weights those are, and when it begins anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow_transform as tft

from mnist_tfx.components.trainer.calibration import Calibration
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.trainer.export import ServingModule, export_model
from mnist_tfx.components.trainer.training import train
from mnist_tfx.components.trainer.warm_start import WarmStart, read_warm_start
from tests.fixtures.tiny_run import TinyRun
from tests.fixtures.training import NORMALIZATION, SHAPE, config, decoded, trained

MODEL = {"batch_normalization": True, "dropout": 0.2, "input_dropout": 0.1}


@pytest.fixture(scope="module")
def served(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, TrainerConfig, str]:
    """A model with moving averages, statistics, seeds of dropout and a calibration: as trained, and as served."""
    folder = tmp_path_factory.mktemp("served")
    settings = config(folder, MODEL, weight_average=0.9, epochs=2, warm_start=True)
    model, _ = trained(tiny_run.examples, folder / "training", settings)
    graph = tft.TFTransformOutput(str(tiny_run.transform_graph))
    module = ServingModule(model, graph, NORMALIZATION, settings.class_names, SHAPE)
    module.calibration = Calibration(1.7, 0.3)
    export_model(module, str(folder / "model"), settings.identity())
    return model, settings, str(folder / "model")


def test_the_weights_are_those_that_were_trained(served: tuple[keras.Model, TrainerConfig, str]) -> None:
    model, settings, folder = served
    base = read_warm_start(folder, settings)
    assert "beginning with the served model's weights" in base.told
    for read, weight in zip(base.weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(read, weight)


@pytest.mark.parametrize("changes", [{}, {"precision": "mixed_bfloat16"}, {"augmentation": {"mixup": 0.2}}])
def test_a_training_that_learns_nothing_keeps_them(
    served: tuple[keras.Model, TrainerConfig, str], tiny_run: TinyRun, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """So neither the averages nor an optimizer's state begin with something else; the statistics go on."""
    model, _, folder = served
    again = config(tmp_path, MODEL, learning_rate=1e-9, weight_average=0.9, epochs=1, warm_start=True, **changes)
    base = read_warm_start(folder, again)
    examples = [decoded(tiny_run.examples, split, tmp_path) for split in ("train", "eval")]
    kept, _ = train(
        replace(again, base_weights=base.digest()), NORMALIZATION, *examples, str(tmp_path / "logs"), base.weights
    )
    for now, before in zip(kept.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_allclose(now.numpy(), before.numpy(), atol=1e-5)


def test_what_does_not_fit_is_named_and_training_begins_anew(
    served: tuple[keras.Model, TrainerConfig, str], tmp_path: Path
) -> None:
    _, settings, folder = served
    others = {
        "class_names": replace(settings, class_names=tuple("bacdefghij")),
        "image_shape": replace(settings, image_shape=(14, 56, 1)),
        "normalization": replace(settings, normalization="standardize"),
    }
    nets = {"hidden_layers": (9,), "activation": "tanh", "batch_normalization": False, "output": "sigmoid"}
    for key, value in nets.items():
        others[f"model.{key}"] = replace(settings, model=settings.model.model_copy(update={key: value}))
    for differing, other in others.items():
        base = read_warm_start(folder, other)
        assert (list(base.weights), base.digest()) == ([], "") and f"({differing} differ)" in base.told
    assert "nothing is served" in read_warm_start(str(tmp_path), settings).told
    assert "nothing is served" in read_warm_start(None, settings).told


def test_without_the_setting_a_served_model_is_not_looked_at(
    served: tuple[keras.Model, TrainerConfig, str], tmp_path: Path
) -> None:
    assert read_warm_start(served[2], config(tmp_path, MODEL)) == WarmStart()


def test_other_weights_are_another_training(served: tuple[keras.Model, TrainerConfig, str]) -> None:
    _, settings, folder = served
    base = read_warm_start(folder, settings)
    changed = WarmStart([weight + 1e-6 for weight in base.weights])
    assert len({base.digest(), changed.digest(), WarmStart().digest()}) == 3
    assert replace(settings, base_weights=base.digest()).identity() != settings.identity()
