"""Draws the pipeline's components and what leads from one to the next, from the DAG itself, into docs/pipeline.svg.

    python -m scripts.pipeline_picture

Each box names what its component puts out. An arrow that other arrows lead to as well is left out.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from tfx.dsl.components.base.base_component import BaseComponent

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.pipeline.dag import Paths, create_pipeline
from mnist_tfx.pipeline.recipes import load_recipe
from scripts.architecture import CHECKOUT, picture, without_detours, wrapped

PICTURE = CHECKOUT / "docs" / "pipeline.svg"
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 210, 42, 34, 22  # pixels
_COLUMNS = 34  # of text in a box


def draw() -> str:
    """The picture as SVG; the same pipeline gives the same bytes."""
    components = _components()
    arrows = without_detours(
        {(upstream.id, one.id) for one in components for upstream in one.upstream_nodes if upstream.id != one.id}
    )
    depth: dict[str, int] = {}
    for one in components:  # in an order to run in
        depth[one.id] = max((depth[start] + 1 for start, end in arrows if end == one.id), default=0)
    rows = [[one for one in components if depth[one.id] == level] for level in range(max(depth.values()) + 1)]
    widest = max(map(len, rows))
    width, height = widest * (_WIDTH + _GAP_X) + _GAP_X, len(rows) * (_HEIGHT + _GAP_Y)
    places = {}
    for level, row in enumerate(rows):
        first = (width - len(row) * (_WIDTH + _GAP_X) + _GAP_X) / 2
        for column, one in enumerate(row):
            places[one.id] = (first + column * (_WIDTH + _GAP_X), level * (_HEIGHT + _GAP_Y) + 8)
    parts = [
        *(_arrow(places[start], places[end]) for start, end in sorted(arrows)),
        *(_box(one, places[one.id]) for one in components),
    ]
    return picture(width, height, "The components of the pipeline, and which waits for which", parts)


def _components() -> list[BaseComponent]:
    recipe = load_recipe("mnist", "default")
    dataset = PreparedDataset("mnist", "3.0.1", Path(), "", tuple("0123456789"), (28, 28, 1), "image", "label", {})
    paths = Paths(pipeline_root="", data_dir="", schema_file="", training_backup="", serving="")
    return [one for one in create_pipeline(recipe, dataset, paths).components if isinstance(one, BaseComponent)]


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x, y = start[0] + _WIDTH / 2, start[1] + _HEIGHT
    to_x, to_y = end[0] + _WIDTH / 2, end[1]
    middle = to_y - _GAP_Y / 2
    return f'<path d="M{x:.0f} {y:.0f}V{middle:.0f}H{to_x:.0f}V{to_y:.0f}" marker-end="url(#head)"/>'


def _box(one: BaseComponent, place: tuple[float, float]) -> str:
    left, top = place
    [outputs, *_] = wrapped(list(one.outputs), _COLUMNS)
    words = [
        f'<text class="name" x="{left + 10:.0f}" y="{top + 18:.0f}">{escape(one.id)}</text>',
        f'<text class="small" x="{left + 10:.0f}" y="{top + 34:.0f}">{escape(outputs)}</text>',
    ]
    return f'<rect x="{left:.0f}" y="{top:.0f}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>' + "".join(words)


def main() -> None:
    """Writes it."""
    PICTURE.write_text(draw())
    print(PICTURE)


if __name__ == "__main__":
    main()
