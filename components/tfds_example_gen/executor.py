"""Reads TFDS in Beam, one shard of a split per work item, and writes each as one TFRecord file."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow as tf
import tensorflow_datasets as tfds
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from mnist_tfx.components.datasets.prepared import PreparedDataset, composed, load_prepared
from mnist_tfx.components.datasets.spans import with_spans
from mnist_tfx.components.settings import Splits
from mnist_tfx.components.step import Artifacts, Step
from mnist_tfx.components.transform.images import fit_image
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.errors import DataRejected, UsageError
from mnist_tfx.contract.names import FIRST_SPAN, IMAGE, LABEL, SPAN, SPLITS

_READ_BATCH = 512
# PNG bytes hardly compress: the lowest level keeps TFX's standard format at the least cost.
_WRITER_OPTIONS = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
# On a cluster nothing is prepared or added, and a compiled pipeline wants the same data each time it is run.
_REMEDY = (
    "Run the pipeline again; if it was compiled, compile, submit or schedule it anew, and copy its data there by the "
    "commands that this prints."
)


@dataclass(frozen=True)
class Shard:
    """One output file and the examples [start, stop) of a TFDS split that go into it."""

    path: str
    target: str  # split of the Examples
    split: str  # split of TFDS
    start: int
    stop: int
    span: int = FIRST_SPAN


@dataclass(frozen=True)
class Source:
    """A TFDS dataset: where it lies, its two features, and what its images and labels are changed to."""

    folder: str
    image_key: str
    label_key: str
    fit_to: tuple[int, int, int] | None  # None: its images stay as they are
    labels: tuple[int, ...] | None  # None: they stay as they are

    @classmethod
    def of(cls, data: PreparedDataset, fit_to: Sequence[int] | None, labels: Sequence[int] | None = None) -> Source:
        """Of a dataset or a span of one; `labels` is what the whole dataset's class numbers are changed to."""
        shape = (fit_to[0], fit_to[1], fit_to[2]) if fit_to and data.image_shape != tuple(fit_to) else None
        return cls(str(data.folder), data.image_key, data.label_key, shape, composed(data.labels, labels))


class Executor(Step, BaseBeamExecutor):
    """Executor of `TfdsExampleGen`."""

    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Writes the Examples.

        Raises:
            NotPrepared: a PipelineError; the dataset, or a span of it, does not lie whole in its data_dir.
            DataRejected: the prepared dataset is not the one that the fingerprint names.
            UsageError: a split's slicing is not valid, two splits share examples, or a span has a class that the
                dataset has no more.
        """
        examples = outputs["examples"]
        dataset = load_prepared(parameters["dataset"], parameters["version"], parameters["data_dir"], remedy=_REMEDY)
        if versions := json.loads(parameters.get("spans") or "{}"):
            numbered = {int(number): version for number, version in versions.items()}
            dataset = with_spans(dataset, numbered, remedy=_REMEDY)
        if dataset.fingerprint != parameters["fingerprint"]:
            raise DataRejected(
                f"{dataset.name} in {dataset.data_dir} has changed since this pipeline was made: its fingerprint is "
                f"{dataset.fingerprint}, expected {parameters['fingerprint']}. {_REMEDY}"
            )
        shards = plan_shards(
            dataset, Splits.model_validate_json(parameters["splits"]), examples.uri, parameters["shards"]
        )
        fit_to, labels = json.loads(parameters["fit_to"]), json.loads(parameters["labels"])
        sources = {
            number: Source.of(data, fit_to, labels) for number, data in (dataset.spans or {FIRST_SPAN: dataset}).items()
        }
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(shards)
                | "Spread" >> beam.Reshuffle()
                | "WriteShard" >> beam.ParDo(WriteShard(sources, with_span=bool(dataset.spans)))
            )
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        examples.set_string_custom_property("fingerprint", dataset.fingerprint)
        examples.set_string_custom_property("counts", json.dumps(count_examples(shards)))
        if dataset.spans:
            examples.span = max(dataset.spans)
            examples.set_string_custom_property("spans", json.dumps(versions))
            counts = {number: count_examples(shards, number) for number in dataset.spans}
            examples.set_string_custom_property("span_counts", json.dumps(counts))
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, "tfrecords_gzip")


def plan_shards(dataset: PreparedDataset, splits: Splits, uri: str, count: int) -> list[Shard]:
    """Divides each split of each span evenly into `count` shards (an empty split gets one, so that its file exists).

    Raises:
        UsageError: a slicing is not valid for this dataset, or two splits share examples.
    """
    pieces: list[_Piece] = []
    for number, data in (dataset.spans or {FIRST_SPAN: dataset}).items():
        if number == FIRST_SPAN:
            pieces += _pieces_of_first(dataset, splits)
        else:
            pieces += [_Piece(name, name, 0, size, number) for name in SPLITS if (size := data.split_sizes[name])]
    return [
        shard
        for name in SPLITS
        for shard in _divide(
            name, uri, [each for each in pieces if each.target == name] or [_Piece(name, name, 0, 0)], count
        )
    ]


class _Piece(NamedTuple):
    """Examples [start, stop) of a TFDS split of a span."""

    target: str  # split of the Examples
    split: str
    start: int
    stop: int
    span: int = FIRST_SPAN


def _pieces_of_first(dataset: PreparedDataset, splits: Splits) -> list[_Piece]:
    """What the recipe's slicing means."""
    seen: list[_Piece] = []
    for name in SPLITS:
        slicing = getattr(splits, name)
        for source, start, stop in dataset.slices(slicing, f"data.splits.{name} = {slicing!r}"):
            for other, other_source, other_start, other_stop, _ in seen:
                if other_source == source and other != name and max(start, other_start) < min(stop, other_stop):
                    raise UsageError(
                        f"splits {other} and {name} share examples of {dataset.name}'s {source!r}: a model must not be "
                        "judged on what it was trained on. Correct [data.splits] in the recipe."
                    )
            seen.append(_Piece(name, source, start, stop))
    return seen


