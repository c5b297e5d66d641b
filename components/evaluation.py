"""What TFMA measures on split test, and the bounds a model must keep to be pushed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tensorflow_model_analysis.proto import config_pb2

from components.features import LABEL, PROBABILITIES, SERVING_DEFAULT
from components.settings import EvaluationSettings

CANDIDATE, BASELINE = "candidate", "baseline"
ACCURACY = "accuracy"
# Float noise between two evaluations of one and the same model must not count as a drop.
_EPSILON = 1e-6


def evaluation_config(settings: EvaluationSettings, num_classes: int) -> config_pb2.EvalConfig:
    """Metrics and thresholds over the whole split and over each label by itself.

    Within the slice of one label, accuracy is that class's recall: the bound per class is on it.
    Precision, recall and F1 per class count the most probable class as the prediction (`top_k=1`).
    """
    per_class = [
        config_pb2.MetricConfig(class_name=name, config=f'"name": "{name.lower()}", "class_id": {index}, "top_k": 1')
        for index in range(num_classes)
        for name in ("Precision", "Recall", "F1Score")
    ]
    accuracy = config_pb2.MetricConfig(
        class_name="SparseCategoricalAccuracy",
        config=f'"name": "{ACCURACY}"',
        threshold=config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": settings.min_accuracy}),
            change_threshold=config_pb2.GenericChangeThreshold(
                direction=config_pb2.MetricDirection.HIGHER_IS_BETTER,
                absolute={"value": -settings.max_accuracy_drop - _EPSILON},
            ),
        ),
        per_slice_thresholds=[
            config_pb2.PerSliceMetricThreshold(
                slicing_specs=[config_pb2.SlicingSpec(feature_keys=[LABEL])],
                threshold=config_pb2.MetricThreshold(
                    value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": settings.min_class_accuracy})
                ),
            )
        ],
    )
    metrics = [
        config_pb2.MetricConfig(class_name="ExampleCount"),
        accuracy,
        config_pb2.MetricConfig(class_name="SparseTopKCategoricalAccuracy", config='"name": "top_2_accuracy", "k": 2'),
        config_pb2.MetricConfig(class_name="SparseCategoricalCrossentropy", config='"name": "loss"'),
        config_pb2.MetricConfig(class_name="MultiClassConfusionMatrixPlot", config='"name": "confusion_matrix"'),
        *per_class,
    ]
    models = [config_pb2.ModelSpec(name=CANDIDATE, **_MODEL)]
    if settings.baseline != "none":
        models.append(config_pb2.ModelSpec(name=BASELINE, is_baseline=True, **_MODEL))
    return config_pb2.EvalConfig(
        model_specs=models,
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[LABEL])],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics, model_names=[model.name for model in models])],
    )


_MODEL: dict[str, Any] = {"signature_name": SERVING_DEFAULT, "prediction_key": PROBABILITIES, "label_key": LABEL}
