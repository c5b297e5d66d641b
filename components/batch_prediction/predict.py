"""The pipeline: units are read, the model answers, each chunk becomes one Parquet file, written whole or not at all.

Beam's own RunInference does it, on which tfx-bsl's is built. That one (1.21) cannot run our signatures: it makes a
PredictionLog of each row and takes each output for an array, and `labels` are strings ("'bytes' object has no attribute
'dtype'", `_PredictModelHandler._post_process`). It would also let Beam gather thousands of batches before it computes
one (its wrapper drops `batch_parameters`), and fail at the first image that cannot be decoded. TFX's BulkInferrer is
built on it, reads Examples artifacts only, forgets which file a row came from, and writes no Parquet. Beam's
WriteToParquet puts its files in place when all is done: a pipeline that is killed would leave nothing to go on from.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from pyarrow import parquet

from mnist_tfx.components.batch_prediction.inputs import MANIFEST, Chunk, Inputs, Unit, read
from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.live.model import model_digest
from mnist_tfx.components.whole_files import write_whole
from mnist_tfx.contract.errors import DataRejected, PipelineError, UsageError
from mnist_tfx.contract.names import ENCODED_IMAGES, EXAMPLES, LABELS, PROBABILITIES, SERVING_DEFAULT

# As the manifest, not read by what reads a folder of Parquet files: pandas and pyarrow pass over names that begin so.
UNREADABLE = "_unreadable.csv"
METADATA_KEY = b"mnist_tfx"
"""Of each file's schema: a JSON object with the model's name, version, digest and classes, and what was unreadable."""

_ROWS_PER_CALL = 512  # a model's throughput is flat from 128 on (serving/k8s/base/config/batching_parameters.txt)
_INPUTS = {ENCODED_IMAGES: ENCODED_IMAGES, SERVING_DEFAULT: EXAMPLES}
_PROBLEMS = {
    ENCODED_IMAGES: "is no image that can be decoded",
    SERVING_DEFAULT: "is no tf.Example with an image that can be decoded",
}
# What TensorFlow raises where there is a file, or no permission; a full disk is another matter (`components.disk`).
_WRONG_PLACE = (tf.errors.FailedPreconditionError, tf.errors.AlreadyExistsError, tf.errors.PermissionDeniedError)


@dataclass(frozen=True)
class BatchModel:
    """A version of a served model."""

    name: str
    version: int
    folder: str


@dataclass(frozen=True)
class Predicted:
    """What lies in the output folder.

    Attributes:
        images: how many were classified, those of earlier calls included.
        new_images: how many in this call.
        unreadable: key and reason of each that was not.
        parts: the number of Parquet files.
    """

    images: int
    new_images: int
    unreadable: tuple[tuple[str, str], ...]
    parts: int


@dataclass(frozen=True)
class _Answers:
    """One chunk's: `probabilities` float32 [N, classes]."""

    path: str
    keys: list[str]
    labels: list[str]
    probabilities: np.ndarray
    unreadable: list[tuple[str, str]]


def predict_batch(
    source: str, inputs: Inputs, model: BatchModel, out: str, rows: int, beam_arguments: Sequence[str]
) -> Predicted:
    """Classifies what has no predictions in the folder `out` yet.

    The files `part-*.parquet` have the columns `key` (the image's path in its folder, FILE:NUMBER, with the file's path
    in the folder that all have in common, or NAME:SPLIT:NUMBER), `label` (of the likeliest class) and `probabilities`
    (float32, in the order of the classes).

    Args:
        source: the inputs' name, for the manifest.
        inputs: what `find_inputs` found.
        model: which model.
        out: local, or in a bucket; is made.
        rows: the most images of a file; of the first call with this folder.
        beam_arguments: those of `components.beam_arguments`.

    Raises:
        UsageError: `out` holds the inputs, or predictions of other ones, of another model or in parts of other sizes;
            or there are no images.
        DataRejected: no image at all could be read.
        PipelineError: `out` cannot be written to.
        RuntimeError: a worker failed, in Beam's words.
    """
    _check_apart(source, out)
    provenance = {"model": model.name, "version": model.version, "digest": model_digest(model.folder)}
    manifest: dict[str, Any] = {"input": source, "digest": inputs.digest, "rows": rows, "model": provenance}
    before = read_manifest(out)
    if before is None:
        before = manifest | {"units": [asdict(unit) for unit in inputs.units]}
        try:
            tf.io.gfile.makedirs(out)
            write_whole(os.path.join(out, MANIFEST), json.dumps(before).encode())
        except _WRONG_PLACE as error:
            raise PipelineError(f"cannot write to {out}: {error.message}. Name another folder: --out DIR.") from error
    _check_same(before, manifest, out)
    done = _summary(out)
    if before.get("parts") != done.parts:  # noted at the end
        about = provenance | {"class_names": read_metadata(model.folder).get("class_names", [])}
        with beam.Pipeline(options=PipelineOptions(list(beam_arguments))) as pipeline:
            _ = (
                pipeline
                | "Units" >> beam.Create(inputs.units)
                | "Spread" >> beam.Reshuffle()
                | "Read" >> beam.ParDo(_Read(out, rows))
                | "Classify" >> RunInference(_Classifier(model.folder, inputs.signature))
                | "Write" >> beam.ParDo(_Write(about))
            )
    summary = _summary(out, done.images)
    table = io.StringIO()
    csv.writer(table).writerows([("key", "problem"), *summary.unreadable])
    write_whole(os.path.join(out, UNREADABLE), table.getvalue().encode("utf-8", "surrogateescape"))
    write_whole(os.path.join(out, MANIFEST), json.dumps(before | {"parts": summary.parts}).encode())
    if not (summary.images or summary.unreadable):
        raise UsageError(f"{source} holds no images.")
    if not summary.images:
        key, problem = summary.unreadable[0]
        raise DataRejected(f"none of {len(summary.unreadable)} in {source} could be classified; {key} {problem}.")
    return summary


