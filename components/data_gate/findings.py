"""What the data gate finds wrong: from ExampleValidator's anomalies, and by comparing statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tensorflow_metadata.proto.v0 import anomalies_pb2

if TYPE_CHECKING:
    from mnist_tfx.components.data_gate.comparisons import Comparison

_WHOLE_SPLIT = "(whole split)"


@dataclass(frozen=True)
class Finding:
    """One reason to reject the data."""

    split: str
    feature: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"split {self.split}, feature {self.feature}: {self.reason}\n    remedy: {self.remedy}"


@dataclass(frozen=True)
class Distance:
    """How far two distributions of one feature are apart."""

    kind: Literal["drift", "skew"]  # drift: against the live model's data; skew: between two splits
    between: str  # such as "train against test"
    feature: str
    measure: str  # such as "L-infinity"
    value: float
    bound: float  # the most that the schema allows

    @property
    def within_bound(self) -> bool:
        """Whether the schema allows it."""
        return self.value <= self.bound


def anomaly_findings(split: str, anomalies: anomalies_pb2.Anomalies, schema_name: str) -> Iterator[Finding]:
    """Findings of one split, one for each reason of each anomaly."""
    if anomalies.data_missing:  # all that TFDV says of an empty split
        missing = anomalies_pb2.AnomalyInfo.DATASET_LOW_NUM_EXAMPLES
        yield Finding(split, _WHOLE_SPLIT, "it holds no examples", _remedy(missing, schema_name))
    named = sorted(anomalies.anomaly_info.items())
    if anomalies.HasField("dataset_anomaly_info"):
        named.append((_WHOLE_SPLIT, anomalies.dataset_anomaly_info))
    for path, info in named:
        for reason in info.reason:
            yield Finding(
                split, path, reason.description or reason.short_description, _remedy(reason.type, schema_name)
            )
        if not info.reason:
            yield Finding(split, path, info.description, _remedy(info.UNKNOWN_TYPE, schema_name))


def comparison_findings(comparison: Comparison, schema_name: str) -> Iterator[Finding]:
    """What a comparison found too far apart; the rest is ExampleValidator's to report, and would come twice."""
    for path, info in sorted(comparison.anomalies.anomaly_info.items()):
        for reason in info.reason:
            name = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
            if name.startswith("COMPARATOR_"):
                remedy = _remedy(reason.type, schema_name)
                if comparison.kind == "drift":
                    remedy = f"{remedy} To accept the new data as they are: --set data.drift_reference=none."
                yield Finding(comparison.between, path, reason.description, remedy)


def _remedy(kind: anomalies_pb2.AnomalyInfo.Type.ValueType, schema_name: str) -> str:
    name = anomalies_pb2.AnomalyInfo.Type.Name(kind)
    schema = f"schemas/{schema_name}/schema.pbtxt (a project's own: schema.pbtxt beside its recipe)"
    if name == "DATASET_LOW_NUM_EXAMPLES":
        return (
            "check [data.splits] in the recipe: the split reads nothing, or too little. If these are all the data that "
            f"there are, lower min_examples_count in {schema}."
        )
    if name in ("FEATURE_TYPE_LOW_UNIQUE", "FEATURE_TYPE_HIGH_UNIQUE"):
        return f"a class is missing or there is one too many: correct the data, or unique_constraints in {schema}."
    if name == "SCHEMA_NEW_COLUMN":
        return f"`mnist-tfx schema update` adds `span`, which added images bring; add any other feature to {schema}."
    if name.startswith("COMPARATOR_"):
        return f"shares of classes differ: correct the data or the splits, or raise the comparator's bound in {schema}."
    if name in ("FEATURE_TYPE_NOT_PRESENT", "FEATURE_TYPE_LOW_FRACTION_PRESENT", "SCHEMA_MISSING_COLUMN"):
        return "the feature is missing in some or all examples: correct the data."
    return f"correct the data; if they are right, review and edit {schema}."
