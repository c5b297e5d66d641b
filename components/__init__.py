"""The steps of the pipeline, a folder each: the component (its interface), its executor, the work in plain functions.

Imports `contract`, and the client of `serving` to try a server; nothing that runs a pipeline. Start with `settings`,
which all share, or with `trainer`.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """`components.DataBlessing`, the path by which TFX's container entry point imports the type of that artifact.

    Not imported before it is asked for: TFX would come along with every module of this package.
    """
    if name == "DataBlessing":
        # By name, so that no step's version has the data gate in it (`components.code_version`).
        # The one moment at which a container runs our code before it looks for the classes of its outputs: the report,
        # whose class is not found by its type's name, has a DataBlessing among its inputs.
        importlib.import_module("mnist_tfx.components.report.artifact").make_known()
        return importlib.import_module("mnist_tfx.components.data_gate.component").DataBlessing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
