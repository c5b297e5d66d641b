"""What TFMA measures on split test, and the bounds a model must keep to be pushed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from mnist_tfx.components.settings import EvaluationSettings
from mnist_tfx.contract.names import FIRST_SPAN, LABEL, PROBABILITIES, SERVING_DEFAULT, SPAN

CANDIDATE, BASELINE = "candidate", "baseline"
ACCURACY = "accuracy"
# Float noise between two evaluations of one and the same model must not count as a drop.
_EPSILON = 1e-6


def evaluation_config(
    settings: EvaluationSettings, num_classes: int, spans: Collection[int] = ()
) -> config_pb2.EvalConfig:
    """Metrics and thresholds over the whole split, over each label and over each of the spans by itself.

    Within the slice of one label, accuracy is that class's recall: the bound per class is on it.
    The most probable class counts as the prediction.
    """
    whole, of_class = config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[LABEL])
    slices, of_span = [whole, of_class], []
    if spans:
        slices.append(config_pb2.SlicingSpec(feature_keys=[SPAN]))
        of_span.append(_bounds(slices[-1], settings.min_span_accuracy))
    if FIRST_SPAN in spans and settings.baseline != "none":
        drop = settings.max_first_span_accuracy_drop
        first = config_pb2.SlicingSpec(feature_values={SPAN: str(FIRST_SPAN)})
        of_span.append(_bounds(first, None, settings.max_accuracy_drop if drop is None else drop))

    def figure(name: str, *bounds: config_pb2.PerSliceMetricThreshold) -> config_pb2.MetricConfig:
        # A MetricConfig's plain `threshold` would hold for every slice.
        arguments = f'"name": "{name}", "num_classes": {num_classes}'
        return config_pb2.MetricConfig(
            class_name="Figure", module=_METRICS, config=arguments, per_slice_thresholds=bounds
        )

    metrics = [
        config_pb2.MetricConfig(class_name="ExampleCount"),
        figure(
            ACCURACY,
            _bounds(whole, settings.min_accuracy, settings.max_accuracy_drop),
            _bounds(of_class, settings.min_class_accuracy),
            *of_span,
        ),
        figure("balanced_accuracy", _bounds(whole, settings.min_balanced_accuracy)),
        figure("macro_f1", _bounds(whole, settings.min_macro_f1)),
        config_pb2.MetricConfig(class_name="Figures", module=_METRICS, config=f'"num_classes": {num_classes}'),
    ]
    models = [config_pb2.ModelSpec(name=CANDIDATE, **_MODEL)]
    if settings.baseline != "none":
        models.append(config_pb2.ModelSpec(name=BASELINE, is_baseline=True, **_MODEL))
    return config_pb2.EvalConfig(
        model_specs=models,
        slicing_specs=slices,
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics, model_names=[model.name for model in models])],
    )


def _bounds(
    slices: config_pb2.SlicingSpec, min_value: float | None, max_drop: float | None = None
) -> config_pb2.PerSliceMetricThreshold:
    threshold = config_pb2.MetricThreshold()
    if min_value is not None:
        threshold.value_threshold.CopyFrom(config_pb2.GenericValueThreshold(lower_bound={"value": min_value}))
    if max_drop is not None:
        threshold.change_threshold.direction = config_pb2.HIGHER_IS_BETTER
        threshold.change_threshold.absolute.value = -max_drop - _EPSILON
    return config_pb2.PerSliceMetricThreshold(slicing_specs=[slices], threshold=threshold)


_METRICS = "mnist_tfx.components.evaluator.metrics"
_MODEL: dict[str, Any] = {"signature_name": SERVING_DEFAULT, "prediction_key": PROBABILITIES, "label_key": LABEL}
