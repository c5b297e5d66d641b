"""Draws what the packages hold and which imports which, from the code itself, into docs/architecture.svg.

    python -m scripts.architecture

An arrow leads from a package to one that it imports. One that other arrows lead to as well is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

CHECKOUT = Path(__file__).resolve().parents[1]
PICTURE = CHECKOUT / "docs" / "architecture.svg"
NAMESPACE = "mnist_tfx."
PACKAGES = ("pipeline", "kubeflow", "components", "serving", "contract")

_WIDTH, _ROW, _GAP, _LINE = 960, 96, 56, 17  # pixels
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1d2733 }
.name { font-weight: 600 }
.small { font-size: 11px; fill: #5a6775 }
rect { fill: #f4f7fa; stroke: #7b8b9a }
path { fill: none; stroke: #7b8b9a; stroke-width: 1.4 }
marker path { fill: #7b8b9a }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9fb0c0 }
  rect { fill: #1b2430; stroke: #6c7d8d }
}"""


@dataclass(frozen=True)
class Box:
    """A part of the project: modules under these prefixes, but for those that another box names more closely."""

    title: str
    prefixes: tuple[str, ...]
    holds: str


# From the top, where users come in, down to what all rely on.
ROWS: tuple[tuple[Box, ...], ...] = (
    (
        Box(
            "pipeline.commands",
            ("pipeline.cli", "pipeline.commands", "pipeline.doctor", "pipeline.run_recipe"),
            "one module for each command",
        ),
    ),
    (
        Box("kubeflow", ("kubeflow",), "compile, check, run on clusters"),
        Box("pipeline.runs", ("pipeline.runs",), "past runs, from ML Metadata"),
        Box("pipeline.running", ("pipeline.running",), "runs on this machine"),
    ),
    (Box("pipeline", ("pipeline",), "the definition: DAG, recipes, settings"),),
    (Box("components", ("components",), "the steps"),),
    (
        Box("serving.releases", ("serving.releases",), "rollback, canary, promote"),
        Box("serving.client", ("serving.client",), "stands alone"),
        Box("serving.server", ("serving.server",), "TF Serving's interface"),
        Box("serving.demo", ("serving.demo",), "a page to try a model"),
    ),
    (Box("contract", ("contract",), "names, versions on disk, errors and exit codes"),),
)


def draw() -> str:
    """The picture as SVG; the same code gives the same bytes."""
    graph = grimp.build_graph(*(NAMESPACE + name for name in PACKAGES), cache_dir=None)
    boxes = [box for row in ROWS for box in row]
    found = {module: _box_of(module.removeprefix(NAMESPACE), boxes) for module in sorted(graph.modules)}
    modules = {box.title: [m.removeprefix(NAMESPACE) for m, of in found.items() if of is box] for box in boxes}
    arrows = {
        (found[importer].title, found[imported].title)
        for importer in found
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    places = _places()
    shown = [arrow for arrow in sorted(without_detours(arrows)) if arrow[0] in places and arrow[1] in places]
    height = len(ROWS) * (_ROW + _GAP)
    parts = [
        *(_arrow(places[one], places[other]) for one, other in shown),
        *(_box(box, places[box.title], modules[box.title]) for box in boxes),
    ]
    return picture(_WIDTH, height, "The packages of the project, and which imports which", parts)


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """An SVG with the colours, and the arrows' heads, of these pictures."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title">',
        f'<title id="title">{title}</title>',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z"/></marker></defs>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes it."""
    PICTURE.write_text(draw())
    print(PICTURE)


def _box_of(module: str, boxes: Iterable[Box]) -> Box:
    def closeness(box: Box) -> int:
        return max((len(p) for p in box.prefixes if f"{module}.".startswith(f"{p}.")), default=0)

    return max(boxes, key=closeness)


def without_detours(arrows: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Without those from one box to itself, and without those whose ends a way over other boxes joins."""
    kept = {arrow for arrow in arrows if arrow[0] != arrow[1]}
    return {(one, other) for one, other in kept if not _reaches(one, other, kept - {(one, other)})}


def _reaches(one: str, other: str, arrows: set[tuple[str, str]]) -> bool:
    reached, waiting = set(), [one]
    while waiting:
        for start, end in arrows:
            if start == waiting[-1] and end not in reached:
                reached.add(end)
                waiting.insert(0, end)
        waiting.pop()
    return other in reached


def _places() -> dict[str, tuple[float, float, float]]:
    """Left, top and width of each box."""
    found = {}
    for number, row in enumerate(ROWS):
        width = (_WIDTH - 24 * (len(row) + 1)) / len(row)
        for column, box in enumerate(row):
            found[box.title] = (24 + column * (width + 24), number * (_ROW + _GAP) + 8.0, width)
    return found


def _arrow(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    (left, top, width), (other_left, other_top, other_width) = start, end
    low, high = max(left, other_left), min(left + width, other_left + other_width)
    x, to_x = ((low + high) / 2,) * 2 if low < high else (left + width / 2, other_left + other_width / 2)
    if top == other_top:
        y = top + _ROW / 2
        x, to_x = (left, other_left + other_width) if left > other_left else (left + width, other_left)
        return f'<path d="M{x:.0f} {y:.0f}L{to_x:.0f} {y:.0f}" marker-end="url(#head)"/>'
    return f'<path d="M{x:.0f} {top + _ROW:.0f}L{to_x:.0f} {other_top:.0f}" marker-end="url(#head)"/>'


def _box(box: Box, place: tuple[float, float, float], modules: Sequence[str]) -> str:
    left, top, width = place
    inside = sorted({m.removeprefix(f"{box.title}.").split(".")[0] for m in modules if m.startswith(f"{box.title}.")})
    words = [
        f'<text class="name" x="{left + 10:.0f}" y="{top + 20:.0f}">{escape(box.title)}</text>',
        f'<text x="{left + 10:.0f}" y="{top + 20 + _LINE:.0f}">{escape(box.holds)}</text>',
        f'<text class="small" x="{left + width - 10:.0f}" y="{top + _ROW - 8:.0f}" text-anchor="end">'
        f"{len(modules)} modules</text>",
    ]
    for number, line in enumerate(wrapped(inside, int((width - 20) / 6.2))[:2]):
        y = top + 20 + (number + 2) * _LINE
        words.append(f'<text class="small" x="{left + 10:.0f}" y="{y:.0f}">{escape(line)}</text>')
    return f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{_ROW}" rx="6"/>' + "".join(words)


def wrapped(words: Sequence[str], columns: int) -> list[str]:
    """Words, divided by commas, in lines of at most so many characters."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + 2 > columns:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + word
    return lines


if __name__ == "__main__":
    main()
