"""Training: determinism, early stopping, resumption after a kill, and every option of the recipes."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from components import features, training_data
from components.dense import build_model
from components.errors import PipelineError
from components.preprocessing import Normalization
from components.settings import AugmentationSettings, DistillationSettings, ModelSettings, TrainingSettings
from components.trainer import TRAINING_LOG
from components.training import TrainerConfig, train
from components.training_data import TrainingInput, decode_examples
from tests.fixtures.tiny_run import SPLIT_SIZES, TinyRun, decode, read_split

_CHECKOUT = Path(__file__).resolve().parents[2]
SHAPE = (28, 28, 1)
NORMALIZATION = Normalization(np.full(SHAPE, 1 / 255, np.float32), np.zeros(SHAPE, np.float32))
EPOCHS = 5


def config(
    folder: Path,
    model: dict[str, Any] | None = None,
    augmentation: dict[str, Any] | None = None,
    distillation: dict[str, Any] | None = None,
    **training: Any,
) -> TrainerConfig:
    """A small net; slow learning, so that every epoch differs from the one before."""
    return TrainerConfig(
        dataset="kmnist",
        data_fingerprint="abc",
        class_names=tuple("abcdefghij"),
        image_shape=SHAPE,
        normalization="unit",
        model=ModelSettings.model_validate({"hidden_layers": (8,)} | (model or {})),
        training=TrainingSettings.model_validate(
            {"batch_size": 50, "epochs": EPOCHS, "patience": EPOCHS, "learning_rate": 1e-3} | training
        ),
        augmentation=AugmentationSettings.model_validate(augmentation or {}),
        distillation=DistillationSettings.model_validate(distillation or {}),
        code_version="1",
        backup_dir=str(folder / "backup"),
    )


def trained(examples: Path, folder: Path, settings: TrainerConfig) -> tuple[keras.Model, dict[str, Any]]:
    """Trains on the Examples of the tiny run."""
    folder.mkdir(exist_ok=True)
    train_examples, eval_examples = (
        decode_examples([str(examples / f"Split-{split}" / "*")], SHAPE, str(folder))
        for split in (features.TRAIN, features.EVAL)
    )
    return train(settings, NORMALIZATION, train_examples, eval_examples, str(folder / "logs"))


def eval_pixels(tiny_run: TinyRun) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Normalized pixels and labels of split eval, read without our own reader."""
    images, labels = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    return (decode(list(images)) / 255).astype(np.float32), np.array(labels)


def logits(model: keras.Model, tiny_run: TinyRun) -> npt.NDArray[np.float32]:
    return np.asarray(model(eval_pixels(tiny_run)[0], training=False))


def without_times(log: dict[str, Any]) -> list[dict[str, float]]:
    """The history's measured values."""
    times = {"seconds", "input_wait_seconds"}
    return [{key: value for key, value in row.items() if key not in times} for row in log["history"]]


@pytest.fixture(scope="module")
def uninterrupted(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, dict[str, Any]]:
    """One training from start to end."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return trained(tiny_run.examples, folder, config(folder))


def test_the_same_seed_gives_the_same_history_and_model(tiny_run: TinyRun, tmp_path: Path) -> None:
    model = {"dropout": 0.3, "batch_normalization": True}
    (first, first_log), (second, second_log) = (
        trained(tiny_run.examples, tmp_path / name, config(tmp_path / name, model)) for name in ("first", "second")
    )
    assert without_times(first_log) == without_times(second_log)
    np.testing.assert_array_equal(logits(first, tiny_run), logits(second, tiny_run))


ON_TWO_DEVICES = """
import json, sys
from pathlib import Path
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.components.test_trainer import config, trained
examples, folder = map(Path, sys.argv[1:])
for name, options in (("plain", {}), ("distilled", {"distillation": {"teachers": 1}, "epochs": 1})):
    model, log = trained(examples, folder / name, config(folder / name, **options))
    model.save(folder / f"{name}.keras")
    (folder / f"{name}.json").write_text(json.dumps(log))
