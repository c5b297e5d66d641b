"""Runs whose disk becomes full or read-only under them, on real file systems; and the runs after those."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.pipeline.home import CHECKOUT
from mnist_tfx.pipeline.log_capture import lost_from
from mnist_tfx.pipeline.running.live_view import PlainLines
from mnist_tfx.pipeline.running.local_runner import run_pipeline
from mnist_tfx.pipeline.runs.store import list_runs
from tests.fixtures.run_process import COMMAND, cached, run_process
from tests.fixtures.small_disk import SmallDisk, small_disk
from tests.pipeline.small_pipelines import NODE_IDS, describe, small_pipeline


def small_run(disk: SmallDisk, *options: str) -> subprocess.Popen[str]:
    """The small pipeline in a process, with its home on the disk."""
    command = disk.inside(sys.executable, "-m", "tests.pipeline.run_small_pipeline", disk.path / "home", *options)
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_spoiled_disk_ends_a_run_with_one_message_and_the_next_run_goes_on(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with small_disk(tmp_path) as disk:
        ways = {"full": (disk.fill, disk.free), "read-only": (disk.make_read_only, disk.make_writable)}
        for state, (spoil, mend) in ways.items():
            flag.touch()
            process = small_run(disk, f"behavior=wait:{flag}")
            while not (tmp_path / "flag.reached").exists():
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            spoil()
            flag.unlink()
            _, err = process.communicate()
            assert process.returncode == 1
            assert f"error: the disk of {disk.path / 'home'} is {state} (" in err and ", and repeat" in err
            assert "what failed: Trainer failed: " in err and "[mnist] Trainer         failed" in err
            assert err.count("error: ") == 1 and "Traceback" not in err
            (tmp_path / "flag.reached").unlink()
            mend()
        out, err = small_run(disk, f"behavior=wait:{flag}").communicate()
        shutil.copy(disk.seen / "home" / "metadata.db", tmp_path)
    states = ["TfdsExampleGen cached", "DataGate cached", "Trainer run", "Evaluator run", "Pusher run"]
    assert out.splitlines() == states, err
    # How the others ended could not be noted.
    assert [str(run.verdict()) for run in list_runs(tmp_path / "metadata.db")] == [
        "pushed version 7",
        "killed",
        "killed",
    ]


LIMITED = """
import resource, sys
from pathlib import Path
from tests.pipeline.run_small_pipeline import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # ML Metadata takes 240 KB
sys.exit(main(Path(sys.argv[1]), {}))
"""


def test_a_limit_on_file_sizes_is_told_like_a_full_disk(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, tmp_path]
    answer = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert answer.returncode == 1
    assert f"error: the disk of {tmp_path} fails to read or to write" in answer.stderr
    assert "`ulimit -f`" in answer.stderr and "Traceback" not in answer.stderr


def test_a_log_that_cannot_be_written_fails_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log, stream = tmp_path / "run.log", io.StringIO()
    log.mkdir()
    with PlainLines("mnist", NODE_IDS, describe, stream) as observer:
        result = run_pipeline(small_pipeline(tmp_path, "a-run"), run_id="a-run", log_file=log, observer=observer)
    print("after the run")
    assert len(result.nodes) == 5
    assert lost_from(log) == "Is a directory"
    assert capfd.readouterr() == ("after the run\n", "")


@pytest.mark.parametrize("command", [("recipes",), ("runs", "--json")])
def test_output_that_cannot_be_written_is_a_failure_that_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    home = ("--home", tmp_path) if command[0] == "runs" else ()
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            [sys.executable, "-c", COMMAND, *command, *home],
            cwd=CHECKOUT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (answer.returncode, answer.stderr) == (
        1,
        "error: cannot write to standard output: No space left on device.\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["home", "temporary files"])
def test_a_whole_run_says_which_disk_is_full_and_goes_on_once_there_is_room(
    tmp_path: Path, tiny: PreparedDataset, tiny_recipe_file: Path, what: str
) -> None:
    with small_disk(tmp_path) as disk:
        home = (disk.path if what == "home" else tmp_path) / "home"
        shutil.copytree(tiny.data_dir, (disk.seen if what == "home" else tmp_path) / "home" / "datasets")
        env = {"TMPDIR": str(disk.path)} if what != "home" else {}
        with run_process(home, tiny_recipe_file, "--json", inside=disk.inside, env=env) as run:
            run.wait_until_running("Transform")
            disk.fill()
            failed = run.end()
        assert failed.code == 1
        assert f"error: the disk of {home if what == 'home' else disk.path}" in failed.err
        assert "is full" in failed.err and "Traceback" not in failed.err
        assert "is full" in failed.outcome["error"]
        assert f"log of kmnist: {home}/runs/kmnist/{failed.outcome['run']}/run.log" in failed.err
        if what == "home":
            assert "(not whole: No space left on device)" in failed.err
        else:
            report = Path(failed.outcome["report"])
            assert report.is_file() and "is full" in report.read_text()
        disk.free()
        with run_process(home, tiny_recipe_file, "--json", inside=disk.inside, env=env) as run:
            again = run.end()
        assert again.code == 0, again.err
        assert {"TfdsExampleGen", "StatisticsGen", "DataGate"} <= set(cached(again))
        assert again.outcome["pushed_version"]


def test_a_home_on_a_full_disk_is_refused_at_once(tmp_path: Path, tiny_recipe_file: Path) -> None:
    with small_disk(tmp_path) as disk:
        disk.fill()
        with run_process(disk.path / "home", tiny_recipe_file, inside=disk.inside) as run:
            answer = run.end()
    assert answer.code == 1
    assert f"only 0 MiB free on the disk of {disk.path / 'home'}; a run needs 300 MiB. Free space" in answer.err
