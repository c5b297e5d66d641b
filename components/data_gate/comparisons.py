"""How far distributions are apart: each split from split train (skew), and from the live model's data (drift)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mnist_tfx.components.data_gate.findings import Distance
from mnist_tfx.contract.names import TRAIN

Statistics = Mapping[str, statistics_pb2.DatasetFeatureStatisticsList]  # by split
_MEASURES = {"L_INFTY": "L-infinity", "JENSEN_SHANNON_DIVERGENCE": "Jensen-Shannon divergence"}


@dataclass(frozen=True)
class Comparison:
    """What TFDV says of two sets of statistics."""

    kind: Literal["skew", "drift"]
    between: str
    anomalies: anomalies_pb2.Anomalies

    def distances(self) -> Iterator[Distance]:
        """Every measured distance with the most that the schema allows."""
        for info in self.anomalies.drift_skew_info:
            for measured in (*info.skew_measurements, *info.drift_measurements):
                name = type(measured).Type.Name(measured.type)
                feature, measure = ".".join(info.path.step), _MEASURES.get(name, name)
                yield Distance(self.kind, self.between, feature, measure, measured.value, measured.threshold)


def skew_comparisons(statistics: Statistics, schema: schema_pb2.Schema) -> Iterator[Comparison]:
    """Every other split against split train, by the schema's skew comparators."""
    for split, other in statistics.items():
        if split != TRAIN:
            found = tfdv.validate_statistics(statistics[TRAIN], schema, serving_statistics=other)
            yield Comparison("skew", f"{TRAIN} against {split}", found)


def drift_comparisons(statistics: Statistics, live: Statistics, schema: schema_pb2.Schema) -> Iterator[Comparison]:
    """Every split against the same of the live model's data, by the schema's drift comparators."""
    for split, now in statistics.items():
        if split in live:
            found = tfdv.validate_statistics(now, schema, previous_statistics=live[split])
            yield Comparison("drift", f"{split} against the live model's data", found)
