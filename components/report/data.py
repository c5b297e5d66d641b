"""Section "data": statistics, anomalies and the data gate's report; samples and pixel values from the Examples."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.utils import io_utils

from mnist_tfx.components.data_gate.comparisons import Comparison, skew_comparisons
from mnist_tfx.components.data_gate.executor import REPORT, read_anomalies, read_statistics
from mnist_tfx.components.data_gate.findings import Distance, Finding, comparison_findings
from mnist_tfx.components.report.content import Data, Sample, SplitData
from mnist_tfx.components.report.run import Run
from mnist_tfx.components.transform.preprocessing import decode_images
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.names import IMAGE, LABEL, SPLITS, TRAIN

_SAMPLES = 25
_SAMPLED_FROM = 500  # the first examples of split train
_COUNTED = 10_000  # images of a split whose pixels are counted, or up to twice as many: more would not change the chart
_BATCH = 256
FEATURES = {IMAGE: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}


def collect_data(run: Run) -> Data | None:
    """What is known of the data; None where there are no Examples."""
    examples = run.artifact("TfdsExampleGen", "examples")
    if examples is None:
        return None
    statistics = run.artifact("StatisticsGen", "statistics")
    read = read_statistics(statistics.uri, list(SPLITS)) if statistics else {}
    blessing = run.artifact("DataGate", "blessing")
    report = _gate_report(blessing.uri) if blessing else {}
    comparisons = [] if report or not read else _comparisons(run, read)
    distances = [Distance(**each) for each in report.get("distances", ())]
    return Data(
        class_names=run.plan.class_names,
        splits=tuple(
            _split(examples.uri, split, read.get(split), run) for split in SPLITS if example_files(examples.uri, split)
        ),
        samples=_samples(example_files(examples.uri, TRAIN), run.plan.image_shape),
        findings=_findings(run, comparisons),
        distances=(*distances, *(each for found in comparisons for each in found.distances())),
        compared_with_live=report.get("compared_with_live"),
    )


def example_files(examples_uri: str, split: str) -> list[str]:
    """The gzipped TFRecord files of a split, in the order in which others read them."""
    return sorted(tf.io.gfile.glob(os.path.join(examples_uri, f"Split-{split}", "*")))


def _gate_report(blessing_uri: str) -> dict[str, Any]:
    with tf.io.gfile.GFile(os.path.join(blessing_uri, REPORT)) as file:
        return dict(json.load(file))


def _comparisons(run: Run, statistics: Any) -> list[Comparison]:
    """What the data gate compared before it rejected: it leaves no report then. The drift is in its message only."""
    schema = run.artifact("ImportSchemaGen", "schema")
    if schema is None or TRAIN not in statistics:
        return []
    read = io_utils.parse_pbtxt_file(io_utils.get_only_uri_in_dir(schema.uri), schema_pb2.Schema())
    return list(skew_comparisons(statistics, read))


def _findings(run: Run, comparisons: Sequence[Comparison]) -> tuple[Finding, ...] | None:
    anomalies = run.artifact("ExampleValidator", "anomalies")
    if anomalies is None:
        return None
    splits = [split for split in SPLITS if tf.io.gfile.isdir(os.path.join(anomalies.uri, f"Split-{split}"))]
    found = read_anomalies(anomalies.uri, splits, run.dataset)
    for comparison in comparisons:
        found += comparison_findings(comparison, run.dataset)
    return tuple(found)


def _split(
    examples_uri: str, name: str, statistics: statistics_pb2.DatasetFeatureStatisticsList | None, run: Run
) -> SplitData:
    files = example_files(examples_uri, name)
    examples = int(statistics.datasets[0].num_examples) if statistics else _count(files)
    intensity, images = _intensity(files, run.plan.image_shape, every=max(1, examples // _COUNTED))
    return SplitData(
        name=name,
        examples=examples,
        class_counts=_class_counts(statistics, len(run.plan.class_names)) if statistics else (),
        intensity=intensity if images else None,
        intensity_images=images,
    )


def _count(files: Sequence[str]) -> int:
    batches = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(4096).as_numpy_iterator()
    return sum(map(len, batches))


def _class_counts(statistics: statistics_pb2.DatasetFeatureStatisticsList, num_classes: int) -> tuple[int, ...]:
    counts = [0] * num_classes
    for feature in statistics.datasets[0].features:
        if list(feature.path.step) == [LABEL]:
            for bucket in feature.string_stats.rank_histogram.buckets:
                if bucket.label.isdecimal() and int(bucket.label) < num_classes:
                    counts[int(bucket.label)] = round(bucket.sample_count)
    return tuple(counts)


def _intensity(
    files: Sequence[str], image_shape: tuple[int, int, int], *, every: int
) -> tuple[npt.NDArray[np.uint64], int]:
    """Pixels by value in each image of so many, and the number of images counted.

    Batches with one that cannot be decoded are left out.
    """

    @tf.autograph.experimental.do_not_convert
    def count(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = decode_images(tf.io.parse_example(records, {IMAGE: FEATURES[IMAGE]})[IMAGE], image_shape)
        values = tf.cast(tf.reshape(images, [-1]), tf.int32)
        return tf.math.bincount(values, minlength=256, maxlength=256, dtype=tf.int64), tf.shape(images)[0]

    records = tf.data.TFRecordDataset(files, compression_type="GZIP").shard(every, 0).batch(_BATCH)
    total, images = np.zeros(256, np.uint64), 0
    counted = records.map(count, num_parallel_calls=cpu_count()).ignore_errors()
    for values, number in counted.as_numpy_iterator():
        total += values.astype(np.uint64)
        images += int(number)
    return total, images


def _samples(files: Sequence[str], image_shape: tuple[int, int, int]) -> tuple[Sample, ...]:
    """Some of the first examples, of every class in turn."""
    waiting: dict[int, list[Sample]] = {}

    @tf.autograph.experimental.do_not_convert
    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, FEATURES)
        return decode_images(example[IMAGE][tf.newaxis], image_shape)[0], example[LABEL]

    records = tf.data.TFRecordDataset(files, compression_type="GZIP").take(_SAMPLED_FROM)
    # What cannot be decoded is the data gate's to report.
    for image, label in records.map(decode, num_parallel_calls=cpu_count()).ignore_errors().as_numpy_iterator():
        if len(of_class := waiting.setdefault(int(label), [])) < _SAMPLES:
            of_class.append(Sample(image, int(label)))
    samples: list[Sample] = []
    while any(waiting.values()) and len(samples) < _SAMPLES:
        samples += [waiting[label].pop(0) for label in sorted(waiting) if waiting[label]]
    return tuple(samples[:_SAMPLES])
