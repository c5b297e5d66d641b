"""What version of our own code runs, with which libraries.

TFX's cache key holds a component's name and parameters but not its source, so an edited `preprocessing_fn`, or another
TensorFlow, would be answered from the cache. Each of our components therefore takes this version as a parameter, and
`pipeline.dag` gives it to TFX's.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path(__file__).resolve().parent
_REPORT = _ROOT / "report"
# The infra validator runs the server and the client, the Pusher reads and writes what the releases know.
_SERVING = [_ROOT.parent / "serving" / folder for folder in ("client", "releases", "server")]
# What computes, checks, or decides how it is written down.
_PACKAGES = (
    "apache-beam",
    "keras",
    "keras-tuner",
    "ml-metadata",
    "numpy",
    "pillow",
    "protobuf",
    "tensorflow",
    "tensorflow-data-validation",
    "tensorflow-datasets",
    "tensorflow-metadata",
    "tensorflow-model-analysis",
    "tensorflow-serving-api",
    "tensorflow-transform",
    "tfx",
    "tfx-bsl",
)


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide how a run behaves."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


@functools.cache
def code_version() -> str:
    """The first 12 hex digits of a SHA-256 over `components/`, what it uses of `serving/`, and the packages' versions.

    Without those of the report: it reads what others make, and nothing is made of it.
    """
    own = (path for path in _ROOT.rglob("*.py") if not path.is_relative_to(_REPORT))
    return _digest([*own, *_of_serving()])


@functools.cache
def report_version() -> str:
    """The same with the report's sources and templates: another look is another report."""
    templates = (path for path in _REPORT.rglob("*") if path.suffix not in ("", ".py", ".pyc") and path.is_file())
    return _digest([*_ROOT.rglob("*.py"), *_of_serving(), *templates])


def _of_serving() -> Iterable[Path]:
    return (path for folder in _SERVING for path in folder.rglob("*.py"))


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256(repr(sorted(package_versions().items())).encode())
    for path in sorted(paths):
        digest.update(path.relative_to(_ROOT.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
