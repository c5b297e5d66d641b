"""Reports of local runs: page and model card of one, the page of several beside each other, and the index of all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from mnist_tfx.components.report.collect import collect
from mnist_tfx.components.report.content import Drawn, IndexRow
from mnist_tfx.components.report.make import Made, kept, make_report
from mnist_tfx.components.report.run import Run
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.runs.store import list_runs
from mnist_tfx.pipeline.text_files import replace_text

_LOGGER = logging.getLogger(__name__)
INDEX = "index.html"


def leave_report(home: Home, run: Run) -> str | None:
    """`write_report` at the end of a `measured` run, which no failure here may fail: None then, and the log says why.

    What its component drew, or had drawn where the cache answered, is not drawn again.
    """
    return _left(lambda: write_report(home, run, drawn=kept(run)))


def leave_comparison(home: Home, runs: Sequence[Run]) -> str | None:
    """`write_comparison` likewise."""
    return _left(lambda: write_comparison(home, runs))


def _left(write: Callable[[], dict[str, Any]]) -> str | None:
    try:
        return str(write()["report"])
    except Exception:
        _LOGGER.exception("no report was left")
        return None


def write_report(home: Home, run: Run, output: Path | None = None, *, drawn: Drawn | None = None) -> dict[str, Any]:
    """Makes the report of a run, at `output`, or at its place with its card and the index of all runs.

    Args:
        home: where the run was made.
        run: what is known of it.
        output: another file to write to.
        drawn: what is already drawn of it; else it is made anew.

    Returns:
        What programs may want to know of it: `run`, `dataset`, `report` (the path), `outcome`, `headline`, `accuracy`,
        `worst_class`, `worst_class_accuracy`, `pushed_version`, `failures`, `warnings`.

    Raises:
        PipelineError: a file cannot be written.
    """
    path = output or home.report(run.dataset, run.run_id)
    made = make_report(run, drawn)
    _put(path, made.page)
    told = {"run": run.run_id, "dataset": run.dataset, "report": str(path), **_told(run, made)}
    if output is None:
        # The index is made from these: reading every run's evaluation again would take longer with every run.
        _put(_summary_file(path), json.dumps(told, indent=2))
        if made.card:
            _put(home.card(run.dataset, run.run_id), made.card)
        write_index(home)
    return told


def write_card(run: Run, output: Path | None) -> str:
    """The model card of a run, in Markdown; it is also written to `output`, where one is named.

    Raises:
        PipelineError: the file cannot be written.
    """
    from mnist_tfx.components.report.page.render import render_card

    card = render_card(collect(run))
    if output:
        _put(output, card)
    return card


def write_comparison(home: Home, runs: Sequence[Run], output: Path | None = None) -> dict[str, Any]:
    """Makes a page of two or more runs beside each other.

    Returns:
        `runs`, `dataset` and `report`, the path.

    Raises:
        UsageError: they are of different datasets.
        PipelineError: the file cannot be written.
    """
    from mnist_tfx.components.report.page.render import render_comparison

    first = runs[0]
    if second := next((run for run in runs if run.dataset != first.dataset), None):
        raise UsageError(
            f"{first.run_id} is a run of {first.dataset} and {second.run_id} one of {second.dataset}: "
            "only runs of one dataset can be compared."
        )
    names = [run.run_id for run in runs]
    others = names[1] if len(runs) == 2 else f"{len(runs) - 1}-more-{sha256(' '.join(names).encode()).hexdigest()[:8]}"
    path = output or home.reports / first.dataset / "comparisons" / f"{first.run_id}-and-{others}.html"
    _put(path, render_comparison(*map(collect, runs)))
    return {"runs": names, "dataset": first.dataset, "report": str(path)}


def write_index(home: Home) -> Path:
    """Makes the index of all runs, the newest first."""
    from mnist_tfx.components.report.page.render import render_index

    rows = []
    for run in list_runs(home.metadata_db):
        told = _read_summary(Path(run.report)) if run.report else {}
        verdict = run.verdict()
        rows.append(
            IndexRow(
                run_id=run.run_id,
                dataset=run.dataset,
                started=run.started,
                seconds=run.seconds,
                verdict=str(verdict),
                good=verdict.good,
                accuracy=told.get("accuracy"),
                report=Path(run.report).relative_to(home.reports).as_posix() if run.report else None,
            )
        )
    path = home.reports / INDEX
    _put(path, render_index(rows))
    return path


def _put(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)  # nobody opens half a page
    except OSError as error:
        raise PipelineError(
            f"cannot write {path}: {error.strerror}. Name another file with -o FILE, or free space."
        ) from error


def _told(run: Run, made: Made) -> dict[str, Any]:
    verdict = made.verdict or run.verdict()
    return {
        "outcome": verdict.outcome,
        "headline": verdict.headline,
        "accuracy": verdict.accuracy,
        "worst_class": verdict.worst_class,
        "worst_class_accuracy": verdict.worst_class_accuracy,
        "pushed_version": verdict.pushed_version,
        "failures": [asdict(failure) for failure in verdict.failures],
        "warnings": list(verdict.warnings) if made.verdict else ["the report could not be made; the log says why"],
    }


def _summary_file(report: Path) -> Path:
    return report.with_suffix(".json")


def _read_summary(report: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(_summary_file(report).read_text()))
    except (OSError, ValueError):
        return {}
