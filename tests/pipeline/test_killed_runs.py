"""Runs that are killed with SIGKILL, component by component, each followed by another run of the same home."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs.store import list_runs, load_run
from tests.fixtures.locales import make_locale
from tests.fixtures.run_process import RunProcess, cached, run_process

# In the order in which they run; what a run killed in one of them has finished comes from the cache afterwards.
KILLED_IN = ("TfdsExampleGen", "Transform", "Trainer", "InfraValidator", "Pusher")
_SECONDS = 60
_SERVER_LIVES_ON_SECONDS = 10


def _servers(temporary: Path) -> list[psutil.Process]:
    """The model servers with files in the folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(temporary) in line and ("mnist_tfx.serving.server" in line or "tensorflow_model_server" in line):
            found.append(process)
    return found


def _wait(run: RunProcess, condition: Callable[[], object], seconds: float = _SECONDS) -> None:
    """Until the condition holds, or the run has ended. Without pauses: what is waited for may last milliseconds."""
    deadline = time.monotonic() + seconds
    while not condition() and run.process.poll() is None:
        assert time.monotonic() < deadline


def _in_the_middle(component: str, home: Home, temporary: Path) -> Callable[[], object]:
    """Whether the component, whose beginning was told, is in the middle of its work."""
    if component == "InfraValidator":
        return lambda: _servers(temporary)
    if component == "Pusher":
        return lambda: list(home.serving("kmnist").glob(".incoming*"))
    return lambda: list(home.runs("kmnist").glob(f"*/{component}/*/*/*"))


def _is_whole(version: Path, model: Path) -> bool:
    files = {path.relative_to(version) for path in version.rglob("*") if path.is_file()}
    return {path.relative_to(model) for path in model.rglob("*") if path.is_file()} <= files


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_in_any_component_harms_nothing_and_the_next_one_goes_on(
    tmp_path: Path, tiny: PreparedDataset, tiny_recipe_file: Path
) -> None:
    home, temporary = Home(tmp_path / "home"), tmp_path / "tmp"
    temporary.mkdir()
    shutil.copytree(tiny.data_dir, home.datasets)
    env = {"TMPDIR": str(temporary)}
    for component in KILLED_IN:
        with run_process(home.root, tiny_recipe_file, env=env) as run:
            run.wait_until_running(component)
            _wait(run, _in_the_middle(component, home, temporary))
            run.kill()
        for version in home.serving("kmnist").glob("[0-9]*"):
            [model] = home.runs("kmnist").glob("*/Trainer/model/*/Format-Serving")
            assert _is_whole(version, model)
        _assert_servers_end(temporary)

    with run_process(home.root, tiny_recipe_file, "--json", env=env) as run:
        answer = run.end()
    assert answer.code == 0, answer.err
    assert {"TfdsExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator", "InfraValidator"} <= set(
        cached(answer)
    )
    version = home.serving("kmnist") / answer.outcome["pushed_version"]
    assert (version / "saved_model.pb").is_file()
    # What the killed push left is no version; it goes once it is a day old, since it could be another run's.
    names = {path.name for path in home.serving("kmnist").iterdir()}
    assert {name for name in names if not name.startswith(".incoming-")} == {version.name}
    assert _servers(temporary) == []
    verdicts = [str(run.verdict()) for run in list_runs(home.metadata_db)]
    assert verdicts[0] == f"pushed version {version.name}"
    assert verdicts[1:] == ["killed"] * len(KILLED_IN)
    for run_record, component in zip(list_runs(home.metadata_db)[1:], reversed(KILLED_IN), strict=True):
        last = load_run(home.metadata_db, run_record.run_id).executions[-1]
        assert (last.component, last.state, last.error_type) == (component, "FAILED", "killed")
    uncached = load_run(home.metadata_db, "latest").executions[-1]
    assert uncached.component == "Report" and uncached.state == "COMPLETE"


def _assert_servers_end(temporary: Path) -> None:
    _, orphans = psutil.wait_procs(_servers(temporary), _SERVER_LIVES_ON_SECONDS)
    for orphan in orphans:
        orphan.kill()
    assert orphans == [], "a model server goes on without its run"


@pytest.fixture(scope="session")
def turkish(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Turkish user, to whom the capital of `i` is `İ`."""
    return make_locale(tmp_path_factory.mktemp("locales"), "tr_TR", "UTF-8")


@pytest.mark.slow
def test_a_turkish_locale_and_a_home_behind_a_symlink_with_an_unusual_name(
    tmp_path: Path, tiny: PreparedDataset, tiny_recipe_file: Path, turkish: dict[str, str]
) -> None:
    real, link = tmp_path / "İstanbul Ünlü 日本 100%#1", tmp_path / "home"
    shutil.copytree(tiny.data_dir, real / "datasets")
    os.symlink(real, link)
    for home, not_run in ((link, False), (real, True)):
        with run_process(home, tiny_recipe_file, "--json", env=turkish) as run:
            answer = run.end()
        assert answer.code == 0, answer.err
        [outcome] = json.loads(answer.out)
        assert all(component["cached"] is not_run for component in outcome["components"])
        assert outcome["report"].startswith(str(real)) and Path(outcome["report"]).is_file()
    assert [path.name for path in (real / "serving" / "kmnist").iterdir()] == [outcome["pushed_version"]]
