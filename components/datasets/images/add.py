"""Adds labelled image files to a dataset, as a new span of it: what the data have already is left out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from mnist_tfx.components.datasets.images.listing import ImageSource, list_images
from mnist_tfx.components.datasets.images.prepare import Imported, Made, digests_of, inspected, written
from mnist_tfx.components.datasets.incoming import incoming_folder
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.datasets.progress import Progress, silent
from mnist_tfx.components.datasets.spans import span_name, spans_dir, with_newest_spans
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.errors import DataRejected, UsageError
from mnist_tfx.contract.names import FIRST_SPAN

_BATCH = 512
_VERSION = "1.0.0"


def add_span(
    dataset: PreparedDataset,
    source: ImageSource,
    image_shape: tuple[int, int, int],
    *,
    with_test: bool = True,
    max_unreadable: float = 0.0,
    progress: Progress = silent,
) -> tuple[int, Imported]:
    """Makes a span of the files: its number, and what became of them.

    An image is known by its pixels, fitted to `image_shape`, whatever its file is.

    Args:
        dataset: what they are added to, without spans.
        source: where the files are.
        image_shape: height, width and channels that each image is fitted to.
        with_test: whether a tenth of them, drawn by content, is for split test; what the source puts there is there
            anyway.
        max_unreadable: the share of files that may be damaged.
        progress: is told how far the work is.

    Raises:
        UsageError: the source holds no images by class, or it or an earlier span has a class that the dataset has not.
        DataRejected: too many files are damaged, or none of them is new. Nothing was written.
        PipelineError: the dataset's data_dir cannot be written to, or (NotPrepared) an earlier span is damaged.
    """
    progress("listing the files")
    if unknown := sorted({image.class_name for image in list_images(source)} - set(dataset.class_names)):
        raise UsageError(
            f"{source.labels or source.folder}: {dataset.name} has no class {', '.join(map(repr, unknown))}. Its "
            f"classes: {', '.join(dataset.class_names)}."
        )
    data_dir = spans_dir(dataset)
    with incoming_folder(data_dir, progress) as incoming:
        whole = with_newest_spans(dataset, "all")
        spans = [span for number, span in whole.spans.items() if number != FIRST_SPAN]
        index = inspected(source, incoming, max_unreadable, progress, image_shape, spans)
        progress("looking for images that the data have already")
        known = chain(_contents(whole, image_shape), digests_of(spans))
        decided = index.decide(known=known, alone=False, with_test=with_test)
        if not decided.splits:
            raise DataRejected(
                f"nothing to add to {dataset.name}: of {decided.files} files, {decided.known} show what the data have "
                f"already, {decided.unreadable} cannot be read, {decided.contradictory} are of several classes."
            )
        number = max(whole.spans, default=FIRST_SPAN) + 1
        made = Made(span_name(number), _VERSION, decided, dataset.class_names, image_shape)
        return number, written(made, index, source, data_dir, incoming, progress)


def _contents(dataset: PreparedDataset, image_shape: tuple[int, int, int]) -> Iterator[str]:
    """The digests of all images that the dataset and its spans hold."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from mnist_tfx.components.transform.images import content_digest, fit_image

    for data in dataset.spans.values() or (dataset,):
        builder = tfds.builder_from_directory(data.folder)
        key, fits = data.image_key, data.image_shape == image_shape

        @tf.autograph.experimental.do_not_convert
        def pixels(example: dict[str, tf.Tensor], key: str = key, fits: bool = fits) -> tf.Tensor:
            return example[key] if fits else fit_image(example[key], image_shape)

        for split in (split for split, size in data.split_sizes.items() if size):
            decoders = None if fits else {key: tfds.decode.SkipDecoding()}
            examples = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
            for batch in examples.map(pixels, num_parallel_calls=cpu_count()).batch(_BATCH).as_numpy_iterator():
                yield from map(content_digest, batch)
