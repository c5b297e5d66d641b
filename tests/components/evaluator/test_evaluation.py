"""Every metric of the Evaluator against scikit-learn and NumPy, and every bound, kept and broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tensorflow_transform as tft
from tfx.components.evaluator.executor import Executor
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation, Schema
from tfx.utils import proto_utils

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.evaluator.config import evaluation_config
from mnist_tfx.components.evaluator.quality import CALIBRATION_BINS, Quality
from mnist_tfx.components.evaluator.result import read_quality
from mnist_tfx.components.settings import EvaluationSettings, ModelSettings
from mnist_tfx.components.trainer.dense import build_model
from mnist_tfx.components.trainer.export import ServingModule, export_model
from mnist_tfx.components.transform.preprocessing import Normalization
from tests.fixtures.executors import artifact, context
from tests.fixtures.tiny_run import TinyRun, decode, read_split

CLASSES = range(10)
NEVER_PREDICTED = 4


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and the same predictions by way of the model's signature."""

    uri: str
    blessed: bool
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """What the model says."""
        return self.probabilities.argmax(axis=1)

    def metrics(self, model: str, label: int | None = None) -> dict[tuple[str, int | None], float]:
        """Values by metric name and class, of all examples or of those with one label."""
        found: dict[tuple[str, int | None], float] = {}
        for record in tfma.load_metrics(self.uri):
            keys = record.slice_key.single_slice_keys
            if (keys[0].int64_value if keys else None) != label:
                continue
            for entry in record.metric_keys_and_values:
                key = entry.key
                if key.model_name == model and not key.is_diff and entry.value.HasField("double_value"):
                    class_id = key.sub_key.class_id.value if key.HasField("sub_key") else None
                    found[key.name, class_id] = entry.value.double_value.value
        return found

    def confusion_matrix(self, model: str) -> npt.NDArray[np.float64]:
        """[actual, predicted], from the plot over all examples."""
        matrix = np.zeros((10, 10))
        for record in tfma.load_plots(self.uri):
            if record.slice_key.single_slice_keys:
                continue
            for entry in record.plot_keys_and_values:
                if entry.key.model_name == model and entry.key.name == "confusion_matrix":
                    [at_threshold] = entry.value.multi_class_confusion_matrix_at_thresholds.matrices
                    for cell in at_threshold.entries:
                        matrix[cell.actual_class_id, cell.predicted_class_id] = cell.num_weighted_examples
        return matrix


