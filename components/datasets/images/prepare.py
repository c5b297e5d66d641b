"""From image files to a prepared dataset: listed, looked at, divided, fitted to one size and written as TFDS does."""

from __future__ import annotations

import filecmp
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from mnist_tfx.components.beam_arguments import direct_arguments
from mnist_tfx.components.datasets.images.index import Decided, Finding, Index, splits_before
from mnist_tfx.components.datasets.images.listing import ImageSource, list_images, listing_digest
from mnist_tfx.components.datasets.incoming import incoming_folder, publish
from mnist_tfx.components.datasets.prepared import VERSION, NotPrepared, PreparedDataset, load_prepared
from mnist_tfx.components.datasets.progress import Progress, silent
from mnist_tfx.components.datasets.spans import load_added
from mnist_tfx.components.whole_files import write_whole
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.errors import DataRejected

FILES = "images.csv"  # beside the dataset: what became of each file
_RECORD = "import.json"
_CHUNK = 256
_SHOWN = 10
Shape: TypeAlias = tuple[int | None, int | None, int | None]  # height, width, channels; None: whatever it is


@dataclass(frozen=True)
class Imported:
    """A dataset made of image files, and what became of them."""

    dataset: PreparedDataset
    decided: Decided
    problems: tuple[tuple[str, str], ...]  # some of the files that are not in it, unreadable ones first, and why
    listing: str  # digest of the files that it was made of; behind it, fingerprints of the spans at that time

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return _fixed_shape(self.dataset)

    @property
    def left_out(self) -> dict[str, int]:
        """How many files are not in it, by reason."""
        decided = self.decided
        return {
            "unreadable": decided.unreadable,
            "known": decided.known,
            "of several classes": decided.contradictory,
            "duplicates": decided.duplicates + decided.duplicates_across_splits,
        }

    @property
    def files(self) -> Path:
        """The CSV file that lists all."""
        return self.dataset.folder / FILES


def prepare_images(
    name: str,
    source: ImageSource,
    data_dir: Path,
    *,
    image_shape: Shape = (None, None, None),
    max_unreadable: float = 1.0,
    progress: Progress = silent,
) -> Imported:
    """Makes a dataset of the files as they are now; at once where nothing has changed since the last time.

    Files of another content or name are another version, 1.0.N; an image that was in split test stays there. What an
    added span has is left out: drawn anew, images of its split test would be learned from.

    Args:
        name: the dataset's.
        source: where the files are.
        data_dir: the TFDS data_dir that it is written to.
        image_shape: height, width and channels that each image is fitted to; None: as it was the last time, else as the
            images are.
        max_unreadable: the share of files that may be damaged.
        progress: is told how far the work is.

    Raises:
        UsageError: the source holds no images by class.
        DataRejected: a class has too few images, or too many files are damaged. Nothing was written.
        PipelineError: `data_dir` cannot be written to, or (NotPrepared) an added span is damaged.
    """
    progress("listing the files")
    spans = load_added(name, data_dir)
    # Which of the files are left out depends on the spans, too.
    listing = " ".join([listing_digest(source), *(span.fingerprint for span in spans)])
    if same := _same(_last(name, data_dir), listing, image_shape, max_unreadable):
        return same
    with incoming_folder(data_dir, progress) as incoming:
        last = _last(name, data_dir)  # another process may have made one while this one waited
        if same := _same(last, listing, image_shape, max_unreadable):
            return same
        index = inspected(source, incoming, max_unreadable, progress, spans=spans)
        # Also of a version that is damaged: what was in split test stays there, and its number is not given again.
        versions = [folder.name for folder in (data_dir / name).glob("1.0.*") if VERSION.fullmatch(folder.name)]
        numbers = [int(version.rpartition(".")[2]) for version in versions]
        newest = max(numbers, default=-1)
        decided = index.decide(splits_before(data_dir / name / f"1.0.{newest}" / FILES), known=digests_of(spans))
        shape = _completed(image_shape, last.shape if last else index.natural_shape())
        if last and last.shape == shape:
            index.write_csv(incoming / FILES)
            if filecmp.cmp(incoming / FILES, last.files, shallow=False):
                return _known_as(last, listing)  # only the files' times are others, as a copy's are
        made = Made(name, f"1.0.{newest + 1}", decided, decided.classes, shape, listing)
        return written(made, index, source, data_dir, incoming, progress)


def _last(name: str, data_dir: Path) -> Imported | None:
    try:
        dataset = load_prepared(name, None, data_dir)
        record = json.loads((dataset.folder / _RECORD).read_text())
    except (NotPrepared, OSError, ValueError):
        return None
    problems = tuple((file, problem) for file, problem in record["problems"])
    return Imported(dataset, Decided(**record["decided"]), problems, record["listing"])


def _same(last: Imported | None, listing: str, image_shape: Shape, max_unreadable: float) -> Imported | None:
    """What was made the last time, where it would be the same now."""
    if last is None or last.listing != listing or last.shape != _completed(image_shape, last.shape):
        return None
    _check_share(last.decided.unreadable, last.decided.files, max_unreadable, last.problems)
    return last


