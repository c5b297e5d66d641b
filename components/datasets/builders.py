"""TFDS's dataset builders: finding one by name, and having the MNIST-like ones read local IDX files."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from etils import epath

from mnist_tfx.components.datasets.idx import IdxDataset, IdxSplit
from mnist_tfx.components.datasets.prepared import check_name, image_and_label
from mnist_tfx.components.datasets.progress import Progress
from mnist_tfx.components.datasets.published import DATASETS, IDX_FILES
from mnist_tfx.contract.errors import UsageError, unknown_name

# A class of TFDS, which is not typed: a subclass of tfds.core.DatasetBuilder.
BuilderClass = Any

_NEAREST = 8  # names shown for an unknown one, of TFDS's several hundred
_REPORT_EVERY = 500  # examples between two reports of progress


def find_builder(name: str, own: str = "") -> tuple[BuilderClass, str | None]:
    """The builder class of `builder` or `builder/configuration`, and the configuration. Uses no network.

    Args:
        name: the dataset's.
        own: where a class of the user's own is, `package.module:Class` or `file.py:Class`; empty: it is TFDS's.

    Raises:
        UsageError: there is no such builder or configuration, or it has configurations and none is named.
    """
    check_name(name)
    base, _, config = name.partition("/")
    cls = import_builder(own) if own else _builder_of_tfds(base)
    if cls.name != base:
        raise UsageError(f"the builder {own} makes dataset {cls.name!r}, not {base!r}: correct data.dataset.")
    configs = [each.name for each in cls.BUILDER_CONFIGS]
    if config and config not in configs:
        raise unknown_name(f"configuration of dataset {base!r}", config, configs or ["(it has none)"])
    if configs and not config:
        raise UsageError(f"dataset {base!r} has configurations. Name one: {', '.join(f'{base}/{c}' for c in configs)}.")
    return cls, config or None


def _builder_of_tfds(name: str) -> BuilderClass:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)  # the others are listed in a bucket
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=_NEAREST, cutoff=0.5)
        raise UsageError(
            f"{unknown_name('dataset', name, {*nearest, *DATASETS})} One of your own: data.data_dir=DIR (or "
            "TFDS_DATA_DIR) where it lies prepared, or data.builder=package.module:Class or file.py:Class."
        )
    return tfds.builder_cls(name)


def import_builder(own: str) -> BuilderClass:
    """The class at `package.module:Class` or `file.py:Class`.

    Raises:
        UsageError: it cannot be imported, or is no TFDS builder.
    """
    import tensorflow_datasets as tfds

    place, _, name = own.rpartition(":")
    try:
        with tfds.core.registered.skip_registration():  # its name may be one of TFDS's, too
            return _class_at(place, name)
    except Exception as error:  # the user's own code may raise anything
        raise UsageError(
            f"cannot import the builder {own!r}: {type(error).__name__}: {error}. "
            "Write package.module:Class or file.py:Class."
        ) from error


def _class_at(place: str, name: str) -> BuilderClass:
    import tensorflow_datasets as tfds

    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    cls = getattr(module, name)
    if not (isinstance(cls, type) and issubclass(cls, tfds.core.DatasetBuilder)):
        raise TypeError(f"{name} is no subclass of tfds.core.DatasetBuilder")
    # Where TFDS looks for more files of a builder: what it would infer holds for modules of regular packages alone.
    file = epath.Path(str(module.__file__))
    for attribute, value in (("code_path", file), ("pkg_dir_path", file.parent)):
        setattr(cls, attribute, value)
    return cls


def open_builder(cls: BuilderClass, config: str | None, version: str | None, data_dir: Path) -> Any:
    """The builder that would write into `data_dir`, checked to be one of labeled images. Uses no network.

    Raises:
        UsageError: TFDS cannot make this version, or the dataset is not one of labeled images.
    """
    makes = cls.VERSION or next((each.version for each in cls.BUILDER_CONFIGS if each.name == config), None)
    if version is not None and version != str(makes):
        raise UsageError(f"this TFDS can prepare {cls.name} in version {makes} only, not {version!r}.")
    builder = cls(data_dir=data_dir, config=config)
    image_and_label(cls.name, builder.info)
    return builder


def reads_idx_files(cls: BuilderClass) -> bool:
    """Whether the builder reads MNIST's four files, so that local ones can stand in for its downloads."""
    from tensorflow_datasets.image_classification import MNIST

    return issubclass(cls, MNIST) and cls._split_generators is MNIST._split_generators


def download_urls(cls: BuilderClass) -> list[str]:
    """What the builder downloads, as far as TFDS tells without downloading."""
    if reads_idx_files(cls):
        return [urljoin(cls.URL, f"{name}.gz") for name in IDX_FILES]
    return list(cls.url_infos or ())


def from_idx_files(cls: BuilderClass, dataset: IdxDataset, progress: Progress) -> BuilderClass:
    """The same builder, reading `dataset` instead of downloading.

    Name, version, features and the code that makes examples stay TFDS's own, so that `tfds.load` reads the result as if
    TFDS had downloaded it.
    """
    total = dataset.train.count + dataset.test.count

    def examples(builder: Any, split: IdxSplit, offset: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, example in builder._generate_examples(split.count, split.images, split.labels):
            if index % _REPORT_EVERY == 0:
                progress("writing examples", offset + index, total)
            yield index, example
        progress("writing examples", offset + split.count, total)

    class FromIdxFiles(cls, skip_registration=True):  # type: ignore[misc, call-arg]
        name = cls.name
        url_infos = None  # nothing is downloaded, so there are no sums of downloads to look up
        __module__ = cls.__module__  # is recorded in dataset_info.json

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {
                "train": examples(self, dataset.train, 0),
                "test": examples(self, dataset.test, dataset.train.count),
            }

    return FromIdxFiles
