"""Which homes are taken, and what is said of the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline import home as home_module
from mnist_tfx.pipeline.home import CHECKOUT, Home
from tests.fixtures.command import mnist_tfx
from tests.fixtures.locales import make_locale
from tests.fixtures.run_process import COMMAND

_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(*arguments: str | bytes | Path, **env: str) -> tuple[int, str, str]:
    answer = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=CHECKOUT, env={**os.environ, **env}, capture_output=True
    )
    return answer.returncode, answer.stdout.decode(), answer.stderr.decode()


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a terminal from before UTF-8."""
    return make_locale(tmp_path_factory.mktemp("locales"), "de_DE", "ISO-8859-1")


@pytest.mark.parametrize("name", ["Zürich", "日本"])
def test_a_home_that_the_locale_cannot_write_is_a_clear_error(
    tmp_path: Path, name: str, latin1: dict[str, str]
) -> None:
    for env, encoding in ((latin1, "iso8859-1"), (_ASCII, "ascii")):
        code, out, err = command("run", "--dataset", "mnist", "--home", os.fsencode(tmp_path / name), **env)
        assert (code, out) == (2, "")
        assert err.startswith("error: the home folder ") and f"(its encoding is {encoding})" in err
        assert "LC_ALL=C.UTF-8" in err
    assert list(tmp_path.iterdir()) == []


def test_in_the_c_locale_python_takes_utf_8_and_so_does_a_run(tmp_path: Path) -> None:
    code, out, err = command("runs", "--home", tmp_path / "日本", LC_ALL="C", PYTHONUTF8="", PYTHONCOERCECLOCALE="")
    assert (code, err) == (0, "")
    assert f"No run in {tmp_path / '日本'} yet" in out


def test_a_name_that_is_no_text_is_a_clear_error_in_every_locale(tmp_path: Path, latin1: dict[str, str]) -> None:
    for env in ({"LC_ALL": "C.UTF-8"}, latin1, _ASCII):
        code, _, err = command("runs", "--home", os.fsencode(tmp_path) + b"/\xff", **env)
        assert code == 2
        assert "has a name that is no UTF-8" in err and "Traceback" not in err


def test_an_ascii_terminal_gets_every_table(tmp_path: Path, latin1: dict[str, str]) -> None:
    for env in (_ASCII, latin1, {"PYTHONIOENCODING": "ascii"}):
        code, out, err = command("recipes", **env)
        assert (code, err) == (0, "")
        assert out.isascii() and "fashion_mnist" in out
    code, out, err = command("runs", "--home", tmp_path / "日本", LC_ALL="C.UTF-8", PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert "\\u65e5\\u672c" in out


@pytest.mark.parametrize("name", ["runs[1]", "a*", "what?", "back\\slash"])
def test_a_name_with_signs_of_file_patterns_is_refused(tmp_path: Path, name: str) -> None:
    """TFX would look for its own files by that pattern."""
    with pytest.raises(UsageError, match="has a sign of file patterns in its name"):
        Home.resolve(str(tmp_path / name))


def test_the_folders_of_a_configuration_of_a_dataset_lie_where_those_of_others_do() -> None:
    home = Home(Path("/home"))
    assert home.serving("emnist/By_Class").relative_to(home.serving_root) == Path("emnist_By_Class")
    assert home.report("emnist/By_Class", "a-run") == home.reports / "emnist_By_Class" / "a-run.html"
    assert home.log("emnist/By_Class", "a-run") == Path("/home/runs/emnist_By_Class/a-run/run.log")
    assert home.training_backup("emnist/By_Class") == home.cache("training_backup") / "emnist" / "By_Class"


def test_a_search_anew_forgets_the_trials_of_a_configuration_of_a_dataset(tmp_path: Path) -> None:
    data = '[data]\ndataset = "emnist/letters"\ndata_dir = "not-there"\n'
    (tmp_path / "recipe.toml").write_text(f"{data}[evaluation]\nmin_accuracy = 0.5\n")
    search = Home(tmp_path / "var").training_backup("emnist/letters") / "tuner-1"
    search.mkdir(parents=True)
    answer = mnist_tfx("tune", "--anew", "--project", tmp_path)
    assert (answer.code, search.exists()) == (1, False)
    assert "emnist/letters is not prepared" in answer.err


def test_a_home_behind_a_symlink_is_the_same_home(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert Home.resolve(str(tmp_path / "link")) == Home.resolve(str(tmp_path / "real"))


def test_so_is_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what it made, recorded by its path, would not lie in the home of the other name."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "var").symlink_to("disk")
    monkeypatch.setattr(home_module, "CHECKOUT", tmp_path)
    monkeypatch.delenv("MNIST_TFX_HOME", raising=False)
    assert Home.resolve(None) == Home.resolve(str(tmp_path / "var"))