"""


def test_several_devices_share_each_batch(
    tiny_run: TinyRun, uninterrupted: tuple[keras.Model, dict[str, Any]], tmp_path: Path
) -> None:
    """Two devices made of one processor, as a machine with two GPUs has: the same training, but for rounding."""
    command = [sys.executable, "-c", ON_TWO_DEVICES, str(tiny_run.examples), str(tmp_path)]
    finished = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    distilled = trained(
        tiny_run.examples, tmp_path / "one", config(tmp_path / "one", distillation={"teachers": 1}, epochs=1)
    )
    for name, (model, log) in (("plain", uninterrupted), ("distilled", distilled)):
        shared = json.loads((tmp_path / f"{name}.json").read_text())
        assert shared["devices"] == ["CPU", "CPU"] and log["devices"] == ["CPU"]
        for key in ("loss", "val_loss"):
            np.testing.assert_allclose(_column(shared, key), _column(log, key), rtol=1e-3)
        of_shared = keras.saving.load_model(tmp_path / f"{name}.keras")
        np.testing.assert_allclose(logits(of_shared, tiny_run), logits(model, tiny_run), atol=1e-2)


def _column(log: dict[str, Any], key: str) -> list[float]:
    return [row[key] for row in log["history"]]


def test_another_seed_gives_another_model(
    tiny_run: TinyRun, uninterrupted: tuple[keras.Model, dict[str, Any]], tmp_path: Path
) -> None:
    model, log = trained(tiny_run.examples, tmp_path, config(tmp_path, seed=1, epochs=1))
    assert without_times(log)[0] != without_times(uninterrupted[1])[0]
    assert not np.allclose(logits(model, tiny_run), logits(uninterrupted[0], tiny_run))


def test_training_learns(uninterrupted: tuple[keras.Model, dict[str, Any]]) -> None:
    history = uninterrupted[1]["history"]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["val_accuracy"] > 0.3


def test_the_log_tells_what_training_was_like(tiny_run: TinyRun) -> None:
    log = json.loads((tiny_run.artifact("Trainer", "model") / TRAINING_LOG).read_text())
    keys = {"history", "best_epoch", "stopped", "seconds", "examples_per_second", "train_examples", "devices"}
    assert set(log) >= keys | {"resumed_after_epoch", "input_wait_share", "teachers"}
    assert {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "learning_rate"} <= set(
        log["history"][0]
    )
    assert 0 <= log["input_wait_share"] < 1
    assert log["train_examples"] == SPLIT_SIZES["train"]
    assert log["stopped"] == "all epochs done"
    assert log["resumed_after_epoch"] == 0
    assert log["best_epoch"] == 1 + int(np.argmax([row["val_accuracy"] for row in log["history"]]))
    assert "CPU" in log["devices"]
    assert log["examples_per_second"] > 0


def test_early_stopping_ends_training_and_keeps_the_best_weights(tiny_run: TinyRun, tmp_path: Path) -> None:
    # A rate at which the loss goes up and down.
    model, log = trained(
        tiny_run.examples,
        tmp_path,
        config(tmp_path, optimizer="sgd", learning_rate=0.6, epochs=30, patience=2, monitor="val_loss"),
    )
    losses = [row["val_loss"] for row in log["history"]]
    assert log["best_epoch"] == 1 + int(np.argmin(losses))
    assert len(losses) == log["best_epoch"] + 2 < 30
    assert log["stopped"] == "no better val_loss for 2 epochs"
    pixels, labels = eval_pixels(tiny_run)
    outputs = np.asarray(model(pixels, training=False))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, outputs)
    assert float(loss) == pytest.approx(min(losses), rel=1e-4)
    assert float(loss) != pytest.approx(losses[-1], rel=1e-4)
    assert (outputs.argmax(axis=1) == labels).mean() == pytest.approx(
        log["history"][log["best_epoch"] - 1]["val_accuracy"], abs=1e-6
    )


def test_the_pipelines_model_has_the_best_epochs_accuracy(tiny_run: TinyRun) -> None:
    log = json.loads((tiny_run.artifact("Trainer", "model") / TRAINING_LOG).read_text())
    images, labels = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    classes = tf.saved_model.load(str(tiny_run.model)).signatures["images"](tf.constant(decode(list(images))))[
        "classes"
    ]
    accuracy = (classes.numpy() == np.array(labels)).mean()
    assert accuracy == pytest.approx(log["history"][log["best_epoch"] - 1]["val_accuracy"], abs=1e-6)


@pytest.mark.parametrize("memory", [0, 2**30], ids=["kept on disk", "kept in memory"])
def test_an_epoch_sees_every_example_once_and_in_an_order_of_its_own(
    tiny_run: TinyRun, tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "_MEMORY_BYTES", memory)
    examples = decode_examples([str(tiny_run.examples / "Split-eval" / "*")], SHAPE, str(tmp_path))
    data = TrainingInput(examples, NORMALIZATION, AugmentationSettings(), num_classes=10, batch_size=50, seed=3)
    assert data.steps == 3

    def images_of(epoch: int) -> list[bytes]:
        data.epoch.assign(epoch)
        return [row.tobytes() for pixels, _ in data.batches().as_numpy_iterator() for row in pixels]

    first, second = images_of(0), images_of(1)
    assert sorted(first) == sorted(second) and len(set(first)) == 120
    assert first != second
    assert images_of(0) == first


def test_decoded_examples_are_the_splits_images_and_labels(tiny_run: TinyRun, tmp_path: Path) -> None:
    examples = decode_examples([str(tiny_run.examples / "Split-eval" / "*")], SHAPE, str(tmp_path))
    images, labels = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    np.testing.assert_array_equal(examples.labels, labels)
    np.testing.assert_array_equal(examples.read_images(np.arange(len(examples))), decode(list(images)))


def test_examples_that_fit_neither_in_memory_nor_on_the_disk_are_an_error_with_the_remedy(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "_MEMORY_BYTES", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    with pytest.raises(PipelineError, match=r"120 decoded images need .* free. Set TMPDIR"):
        decode_examples([str(tiny_run.examples / "Split-eval" / "*")], SHAPE, str(tmp_path))


def test_training_is_the_same_with_decoded_examples_in_memory_and_on_disk(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, _ = trained(tiny_run.examples, tmp_path / "memory", config(tmp_path / "memory"))
    monkeypatch.setattr(training_data, "_MEMORY_BYTES", 0)
    on_disk, _ = trained(tiny_run.examples, tmp_path / "disk", config(tmp_path / "disk"))
    for first, second in zip(in_memory.get_weights(), on_disk.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


KILLED_TRAINING = """
import json, logging, os, signal, sys
from pathlib import Path

