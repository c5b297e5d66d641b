"""`mnist-tfx data prepare` as a user calls it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_tfx.components.datasets.prepared import NotPrepared
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands import data
from mnist_tfx.pipeline.commands.options.project import add_project_argument
from mnist_tfx.pipeline.data import find_dataset
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.recipes import load_recipe
from tests.fixtures.tiny_dataset import write_idx_files

_ROOT = Path(__file__).parents[3]


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    add_project_argument(parser)
    return data.run(parser.parse_args(words))


def test_what_is_missing_in_a_data_dir_of_ones_own_is_not_to_be_prepared_in_the_home(tmp_path: Path) -> None:
    recipe = load_recipe("mnist", "default", [f"data.data_dir={json.dumps(str(tmp_path))}"])
    with pytest.raises(NotPrepared, match=r" is not prepared in .*\. Prepare it there, or leave data\.data_dir out"):
        find_dataset(recipe, Home.resolve(str(tmp_path / "home")))


def test_json_on_stdout_and_stages_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, home = tmp_path / "source", tmp_path / "home"
    write_idx_files(source, train=20, test=10)
    words = ("prepare", "--dataset", "kmnist", "--home", str(home), "--from", str(source), "--json")

    assert _run(*words) == 0
    out, err = capfd.readouterr()
    (first,) = json.loads(out)
    assert (first["dataset"], first["version"], first["already_prepared"]) == ("kmnist", "3.0.1", False)
    assert first["splits"] == {"train": 20, "test": 10}
    assert first["folder"] == str(home / "datasets" / "kmnist" / "3.0.1")
    assert "kmnist: writing examples\n" in err
    assert "\x1b" not in err

    assert _run(*words) == 0
    out, err = capfd.readouterr()
    (second,) = json.loads(out)
    assert second["already_prepared"] is True
    assert second["fingerprint"] == first["fingerprint"]
    assert "--from was not looked at" in err


def test_from_needs_one_dataset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dataset"):
        _run("prepare", "--from", str(tmp_path), "--home", str(tmp_path))


def test_a_shipped_dataset_with_a_builder_of_its_own_is_prepared_by_its_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run("prepare", "--dataset", "digits", "--home", str(tmp_path), "--json") == 0
    [answer] = json.loads(capfd.readouterr().out)
    assert (
        answer["folder"] == str(tmp_path / "datasets" / "digits" / "1.0.0") and sum(answer["splits"].values()) == 1797
    )
    with pytest.raises(UsageError, match="not made of MNIST's four IDX files"):
        _run("prepare", "--dataset", "digits", "--home", str(tmp_path / "other"), "--from", str(tmp_path))


def test_help_imports_no_tensorflow() -> None:
    script = "import sys, mnist_tfx.pipeline.commands.data; print([n for n in sys.modules if n[:10] == 'tensorflow'])"
    result = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
