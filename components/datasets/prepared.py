"""A prepared TFDS dataset as the pipeline sees it: its name, what it holds, and a fingerprint of its content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etils import epath

from mnist_tfx.components.datasets.fingerprint import FRAME_BYTES, fingerprint
from mnist_tfx.contract.errors import PipelineError, UsageError

VERSION = re.compile(r"\d+\.\d+\.\d+")  # the folder of one; all else beside it is none, such as a copy 1.0.0.bak
_NAME = re.compile(r"[a-z0-9_]+(/[\w.+-]*\w)?")  # a TFDS builder, or builder/configuration


class NotPrepared(PipelineError):
    """A dataset does not lie complete in a data_dir."""


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset that lies complete in a TFDS data_dir.

    `fingerprint` is the SHA-256, in hex, over what the records mean (features and class names) and the records. It does
    not depend on where, when or from which source the dataset was prepared.
    """

    name: str
    version: str
    data_dir: Path
    fingerprint: str
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, int | None, int]  # height, width, channels; None: differs between images
    image_key: str  # the names of the two features in TFDS
    label_key: str
    split_sizes: Mapping[str, int]  # examples of each TFDS split
    labels: tuple[int, ...] | None = None  # the class number of each of TFDS's; None: they are the same
    # What was added (`components.datasets.spans`) by number, and as number 1 the data themselves; none: nothing was.
    spans: Mapping[int, PreparedDataset] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.data_dir / self.name / self.version

    def slices(self, slicing: str, told: str) -> list[tuple[str, int, int]]:
        """What TFDS's slicing notation means here: each piece's split, first example, and the one after its last.

        Args:
            slicing: as in `train[:55000]+test`.
            told: what is said of it where it is wrong, first.

        Raises:
            UsageError: it is not a slice of this dataset.
        """
        import tensorflow_datasets as tfds

        sizes = self.split_sizes
        try:
            splits = tfds.builder_from_directory(str(self.folder)).info.splits
            pieces = tfds.core.ReadInstruction.from_spec(slicing).to_absolute(splits)
            found = [(p.splitname, p.from_ or 0, sizes[p.splitname] if p.to is None else p.to) for p in pieces]
            for split, first, stop in found:
                if first > stop:  # which TFDS refuses where it reads
                    raise ValueError(f"{split}[{first}:{stop}] begins after its end")
        except (ValueError, KeyError, AssertionError, NotImplementedError) as error:
            raise UsageError(
                f"{told} is not a slice of {self.name}: {error}. Its splits are {dict(sizes)}; "
                "examples: 'train[:55000]', 'train[90%:]', 'test'."
            ) from error
        return found

    def grouped(self, groups: Mapping[str, Sequence[str]] | None) -> PreparedDataset:
        """The same with classes that stand for several of TFDS's; None changes nothing.

        Args:
            groups: the names of TFDS's classes, by the name of the class that stands for them.

        Raises:
            UsageError: a class of TFDS is in no group, or in several, or there is no such class.
        """
        if groups is None:
            return self
        group_of = {name: number for number, names in enumerate(groups.values()) for name in names}
        named = [name for names in groups.values() for name in names]
        wrong = sorted({name for name in named if name not in self.class_names or named.count(name) > 1})
        missing = [name for name in self.class_names if name not in group_of]
        if wrong or missing:
            faults = [f"{', '.join(missing)} in none"] if missing else []
            faults += [f"{', '.join(wrong)} in several, or unknown"] if wrong else []
            raise UsageError(
                f"data.classes must name every class of {self.name} just once: {' and '.join(faults)}. "
                f"Its classes: {', '.join(self.class_names)}."
            )
        labels = tuple(group_of[name] for name in self.class_names)
        spans = {number: replace(span, labels=composed(span.labels, labels)) for number, span in self.spans.items()}
        return replace(self, class_names=tuple(groups), labels=labels, spans=spans)


def composed(first: Sequence[int] | None, then: Sequence[int] | None) -> tuple[int, ...] | None:
    """Class numbers after one change of them and another; None: no change."""
    if first is None or then is None:
        return tuple(first or then or ()) or None
    return tuple(then[number] for number in first)


