"""What version of our own component code runs.

TFX's cache key holds a component's name and parameters but not its source, so an edited `preprocessing_fn` would be
answered from the cache. Each of our components therefore takes this version as a parameter.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def code_version() -> str:
    """The first 12 hex digits of a SHA-256 over the sources of `components/`."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent
    for source in sorted(root.rglob("*.py")):
        digest.update(source.relative_to(root).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