def predictions(run: TinyRun, model: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Labels and probabilities of split test."""
    images, labels = zip(*read_split(run.examples, "test"), strict=True)
    outputs = tf.saved_model.load(str(model)).signatures["images"](tf.constant(decode(list(images))))
    return np.array(labels), outputs["probabilities"].numpy()


def evaluate(
    folder: Path, run: TinyRun, candidate: Path, settings: EvaluationSettings, baseline: Path | None = None
) -> Evaluated:
    """Runs TFX's Evaluator on Model artifacts, over split test of the tiny run."""
    examples = artifact(Examples, run.examples)
    examples.split_names = artifact_utils.encode_split_names(["train", "eval", "test"])
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    inputs: dict[str, list[Any]] = {
        "examples": [examples],
        "model": [artifact(Model, candidate)],
        "schema": [artifact(Schema, run.artifact("ImportSchemaGen", "schema"))],
    }
    if baseline:
        inputs["baseline_model"] = [artifact(Model, baseline)]
    evaluation = artifact(ModelEvaluation, folder / "evaluation")
    blessing = artifact(ModelBlessing, folder / "blessing")
    parameters = {
        "eval_config": proto_utils.proto_to_json(evaluation_config(settings, 10)),
        "example_splits": '["test"]',
        "fairness_indicator_thresholds": "null",
    }
    Executor(context(folder)).Do(inputs, {"evaluation": [evaluation], "blessing": [blessing]}, parameters)
    blessed = bool(blessing.get_int_custom_property("blessed"))
    return Evaluated(evaluation.uri, blessed, *predictions(run, candidate / "Format-Serving"))


@pytest.fixture(scope="module")
def weak_model(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Model artifact of an untrained net that never predicts one of the classes."""
    keras.utils.set_random_seed(3)
    model = build_model(ModelSettings(hidden_layers=(16,)), (28, 28, 1), 10)
    model.layers[-1].bias.assign(-100 * np.eye(10)[NEVER_PREDICTED])
    graph = tft.TFTransformOutput(str(tiny_run.transform_graph))
    normalization = Normalization.of_graph(graph, (28, 28, 1))
    folder = tmp_path_factory.mktemp("weak")
    module = ServingModule(model, graph, normalization, tuple("abcdefghij"), (28, 28, 1))
    export_model(module, str(folder / "Format-Serving"), {})
    return folder


@pytest.fixture(scope="module")
def good(tiny_run: TinyRun) -> Evaluated:
    """The pipeline's own evaluation of the tiny run; its baseline is the candidate itself."""
    blessed = (tiny_run.artifact("Evaluator", "blessing") / "BLESSED").exists()
    evaluation = tiny_run.artifact("Evaluator", "evaluation")
    return Evaluated(str(evaluation), blessed, *predictions(tiny_run, tiny_run.model))


@pytest.fixture(scope="module")
def weak(tiny_run: TinyRun, weak_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """The weak model against the tiny run's, with bounds of every kind that it breaks."""
    settings = EvaluationSettings(
        min_accuracy=0.5,
        min_balanced_accuracy=0.45,
        min_macro_f1=0.4,
        min_class_accuracy=0.3,
        max_accuracy_drop=0.01,
    )
    baseline = tiny_run.artifact("Trainer", "model")
    return evaluate(tmp_path_factory.mktemp("weak-evaluation"), tiny_run, weak_model, settings, baseline)


@pytest.fixture(params=["good", "weak"])
def evaluated(request: pytest.FixtureRequest) -> Iterator[Evaluated]:
    """A model that is mostly right, and one that is mostly wrong."""
    yield request.getfixturevalue(request.param)


def expected_calibration_error(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> float:
    """Guo et al. (2017), equation 3."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.clip(np.digitize(confidence, edges, right=False) - 1, 0, CALIBRATION_BINS - 1)
    return sum(
        (bins == b).mean() * abs(right[bins == b].mean() - confidence[bins == b].mean()) for b in np.unique(bins)
    )


def test_the_models_are_worth_measuring(good: Evaluated, weak: Evaluated) -> None:
    accuracies = [(model.classes == model.labels).mean() for model in (good, weak)]
    assert 0.3 < accuracies[0] < 1 and accuracies[1] < 0.3
    assert NEVER_PREDICTED not in weak.classes


def test_metrics_over_all_examples(evaluated: Evaluated) -> None:
    labels, probabilities, measured = evaluated.labels, evaluated.probabilities, evaluated.metrics("candidate")
    rounded = probabilities.astype(np.float64)
    expected = {
        "example_count": len(labels),
        "accuracy": sklearn.metrics.accuracy_score(labels, evaluated.classes),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(labels, evaluated.classes),
        "macro_f1": sklearn.metrics.f1_score(
            labels, evaluated.classes, average="macro", labels=CLASSES, zero_division=0
        ),
        "top_2_accuracy": sklearn.metrics.top_k_accuracy_score(labels, rounded, k=2, labels=CLASSES),
        "loss": -np.log(np.maximum(rounded[np.arange(len(labels)), labels], 1e-7)).mean(),
        "expected_calibration_error": expected_calibration_error(labels, probabilities),
    }
    assert {name for name, class_id in measured if class_id is None} == set(expected)
    for name, value in expected.items():
        assert measured[name, None] == pytest.approx(value, abs=1e-5), name


def test_the_loss_of_the_good_model_is_scikit_learns(good: Evaluated) -> None:
    normalized = good.probabilities.astype(np.float64)
    normalized /= normalized.sum(axis=1, keepdims=True)
    loss = sklearn.metrics.log_loss(good.labels, normalized, labels=CLASSES)
    assert good.metrics("candidate")["loss", None] == pytest.approx(loss, abs=1e-5)


def test_metrics_per_class(evaluated: Evaluated) -> None:
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        evaluated.labels, evaluated.classes, labels=CLASSES, zero_division=0
    )
    measured = evaluated.metrics("candidate")
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert [measured[name, index] for index in CLASSES] == pytest.approx(list(values)), name


def test_metrics_of_the_examples_with_one_label(evaluated: Evaluated) -> None:
    recall = sklearn.metrics.recall_score(evaluated.labels, evaluated.classes, average=None, labels=CLASSES)
    for label in CLASSES:
        measured = evaluated.metrics("candidate", label)
        own = evaluated.labels == label
        assert measured["example_count", None] == own.sum()
        assert measured["accuracy", None] == pytest.approx(recall[label])
        loss = -np.log(np.maximum(evaluated.probabilities[own, label], 1e-7)).mean()
        assert measured["loss", None] == pytest.approx(loss, abs=1e-5)


def test_the_confusion_matrix(evaluated: Evaluated) -> None:
    expected = sklearn.metrics.confusion_matrix(evaluated.labels, evaluated.classes, labels=CLASSES)
    np.testing.assert_array_equal(evaluated.confusion_matrix("candidate"), expected)


def test_the_baseline_is_measured_by_the_same_rule(good: Evaluated, weak: Evaluated) -> None:
    measured, expected = weak.metrics("baseline"), good.metrics("candidate")
    assert set(measured) == set(expected)
    for key, value in expected.items():
        assert measured[key] == pytest.approx(value, abs=1e-6), key


def quality_of(evaluated: Evaluated, tiny: PreparedDataset) -> Quality:
    return read_quality(evaluated.uri, tiny.class_names)


def test_quality_tells_accuracy_by_class_name_and_that_of_the_baseline(
    good: Evaluated, weak: Evaluated, tiny: PreparedDataset
) -> None:
    quality = quality_of(weak, tiny)
    assert quality.accuracy == pytest.approx((weak.classes == weak.labels).mean())
    assert quality.baseline_accuracy == pytest.approx((good.classes == good.labels).mean())
    recall = sklearn.metrics.recall_score(weak.labels, weak.classes, average=None, labels=CLASSES)
    assert quality.class_accuracy == pytest.approx(dict(zip(tiny.class_names, recall, strict=True)))
    name, accuracy = quality.worst_class
    assert accuracy == pytest.approx(min(recall)) and quality.class_accuracy[name] == accuracy
    never = {name for name, value in zip(tiny.class_names, recall, strict=True) if value == 0}
    assert tiny.class_names[NEVER_PREDICTED] in never and set(quality.never_recognized) == never


def test_broken_bounds_name_bound_value_and_measured_value(
    good: Evaluated, weak: Evaluated, tiny: PreparedDataset
) -> None:
    assert not weak.blessed
    accuracies = [(model.classes == model.labels).mean() for model in (good, weak)]
    recall = sklearn.metrics.recall_score(weak.labels, weak.classes, average=None, labels=CLASSES)
    macro_f1 = sklearn.metrics.f1_score(weak.labels, weak.classes, average="macro", labels=CLASSES, zero_division=0)
    expected = {
        f"accuracy overall: {accuracies[1]:.4f}, required at least 0.5000",
        f"accuracy overall: drop against the baseline {accuracies[0] - accuracies[1]:.4f}, allowed at most 0.0100",
        f"balanced_accuracy overall: {recall.mean():.4f}, required at least 0.4500",
        f"macro_f1 overall: {macro_f1:.4f}, required at least 0.4000",
        *(
            f"accuracy class {name!r}: {value:.4f}, required at least 0.3000"
            for name, value in zip(tiny.class_names, recall, strict=True)
            if value < 0.3
        ),
    }
    assert len(expected) > 4
    broken = quality_of(weak, tiny).broken_bounds
    assert set(broken) == expected and len(broken) == len(expected)


def test_a_model_that_keeps_its_bounds_is_blessed(good: Evaluated, tiny: PreparedDataset) -> None:
    assert good.blessed and quality_of(good, tiny).broken_bounds == ()


def test_bounds_just_met_are_kept_without_a_baseline(
    tiny_run: TinyRun, good: Evaluated, tiny: PreparedDataset, tmp_path: Path
) -> None:
    recall = sklearn.metrics.recall_score(good.labels, good.classes, average=None, labels=CLASSES)
    settings = EvaluationSettings(
        min_accuracy=(good.classes == good.labels).mean(),
        min_class_accuracy=min(recall),
        max_accuracy_drop=0.0,
        baseline="none",
    )
    alone = evaluate(tmp_path, tiny_run, tiny_run.artifact("Trainer", "model"), settings)
    quality = quality_of(alone, tiny)
    assert alone.blessed and quality.broken_bounds == ()
    assert quality.baseline_accuracy is None
    assert quality.accuracy == pytest.approx(settings.min_accuracy)


def test_a_model_is_no_drop_against_itself(tiny_run: TinyRun, tiny: PreparedDataset, tmp_path: Path) -> None:
    model = tiny_run.artifact("Trainer", "model")
    settings = EvaluationSettings(min_accuracy=0.0, max_accuracy_drop=0.0)
    assert evaluate(tmp_path, tiny_run, model, settings, baseline=model).blessed


def allowed_drops(settings: EvaluationSettings, spans: tuple[int, ...]) -> dict[str, float]:
    """How far accuracy may fall below the baseline's: by span, and under "" of all examples."""
    [metrics] = evaluation_config(settings, 10, spans).metrics_specs
    return {
        sliced.feature_values["span"] if sliced.feature_values else "": -bound.threshold.change_threshold.absolute.value
        for metric in metrics.metrics
        for bound in metric.per_slice_thresholds
        for sliced in bound.slicing_specs
        if bound.threshold.HasField("change_threshold")
    }


@pytest.mark.parametrize(("given", "allowed"), [(0.02, 0.02), (0.0, 0.0), (None, 0.01)])
def test_the_accuracy_on_the_first_span_has_a_bound_of_its_own_or_that_of_the_whole(
    given: float | None, allowed: float
) -> None:
    settings = EvaluationSettings(min_accuracy=0.5, max_accuracy_drop=0.01, max_first_span_accuracy_drop=given)
    assert allowed_drops(settings, (1, 2)) == pytest.approx({"": 0.01, "1": allowed}, abs=1e-5)
    for spans in ((), (2, 3)):  # the first is not among them
        assert allowed_drops(settings, spans) == pytest.approx({"": 0.01}, abs=1e-5)
