"""The metrics of a classifier, for TFMA.

TFMA combines metrics example by example, in Python, and a combiner for each of precision, recall and F1 of each class
took most of an evaluation's time (`benchmarks/evaluation.py`). So one combiner keeps a tally of a slice's examples, and
every metric is derived from it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.metrics.multi_class_confusion_matrix_metrics import Matrices, MatrixEntryKey
from tensorflow_model_analysis.proto import metrics_for_slice_pb2

from mnist_tfx.components.evaluator.quality import CALIBRATION_BINS
from mnist_tfx.contract.names import PROBABILITIES

_MIN_PROBABILITY = 1e-7  # as Keras clips, so that the loss stays finite
_SCORE_BINS = 2000  # Keras' AUC has 200 thresholds of the probability, where most scores of a sure model are tied
_MAX_LOG_ODDS = -np.log(_MIN_PROBABILITY)
_ANY_CONFIDENCE = 0.0  # the threshold of TFMA's confusion matrix that counts every example
_Key: TypeAlias = metric_types.MetricKey | metric_types.PlotKey


class Figure(metric_types.Metric):
    """One figure by itself, so that it can have a bound: `accuracy`, `balanced_accuracy` or `macro_f1`.

    Accuracy is the share of examples whose most probable class is the label; the others are the means of the classes'
    accuracies and of their F1, whatever the classes' sizes. A class without examples does not count.
    """

    def __init__(self, num_classes: int, name: str) -> None:
        super().__init__(metric_util.merge_per_key_computations(_figure), name=name, num_classes=num_classes)


class Figures(metric_types.Metric):
    """Everything else.

    Of every class (sub_key `class_id`) `precision`, `recall` and `f1`, 0 where they are undefined; `loss` (cross
    entropy, nats), `top_2_accuracy` and `expected_calibration_error`; `confusion_matrix`, as TFMA's
    `MultiClassConfusionMatrixPlot` writes it; `reliability`, as its calibration plot: examples, their summed confidence
    and the right ones by bin of confidence. Of two classes also `auc` (area under the ROC curve) and `pr_auc` (average
    precision, of class 1), by the probability of class 1; not of a slice that has one class alone.
    """

    def __init__(self, num_classes: int, name: str = "figures") -> None:
        super().__init__(metric_util.merge_per_key_computations(_figures), name=name, num_classes=num_classes)


class Tally:
    """What a slice's examples add up to, as views of one float64 vector.

    `loss` [1]: summed cross entropy; `top_2` [1]: labels within the two most probable classes; `bins` [bins, 3]: by bin
    of confidence the examples, their summed confidence, and how many were right; `matrix` [actual, predicted];
    `scores` [label, bin]: of two classes the examples by bin of class 1's log odds, of others of size 0.
    """

    def __init__(self, vector: np.ndarray, num_classes: int) -> None:
        self.loss, self.top_2 = vector[0:1], vector[1:2]
        self.bins = vector[2 : 2 + 3 * CALIBRATION_BINS].reshape(CALIBRATION_BINS, 3)
        after = 2 + 3 * CALIBRATION_BINS + num_classes**2
        self.matrix = vector[2 + 3 * CALIBRATION_BINS : after].reshape(num_classes, num_classes)
        self.scores = vector[after:].reshape(num_classes, -1)

    @staticmethod
    def empty(num_classes: int) -> np.ndarray:
        """The vector of no examples."""
        scores = 2 * _SCORE_BINS if num_classes == 2 else 0
        return np.zeros(2 + 3 * CALIBRATION_BINS + num_classes**2 + scores)


def _figure(name: str, num_classes: int, model_name: str = "") -> metric_types.MetricComputations:
    key = metric_types.MetricKey(name=name, model_name=model_name)
    return _derived(key, num_classes, lambda tally: {key: float(_bounded(tally)[name])})


def _bounded(tally: Tally) -> dict[str, float]:
    by_class, present = _by_class(tally), tally.matrix.sum(axis=1) > 0
    return {
        "accuracy": np.trace(tally.matrix) / tally.matrix.sum(),
        "balanced_accuracy": by_class["recall"][present].mean(),
        "macro_f1": by_class["f1"][present].mean(),
    }


def _figures(name: str, num_classes: int, model_name: str = "") -> metric_types.MetricComputations:
    key = functools.partial(metric_types.MetricKey, model_name=model_name)

    def result(tally: Tally) -> dict[_Key, Any]:
        whole = {key(kind): float(value) for kind, value in _whole(tally).items()}
        by_class = {
            key(kind, sub_key=metric_types.SubKey(class_id=index)): float(value)
            for kind, values in _by_class(tally).items()
            for index, value in enumerate(values)
        }
        plots = {metric_types.PlotKey(kind, model_name): plot for kind, plot in _plots(tally).items()}
        return {**whole, **by_class, **plots}

    return _derived(key(name), num_classes, result)


def _whole(tally: Tally) -> dict[str, float]:
    counts, confidences, right = tally.bins.T
    total = counts.sum()
    return _areas(tally.scores) | {
        "loss": tally.loss[0] / total,
        "top_2_accuracy": tally.top_2[0] / total,
        "expected_calibration_error": np.abs(confidences - right).sum() / total,
    }


def _areas(scores: np.ndarray) -> dict[str, float]:
    """Areas under curves, of examples by label and bin of score: within a bin they are tied."""
    if not scores.size or not scores.sum(axis=1).all():
        return {}
    labels, bins = (each.ravel() for each in np.indices(scores.shape))
    of_examples = {"y_true": labels, "y_score": bins, "sample_weight": scores.ravel()}
    return {"auc": roc_auc_score(**of_examples), "pr_auc": average_precision_score(**of_examples)}


def _score_bin(first: float, second: float) -> int:
    """The bin of two classes' probabilities: evenly by log odds, so that those near 0 and 1 are told apart."""
    log_odds = np.log(max(second, _MIN_PROBABILITY)) - np.log(max(first, _MIN_PROBABILITY))
    return min(int((log_odds / _MAX_LOG_ODDS + 1) / 2 * _SCORE_BINS), _SCORE_BINS - 1)