class KillAfter(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

progress = logging.getLogger("mnist_tfx.progress")
progress.setLevel(logging.INFO)
progress.addHandler(KillAfter())
from tests.components.test_trainer import config, trained
trained(Path(sys.argv[1]), Path(sys.argv[2]), config(Path(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def killed(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training whose process was killed when it reported its third epoch."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", KILLED_TRAINING, str(tiny_run.examples), str(folder), "epoch 3/"]
    done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder


def copy_of(killed: Path, folder: Path) -> Path:
    """The killed training's backup, to be gone on from."""
    shutil.copytree(killed / "backup", folder / "backup")
    [backup] = (folder / "backup").iterdir()
    return backup


def test_a_killed_training_goes_on_and_ends_as_an_uninterrupted_one(
    tiny_run: TinyRun, killed: Path, uninterrupted: tuple[keras.Model, dict[str, Any]], tmp_path: Path
) -> None:
    backup = copy_of(killed, tmp_path)
    model, log = trained(tiny_run.examples, tmp_path, config(tmp_path))
    assert log["resumed_after_epoch"] in (2, 3)
    whole_model, whole_log = uninterrupted
    assert [row["epoch"] for row in log["history"]] == [1, 2, 3, 4, 5]
    done = log["resumed_after_epoch"]
    assert without_times(log)[:done] == without_times(whole_log)[:done]
    assert without_times(log) == without_times(whole_log)
    np.testing.assert_array_equal(logits(model, tiny_run), logits(whole_model, tiny_run))
    assert not backup.exists()  # nothing is left that a later training could go on from


class _InterruptAfter(logging.Handler):
    """Raises when training reports that an epoch ended, as Ctrl-C would."""

    def __init__(self, report: str) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self._report):
            raise KeyboardInterrupt


@pytest.mark.parametrize("model", [{"batch_normalization": True}, {"dropout": 0.2}])
def test_a_stopped_training_goes_on_as_if_nothing_had_been(
    tiny_run: TinyRun, tmp_path: Path, model: dict[str, Any]
) -> None:
    whole, whole_log = trained(tiny_run.examples, tmp_path / "whole", config(tmp_path / "whole", model))
    progress, interrupt = logging.getLogger("mnist_tfx.progress"), _InterruptAfter("epoch 2/")
    level = progress.level
    progress.addHandler(interrupt)
    progress.setLevel(logging.INFO)
    try:
        with pytest.raises(KeyboardInterrupt):
            trained(tiny_run.examples, tmp_path, config(tmp_path, model))
    finally:
        progress.removeHandler(interrupt)
        progress.setLevel(level)
    resumed, log = trained(tiny_run.examples, tmp_path, config(tmp_path, model))
    assert log["resumed_after_epoch"] == 2
    assert without_times(log) == without_times(whole_log)
    np.testing.assert_array_equal(logits(resumed, tiny_run), logits(whole, tiny_run))


def test_another_recipe_does_not_go_on_from_the_backup(tiny_run: TinyRun, killed: Path, tmp_path: Path) -> None:
    copy_of(killed, tmp_path)
    settings = config(tmp_path, seed=7, epochs=1)
    assert trained(tiny_run.examples, tmp_path, settings)[1]["resumed_after_epoch"] == 0
    assert len(list((tmp_path / "backup").iterdir())) == 1  # the killed training's is still there


def damage_metadata(backup: Path) -> None:
    (backup / "training_metadata.json").write_text('{"epo')


def damage_all_weights(backup: Path) -> None:
    for path in backup.glob("*.h5*"):
        path.write_bytes(path.read_bytes()[:100])


def damage_the_first_backup(backup: Path) -> None:
    """As a kill leaves it that comes while the first epoch's weights are written."""
    weights = (backup / "latest.weights.h5").read_bytes()
    for path in backup.iterdir():
        if not path.name.startswith(("early_stopping-0", "best_weights-0")):
            path.unlink()
    (backup / "latest.weights.h5").write_bytes(weights[:100])


def lose_best_weights(backup: Path) -> None:
    for path in backup.glob("best_weights-*"):
        path.write_bytes(b"")


def lose_metadata(backup: Path) -> None:
    """As a kill leaves it that comes after the first epoch's weights are written, and before the epoch's number is."""
    for path in backup.glob("training_metadata.json*"):
        path.unlink()


@pytest.mark.parametrize(
    "damage", [damage_metadata, damage_all_weights, damage_the_first_backup, lose_metadata, lose_best_weights]
)
def test_a_damaged_backup_means_training_from_scratch(
    tiny_run: TinyRun, killed: Path, uninterrupted: tuple[keras.Model, dict[str, Any]], tmp_path: Path, damage: Any
) -> None:
    damage(copy_of(killed, tmp_path))
    model, log = trained(tiny_run.examples, tmp_path, config(tmp_path))
    assert log["resumed_after_epoch"] == 0
    assert without_times(log) == without_times(uninterrupted[1])
    np.testing.assert_array_equal(logits(model, tiny_run), logits(uninterrupted[0], tiny_run))


@pytest.mark.parametrize(
    ("optimizer", "schedule", "extra"),
    [
        ("adam", "constant", {}),
        ("adamw", "cosine", {"label_smoothing": 0.1}),
        ("sgd", "cosine", {"monitor": "val_loss"}),
    ],
)
def test_every_optimizer_and_schedule_trains(
    tiny_run: TinyRun, tmp_path: Path, optimizer: str, schedule: str, extra: dict[str, Any]
) -> None:
    settings = config(tmp_path, optimizer=optimizer, schedule=schedule, epochs=1, batch_size=480, **extra)
    _, log = trained(tiny_run.examples, tmp_path, settings)
    [row] = log["history"]
    assert np.isfinite(row["loss"])


@pytest.mark.parametrize("activation", ["relu", "gelu", "elu", "selu", "silu", "tanh"])
def test_every_activation_is_used(activation: str) -> None:
    keras.utils.set_random_seed(0)
    model = build_model(ModelSettings.model_validate({"hidden_layers": (4,), "activation": activation}), SHAPE, 10)
    images = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
    (kernel, bias), (out_kernel, out_bias) = [
        layer.get_weights() for layer in model.layers if isinstance(layer, keras.layers.Dense)
    ]
    hidden = np.asarray(getattr(tf.nn, activation)(images.reshape(3, -1) @ kernel + bias))
    np.testing.assert_allclose(model(images), hidden @ out_kernel + out_bias, atol=1e-4)


def test_hidden_layers_options_build_what_they_say() -> None:
    settings = ModelSettings(hidden_layers=(8, 6), batch_normalization=True, dropout=0.3, l2=0.01)
    model = build_model(settings, SHAPE, 10)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Flatten"] + ["Dense", "BatchNormalization", "Activation", "Dropout"] * 2 + ["Dense"]
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [8, 6, 10]
    model(np.ones((1, *SHAPE), np.float32))
    assert len(model.losses) == 2  # one penalty per hidden layer


def test_settings_travel_as_json(tmp_path: Path) -> None:
    original = config(tmp_path)
    assert TrainerConfig.from_json(json.loads(json.dumps(original.to_json()))) == original
    assert "backup_dir" not in original.identity()
    assert replace(original, data_fingerprint="other").identity() != original.identity()
