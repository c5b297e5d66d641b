"""What TFDV says of logged images, labelled as the model answered: the schema's anomalies and comparators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mnist_tfx.components.data_gate.comparisons import Comparison
from mnist_tfx.components.data_gate.findings import anomaly_findings
from mnist_tfx.components.monitoring.checks import Check
from mnist_tfx.components.monitoring.distances import largest_difference_bound
from mnist_tfx.components.monitoring.reference import Reference
from mnist_tfx.contract.names import IMAGE, LABEL


def check_schema(
    images: npt.NDArray[np.uint8],
    classes: npt.NDArray[np.int64],
    reference: Reference,
    schema: schema_pb2.Schema,
    trained_on: statistics_pb2.DatasetFeatureStatisticsList | None,
    chance: float,
) -> Iterator[Check]:
    """One check for each distance that a drift comparator of the schema asks for, one for each anomaly.

    Args:
        images: as the model saw them, uint8 [n, height, width, channels].
        classes: the model's answers, by number, int64 [n].
        reference: of the version.
        schema: the curated one.
        trained_on: statistics of split test, which lie in the version; None: there are none.
        chance: that a comparator is passed in traffic like split test.
    """
    # The number of examples, and whether each class occurs, are a matter of how many were asked.
    fair = schema_pb2.Schema()
    fair.CopyFrom(schema)
    fair.ClearField("dataset_constraints")
    by_chance = largest_difference_bound(reference.classes, len(classes), chance)
    for feature in fair.feature:
        feature.ClearField("unique_constraints")
        feature.ClearField("skew_comparator")
        if feature.drift_comparator.HasField("infinity_norm"):
            norm = feature.drift_comparator.infinity_norm
            norm.threshold = max(norm.threshold, by_chance)
    options = tfdv.StatsOptions(schema=fair, enable_semantic_domain_stats=True)  # for the schema's image_domain
    examples = pd.DataFrame({IMAGE: list(_as_png(tf.constant(images)).numpy()), LABEL: classes})
    statistics = tfdv.generate_statistics_from_dataframe(examples, options)
    anomalies = tfdv.validate_statistics(statistics, fair, previous_statistics=trained_on)
    for measured in Comparison("drift", "split test", anomalies).distances():
        name = f"{measured.feature} in the schema"
        yield Check(name, measured.value, measured.bound, f"{measured.measure} (TFDV)")
    for finding in anomaly_findings("", anomalies, ""):
        if finding.feature != LABEL:
            yield Check(f"{finding.feature} in the schema", 1.0, 0.0, "anomaly (TFDV)", finding.reason)


@tf.function(autograph=False, reduce_retracing=True)
def _as_png(images: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)
