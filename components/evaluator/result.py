"""Reads what TFMA measured and which bounds were broken: the only reader of the Evaluation artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import metrics_for_slice_pb2, validation_result_pb2
from tensorflow_model_analysis.writers import eval_config_writer

from mnist_tfx.components.evaluator.config import ACCURACY, BASELINE, CANDIDATE
from mnist_tfx.components.evaluator.quality import ClassQuality, ConfidenceBin, Overall, Quality, Scores, SpanQuality
from mnist_tfx.contract.names import SPAN

_Metrics = Mapping[tuple[str, str, int | None], float]  # by model, name and class number


def read_quality(evaluation_uri: str, class_names: Sequence[str], baseline_version: str | None = None) -> Quality:
    """Reads the Evaluation.

    Args:
        evaluation_uri: the artifact.
        class_names: of the dataset, by number.
        baseline_version: the version it was compared with; "" where that is the candidate itself.

    Raises:
        ValueError: it holds no metrics or no confusion matrix of a candidate.
    """
    by_slice = _metrics_by_slice(evaluation_uri)
    metrics = by_slice[()]
    # Where there is one model only, TFMA leaves its name out.
    candidate = CANDIDATE if (CANDIDATE, ACCURACY, None) in metrics else ""
    if (candidate, ACCURACY, None) not in metrics:
        raise ValueError(f"{evaluation_uri} holds no accuracy of model {CANDIDATE!r}")
    plots = _overall_plots(evaluation_uri, candidate)
    confusion = _confusion(plots, len(class_names))
    with_baseline = (BASELINE, ACCURACY, None) in metrics and baseline_version != ""
    return Quality(
        examples=int(metrics[candidate, "example_count", None]),
        overall=_overall(metrics, candidate),
        baseline=_overall(metrics, BASELINE) if with_baseline else None,
        baseline_version=baseline_version,
        classes=tuple(
            ClassQuality(
                name=name,
                examples=int(confusion[number].sum()),
                scores=_scores(metrics, candidate, number),
                baseline=_scores(metrics, BASELINE, number) if with_baseline else None,
            )
            for number, name in enumerate(class_names)
        ),
        confusion=confusion,
        broken_bounds=tuple(broken_bounds(evaluation_uri, class_names)),
        confidence=_confidence(plots),
        spans=tuple(_spans(by_slice, candidate, with_baseline=with_baseline)),
        **_bounds(evaluation_uri),
    )


def _metrics_by_slice(evaluation_uri: str) -> Mapping[tuple[tuple[str, int], ...], _Metrics]:
    """By the slice's features and their values; () is the whole."""
    slices: dict[tuple[tuple[str, int], ...], dict[tuple[str, str, int | None], float]] = {(): {}}
    for record in tfma.load_metrics(evaluation_uri):
        slice_key = tuple((key.column, key.int64_value) for key in record.slice_key.single_slice_keys)
        found = slices.setdefault(slice_key, {})
        for entry in record.metric_keys_and_values:
            if not entry.key.is_diff:
                number = entry.key.sub_key.class_id.value if entry.key.HasField("sub_key") else None
                found[entry.key.model_name, entry.key.name, number] = entry.value.double_value.value
    return slices


def _spans(
    by_slice: Mapping[tuple[tuple[str, int], ...], _Metrics], candidate: str, *, with_baseline: bool
) -> Iterator[SpanQuality]:
    for slice_key in sorted(by_slice):
        if slice_key and slice_key[0][0] == SPAN:
            metrics = by_slice[slice_key]
            yield SpanQuality(
                number=slice_key[0][1],
                examples=int(metrics[candidate, "example_count", None]),
                accuracy=metrics[candidate, ACCURACY, None],
                baseline_accuracy=metrics[BASELINE, ACCURACY, None] if with_baseline else None,
            )


