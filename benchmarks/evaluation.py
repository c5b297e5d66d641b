"""Our metrics (components/evaluator/metrics.py) beside TFMA's own of the same meaning, on the model a run left behind.

.venv/bin/python -m benchmarks.evaluation [--home DIR] [--dataset mnist]

Both evaluate the newest pushed version on split test, overall and by label, in this process, one after the other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import apache_beam as beam
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx_bsl.tfxio import tf_example_record

from mnist_tfx.components.beam_arguments import beam_arguments
from mnist_tfx.components.evaluator.config import evaluation_config
from mnist_tfx.components.settings import BeamSettings, EvaluationSettings
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.projects import shipped

_CLASSES = 10


def own_config() -> config_pb2.EvalConfig:
    """What the pipeline's Evaluator uses, without a baseline."""
    return evaluation_config(EvaluationSettings(min_accuracy=0.0, baseline="none"), _CLASSES)


def tfma_config() -> config_pb2.EvalConfig:
    """The same figures from metrics that come with TFMA and Keras; calibration by TFMA's own definition is left out."""
    config = own_config()
    del config.metrics_specs[0].metrics[1:]
    entries = [
        ("SparseCategoricalAccuracy", ""),
        ("SparseTopKCategoricalAccuracy", '"k": 2'),
        ("SparseCategoricalCrossentropy", ""),
        ("MultiClassConfusionMatrixPlot", ""),
    ]
    for index in range(_CLASSES):
        entries += [(name, f'"class_id": {index}, "top_k": 1') for name in ("Precision", "Recall", "F1Score")]
    config.metrics_specs[0].metrics.extend(
        config_pb2.MetricConfig(class_name=name, config=settings) for name, settings in entries
    )
    return config


def seconds(config: config_pb2.EvalConfig, model: Path, examples: str, schema: Path) -> float:
    """The time of one evaluation."""
    started = time.perf_counter()
    config = tfma.utils.update_eval_config_with_defaults(config, has_baseline=False, rubber_stamp=True)
    shared = tfma.default_eval_shared_model(eval_saved_model_path=str(model), eval_config=config)
    source = tf_example_record.TFExampleRecord(
        examples,
        schema=tfdv.load_schema_text(str(schema)),
        raw_record_column_name=tfma.ARROW_INPUT_COLUMN,
        telemetry_descriptors=["benchmark"],
    )
    with (
        tempfile.TemporaryDirectory() as output,
        beam.Pipeline(argv=beam_arguments(BeamSettings())) as pipeline,
    ):
        _ = (
            pipeline
            | source.BeamSource()
            | tfma.ExtractEvaluateAndWriteResults(eval_shared_model=shared, eval_config=config, output_path=output)
        )
    return time.perf_counter() - started


def main() -> int:
    """Prints both times and their ratio."""
    parser = argparse.ArgumentParser(description="Compare our metrics with TFMA's own.")
    parser.add_argument("--home", metavar="DIR", help="a home in which the pipeline has run")
    parser.add_argument("--dataset", default="mnist")
    args = parser.parse_args()
    home = Home.resolve(args.home)
    versions = sorted(home.serving(args.dataset).glob("[0-9]*"))
    examples = sorted(home.runs(args.dataset).glob("*/TfdsExampleGen/examples/*/Split-test"))
    if not versions or not examples:
        sys.exit(f"no run of {args.dataset} in {home.root}: run `mnist-tfx run --dataset {args.dataset}` first.")
    schema = shipped(args.dataset).schema_file
    times = {
        name: seconds(config, versions[-1], f"{examples[-1]}/*", schema)
        for name, config in (("ours", own_config()), ("TFMA's own", tfma_config()))
    }
    for name, taken in times.items():
        print(f"{name:12} {taken:7.1f} s  {taken / times['ours']:5.1f} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
