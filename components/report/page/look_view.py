"""Examples, samples and weights as the page shows them: images and probability bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnist_tfx.components.report.content import Data, Filter, Image, LookedAt
from mnist_tfx.components.report.page.images import data_uri, weights_uri
from mnist_tfx.components.report.page.words import percent, shorten

_BARS = 4  # most probable classes shown of an example; its own class comes on top if it is not among them
_NAME_CHARACTERS = 12
_SAMPLE_PIXELS = 84  # width of an image on the page, in CSS pixels, before the style sheet fits it


@dataclass(frozen=True)
class ProbabilityBar:
    """The probability of one class; `width` in percent."""

    name: str
    short: str
    width: float
    text: str
    style: str
    sign: str


@dataclass(frozen=True)
class ExampleView:
    """One example of split test."""

    uri: str
    width: int
    height: int
    alt: str
    actual: str
    predicted: str
    confidence: str
    right: bool
    position: int
    bars: tuple[ProbabilityBar, ...]


@dataclass(frozen=True)
class ImageView:
    """A sample (`name`: its class) or the weights of a unit (`name`: its number)."""

    uri: str
    width: int
    height: int
    name: str
    unit: int = 0


def example_view(item: LookedAt, class_names: Sequence[str]) -> ExampleView:
    """An example with bars for its most probable classes and its own class, the most probable first."""
    order = sorted(range(len(item.probabilities)), key=lambda number: -item.probabilities[number])
    shown = order[:_BARS] + [number for number in order[_BARS:] if number == item.actual]
    actual, predicted = class_names[item.actual], class_names[item.predicted]
    right = item.actual == item.predicted
    width, height = _shown_size(item.image)
    return ExampleView(
        uri=data_uri(item.image),
        width=width,
        height=height,
        alt=f"example {item.position}: true class {actual}, guess {predicted} with {percent(item.confidence, 1)}, "
        f"{'right' if right else 'wrong'}; {percent(item.probabilities[item.actual], 1)} for the true class",
        actual=actual,
        predicted=predicted,
        confidence=percent(item.confidence, 1),
        right=right,
        position=item.position,
        bars=tuple(_bar(item, number, class_names[number]) for number in shown),
    )


def sample_views(data: Data) -> tuple[ImageView, ...]:
    """The samples with the names of their classes."""
    return tuple(
        ImageView(data_uri(sample.image), *_shown_size(sample.image), data.class_names[sample.label])
        for sample in data.samples
    )


def filter_views(filters: Sequence[Filter]) -> tuple[ImageView, ...]:
    """The weights, in colours."""
    return tuple(
        ImageView(weights_uri(a_filter.image), *_shown_size(a_filter.image), str(a_filter.unit), a_filter.unit)
        for a_filter in filters
    )


def _shown_size(image: Image) -> tuple[int, int]:
    height, width = image.shape[:2]
    return _SAMPLE_PIXELS, round(_SAMPLE_PIXELS * height / width)


def _bar(item: LookedAt, number: int, name: str) -> ProbabilityBar:
    if number == item.actual:
        style, sign = "is-true", "✓ "
    elif number == item.predicted:
        style, sign = "is-wrong", "✗ "
    else:
        style, sign = "", ""
    share = item.probabilities[number]
    return ProbabilityBar(name, shorten(name, _NAME_CHARACTERS), round(100 * share, 1), percent(share, 1), style, sign)