def load_prepared(
    name: str, version: str | None, data_dir: Path | str, *, remedy: str | None = None
) -> PreparedDataset:
    """Reads what is known of a prepared dataset. Writes nothing.

    For a folder of this machine, it uses no network and does not import TensorFlow.

    Args:
        name: a TFDS dataset, `builder` or `builder/configuration`.
        version: None means the newest in `data_dir`.
        data_dir: the TFDS data_dir: a folder, or the address of one in a bucket (`gs://...`), as text.
        remedy: what to do where it is not prepared; None: to prepare it.

    Raises:
        NotPrepared: a PipelineError; it is not prepared, or not completely; the message says how to prepare it.
        UsageError: the name is not one, or the dataset is not one of labeled images.
    """
    check_name(name)
    # Of gs://bucket, pathlib would make gs:/bucket.
    place = data_dir if isinstance(data_dir, Path) else epath.Path(data_dir)
    folder = _find(name, version, place)
    wanted = f"{name}:{version}" if version else name
    remedy = remedy or f"Run `mnist-tfx data prepare --dataset {name}` (with the same --home or --project)."
    if folder is None:
        raise NotPrepared(f"dataset {wanted} is not prepared in {data_dir}. {remedy}")
    flaw = find_flaw(folder)
    if flaw is not None:
        raise NotPrepared(f"dataset {wanted} is not complete in {data_dir}: {flaw}. {remedy}")
    try:
        return _describe(name, folder, place)
    except ValueError as error:
        raise NotPrepared(f"dataset {wanted} is damaged in {data_dir}: {error}. {remedy}") from error


def find_prepared(
    name: str, version: str | None, data_dirs: Iterable[Path], *, remedy: str | None = None
) -> PreparedDataset:
    """What `load_prepared` reads in the first of the data_dirs where the dataset lies prepared.

    Raises:
        NotPrepared: it lies in none of them; said is what the first one lacks.
        UsageError: the name is not one, or the dataset is not one of labeled images.
    """
    missing: list[NotPrepared] = []
    for data_dir in data_dirs:
        try:
            return load_prepared(name, version, data_dir, remedy=remedy)
        except NotPrepared as error:
            missing.append(error)
    raise missing[0]


def check_name(name: str) -> None:
    """Raises a UsageError for what can be no TFDS name, such as a path."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no dataset name; it must be a TFDS builder, as in 'mnist' or 'emnist/balanced'.")


def image_and_label(name: str, info: Any) -> tuple[str, str]:
    """The names of the image and the label feature of a `tfds.core.DatasetInfo`.

    Raises:
        UsageError: the supervised keys are not one image and one class label.
    """
    from tensorflow_datasets import features as tfds_features

    keys = info.supervised_keys
    if isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys):
        image, label = (info.features[key] for key in keys)
        if isinstance(image, tfds_features.Image) and isinstance(label, tfds_features.ClassLabel) and label.num_classes:
            return keys
    raise UsageError(
        f"dataset {name!r} does not fit: it must have the supervised keys (image, label), an Image and a ClassLabel; "
        f"TFDS says {keys!r}."
    )


def find_flaw(folder: Path) -> str | None:
    """What a TFDS dataset in `folder` lacks to be complete; None where it lacks nothing.

    Lengths are compared, contents are not read.
    """
    import tensorflow_datasets as tfds

    for name in ("dataset_info.json", "features.json"):
        if not (folder / name).is_file():
            return f"{folder / name} is missing"
    try:
        info = tfds.builder_from_directory(folder).info
    except Exception as error:  # TFDS's readers of damaged JSON raise what their parsers raise
        return f"{folder} cannot be read ({type(error).__name__}: {error})"
    if not info.splits:
        return f"{folder} holds no splits"
    for split in info.splits.values():
        files = [epath.Path(file) for file in split.filepaths]
        missing = [file for file in files if not file.is_file()]
        if missing:
            return f"{missing[0]} is missing"
        length = sum(file.stat().length for file in files)
        expected = int(split.num_bytes) + FRAME_BYTES * split.num_examples
        if info.file_format.value == "tfrecord" and length != expected:
            return f"split {split.name!r} is {length} bytes long instead of {expected}"
    return None


def _find(name: str, version: str | None, data_dir: Path) -> Path | None:
    """The folder of the asked version, else of the newest one; None where there is none."""
    home = data_dir / name
    if version is not None:
        return home / version if VERSION.fullmatch(version) and (home / version).is_dir() else None
    if not home.is_dir():
        return None
    folders = [folder for folder in home.iterdir() if folder.is_dir() and VERSION.fullmatch(folder.name)]
    return max(folders, key=lambda folder: tuple(map(int, folder.name.split("."))), default=None)


def _describe(name: str, folder: Path, data_dir: Path) -> PreparedDataset:
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(folder).info
    image_key, label_key = image_and_label(name, info)
    return PreparedDataset(
        name=name,
        version=folder.name,
        data_dir=data_dir,
        fingerprint=fingerprint(folder, info),
        class_names=tuple(info.features[label_key].names),
        image_shape=tuple(info.features[image_key].shape),
        image_key=image_key,
        label_key=label_key,
        split_sizes={split.name: split.num_examples for split in info.splits.values()},
    )
