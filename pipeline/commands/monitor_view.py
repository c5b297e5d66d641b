"""What `mnist-tfx monitor` prints."""

from __future__ import annotations

import sys

from rich.table import Table

from mnist_tfx.components.monitoring.checks import Check
from mnist_tfx.components.monitoring.watch import Report, Watched
from mnist_tfx.pipeline.runs.views import stdout_console


def tell(report: Report) -> None:
    """A table of checks and one of hours for each version; then the verdict. Notes go to standard error."""
    console = stdout_console()
    for each in report.versions:
        looked = "" if each.sampled == each.images else f", {each.sampled:,} of them looked at"
        console.print(f"version {each.version}: {each.images:,} images since {report.since:%Y-%m-%d %H:%M} UTC{looked}")
        if each.checks:
            console.print(_checks(each))
        if len(each.hours) > 1:
            console.print(_hours(each))
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    console.print(report.sentence(), soft_wrap=True)


def _checks(watched: Watched) -> Table:
    table = Table("check", "value", "bound", "verdict", "by")
    for check in watched.checks:
        value, bound = ("", "") if check.told else (f"{check.value:.4f}", f"{check.bound:.4f}")
        table.add_row(check.name, value, bound, _verdict(check), check.told or check.by)
    return table


def _hours(watched: Watched) -> Table:
    table = Table("hour (UTC)", "images", "verdict")
    for hour in watched.hours:
        drifting = [f"{check.name} {check.value:.3f} > {check.bound:.3f}" for check in hour.checks if check.drifts]
        verdict = f"drift: {', '.join(drifting)}" if drifting else "in order" if hour.checks else "too few to say"
        table.add_row(f"{hour.begin:%Y-%m-%d %H}:00", f"{hour.images:,}", verdict)
    return table


def _verdict(check: Check) -> str:
    return "drift" if check.drifts else "in order"
