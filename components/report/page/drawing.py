"""Draws charts with matplotlib, as SVG in the page's own colours and fonts.

What matplotlib writes is a file of its own: fixed colours and fonts in style attributes, which the page's policy
forbids, and ids that two charts of one page share. `chart` makes of it a part of the page: every colour a variable of
the style sheet, so that one drawing serves light, dark and print; text as text.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mnist_tfx.components.report.page.words import bound, count


class Colour(StrEnum):
    """The style sheet's variables that drawings use. The values are matplotlib's names for them, and stay with it."""

    INK = "#000001"
    SOFT = "#000002"
    LINE = "#000003"
    RULE = "#000004"
    CARD = "#000005"
    BLUE = "#000006"
    RED = "#000007"
    BAR = "#000008"
    SERIES_1 = "#000009"
    SERIES_2 = "#00000a"
    SERIES_3 = "#00000b"

    @property
    def variable(self) -> str:
        """What the page knows it by."""
        return f"var(--{self.name.lower().replace('_', '-')})"


WIDTH = 340  # units of a drawing: CSS pixels on a phone, at most a quarter larger on a screen
PERCENT = FuncFormatter(lambda share, _: bound(share))  # for the ticks of an axis
COUNT = FuncFormatter(lambda number, _: count(number))
_TOP, _RIGHT, _BOTTOM = 28, 12, 40  # margins around the plot
_NAMES, _NAMES_HEIGHT = 5, 16  # in a row of the legend, and how high each further row is
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in the name of a class is a dollar
    "font.size": 11.5,  # as the style sheet says: matplotlib makes room for it
    "text.color": Colour.SOFT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": Colour.RULE,
    "axes.labelcolor": Colour.SOFT,
    "axes.labelsize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 6),
    "axes.autolimit_mode": "round_numbers",
    "axes.xmargin": 0,
    "axes.ymargin": 0,
    "grid.color": Colour.LINE,
    "grid.linewidth": 1,
    "xtick.color": Colour.RULE,
    "xtick.labelcolor": Colour.SOFT,
    "ytick.color": Colour.SOFT,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.markersize": 4,
    "patch.edgecolor": Colour.CARD,
    "patch.linewidth": 0.6,
    "patch.force_edgecolor": True,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0.4,
}
_KEPT = {
    "fill",
    "fill-opacity",
    "opacity",
    "stroke",
    "stroke-dasharray",
    "stroke-linecap",
    "stroke-width",
    "text-anchor",
}
_OWN_NAME = re.compile(r".*_\d+")  # the ids that matplotlib gives to groups
_NOT_TURNED = re.compile(r"rotate\(-0 [^)]*\)")
_DIGITS = re.compile(r"(\.\d)\d+")  # a tenth of a unit is finer than a screen shows
_ONE_AT_A_TIME = threading.Lock()  # matplotlib's settings are the process's


@dataclass(frozen=True)
class Table:
    """What a chart shows, in numbers. The first cell of a row is its name."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """One chart with its words and its numbers."""

    key: str  # unique within the page
    title: str
    note: str
    svg: Markup
    table: Table


def chart(
    key: str,
    title: str,
    plot: Callable[[Axes], None],
    table: Table,
    *,
    description: str = "",
    note: str = "",
    height: int = 224,
    left: int = 58,
) -> Chart:
    """Draws a chart; the same plot gives the same SVG, byte by byte.

    Args:
        key: its id, unique within the page.
        title: of the figure.
        plot: draws into the axes. What it labels is named in the legend, where there are two or more; the gid of an
            artist becomes the class of its group in the SVG.
        table: the same in numbers.
        description: in words, with numbers, what a reader would see; by default title and note say that.
        note: what is said under the title.
        height: of the drawing, in its own units.
        left: how far to the right its plot begins.
    """
    file = io.StringIO()
    # "default" first: the user's own matplotlibrc has no say in this page.
    with _ONE_AT_A_TIME, style.context(["default", {**_SETTINGS, "svg.hashsalt": key}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the reader's browser has other fonts
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        across, up = (WIDTH - left - _RIGHT) / WIDTH, (height - _TOP - _BOTTOM) / height
        axes = figure.add_axes((left / WIDTH, _BOTTOM / height, across, up))
        plot(axes)
        _, names = axes.get_legend_handles_labels()
        if len(names) > _NAMES:  # room for the further rows
            plotted = height - _TOP - _BOTTOM
            height += (len(names) - 1) // _NAMES * _NAMES_HEIGHT
            figure.set_size_inches(WIDTH / 72, height / 72)
            axes.set_position((left / WIDTH, _BOTTOM / height, across, plotted / height))
        if len(names) > 1:
            columns = min(len(names), _NAMES)
            axes.legend(loc="upper left", bbox_to_anchor=(0, 1), bbox_transform=figure.transFigure, ncols=columns)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    _belong_to_the_page(root)
    words = description or f"{title}. {note}"
    root.attrib = {"class": "chart", "viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": words}
    svg = Markup(ElementTree.tostring(root, encoding="unicode"))  # which has escaped it
    return Chart(key, title, note, svg, table)


def _belong_to_the_page(element: ElementTree.Element) -> None:
    """Takes out name spaces, styles, ids that the page already has, and what nobody sees."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if element.tag != "text":
        element.text = None
    attributes = {name.rpartition("}")[2]: _DIGITS.sub(r"\1", value) for name, value in element.attrib.items()}
    attributes.pop("clip-path", None)  # the axes hold all that is drawn
    for declaration in attributes.pop("style", "").split("; "):
        name, _, value = declaration.partition(": ")
        if name in _KEPT:
            attributes[name] = Colour(value).variable if value.startswith("#") else value
    if _NOT_TURNED.fullmatch(attributes.get("transform", "")):
        del attributes["transform"]
    if element.tag == "g" and "id" in attributes:
        identifier = attributes.pop("id")
        if not _OWN_NAME.fullmatch(identifier):
            attributes["class"] = identifier
    element.attrib = attributes
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("metadata", "style", "clipPath"):
            element.remove(child)
            continue
        _belong_to_the_page(child)
        if child.tag in ("g", "defs") and not len(child):
            element.remove(child)