def _by_class(tally: Tally) -> dict[str, np.ndarray]:
    right, predicted, actual = np.diag(tally.matrix), tally.matrix.sum(axis=0), tally.matrix.sum(axis=1)
    return {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, actual),
        "f1": _ratio(2 * right, predicted + actual),
    }


def _plots(tally: Tally) -> dict[str, Any]:
    cells = {MatrixEntryKey(*cell): tally.matrix[cell] for cell in zip(*np.nonzero(tally.matrix), strict=True)}
    reliability = metrics_for_slice_pb2.CalibrationHistogramBuckets()
    for index, (count, confidence, right) in enumerate(tally.bins):
        reliability.buckets.add(
            lower_threshold_inclusive=index / CALIBRATION_BINS,
            upper_threshold_exclusive=(index + 1) / CALIBRATION_BINS,
            num_weighted_examples={"value": count},
            total_weighted_label={"value": right},
            total_weighted_refined_prediction={"value": confidence},
        )
    return {
        "confusion_matrix": Matrices({_ANY_CONFIDENCE: cells}).to_proto().multi_class_confusion_matrix_at_thresholds,
        "reliability": reliability,
    }


def _derived(
    key: metric_types.MetricKey, num_classes: int, result: Callable[[Tally], dict[_Key, Any]]
) -> metric_types.MetricComputations:
    """Metrics from the tally of a slice; asked for by several, it is made once. TFMA tells them apart by `key`."""
    tally = metric_types.MetricKey(name="_tally", model_name=key.model_name)  # TFMA does not write what begins with _
    return [
        metric_types.MetricComputation(
            keys=[tally], preprocessors=None, combiner=_TallyCombiner(tally, num_classes, key.model_name)
        ),
        metric_types.DerivedMetricComputation(
            keys=[key], result=lambda metrics: result(Tally(metrics[tally], num_classes))
        ),
    ]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


class _TallyCombiner(beam.CombineFn):
    """Adds examples to a `Tally`, whose vector is the accumulator."""

    def __init__(self, key: metric_types.MetricKey, num_classes: int, model_name: str) -> None:
        self._key, self._num_classes, self._model_name = key, num_classes, model_name

    def create_accumulator(self) -> np.ndarray:
        return Tally.empty(self._num_classes)

    def add_input(self, accumulator: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        # TFMA's to_label_prediction_example_weight takes ten times as long as the rest, for forms that we do not have.
        label, probabilities = self._of_model(element.labels), self._of_model(element.predictions)[PROBABILITIES]
        actual, predicted = int(label.item()), int(probabilities.argmax())
        confidence = float(probabilities[predicted])
        tally = Tally(accumulator, self._num_classes)
        tally.loss -= np.log(max(float(probabilities[actual]), _MIN_PROBABILITY))
        tally.top_2 += np.count_nonzero(probabilities > probabilities[actual]) < 2
        tally.bins[min(int(confidence * CALIBRATION_BINS), CALIBRATION_BINS - 1)] += (
            1.0,
            confidence,
            predicted == actual,
        )
        tally.matrix[actual, predicted] += 1
        if tally.scores.size:
            tally.scores[actual, _score_bin(*map(float, probabilities))] += 1
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, accumulator: np.ndarray) -> dict[metric_types.MetricKey, np.ndarray]:
        return {self._key: accumulator}

    def _of_model(self, values: Any) -> Any:
        """TFMA keeps values by model where there are several."""
        return values[self._model_name] if self._model_name and isinstance(values, Mapping) else values
