"""The steps of the pipeline."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`components.DataBlessing`, the path by which TFX's container entry point imports the type of that artifact.

    Not imported before it is asked for: TFX would come along with every module of this package.
    """
    if name == "DataBlessing":
        from components.data_gate.component import DataBlessing
        from components.report.artifact import make_known

        # The one moment at which a container runs our code before it looks for the classes of its outputs: the report,
        # whose class is not found by its type's name, has a DataBlessing among its inputs.
        make_known()
        return DataBlessing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