def read_manifest(out: str) -> dict[str, Any] | None:
    """What a folder was said to hold: its input, rows, model; None where nothing was begun in it."""
    path = os.path.join(out, MANIFEST)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        return dict(json.load(file))


def _check_apart(source: str, out: str) -> None:
    """Of predictions among the images, the next call would make images: it could not go on."""
    images, folder = os.path.realpath(source), os.path.realpath(out)
    if images == folder or PurePath(folder, MANIFEST).match(images):  # which may be a pattern
        raise UsageError(f"{out} is where the images are: name another folder for the predictions.")


def _check_same(before: dict[str, Any], now: dict[str, Any], out: str) -> None:
    if before["model"] != now["model"]:
        raise UsageError(
            f"{out} holds predictions of {before['model']['model']} version {before['model']['version']}: name that "
            "--version to go on with it, or another folder."
        )
    if before["digest"] != now["digest"]:
        raise UsageError(
            f"{out} holds predictions for {before['input']} as it was then, and that is not, or no longer, what is "
            "asked for: name another folder."
        )
    if before["rows"] != now["rows"]:
        raise UsageError(
            f"{out} was begun with --part {before['rows']}: name that again to go on with it, or another folder."
        )


class _Read(beam.DoFn):
    def __init__(self, out: str, rows: int) -> None:
        self._out, self._rows = out, rows

    def process(self, unit: Unit) -> Iterator[list[Chunk]]:
        """Yields batches of one chunk, each computed and written before the next is read."""
        for chunk in read(unit, self._out, self._rows):
            yield [chunk]


class _Classifier(ModelHandler):  # type: ignore[type-arg]
    def __init__(self, folder: str, signature: str) -> None:
        super().__init__()
        self._folder, self._signature = folder, signature

    def load_model(self) -> Any:
        model = tf.saved_model.load(self._folder)
        if self._signature not in model.signatures:
            raise RuntimeError(f"the model in {self._folder} has no signature {self._signature!r}")
        return model

    def should_skip_batching(self) -> bool:
        return True

    def get_num_bytes(self, batch: Sequence[Chunk]) -> int:
        return sum(len(content) for chunk in batch for content in chunk.contents)

    def run_inference(
        self, batch: Sequence[Chunk], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[_Answers]:
        function, name = model.signatures[self._signature], _INPUTS[self._signature]
        for chunk in batch:
            keys, unreadable = list[str](), list(chunk.unreadable)
            labels: list[str] = []
            probabilities: list[np.ndarray] = []
            for first, count, answer in answers(lambda rows: function(**{name: tf.constant(rows)}), chunk.contents):
                if answer is None:
                    unreadable.append((chunk.keys[first], _PROBLEMS[self._signature]))
                    continue
                keys += chunk.keys[first : first + count]
                labels += [label.decode() for label in answer[LABELS].numpy()]
                probabilities.append(answer[PROBABILITIES].numpy())
            stacked = np.concatenate(probabilities) if probabilities else np.zeros((0, 1), np.float32)
            yield _Answers(chunk.path, keys, labels, stacked, unreadable)


def answers(
    call: Callable[[Sequence[bytes]], Any], contents: Sequence[bytes], first: int = 0
) -> Iterator[tuple[int, int, Any]]:
    """First row, number of rows and the model's answer for all parts of `contents`; None for a row it refuses.

    The model says that it cannot decode an image, and not which one: the halves of what it refuses are tried.
    """
    if len(contents) > _ROWS_PER_CALL:
        for start in range(0, len(contents), _ROWS_PER_CALL):
            yield from answers(call, contents[start : start + _ROWS_PER_CALL], first + start)
        return
    try:
        if contents:
            yield first, len(contents), call(contents)
    except tf.errors.InvalidArgumentError:
        if len(contents) == 1:
            yield first, 1, None
            return
        half = len(contents) // 2
        yield from answers(call, contents[:half], first)
        yield from answers(call, contents[half:], first + half)


class _Write(beam.DoFn):
    def __init__(self, about: dict[str, Any]) -> None:
        self._about = about

    def process(self, found: _Answers) -> None:
        columns = {
            "key": pa.array(found.keys, pa.string()),
            "label": pa.array(found.labels, pa.string()),
            "probabilities": pa.array(list(found.probabilities.astype(np.float32)), pa.list_(pa.float32())),
        }
        told = json.dumps(self._about | {"unreadable": found.unreadable})
        table = pa.table(columns).replace_schema_metadata({METADATA_KEY: told})
        content = io.BytesIO()
        parquet.write_table(table, content)
        write_whole(found.path, content.getvalue())


def _summary(out: str, done: int = 0) -> Predicted:
    """Of all files in the folder, from their metadata; `done` images were there before."""
    images, unreadable = 0, list[tuple[str, str]]()
    # Not by a pattern, whose signs the folder's name may have.
    names = sorted(fnmatch.filter(tf.io.gfile.listdir(out), "part-*.parquet"))
    for name in names:
        with tf.io.gfile.GFile(os.path.join(out, name), "rb") as file:
            metadata = parquet.read_metadata(io.BytesIO(file.read()))
        images += metadata.num_rows
        unreadable += map(tuple, json.loads(metadata.metadata[METADATA_KEY])["unreadable"])
    return Predicted(images, images - done, tuple(unreadable), len(names))
