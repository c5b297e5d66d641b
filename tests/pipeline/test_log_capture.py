from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_tfx.pipeline.log_capture import lost_from, output_to, relevant_tail


def test_every_way_of_writing_ends_in_the_log_and_nowhere_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "new" / "run.log"
    with output_to(log):
        print("printed")
        print("printed as an error", file=sys.stderr)
        print("without an end of line", end="")
        os.write(1, b"\nto descriptor 1\n")
        os.write(2, b"to descriptor 2\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
        logging.getLogger("anyone").info("logged")
        logging.getLogger("absl").info("logged by TFX")
    text = log.read_text()
    for piece in (
        "printed\n",
        "printed as an error\n",
        "without an end of line",
        "to descriptor 1\n",
        "to descriptor 2\n",
        "by a child\n",
        "INFO anyone: logged\n",
        "INFO absl: logged by TFX\n",
    ):
        assert piece in text
    assert capfd.readouterr() == ("", "")


def test_all_is_restored_after_an_exception(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (sys.stdout, sys.stderr, root.handlers[:], root.level)
    with pytest.raises(KeyboardInterrupt), output_to(tmp_path / "log"):
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr, root.handlers, root.level) == before
    os.write(2, b"back")
    assert capfd.readouterr().err == "back"


def test_a_handler_made_inside_writes_to_the_next_log_too(tmp_path: Path) -> None:
    logger = logging.Logger("like-tensorflow")
    with output_to(tmp_path / "first"):
        logger.addHandler(logging.StreamHandler(sys.stderr))
    with output_to(tmp_path / "second"):
        logger.warning("later")
    assert (tmp_path / "second").read_text() == "later\n"


def test_the_tail_leaves_out_bookkeeping(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with output_to(log):
        print("of the node before")
    offset = log.stat().st_size
    with output_to(log):
        logging.getLogger("absl").info("Going to run a new execution:\nwith\na whole proto")
        os.write(2, b"C++ says something\n")
        logging.getLogger("trainer").warning("two\nlines")
    tail = relevant_tail(log, offset)
    assert tail[0] == "C++ says something"
    assert tail[1].endswith("WARNING trainer: two")
    assert tail[2:] == ["  | lines"]


def test_a_log_on_a_full_disk_fails_nobody_and_all_is_restored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.symlink_to("/dev/full")
    before = (sys.stdout, sys.stderr)
    with output_to(log):
        assert lost_from(log) is None
        print("printed")
        logging.getLogger("anyone").warning("logged")
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'by a child')"], stderr=subprocess.DEVNULL)
        print("without an end of line", end="")
    assert lost_from(log) == "No space left on device"
    assert (sys.stdout, sys.stderr) == before
    os.write(2, b"back")
    assert capfd.readouterr() == ("", "back")
    assert relevant_tail(log, 0) == []
