"""The metrics of a classifier, for TFMA.

TFMA combines metrics example by example, in Python: a combiner for each of precision, recall and F1 of each class took
most of an evaluation's time (`benchmarks/evaluation.py`). All that counts right and wrong is therefore derived from one
confusion matrix, TFMA's own, and all that looks at probabilities comes from one combiner.
"""

from __future__ import annotations

from collections.abc import Iterable

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.metrics.multi_class_confusion_matrix_metrics import (
    Matrices,
    multi_class_confusion_matrices,
)
from tensorflow_model_analysis.proto import config_pb2

# Guo et al., "On Calibration of Modern Neural Networks" (2017), section 3: 15 bins.
CALIBRATION_BINS = 15
_MIN_PROBABILITY = 1e-7  # as Keras clips, so that the loss stays finite
_THRESHOLD = 0.0


class Accuracy(metric_types.Metric):
    """Share of examples whose most probable class is the label."""

    def __init__(self, name: str = "accuracy") -> None:
        super().__init__(metric_util.merge_per_key_computations(_accuracy), name=name)


class PerClass(metric_types.Metric):
    """Precision, recall and F1 of every class (sub_key `class_id`), 0 where they are undefined."""

    def __init__(self, num_classes: int, name: str = "per_class") -> None:
        super().__init__(metric_util.merge_per_key_computations(_per_class), name=name, num_classes=num_classes)


class ProbabilityQuality(metric_types.Metric):
    """`loss` (cross entropy, nats), `top_2_accuracy` and `expected_calibration_error`."""

    def __init__(self, name: str = "probability_quality") -> None:
        super().__init__(metric_util.merge_per_key_computations(_probability_quality), name=name)


def _accuracy(
    name: str, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    computations, matrix_key = _matrix(eval_config, model_name)
    key = metric_types.MetricKey(name=name, model_name=model_name)

    def result(metrics: dict[metric_types.MetricKey, Matrices]) -> dict[metric_types.MetricKey, float]:
        entries = metrics[matrix_key][_THRESHOLD]
        right = sum(count for cell, count in entries.items() if cell.actual_class_id == cell.predicted_class_id)
        return {key: right / sum(entries.values())}

    return [*computations, metric_types.DerivedMetricComputation(keys=[key], result=result)]


def _per_class(
    name: str, num_classes: int, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    computations, matrix_key = _matrix(eval_config, model_name)
    keys = {
        (kind, index): metric_types.MetricKey(
            name=kind, model_name=model_name, sub_key=metric_types.SubKey(class_id=index)
        )
        for index in range(num_classes)
        for kind in ("precision", "recall", "f1")
    }

    def result(metrics: dict[metric_types.MetricKey, Matrices]) -> dict[metric_types.MetricKey, float]:
        matrix = np.zeros((num_classes, num_classes))  # [actual, predicted]
        for cell, count in metrics[matrix_key][_THRESHOLD].items():
            matrix[cell.actual_class_id, cell.predicted_class_id] = count
        right, predicted, actual = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
        values = {
            "precision": _ratio(right, predicted),
            "recall": _ratio(right, actual),
            "f1": _ratio(2 * right, predicted + actual),
        }
        return {key: float(values[kind][index]) for (kind, index), key in keys.items()}

    return [*computations, metric_types.DerivedMetricComputation(keys=list(keys.values()), result=result)]


def _matrix(
    eval_config: config_pb2.EvalConfig | None, model_name: str
) -> tuple[metric_types.MetricComputations, metric_types.MetricKey]:
    """TFMA's confusion matrix; asked for by several metrics, it is computed once."""
    computations = multi_class_confusion_matrices(
        thresholds=[_THRESHOLD], eval_config=eval_config, model_name=model_name
    )
    return computations, computations[-1].keys[-1]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _probability_quality(
    name: str, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    keys = [
        metric_types.MetricKey(name=kind, model_name=model_name)
        for kind in ("loss", "top_2_accuracy", "expected_calibration_error")
    ]
    combiner = _ProbabilityCombiner(keys, eval_config, model_name)
    return [metric_types.MetricComputation(keys=keys, preprocessors=None, combiner=combiner)]


class _ProbabilityCombiner(beam.CombineFn):
    """Sums over examples; an accumulator is float64 [2 + 3 * bins].

    It holds the summed loss, the hits within the two most probable classes, and by bin of confidence the number of
    examples, their summed confidence, and how many were right.
    """

    def __init__(
        self, keys: list[metric_types.MetricKey], eval_config: config_pb2.EvalConfig | None, model_name: str
    ) -> None:
        self._keys, self._eval_config, self._model_name = keys, eval_config, model_name

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(2 + 3 * CALIBRATION_BINS)

    def add_input(self, accumulator: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        label, probabilities, _ = next(
            metric_util.to_label_prediction_example_weight(
                element, eval_config=self._eval_config, model_name=self._model_name, flatten=False
            )
        )
        actual, predicted = int(np.asarray(label).item()), int(probabilities.argmax())
        confidence = float(probabilities[predicted])
        accumulator[0] -= np.log(max(float(probabilities[actual]), _MIN_PROBABILITY))
        accumulator[1] += (probabilities > probabilities[actual]).sum() < 2
        at = 2 + 3 * min(int(confidence * CALIBRATION_BINS), CALIBRATION_BINS - 1)
        accumulator[at : at + 3] += (1.0, confidence, predicted == actual)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, accumulator: np.ndarray) -> dict[metric_types.MetricKey, float]:
        counts, confidences, right = accumulator[2:].reshape(CALIBRATION_BINS, 3).T
        total = counts.sum()
        values = (accumulator[0], accumulator[1], np.abs(confidences - right).sum())
        return {key: float(value / total) for key, value in zip(self._keys, values, strict=True)}
