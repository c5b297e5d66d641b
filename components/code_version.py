"""What version of our own component code runs.

TFX's cache key holds a component's name and parameters but not its source, so an edited `preprocessing_fn` would be
answered from the cache. Each of our components therefore takes this version as a parameter.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path(__file__).resolve().parent
_REPORT = _ROOT / "report"


@functools.cache
def code_version() -> str:
    """The first 12 hex digits of a SHA-256 over the sources of `components/`.

    Without those of the report: it reads what others make, and nothing is made of it.
    """
    return _digest(path for path in _ROOT.rglob("*.py") if not path.is_relative_to(_REPORT))


@functools.cache
def report_version() -> str:
    """The same over all sources and the report's templates: another look is another report."""
    templates = (path for path in _REPORT.rglob("*") if path.suffix not in ("", ".py", ".pyc") and path.is_file())
    return _digest([*_ROOT.rglob("*.py"), *templates])


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
