"""Shows a run while it goes on: a live table on a terminal, one line per event elsewhere. Imports no TensorFlow.

Components report progress to the standard logger `mnist_tfx.progress` at INFO and know nothing of observers, so that
they can do it in any runner.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mnist_tfx.pipeline.log_capture import original_stderr
from mnist_tfx.pipeline.observer import Describe

PROGRESS_LOGGER = "mnist_tfx.progress"

_PLAIN_PERIOD_SECONDS = 5.0  # between two progress lines of one component
_STYLES = {"running": "bold", "cached": "cyan", "done": "green", "failed": "bold red", "stopped": "yellow"}


@dataclass
class _Row:
    state: str = "waiting"
    started: float = 0.0
    seconds: float | None = None  # None while waiting or running
    made: str = ""

    def seconds_so_far(self) -> float | None:
        return time.monotonic() - self.started if self.state == "running" else self.seconds


class _Rows(logging.Handler):
    """The state of every node, and what the two observers have in common. As a handler it hears the progress logger."""

    def __init__(self, title: str, node_ids: Sequence[str], describe: Describe) -> None:
        super().__init__(logging.INFO)
        self.title = title
        self.rows = {node_id: _Row() for node_id in node_ids}
        self._describe = describe
        self._current: str | None = None
        self._on_exit = ExitStack()

    def __enter__(self) -> Self:
        logger = logging.getLogger(PROGRESS_LOGGER)
        self._on_exit.callback(logger.setLevel, logger.level)
        self._on_exit.callback(logger.removeHandler, self)
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._on_exit.close()

    def emit(self, record: logging.LogRecord) -> None:
        if self._current is not None:
            self.progress(self._current, record.getMessage())

    def started(self, node_id: str) -> None:
        """A node begins."""
        self._current = node_id
        self.rows[node_id] = _Row("running", time.monotonic())
        self._show(node_id)

    def progress(self, node_id: str, message: str) -> None:
        """A running node reports."""
        self.rows[node_id].made = message
        self._show_progress(node_id)

    def finished(self, node_id: str, seconds: float, cached: bool, outputs: Mapping[str, Sequence[Any]]) -> None:
        """A node succeeded, by running or from the cache."""
        try:
            made = self._describe(node_id, outputs)
        except Exception:  # a description is not worth the hours a finished training took
            logging.getLogger(__name__).exception("no description of what %s made", node_id)
            made = ""
        self._end(node_id, "cached" if cached else "done", seconds, made)

    def failed(self, node_id: str, seconds: float, error: BaseException) -> None:
        """A node raised `error`; the user stopped it where that is a KeyboardInterrupt."""
        stopped = isinstance(error, KeyboardInterrupt)
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        self._end(node_id, "stopped" if stopped else "failed", seconds, "" if stopped else first_line)

    def _end(self, node_id: str, state: str, seconds: float, made: str) -> None:
        self._current = None
        self._before_end(node_id)
        self.rows[node_id] = _Row(state, seconds=seconds, made=made)
        self._show(node_id)

    def _before_end(self, node_id: str) -> None:
        pass

    def _show_progress(self, node_id: str) -> None:
        self._show(node_id)

    def _show(self, node_id: str) -> None:
        raise NotImplementedError


class LiveTable(_Rows):
    """A table that is redrawn in place; a context manager."""

    def __init__(self, title: str, node_ids: Sequence[str], describe: Describe, console: Console) -> None:
        super().__init__(title, node_ids, describe)
        # The runner has diverted stdout and stderr to the log already; rich must not divert them to the terminal.
        self._live = Live(
            get_renderable=self._table,
            console=console,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self._on_exit.enter_context(self._live)
        self._live.refresh()
        self._live.console.show_cursor(True)  # so that a killed process leaves a usable terminal
        return self

    def _show(self, node_id: str) -> None:
        self._live.refresh()

    def _show_progress(self, node_id: str) -> None:
        pass  # the next redraw has it

    def _table(self) -> Table:
        table = Table(title=self.title, title_justify="left", expand=False)
        table.add_column("component", no_wrap=True)
        table.add_column("state", no_wrap=True, min_width=7)
        table.add_column("seconds", justify="right", no_wrap=True)
        table.add_column("what it made", overflow="fold")
        for node_id, row in self.rows.items():
            seconds = row.seconds_so_far()
            style = _STYLES.get(row.state, "dim")
            time_cell = "" if seconds is None else f"{seconds:.1f}"
            table.add_row(node_id, Text(row.state, style), time_cell, Text(row.made))
        return table


class PlainLines(_Rows):
    """One line per event, for logs and pipes; a context manager."""

    def __init__(
        self,
        title: str,
        node_ids: Sequence[str],
        describe: Describe,
        stream: TextIO,
        period_seconds: float = _PLAIN_PERIOD_SECONDS,
    ) -> None:
        super().__init__(title, node_ids, describe)
        self._stream = stream
        self._period_seconds = period_seconds
        self._width = max(map(len, node_ids), default=0)
        self._printed = -math.inf  # when a progress line was last printed
        self._held_back = False
        self._lock = threading.RLock()  # Beam's threads report too

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "milestone", False):  # shown however short a time ago the last line was
            self._printed = -math.inf
        super().emit(record)

    def _show(self, node_id: str) -> None:
        row = self.rows[node_id]
        seconds = row.seconds_so_far() or 0.0
        line = f"[{self.title}] {node_id:{self._width}}  {row.state:7} {seconds:8.1f} s  {row.made}"
        print(line.rstrip(), file=self._stream, flush=True)

    def _show_progress(self, node_id: str) -> None:
        with self._lock:
            self._held_back = time.monotonic() - self._printed < self._period_seconds
            if not self._held_back:
                self._printed = time.monotonic()
                self._show(node_id)

    def _before_end(self, node_id: str) -> None:
        with self._lock:
            if self._held_back:
                self._show(node_id)
            self._held_back, self._printed = False, -math.inf


@contextmanager
def make_observer(title: str, node_ids: Sequence[str], describe: Describe) -> Iterator[LiveTable | PlainLines]:
    """The observer that suits standard error: a table on a terminal, else lines. Make it before output is diverted."""
    with original_stderr() as stream:
        console = Console(file=stream)
        if stream.isatty() and not console.is_dumb_terminal:
            with LiveTable(title, node_ids, describe, console) as table:
                yield table
        else:
            with PlainLines(title, node_ids, describe, stream) as lines:
                yield lines
