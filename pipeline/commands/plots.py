"""Plots of the range test and of trials, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mnist_tfx.components.range_test.curve import RULE, Curve, Suggestion
from mnist_tfx.components.tuner.results import TrialResult, settings_of_any

_SIZE, _DPI = (8.0, 4.8), 120  # inches, dots per inch
_RAW, _LINE, _MARK = "#b8c4d0", "#1f5a94", "#b3261e"


def plot_range_test(curve: Curve, suggestion: Suggestion | None, title: str, path: Path) -> None:
    """Draws loss against learning rate, with the suggestion where there is one."""
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(curve.rates, curve.losses, color=_RAW, linewidth=0.8, label="loss of each batch")
    axes.plot(curve.rates, curve.smoothed, color=_LINE, linewidth=1.8, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion.lowest, color=_LINE, linestyle=":", label=f"lowest: {suggestion.lowest:.2g}")
        axes.axvline(
            suggestion.learning_rate, color=_MARK, linestyle="--", label=f"suggested: {suggestion.learning_rate:.2g}"
        )
    axes.set_xscale("log")
    if len(curve.smoothed):  # a loss that has blown up would press the rest flat
        axes.set_ylim(0.0, 1.3 * float(max(curve.smoothed[0], curve.smoothed.min() * 3.0)))
    axes.set_xlabel("learning rate" + (f"\nsuggested is {RULE}" if suggestion else ""))
    axes.set_ylabel("training loss")
    axes.set_title(title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, format="png")


def plot_trials(trials: Sequence[TrialResult], monitor: str, title: str, path: Path) -> None:
    """Draws the score of each trial against each searched setting; later trials are darker, the best is marked."""
    keys = settings_of_any(trials)
    figure = Figure(figsize=(4.0 * len(keys), 4.2), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(all_axes, keys, strict=True):
        having = [trial for trial in trials if key in trial.settings]
        values = [trial.settings[key] for trial in having]
        if not all(type(value) in (int, float) for value in values):
            values = [str(value) for value in values]
        axes.scatter(
            values,
            [trial.score for trial in having],
            c=[trial.number for trial in having],
            cmap="Blues",
            vmin=-len(trials),
            vmax=max(trial.number for trial in trials),
            edgecolors=_LINE,
        )
        if having[0] is trials[0]:
            axes.scatter(values[:1], [having[0].score], s=140, facecolors="none", edgecolors=_MARK, linewidths=1.8)
        if type(values[0]) is float and min(values) > 0 and max(values) / min(values) > 20:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.12)
        axes.set_xlabel(key)
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel(f"{monitor}, split eval")
    figure.suptitle(title)
    figure.savefig(path, format="png")
