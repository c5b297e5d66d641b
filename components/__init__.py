"""The steps of the pipeline."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`components.DataBlessing`, the path by which TFX's container entry point imports the type of that artifact.

    Not imported before it is asked for: TFX would come along with every module of this package.
    """
    if name == "DataBlessing":
        from components.data_gate.component import DataBlessing

        return DataBlessing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
