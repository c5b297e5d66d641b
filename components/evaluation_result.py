"""Reads what TFMA found: the candidate's quality, and each bound it broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import validation_result_pb2

from mnist_tfx.components.evaluation import ACCURACY, BASELINE, CANDIDATE
from mnist_tfx.contract.names import LABEL


@dataclass(frozen=True)
class Quality:
    """How good a model is on split test."""

    accuracy: float
    class_accuracy: dict[str, float]  # by class name: the share of the class's examples that are classified right
    baseline_accuracy: float | None  # None: evaluated without a baseline
    broken_bounds: tuple[str, ...]  # in words; empty if the model is good enough

    @property
    def worst_class(self) -> tuple[str, float]:
        """Name and accuracy of the class that is classified worst."""
        return min(self.class_accuracy.items(), key=lambda item: item[1])


def read_quality(evaluation_uri: str, class_names: Sequence[str]) -> Quality:
    """Reads the Evaluation artifact.

    Raises:
        ValueError: it holds no metrics of a candidate.
    """
    # Where there is one model only, TFMA leaves its name out.
    accuracy = _accuracies(evaluation_uri, CANDIDATE) or _accuracies(evaluation_uri, "")
    if () not in accuracy:
        raise ValueError(f"{evaluation_uri} holds no accuracy of model {CANDIDATE!r}")
    baseline = _accuracies(evaluation_uri, BASELINE)
    return Quality(
        accuracy=accuracy[()],
        class_accuracy={
            class_names[key[0][1]]: value for key, value in sorted(accuracy.items()) if key and key[0][0] == LABEL
        },
        baseline_accuracy=baseline.get(()),
        broken_bounds=tuple(broken_bounds(evaluation_uri, class_names)),
    )


def _accuracies(evaluation_uri: str, model_name: str) -> dict[tuple, float]:
    """Accuracy by slice key."""
    found = {}
    for record in tfma.load_metrics(evaluation_uri):
        slice_key = tuple(
            (single.column, getattr(single, single.WhichOneof("kind"))) for single in record.slice_key.single_slice_keys
        )
        for entry in record.metric_keys_and_values:
            if entry.key.name == ACCURACY and entry.key.model_name == model_name and not entry.key.is_diff:
                found[slice_key] = entry.value.double_value.value
    return found


def broken_bounds(evaluation_uri: str, class_names: Sequence[str]) -> list[str]:
    """Each bound that the candidate broke, in words; `class_names` by class number."""
    broken = []
    for validation in tfma.load_validation_result(evaluation_uri).metric_validations_per_slice:
        keys = validation.slice_key.single_slice_keys
        where = f"class {class_names[keys[0].int64_value]!r}" if keys else "overall"
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
