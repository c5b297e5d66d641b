"""Charts of the data: how bright the pixels of each split are."""

from __future__ import annotations

import numpy as np

from mnist_tfx.components.report.content import SplitData
from mnist_tfx.components.report.page.charts import Chart, Table, bar, frame, percent_labels
from mnist_tfx.components.report.page.scales import ticks
from mnist_tfx.components.report.page.words import count, percent

_BIN = 5  # values per bar: 1..255 makes 51 bars


def intensity_charts(splits: tuple[SplitData, ...]) -> tuple[Chart, ...]:
    """One histogram per split that has its pixels counted, all with the same axes, so that they can be compared.

    Value 0 is told in words: in MNIST it is four of five pixels, and as a bar it would flatten all others.
    """
    shares = {split.name: _shares(split) for split in splits}
    known = [share for share in shares.values() if share is not None]
    if not known:
        return ()
    highest = max(float(share[1:].reshape(-1, _BIN).sum(axis=1).max()) for share in known) or 1.0
    axes = frame(
        (1, 256),
        ticks(0.0, highest, 4),
        x_name="pixel value (0 is left out)",
        y_name="share of pixels",
        x_ticks=(1, 64, 128, 192, 255),
        y_labels=percent_labels,
        height=190,
    )
    charts = []
    for index, split in enumerate(splits):
        share = shares[split.name]
        if share is None:
            continue
        bins = share[1:].reshape(-1, _BIN).sum(axis=1)
        mean = float((share * np.arange(256)).sum())
        told = f"{percent(float(share[0]), 1)} of the pixels are 0; the mean value is {mean:.1f}."
        charts.append(
            Chart(
                key=f"intensity-{index}",
                title=f"Pixels of split {split.name}",
                note=f"{told} Counted over {count(split.intensity_images)} images.",
                description=f"Histogram of pixel values of split {split.name}, in bars of {_BIN} values. {told} The "
                f"fullest bar begins at value {1 + _BIN * int(bins.argmax())}, with {percent(float(bins.max()), 1)}.",
                frame=axes,
                bars=tuple(
                    bar(axes, (1 + _BIN * place, 1 + _BIN * (place + 1)), (0.0, float(value)))
                    for place, value in enumerate(bins)
                ),
                table=Table(
                    ("pixel values", "share of pixels"),
                    (
                        ("0", percent(float(share[0]))),
                        *(
                            (f"{1 + _BIN * place} to {_BIN * (place + 1)}", percent(float(value)))
                            for place, value in enumerate(bins)
                        ),
                    ),
                ),
                height=190,
            )
        )
    return tuple(charts)


def _shares(split: SplitData) -> np.ndarray | None:
    if split.intensity is None or not split.intensity.sum():
        return None
    return split.intensity / split.intensity.sum()
