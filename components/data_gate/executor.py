"""Executor and driver of `DataGate`."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import Artifact, artifact_utils
from tfx.utils import io_utils

from mnist_tfx.components.data_gate.comparisons import Statistics, drift_comparisons, skew_comparisons
from mnist_tfx.components.data_gate.findings import Finding, anomaly_findings, comparison_findings
from mnist_tfx.components.data_gate.images import CheckImages, ImageFile
from mnist_tfx.components.live.driver import SurroundingsDriver
from mnist_tfx.components.live.model import live_version
from mnist_tfx.components.step import Artifacts, Step
from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.contract.names import DATA_STATISTICS_PATH

# In the DataBlessing: {"dataset", "examples": {split: count}, "compared_with_live": bool, "distances": [...] (the
# fields of `findings.Distance`)}
REPORT = "report.json"
_STATISTICS_FILE = "FeatureStats.pb"
_ANOMALIES_FILE = "SchemaDiff.pb"


class Executor(Step, BaseBeamExecutor):
    """Collects every finding before it fails, so that one run shows all there is to correct."""

    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Judges the data.

        Raises:
            DataRejected: there is an anomaly; lists split, feature, reason and remedy of each.
        """
        dataset, examples = parameters["dataset"], inputs["examples"]
        splits = artifact_utils.decode_split_names(examples.split_names)
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(inputs["schema"].uri))
        statistics = read_statistics(inputs["statistics"].uri, splits)
        live = read_statistics(_reference(parameters), splits)

        comparisons = [*skew_comparisons(statistics, schema), *drift_comparisons(statistics, live, schema)]
        findings = read_anomalies(inputs["anomalies"].uri, splits, dataset)
        for comparison in comparisons:
            findings += comparison_findings(comparison, dataset)
        findings += self._image_findings(examples, splits, tuple(json.loads(parameters["image_shape"])))
        if findings:
            listed = "\n".join(f"  {finding}" for finding in findings)
            count = "1 anomaly" if len(findings) == 1 else f"{len(findings)} anomalies"
            raise DataRejected(f"the data gate rejected {dataset}: {count}, nothing was trained.\n{listed}")

        counts = {split: int(statistics[split].datasets[0].num_examples) for split in splits}
        report = {
            "dataset": dataset,
            "examples": counts,
            "compared_with_live": bool(live),
            "distances": [vars(distance) for comparison in comparisons for distance in comparison.distances()],
        }
        blessing = outputs["blessing"]
        with tf.io.gfile.GFile(os.path.join(blessing.uri, REPORT), "w") as file:
            json.dump(report, file)
        blessing.set_string_custom_property("examples", json.dumps(counts))

    def _image_findings(self, examples: Artifact, splits: list[str], shape: tuple[int, int, int]) -> list[Finding]:
        files = [
            ImageFile(split, path)
            for split in splits
            for path in sorted(tf.io.gfile.glob(os.path.join(artifact_utils.get_split_uri([examples], split), "*")))
        ]
        findings: list[Finding] = []
        # Few and small: they come back through a file, as Beam has no other way that every runner knows.
        output = os.path.join(self._get_tmp_dir(), f"bad-images-{uuid.uuid4().hex}")
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Files" >> beam.Create(files)
                | "Spread" >> beam.Reshuffle()
                | "CheckImages" >> beam.ParDo(CheckImages(shape))
                | "ToJson" >> beam.Map(lambda finding: json.dumps(vars(finding)))
                | "Write" >> beam.io.WriteToText(output)
            )
        for path in sorted(tf.io.gfile.glob(output + "*")):
            with tf.io.gfile.GFile(path) as file:
                findings += [Finding(**json.loads(line)) for line in file]
        return sorted(findings, key=lambda finding: (splits.index(finding.split), finding.reason))


class Driver(SurroundingsDriver):
    """Other data under the live model are another comparison. The very data at hand are none: nothing has drifted."""

    def surroundings(self, inputs: Artifacts, parameters: Mapping[str, Any]) -> str:
        here = inputs["statistics"]
        splits = artifact_utils.decode_split_names(here.split_names)
        live = read_statistics(_reference(parameters), splits)
        if not live or live == read_statistics(here.uri, splits):
            return ""
        content = {split: found.SerializeToString(deterministic=True) for split, found in live.items()}
        return hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()


def _reference(parameters: Mapping[str, Any]) -> str:
    """The folder of the statistics of the live model's data; empty where there is none, or none is wanted."""
    live = live_version(parameters["serving_dir"]) if parameters["drift_reference"] == "live" else None
    return os.path.join(live.folder, DATA_STATISTICS_PATH) if live else ""


def read_anomalies(uri: str, splits: list[str], dataset: str) -> list[Finding]:
    """What ExampleValidator found, from its ExampleAnomalies."""
    findings: list[Finding] = []
    for split in splits:
        with tf.io.gfile.GFile(os.path.join(uri, f"Split-{split}", _ANOMALIES_FILE), "rb") as file:
            findings += anomaly_findings(split, anomalies_pb2.Anomalies.FromString(file.read()), dataset)
    return findings


def read_statistics(uri: str, splits: list[str]) -> Statistics:
    """Statistics by split, of the splits that have any in this folder; none where it is ""."""
    statistics = {}
    for split in splits if uri else ():
        path = os.path.join(uri, f"Split-{split}", _STATISTICS_FILE)
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path, "rb") as file:
                statistics[split] = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read())
    return statistics