def _known_as(last: Imported, listing: str) -> Imported:
    """What was made the last time, with the files' listing of today."""
    path = last.dataset.folder / _RECORD
    write_whole(str(path), json.dumps(json.loads(path.read_text()) | {"listing": listing}, indent=2).encode())
    return replace(last, listing=listing)


def _fixed_shape(dataset: PreparedDataset) -> tuple[int, int, int]:
    """Of a dataset that was made here, every image of which was fitted."""
    height, width, channels = dataset.image_shape
    assert height is not None and width is not None
    return height, width, channels


def _completed(shape: Shape, others: tuple[int, int, int]) -> tuple[int, int, int]:
    height, width, channels = (other if size is None else size for size, other in zip(shape, others, strict=True))
    return height, width, channels


def inspected(
    source: ImageSource,
    incoming: Path,
    max_unreadable: float,
    progress: Progress,
    image_shape: tuple[int, int, int] | None = None,
    spans: Sequence[PreparedDataset] = (),
) -> Index:
    """The source's files, each looked at; with `image_shape`, their fitted pixels name them (see `Inspect`).

    Of each it is noted, too, by which digest the `spans` know it, if they have it (see `digests_of`).

    Raises:
        UsageError: the source holds no images by class.
        DataRejected: too many files are damaged.
    """
    from mnist_tfx.components.datasets.images.inspect import Inspect

    index, findings = Index(incoming / "index.sqlite"), incoming / "findings"
    count = index.fill(list_images(source))
    findings.mkdir()
    chunks = [(first, min(first + _CHUNK, count + 1)) for first in range(1, count + 1, _CHUNK)]
    shapes = {_fixed_shape(span) for span in spans}  # it may have been changed between two of them
    with _told("looking at the images", findings, "*.json", len(chunks), progress):
        _run(chunks, Inspect(str(index.path), str(source.folder), str(findings), image_shape, tuple(shapes)))
    progress("dividing the images")
    index.take(Finding(**row) for path in findings.iterdir() for row in json.loads(path.read_text()))
    _check_share(index.count_problems(), count, max_unreadable, index.problems(_SHOWN))
    return index


def digests_of(spans: Iterable[PreparedDataset]) -> Iterator[str]:
    """Of the images that are in added spans: of their pixels, at the size of each span."""
    return (digest for span in spans for digest, _ in splits_before(span.folder / FILES))


@dataclass(frozen=True)
class Made:
    """What is to be written: a dataset and its version, of what was decided."""

    name: str
    version: str
    decided: Decided
    class_names: tuple[str, ...]  # in the order of the labels
    image_shape: tuple[int, int, int]
    listing: str = ""  # digest of the files that it is made of; a span is not made of them again


def written(
    made: Made, index: Index, source: ImageSource, data_dir: Path, incoming: Path, progress: Progress
) -> Imported:
    """Writes the dataset, and moves it into the `data_dir` once it is whole."""
    from mnist_tfx.components.datasets.images.write import WriteShard, plan_shards, write_metadata

    folder = incoming / made.version
    folder.mkdir()
    shards = plan_shards(made.name, folder, made.decided)
    with _told("fitting and writing the images", folder, "*.tfrecord-*", len(shards), progress):
        _run(shards, WriteShard(str(index.path), str(source.folder), made.class_names, made.image_shape))
    write_metadata(made.name, folder, made.class_names, made.image_shape, shards)
    progress("listing what became of the files")
    index.write_csv(folder / FILES)
    problems = tuple(index.problems(_SHOWN))
    record: dict[str, Any] = {"listing": made.listing, "decided": asdict(made.decided), "problems": problems}
    (folder / _RECORD).write_text(json.dumps(record, indent=2))
    publish(folder, data_dir / made.name / made.version, incoming)
    return Imported(load_prepared(made.name, made.version, data_dir), made.decided, problems, made.listing)


def _check_share(unreadable: int, files: int, limit: float, problems: Sequence[tuple[str, str]]) -> None:
    if unreadable > limit * files:
        listed = "\n".join(f"  {file} {problem}" for file, problem in problems[:unreadable])  # they are the first
        more = "\n  ..." if unreadable > len(problems) else ""
        raise DataRejected(
            f"{unreadable} of {files} image files cannot be read, more than data.max_unreadable = {limit:g} allows. "
            f"Replace or remove them, or raise it in the recipe (init: --max-unreadable).\n{listed}{more}"
        )


def _run(items: Sequence[Any], work: Any) -> None:
    """Has a DoFn work on each item, on all cores of this machine, where the files are."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    with beam.Pipeline(options=PipelineOptions(direct_arguments(cpu_count(), threads=True))) as pipeline:
        _ = pipeline | beam.Create(items) | beam.Reshuffle() | beam.ParDo(work)


@contextmanager
def _told(stage: str, folder: Path, pattern: str, total: int, progress: Progress) -> Iterator[None]:
    """Inside, how many of the files are in the folder is told twice a second."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            progress(stage, sum(1 for _ in folder.glob(pattern)), total)

    progress(stage, 0, total)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