def _overall_plots(evaluation_uri: str, model_name: str) -> list[metrics_for_slice_pb2.PlotData]:
    return [
        entry.value
        for record in tfma.load_plots(evaluation_uri)
        if not record.slice_key.single_slice_keys
        for entry in record.plot_keys_and_values
        if entry.key.model_name == model_name
    ]


def _overall(metrics: _Metrics, model: str) -> Overall:
    found: dict[str, Any] = {each.name: metrics.get((model, each.name, None)) for each in fields(Overall)}
    return Overall(**found)


def _scores(metrics: _Metrics, model: str, number: int) -> Scores:
    precision, recall, f1 = (metrics[model, name, number] for name in ("precision", "recall", "f1"))
    return Scores(precision, recall, f1)


def _confusion(plots: Sequence[metrics_for_slice_pb2.PlotData], num_classes: int) -> npt.NDArray[np.int64]:
    for plot in plots:
        for matrix in plot.multi_class_confusion_matrix_at_thresholds.matrices:
            confusion = np.zeros((num_classes, num_classes), np.int64)
            for entry in matrix.entries:
                confusion[entry.actual_class_id, entry.predicted_class_id] = round(entry.num_weighted_examples)
            return confusion
    raise ValueError("the evaluation holds no confusion matrix")


def _confidence(plots: Sequence[metrics_for_slice_pb2.PlotData]) -> tuple[ConfidenceBin, ...]:
    return tuple(
        ConfidenceBin(
            lower=bucket.lower_threshold_inclusive,
            upper=bucket.upper_threshold_exclusive,
            examples=round(bucket.num_weighted_examples.value),
            mean_confidence=_share(bucket.total_weighted_refined_prediction.value, bucket.num_weighted_examples.value),
            accuracy=_share(bucket.total_weighted_label.value, bucket.num_weighted_examples.value),
        )
        for plot in plots
        for bucket in plot.calibration_histogram_buckets.buckets
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def broken_bounds(evaluation_uri: str, class_names: Sequence[str]) -> list[str]:
    """Each bound that the candidate broke, in words; `class_names` by class number."""
    broken = []
    for validation in tfma.load_validation_result(evaluation_uri).metric_validations_per_slice:
        keys = validation.slice_key.single_slice_keys
        where = "overall"
        for key in keys:
            where = f"span {key.int64_value}" if key.column == SPAN else f"class {class_names[key.int64_value]!r}"
        broken += [_describe(failure, where) for failure in validation.failures]
    return broken


def _describe(failure: validation_result_pb2.ValidationFailure, where: str) -> str:
    threshold, measured = failure.metric_threshold, failure.metric_value.double_value.value
    if threshold.HasField("change_threshold"):
        bound = -threshold.change_threshold.absolute.value
        return (
            f"{failure.metric_key.name} {where}: drop against the baseline {-measured:.4f}, allowed at most {bound:.4f}"
        )
    bound = threshold.value_threshold.lower_bound.value
    return f"{failure.metric_key.name} {where}: {measured:.4f}, required at least {bound:.4f}"


def _bounds(evaluation_uri: str) -> dict[str, float]:
    """The bounds by which the model was judged, from the configuration that TFMA keeps beside its results."""
    config, *_ = eval_config_writer.load_eval_run(evaluation_uri)
    metrics = [metric for spec in config.metrics_specs for metric in spec.metrics] if config else []
    found = {}
    accuracy = [metric for metric in metrics if f'"{ACCURACY}"' in metric.config]
    for bound in (bound for metric in accuracy for bound in metric.per_slice_thresholds):
        sliced = {key for spec in bound.slicing_specs for key in (*spec.feature_keys, *spec.feature_values)}
        of = "span_" if SPAN in sliced else "class_" if sliced else ""
        if bound.threshold.HasField("value_threshold"):
            found[f"min_{of}accuracy"] = bound.threshold.value_threshold.lower_bound.value
        if bound.threshold.HasField("change_threshold"):
            name = f"max_{'first_' if of else ''}{of}accuracy_drop"
            found[name] = round(-bound.threshold.change_threshold.absolute.value, 5)
    return found
