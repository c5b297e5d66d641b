"""What the page of `mnist-tfx monitor` shows: each distribution beside that of split test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from mnist_tfx.components.monitoring.distributions import CLASSES, MEASURES
from mnist_tfx.components.report.page.drawing import PERCENT, Chart, Colour, Table, chart
from mnist_tfx.components.report.page.render import render
from mnist_tfx.components.report.page.words import MANY_CLASSES, UNKNOWN, general, number, percent, shorten

if TYPE_CHECKING:
    from mnist_tfx.components.monitoring.watch import Report, Watched


def render_monitoring(report: Report) -> str:
    """What monitoring found of a model: verdicts, distributions and unusual images, as a complete HTML page.

    Apart from the other pages: a change of monitoring is none of the run's report.
    """
    return render("monitoring.html", report=report, distribution_charts=distribution_charts)


def distribution_charts(watched: Watched) -> tuple[Chart, ...]:
    """Classes, and then each measure; in each the shares of the requests over those of split test."""
    reference, answers = watched.reference, watched.answers
    charts = []
    if len(reference.class_names) <= MANY_CLASSES:
        found = np.bincount(answers.classes, minlength=len(reference.class_names))
        names = [shorten(name, 12) for name in reference.class_names]
        charts.append(_chart(watched, CLASSES, "how often each is the answer", names, reference.classes, found))
    for name, histogram in reference.histograms.items():
        edges = [general(edge) for edge in histogram.edges]
        bins = [f"{low} to {high}" for low, high in zip([UNKNOWN, *edges], [*edges, UNKNOWN], strict=True)]
        found = histogram.count(answers.values[name])
        charts.append(_chart(watched, name, MEASURES[name], bins, histogram.counts, found))
    return tuple(charts)


def _chart(
    watched: Watched,
    name: str,
    words: str,
    bins: Sequence[str],
    reference: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
) -> Chart:
    then, now = reference / reference.sum(), found / max(found.sum(), 1)
    edges = np.arange(len(bins) + 1)

    def plot(axes: Axes) -> None:
        axes.stairs(then, edges, fill=True, color=Colour.BAR, label="split test", gid="bars")
        axes.stairs(now, edges, color=Colour.SERIES_2, linewidth=2, label="requests", gid="curve requests")
        numbered = range(len(bins)) if name == CLASSES else range(1, len(bins) + 1)
        label = "class number" if name == CLASSES else "row of the table"
        axes.set(xlabel=label, xlim=(0, len(bins)), ylim=(0, 1.05 * max(then.max(), now.max())))
        axes.set_xticks(edges[:-1] + 0.5, [str(each) for each in numbered])
        axes.yaxis.set_major_formatter(PERCENT)

    check = next((each for each in watched.checks if each.name == name), None)
    told = f"{words[:1].upper()}{words[1:]}."
    if check:
        verdict = "drift" if check.drifts else "in order"
        told += f" {check.by} {number(check.value, 3)}, bound {number(check.bound, 3)}: {verdict}."
    most = int(np.abs(now - then).argmax())
    apart = (
        f"Furthest apart at {bins[most]}: {percent(then[most], 1)} of split test, {percent(now[most], 1)} of requests."
    )
    rows = zip(bins, then, now, strict=True)
    return chart(
        f"{name}-{watched.version}",
        name.capitalize(),
        plot,
        Table(("bin", "split test", "requests"), tuple((each, percent(a, 1), percent(b, 1)) for each, a, b in rows)),
        description=f"{name.capitalize()}. {told} {apart}",
        note=told,
    )