def _divide(name: str, uri: str, pieces: Sequence[_Piece], count: int) -> list[Shard]:
    folder = os.path.join(uri, f"Split-{name}")
    divided = []
    for _, source, start, stop, span in pieces:
        parts = max(1, min(count, stop - start))
        bounds = [start + (stop - start) * i // parts for i in range(parts + 1)]
        divided += [(source, low, high, span) for low, high in pairwise(bounds)]
    return [
        Shard(os.path.join(folder, f"data_tfrecord-{i:05d}-of-{len(divided):05d}.gz"), name, *piece)
        for i, piece in enumerate(divided)
    ]


def count_examples(shards: Sequence[Shard], span: int | None = None) -> dict[str, int]:
    """How many examples each split of the Examples gets, in all or from one span."""
    counted = [shard for shard in shards if span in (None, shard.span)]
    return {name: sum(shard.stop - shard.start for shard in counted if shard.target == name) for name in SPLITS}


class WriteShard(beam.DoFn):
    """Reads one `Shard` from TFDS and writes its file; a repeated attempt replaces it whole.

    Images stay encoded as they are, or are fitted to one size and encoded as PNG.
    """

    def __init__(self, sources: Mapping[int, Source], *, with_span: bool) -> None:
        """Takes what each span is read from, and whether the examples tell their span."""
        self._sources, self._with_span = sources, with_span

    def process(self, shard: Shard) -> Iterator[int]:
        """Yields the number of examples written."""
        # Beside the split's folder, whose every file is read as data; renamed into it when complete.
        partial = os.path.join(os.path.dirname(os.path.dirname(shard.path)), f".partial-{uuid.uuid4().hex}")
        written = 0
        with tf.io.TFRecordWriter(partial, _WRITER_OPTIONS) as writer:
            for serialized in self._read(shard):
                writer.write(serialized)
                written += 1
        tf.io.gfile.makedirs(os.path.dirname(shard.path))
        tf.io.gfile.rename(partial, shard.path, overwrite=True)
        yield written

    def _read(self, shard: Shard) -> Iterator[bytes]:
        """Yields serialized tf.Examples."""
        if shard.start == shard.stop:
            return
        source = self._sources[shard.span]
        data = tfds.builder_from_directory(source.folder).as_dataset(
            split=tfds.core.ReadInstruction(shard.split, from_=shard.start, to=shard.stop, unit="abs"),
            # Of other features, the values may be of differing shapes, and could not be batched.
            decoders=tfds.decode.PartialDecoding(
                {source.image_key: True, source.label_key: True}, {source.image_key: tfds.decode.SkipDecoding()}
            ),
            shuffle_files=False,
            read_config=_read_config(),
        )
        if source.fit_to:
            data = data.map(_fitted(source.image_key, source.fit_to), num_parallel_calls=cpu_count())
        example = tf.train.Example()
        image = example.features.feature[IMAGE].bytes_list
        label = example.features.feature[LABEL].int64_list
        if self._with_span:
            example.features.feature[SPAN].int64_list.value[:] = [shard.span]
        for batch in tfds.as_numpy(data.batch(_READ_BATCH)):
            for encoded, number in zip(batch[source.image_key], batch[source.label_key].tolist(), strict=True):
                image.value[:] = [encoded]
                # -1 is TFDS's sign of no label: it stays, and is the data gate's matter.
                label.value[:] = [source.labels[number] if source.labels and number >= 0 else number]
                yield example.SerializeToString(deterministic=True)


def _fitted(
    image_key: str, image_shape: tuple[int, int, int]
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    @tf.autograph.experimental.do_not_convert
    def fit(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return example | {image_key: tf.io.encode_png(fit_image(example[image_key], image_shape))}

    return fit


def _read_config() -> tfds.ReadConfig:
    """For one file, read in order: a third of the time of TFDS's defaults, which tune themselves for many files."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.map_fusion = True  # TFDS parses an example in one map and decodes it in the next
    return tfds.ReadConfig(interleave_cycle_length=1, num_parallel_calls_for_decode=2 * cpu_count(), options=options)
