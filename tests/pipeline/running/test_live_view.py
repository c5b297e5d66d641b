from __future__ import annotations

import io
import logging
import pty
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from mnist_tfx.pipeline.running.live_view import PROGRESS_LOGGER, LiveTable, PlainLines, make_observer
from mnist_tfx.pipeline.running.local_runner import run_pipeline
from tests.pipeline.small_pipelines import NODE_IDS, describe, small_pipeline

PROGRESS = logging.getLogger(PROGRESS_LOGGER)


def table(stream: io.StringIO, title: str = "mnist", nodes: Sequence[str] = ("Trainer", "Pusher")) -> LiveTable:
    return LiveTable(title, nodes, describe, Console(file=stream, force_terminal=True, width=100))


def without_controls(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def last_frame(stream: io.StringIO) -> dict[str, list[str]]:
    """The cells of each row as last drawn."""
    frame = without_controls(stream.getvalue()).rpartition("component")[2]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in frame.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}


def test_the_table_shows_states_progress_and_what_was_made() -> None:
    stream = io.StringIO()
    with table(stream) as live:
        assert last_frame(stream) == {"Trainer": ["waiting", "", ""], "Pusher": ["waiting", "", ""]}
        live.started("Trainer")
        PROGRESS.info("epoch %d/%d  accuracy %.2f", 3, 20, 0.97)
        live._live.refresh()
        state, seconds, made = last_frame(stream)["Trainer"]
        assert (state, made) == ("running", "epoch 3/20  accuracy 0.97")
        assert float(seconds) < 5
        live.finished("Trainer", 12.34, False, {})
        live.started("Pusher")
        live.failed("Pusher", 0.5, ValueError("disk full\nand more"))
    assert last_frame(stream) == {
        "Trainer": ["done", "12.3", "made by Trainer"],
        "Pusher": ["failed", "0.5", "disk full"],
    }


def test_cached_and_stopped_are_states_of_their_own() -> None:
    stream = io.StringIO()
    with table(stream) as live:
        live.started("Trainer")
        live.finished("Trainer", 0.01, True, {})
        live.started("Pusher")
        live.failed("Pusher", 3.0, KeyboardInterrupt())
    assert last_frame(stream) == {
        "Trainer": ["cached", "0.0", "made by Trainer"],
        "Pusher": ["stopped", "3.0", ""],
    }


def test_the_cursor_stays_visible() -> None:
    stream = io.StringIO()
    with table(stream):
        assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_plain_lines_hold_progress_back_and_never_lose_the_last() -> None:
    stream = io.StringIO()
    with PlainLines("mnist", ["Trainer", "Pusher"], describe, stream, period_seconds=3600) as lines:
        lines.started("Trainer")
        for epoch in range(1, 6):
            PROGRESS.info("epoch %d/5", epoch)
        lines.finished("Trainer", 12.34, False, {})
        lines.started("Pusher")
        lines.finished("Pusher", 0.0, True, {})
    assert stream.getvalue().splitlines() == [
        "[mnist] Trainer  running      0.0 s",
        "[mnist] Trainer  running      0.0 s  epoch 1/5",
        "[mnist] Trainer  running      0.0 s  epoch 5/5",
        "[mnist] Trainer  done        12.3 s  made by Trainer",
        "[mnist] Pusher   running      0.0 s",
        "[mnist] Pusher   cached       0.0 s  made by Pusher",
    ]


def test_progress_between_runs_and_below_info_is_not_shown() -> None:
    stream = io.StringIO()
    with PlainLines("mnist", ["Trainer"], describe, stream) as lines:
        PROGRESS.info("nobody is running")
        lines.started("Trainer")
        PROGRESS.debug("a detail")
    PROGRESS.info("nobody listens")
    assert len(stream.getvalue().splitlines()) == 1
    assert PROGRESS.handlers == []


def test_a_description_that_fails_does_not_fail_the_run(caplog: pytest.LogCaptureFixture) -> None:
    def broken(node_id: str, outputs: Mapping[str, Sequence[object]]) -> str:
        raise KeyError("metrics")

    stream = io.StringIO()
    with PlainLines("mnist", ["Trainer"], broken, stream) as lines:
        lines.started("Trainer")
        lines.finished("Trainer", 1.0, False, {})
    assert stream.getvalue().endswith("[mnist] Trainer  done         1.0 s\n")
    assert "no description of what Trainer made" in caplog.text


def test_a_pipe_gets_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with make_observer("mnist", ["Trainer"], describe) as observer:
        assert isinstance(observer, PlainLines)
        observer.started("Trainer")
    assert capfd.readouterr().err.startswith("[mnist] Trainer  running")


def test_a_terminal_gets_the_table_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    controller, terminal = pty.openpty()
    shown = bytearray()
    reader = threading.Thread(target=_read_to_the_end, args=(controller, shown))
    reader.start()
    with open(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        pipeline = small_pipeline(tmp_path, "a-run")
        with make_observer("mnist", NODE_IDS, describe) as observer:
            assert isinstance(observer, LiveTable)
            result = run_pipeline(pipeline, run_id="a-run", log_file=tmp_path / "run.log", observer=observer)
        monkeypatch.undo()
    reader.join()
    text = without_controls(shown.decode())
    assert len(result.nodes) == 5
    assert "made by Pusher" in text
    assert "printed by the trainer" not in text
    assert "written to descriptor 2" not in text


def _read_to_the_end(controller: int, into: bytearray) -> None:
    with open(controller, "rb", buffering=0) as stream:
        try:
            while chunk := stream.read(4096):
                into += chunk
        except OSError:  # how Linux tells that the terminal's other end is closed
            pass
