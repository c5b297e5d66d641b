"""Real signals sent to real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mnist_tfx.pipeline.running.interrupts import EXIT_CODE, GRACE_SECONDS
from mnist_tfx.pipeline.runs.store import list_runs, load_run
from tests.pipeline.small_pipelines import run_small_pipeline

_CHECKOUT = Path(__file__).resolve().parents[3]
_START_UP_SECONDS = 120
_LEAVE_SECONDS = GRACE_SECONDS + 10  # an interpreter full of TensorFlow takes its time to shut down


@contextmanager
def process_at_work(home: Path, at_work: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, once it has made the file `at_work`."""
    command = [sys.executable, "-m", "tests.pipeline.run_small_pipeline", str(home), *options]
    process = subprocess.Popen(command, cwd=_CHECKOUT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + _START_UP_SECONDS
        while not at_work.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_cancels_and_the_next_run_goes_on_from_the_cache(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    with process_at_work(tmp_path, tmp_path / "flag.reached", f"behavior=wait:{flag}") as process:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=_LEAVE_SECONDS)
    assert process.returncode == 130
    assert "Trainer         stopped" in stderr
    assert "Traceback" not in stderr
    [run] = list_runs(tmp_path / "metadata.db")
    assert str(run.verdict()) == "stopped"
    executions = load_run(tmp_path / "metadata.db", run.run_id).executions
    assert [execution.state for execution in executions] == ["COMPLETE", "COMPLETE", "CANCELED"]
    assert not list(tmp_path.glob("runs/mnist/*/Trainer/model/*"))

    flag.unlink()
    result = run_small_pipeline(tmp_path, behavior=f"wait:{flag}")
    assert [node.cached for node in result.nodes] == [True, True, False, False, False]


def test_a_killed_run_is_closed_by_the_next_one(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    with process_at_work(tmp_path, tmp_path / "flag.reached", f"behavior=wait:{flag}") as process:
        process.kill()
        process.wait(timeout=_LEAVE_SECONDS)
    [killed] = list_runs(tmp_path / "metadata.db")
    assert str(killed.verdict()) == "killed"
    before = load_run(tmp_path / "metadata.db", killed.run_id).executions[-1]
    assert (before.component, before.state, before.seconds) == ("Trainer", "RUNNING", None)

    flag.unlink()
    result = run_small_pipeline(tmp_path, behavior=f"wait:{flag}")
    assert [node.cached for node in result.nodes] == [True, True, False, False, False]
    after = load_run(tmp_path / "metadata.db", killed.run_id)
    assert str(after.verdict()) == "killed"
    assert (after.executions[-1].state, after.executions[-1].seconds) == ("FAILED", None)


@pytest.mark.parametrize(
    ("step", "number"),
    [("beam", signal.SIGTERM), ("keras", signal.SIGINT), ("one-long-call", signal.SIGINT)],
)
def test_a_step_that_python_cannot_interrupt_stops_too(tmp_path: Path, step: str, number: signal.Signals) -> None:
    at_work = tmp_path / "at-work"
    with process_at_work(tmp_path, at_work, f"step={step}", f"flag={at_work}") as process:
        time.sleep(0.5)  # well into the long call
        process.send_signal(number)
        _, stderr = process.communicate(timeout=_LEAVE_SECONDS)
    assert process.returncode == EXIT_CODE
    assert "Slow  stopped" in stderr
    detail = load_run(tmp_path / "metadata.db", "latest")
    assert str(detail.verdict()) == "stopped"
    assert [execution.state for execution in detail.executions] == ["CANCELED"]
