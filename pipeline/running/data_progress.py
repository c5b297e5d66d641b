"""Shows how far the preparation of a dataset is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from mnist_tfx.components.datasets.progress import Progress
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.log_capture import original_stderr, output_to


@contextmanager
def shown_progress(name: str, home: Home) -> Iterator[Progress]:
    """Shows the stages of preparing dataset `name` on stderr: a bar on a terminal, else one line for each stage.

    What is printed and logged meanwhile goes to data.log in the home.
    """
    with (
        original_stderr() as stream,
        _bar(name, stream) if stream.isatty() else _lines(name, stream) as progress,
        output_to(home.root / "data.log"),
    ):
        yield progress


@contextmanager
def _lines(name: str, stream: TextIO) -> Iterator[Progress]:
    shown = None

    def print_stage(stage: str, done: int = 0, total: int | None = None) -> None:
        nonlocal shown
        if stage != shown:
            print(f"{name}: {stage}", file=stream, flush=True)
            shown = stage

    yield print_stage


@contextmanager
def _bar(name: str, stream: TextIO) -> Iterator[Progress]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn(f"{name}: {{task.description}}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(
        *columns, console=Console(file=stream), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task("starting", total=None)

        def update_bar(stage: str, done: int = 0, total: int | None = None) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield update_bar
