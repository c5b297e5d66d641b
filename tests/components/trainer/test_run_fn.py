"""Training: what decides its result, when it stops, which weights it keeps, and that it never sees split test."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.executor import GenericExecutor
from tfx.components.transform.executor import Executor as TransformExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, Model, ModelRun, Schema, TransformGraph

from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.trainer import export, training
from mnist_tfx.components.trainer.calibration import Calibration
from mnist_tfx.components.trainer.config import TrainerConfig
from mnist_tfx.components.trainer.export import ServingModule, export_model, read_weights
from mnist_tfx.components.trainer.run_fn import TRAINING_LOG
from mnist_tfx.components.transform.preprocessing import Normalization
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.names import SPLITS
from mnist_tfx.pipeline.runs.store import load_run
from tests.fixtures.executors import artifact, context
from tests.fixtures.tiny_run import SPLIT_SIZES, TinyRun, decode, read_split
from tests.fixtures.training import NORMALIZATION, SHAPE, config, eval_pixels, logits, trained, without_times


@pytest.fixture(scope="module")
def plain(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, dict[str, Any]]:
    """A training of small steps."""
    folder = tmp_path_factory.mktemp("plain")
    return trained(tiny_run.examples, folder, config(folder))


def val_loss(model: keras.Model, tiny_run: TinyRun) -> float:
    """The loss over split eval, without our own reader."""
    labels = eval_pixels(tiny_run)[1]
    return float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits(model, tiny_run)))


def val_accuracy(model: keras.Model, tiny_run: TinyRun) -> float:
    return float((logits(model, tiny_run).argmax(axis=1) == eval_pixels(tiny_run)[1]).mean())


def test_another_seed_gives_another_model(
    tiny_run: TinyRun, plain: tuple[keras.Model, dict[str, Any]], tmp_path: Path
) -> None:
    model, log = trained(tiny_run.examples, tmp_path, config(tmp_path, seed=1, epochs=1))
    assert without_times(log)[0] != without_times(plain[1])[0]
    assert not np.allclose(logits(model, tiny_run), logits(plain[0], tiny_run))


def test_training_learns(plain: tuple[keras.Model, dict[str, Any]]) -> None:
    history = plain[1]["history"]
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
    settings = config(tmp_path, optimizer="sgd", learning_rate=0.6, epochs=30, patience=2, monitor="val_loss")
    model, log = trained(tiny_run.examples, tmp_path, settings)
    losses = [row["val_loss"] for row in log["history"]]
    assert log["best_epoch"] == 1 + int(np.argmin(losses))
    assert len(losses) == log["best_epoch"] + 2 < 30
    assert log["stopped"] == "no better val_loss for 2 epochs"
    best = log["history"][log["best_epoch"] - 1]
    assert val_loss(model, tiny_run) == pytest.approx(best["val_loss"], rel=1e-4)
    assert val_loss(model, tiny_run) != pytest.approx(losses[-1], rel=1e-4)
    assert val_accuracy(model, tiny_run) == pytest.approx(best["val_accuracy"], abs=1e-6)


def test_an_epoch_before_monitoring_begins_is_never_the_best(tiny_run: TinyRun, tmp_path: Path) -> None:
    # An accuracy that is at its highest after three epochs, and stays there.
    settings = config(tmp_path, model={"hidden_layers": (64,)}, learning_rate=0.03, epochs=6, monitor_from=0.5)
    model, log = trained(tiny_run.examples, tmp_path, settings)
    accuracies = [row["val_accuracy"] for row in log["history"]]
    assert 1 + int(np.argmax(accuracies)) <= 3 < log["best_epoch"] == 4 + int(np.argmax(accuracies[3:]))
    assert val_loss(model, tiny_run) == pytest.approx(log["history"][log["best_epoch"] - 1]["val_loss"], rel=1e-4)


def test_what_is_better_by_less_than_min_delta_is_no_improvement(
    tiny_run: TinyRun, plain: tuple[keras.Model, dict[str, Any]], tmp_path: Path
) -> None:
    losses = [row["val_loss"] for row in plain[1]["history"]]
    assert losses == sorted(losses, reverse=True)  # it gets better with every epoch
    min_delta = 1.5 * (losses[0] - losses[1])
    improvements, best = [1], losses[0]
    for epoch, loss in enumerate(losses[1:], 2):
        if loss < best - min_delta:
            improvements, best = [*improvements, epoch], loss
    settings = config(tmp_path, monitor="val_loss", min_delta=min_delta)
    model, log = trained(tiny_run.examples, tmp_path, settings)
    assert without_times(log) == without_times(plain[1])  # as good as it was
    assert log["best_epoch"] == improvements[-1] < len(losses)
    assert val_loss(model, tiny_run) == pytest.approx(best, rel=1e-4)


def test_the_pipelines_model_has_the_best_epochs_accuracy(tiny_run: TinyRun) -> None:
    log = json.loads((tiny_run.artifact("Trainer", "model") / TRAINING_LOG).read_text())
    images, labels = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    classes = tf.saved_model.load(str(tiny_run.model)).signatures["images"](tf.constant(decode(list(images))))[
        "classes"
    ]
    accuracy = (classes.numpy() == np.array(labels)).mean()
    assert accuracy == pytest.approx(log["history"][log["best_epoch"] - 1]["val_accuracy"], abs=1e-6)


def test_the_history_has_the_learning_rate_of_each_epochs_end(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = config(tmp_path, optimizer="adamw", schedule="cosine", warmup=0.25, batch_size=480, epochs=4)
    _, log = trained(tiny_run.examples, tmp_path, settings)
    expected = [1e-3 * (1 + math.cos(math.pi * done / 3)) / 2 for done in (0, 1, 2, 3)]  # a step an epoch, one warms up
    assert [row["learning_rate"] for row in log["history"]] == pytest.approx(expected, abs=1e-8)


def test_augmentation_changes_training_and_not_what_is_evaluated(
    tiny_run: TinyRun, plain: tuple[keras.Model, dict[str, Any]], tmp_path: Path
) -> None:
    strong = {"flip": True, "shift": 4.0, "rotation": 45.0, "elastic": 2.0, "mixup": 1.0}
    settings = config(tmp_path, augmentation=strong, label_smoothing=0.1, epochs=2)
    model, log = trained(tiny_run.examples, tmp_path, settings)
    assert log["history"][0]["accuracy"] < plain[1]["history"][0]["accuracy"]
    best = log["history"][log["best_epoch"] - 1]
    assert val_accuracy(model, tiny_run) == pytest.approx(best["val_accuracy"], abs=1e-6)
    assert [weight.shape for weight in model.weights] == [weight.shape for weight in plain[0].weights]


def test_a_training_in_bfloat16_ends_as_a_float32_model(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = config(tmp_path, {"batch_normalization": True, "dropout": 0.1}, precision="mixed_bfloat16", epochs=2)
    model, log = trained(tiny_run.examples, tmp_path, settings)
    assert log["history"][1]["loss"] < log["history"][0]["loss"]
    best = log["history"][log["best_epoch"] - 1]
    assert val_loss(model, tiny_run) == pytest.approx(best["val_loss"], rel=0.01)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}

    graph = tft.TFTransformOutput(str(tiny_run.transform_graph))
    module = ServingModule(model, graph, NORMALIZATION, settings.class_names, SHAPE)
    export_model(module, str(tmp_path / "exported"), {})
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    assert {weight.dtype for weight in read_weights(loaded)} == {tf.float32}
    definition = loaded.signatures["images"].graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    types = {value.type for node in nodes for value in node.attr.values()}
    assert tf.float32.as_datatype_enum in types and tf.bfloat16.as_datatype_enum not in types


@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_a_loss_that_is_no_number_ends_the_training_with_the_remedy(
    tiny_run: TinyRun, tmp_path: Path, mixup: float
) -> None:
    settings = config(tmp_path, augmentation={"mixup": mixup}, learning_rate=1e30)
    with pytest.raises(
        PipelineError, match=r"loss is (nan|inf) after epoch 1\..*training\.learning_rate \(now 1e\+30\)"
    ):
        trained(tiny_run.examples, tmp_path, settings)


def test_a_run_whose_loss_is_no_number_fails_and_pushes_nothing(tiny_run: TinyRun) -> None:
    before = tiny_run.versions()
    answer = tiny_run.again("--set", "training.learning_rate=1e30")
    assert answer.code == 1
    assert "Training came apart: loss is " in answer.err and "training.learning_rate" in answer.err
    assert "Traceback" not in answer.err
    assert answer.outcome["exit_code"] == 1 and answer.outcome["pushed_version"] is None
    assert tiny_run.versions() == before


def lose_split_test(folder: Path) -> None:
    shutil.rmtree(folder)


def poison_split_test(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"this is no record")


def copied_examples(tiny_run: TinyRun, folder: Path) -> Examples:
    examples = artifact(Examples, folder)
    shutil.copytree(tiny_run.examples, examples.uri, dirs_exist_ok=True)
    examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    examples.set_string_custom_property(
        "payload_format", example_gen_pb2.PayloadFormat.Name(example_gen_pb2.FORMAT_TF_EXAMPLE)
    )
    return examples


def parameters_of(tiny_run: TinyRun) -> dict[str, dict[str, Any]]:
    """Of each component, as the run had them."""
    run = load_run(tiny_run.home.metadata_db, tiny_run.run_id)
    return {execution.component: dict(execution.parameters) for execution in run.executions}


@pytest.mark.parametrize("change", [lose_split_test, poison_split_test])
def test_transform_and_trainer_never_look_at_split_test(
    tiny_run: TinyRun, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    examples = copied_examples(tiny_run, tmp_path / "examples")
    change(tmp_path / "examples" / "Split-test")
    parameters = parameters_of(tiny_run)

    schema = artifact(Schema, tmp_path / "schema")
    shutil.copytree(tiny_run.artifact("ImportSchemaGen", "schema"), schema.uri, dirs_exist_ok=True)
    graph = artifact(TransformGraph, tmp_path / "graph")
    TransformExecutor(context(tmp_path)).Do(
        {"examples": [examples], "schema": [schema]}, {"transform_graph": [graph]}, parameters["Transform"]
    )
    normalizations = [
        Normalization.of_graph(tft.TFTransformOutput(str(folder)), SHAPE)
        for folder in (graph.uri, tiny_run.transform_graph)
    ]
    np.testing.assert_array_equal(normalizations[0].scale, normalizations[1].scale)
    np.testing.assert_array_equal(normalizations[0].offset, normalizations[1].offset)

    model, logs = artifact(Model, tmp_path / "model"), artifact(ModelRun, tmp_path / "logs")
    GenericExecutor(context(tmp_path)).Do(
        {"examples": [examples], "transform_graph": [graph]},
        {"model": [model], "model_run": [logs]},
        parameters["Trainer"],
    )
    folders = (Path(model.uri) / "Format-Serving", tiny_run.model)
    ours, theirs = (read_weights(tf.saved_model.load(str(folder))) for folder in folders)
    assert len(ours) == len(theirs) > 0
    for weight, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())


def test_what_fails_after_the_training_does_not_cost_it(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = artifact(TransformGraph, tmp_path / "graph")
    shutil.copytree(tiny_run.transform_graph, graph.uri, dirs_exist_ok=True)
    inputs = {"examples": [copied_examples(tiny_run, tmp_path / "examples")], "transform_graph": [graph]}
    model = artifact(Model, tmp_path / "model")
    outputs = {"model": [model], "model_run": [artifact(ModelRun, tmp_path / "logs")]}
    given = parameters_of(tiny_run)["Trainer"]
    settings = json.loads(given["custom_config"]) | {"backup_dir": str(tmp_path / "backup")}
    trainer = GenericExecutor(context(tmp_path))

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(export, "export_model", killed)  # TFX loads module run_fn anew
        trainer.Do(inputs, outputs, given | {"custom_config": json.dumps(settings)})
    monkeypatch.setattr(training, "train", killed)
    trainer.Do(inputs, outputs, given | {"custom_config": json.dumps(settings)})
    ours, theirs = (
        read_weights(tf.saved_model.load(str(path))) for path in (f"{model.uri}/Format-Serving", tiny_run.model)
    )
    assert ours
    for weight, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    assert list((tmp_path / "backup").iterdir()) == []


def test_without_calibration_the_probabilities_are_the_nets_own(tiny_run: TinyRun, tmp_path: Path) -> None:
    inputs = {
        "examples": [copied_examples(tiny_run, tmp_path / "examples")],
        "transform_graph": [artifact(TransformGraph, tiny_run.transform_graph)],
    }
    model = artifact(Model, tmp_path / "model")
    outputs = {"model": [model], "model_run": [artifact(ModelRun, tmp_path / "logs")]}
    given = parameters_of(tiny_run)["Trainer"]
    settings = json.loads(given["custom_config"])
    settings |= {"training": settings["training"] | {"calibrate": False}, "backup_dir": str(tmp_path / "backup")}
    GenericExecutor(context(tmp_path)).Do(inputs, outputs, given | {"custom_config": json.dumps(settings)})
    assert json.loads((Path(model.uri) / TRAINING_LOG).read_text())["calibration"] is None
    folders = (Path(model.uri) / "Format-Serving", tiny_run.model)
    (own, mended) = (Calibration(told["temperature"], told["bend"]) for told in map(read_metadata, map(str, folders)))
    assert own == Calibration() != mended
    images, _ = zip(*read_split(tiny_run.examples, "eval"), strict=True)
    plain, calibrated = (
        tf.saved_model.load(str(folder)).signatures["images"](tf.constant(decode(list(images))))["probabilities"]
        for folder in folders
    )
    np.testing.assert_allclose(np.exp(mended(np.log(plain.numpy().astype(np.float64)))), calibrated, atol=1e-5)


def test_settings_travel_as_json(tmp_path: Path) -> None:
    original = config(tmp_path)
    assert TrainerConfig.from_json(json.loads(json.dumps(original.to_json()))) == original
    assert "backup_dir" not in original.identity()
    assert replace(original, data_fingerprint="other").identity() != original.identity()
