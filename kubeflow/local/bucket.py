"""A folder that stands for the profile's root in its bucket, with the way in which Kubeflow's launcher copies.

Names of functions are those of backend/src/v2/objectstore/object_store.go in github.com/kubeflow/pipelines.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError


class Bucket:
    """Objects are files. A folder that holds nothing is an object too, of the kind that marks a folder."""

    def __init__(self, root: str, folder: Path) -> None:
        """`folder` holds what lies under the address `root`."""
        self._root, self._folder = root.rstrip("/"), folder

    def path(self, address: str) -> Path:
        """Where an object, or all of a prefix, lies here.

        Raises:
            PipelineError: it lies elsewhere, where nothing is known of here.
        """
        if not f"{address}/".startswith(f"{self._root}/"):
            raise PipelineError(f"{address} does not lie under the root, {self._root}: run it on its cluster.")
        return self._folder / address.removeprefix(self._root).lstrip("/")

    def upload(self, source: Path, address: str) -> None:
        """`UploadBlob`: the files under `source`; folders that hold none leave no trace."""
        for file in [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file()):
            target = self.path(address) / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def download(self, address: str, target: Path) -> None:
        """`DownloadBlob` of all objects of a prefix.

        Raises:
            PipelineError: an object is in the way of another, as those that mark folders are.
        """
        base = self.path(address)
        copy_objects(address, ((key, base / key) for key in self._keys(base)), target)

    def _keys(self, base: Path) -> Iterator[str]:
        """Names of the objects, after that of the prefix, in the order of an object store; "" is the prefix itself."""
        if base.is_file():
            yield ""
            return
        found = (path for path in base.rglob("*") if path.is_file() or not any(path.iterdir()))
        yield from sorted(path.relative_to(base).as_posix() + ("/" if path.is_dir() else "") for path in found)


def copy_objects(address: str, objects: Iterable[tuple[str, Path]], target: Path) -> None:
    """The loop of `DownloadBlob` and `downloadFile`: every object becomes a file, also one that marks a folder.

    Args:
        address: of the artifact, for messages.
        objects: of each, its name after that of the artifact, and a file that holds it; a folder holds nothing.
        target: where the artifact is copied to.

    Raises:
        PipelineError: an object is in the way of another.
    """
    for key, source in objects:
        local = Path(os.path.normpath(target / key))
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(source.read_bytes() if source.is_file() else b"")
        except OSError as error:
            raise PipelineError(
                f"failed to download the input artifact {address}: object {key!r} cannot be copied to {local}: "
                f"{error.strerror}. Remove the objects there that only mark folders: their names end in '/'."
            ) from error
