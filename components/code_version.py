"""What version of our own code a step runs, with which libraries.

TFX's cache key holds a component's name and parameters but not its source, so an edited `preprocessing_fn`, or another
TensorFlow, would be answered from the cache. `pipeline.dag` therefore gives each component this version, as a flag of
its executor: that is part of the key (tfx/orchestration/portable/cache_utils.py, get_cache_context).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tfx.dsl.components.base.base_component import BaseComponent

_ROOT = Path(__file__).resolve().parent.parent  # of `mnist_tfx`
_NAMESPACE = "mnist_tfx"
SOURCE = "MNIST_TFX_SOURCE"  # in a task's container: what `source_told` said where its pipeline was compiled
_TEMPLATES = "templates"  # a folder of a package whose files count as the package's source, if they are installed
_INSTALLED = (".css", ".html", ".md")
# What computes, checks, or decides how it is written down.
_PACKAGES = (
    "apache-beam",
    "keras",
    "keras-tuner",
    "ml-metadata",
    "numpy",
    "pillow",
    "protobuf",
    "scikit-learn",
    "scipy",
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
def code_version(*modules: str) -> str:
    """The first 12 hex digits of a SHA-256 over modules, all of ours that they import, and the packages' versions.

    What a module says counts, not how it looks: comments and layout do not. Modules that are not ours count by their
    package's version alone. Without modules: the version of all steps together.
    """
    return _version(modules, repr(sorted(package_versions().items())))


def source_told(*modules: str) -> str:
    """The modules and their version, without the packages': the same wherever they are the same code.

    Digits alone may be a number to some readers of YAML; behind `sha256:` they are none.
    """
    return " ".join([f"sha256:{_version(modules, '')}", *modules])


def _version(modules: Sequence[str], beside: str) -> str:
    digest = hashlib.sha256(beside.encode())
    for module in sorted(imported_modules(*(modules or _steps()))):
        digest.update(f"{module}\0{_read(module).digest}\0".encode())
    return digest.hexdigest()[:12]


def add_code_versions(
    components: Iterable[BaseComponent], called: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> None:
    """Gives each component its code version, as a flag of its executor.

    Args:
        components: of a pipeline.
        called: modules that a component runs and does not import itself, by its id.
    """
    for component in components:
        component.executor_spec.add_extra_flags([f"--code_version={code_version(*modules_of(component, called))}"])


def modules_of(component: BaseComponent, called: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Those whose code a component runs, with all that they import; `called` as `add_code_versions` has it."""
    return (type(component).__module__, *called.get(component.id, ()))


@functools.cache
def imported_modules(*modules: str) -> frozenset[str]:
    """Those of the modules that are ours, with all of ours that they import, directly or by others; at any depth."""
    found: set[str] = set()
    waiting = {module for module in modules if _file(module)}
    while waiting:
        found |= waiting
        waiting = {imported for module in waiting for imported in _read(module).imports} - found
    return frozenset(found)


def _steps() -> Iterator[str]:
    for path in (_ROOT / "components").rglob("*.py"):
        yield ".".join((_NAMESPACE, *path.relative_to(_ROOT).with_suffix("").parts)).removesuffix(".__init__")


def _file(module: str) -> Path | None:
    """The source of a module; None where it is not ours."""
    namespace, *parts = module.split(".")
    path = _ROOT.joinpath(*parts)
    if namespace != _NAMESPACE or not parts:
        return None
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


class _Source(NamedTuple):
    digest: str  # SHA-256 of what the module says, in hex
    imports: frozenset[str]  # our modules that it imports, and the packages around them


@functools.cache
def _read(module: str) -> _Source:
    """Reads a module of ours.

    The syntax tree is not kept: all of them together are what the garbage collector would walk through from then on.
    """
    file = _file(module)
    assert file is not None
    tree = ast.parse(file.read_bytes())
    templates = sorted(path for path in (file.parent / _TEMPLATES).rglob("*") if path.suffix in _INSTALLED)
    beside = templates if file.name == "__init__.py" else []
    said = "\0".join([ast.dump(tree), *(path.read_text(encoding="utf-8") for path in beside)])
    named = set(_named(tree))
    around = {name.rpartition(".")[0] for name in named | {module}}
    imports = frozenset(name for name in named | around if name and _file(name))
    return _Source(hashlib.sha256(said.encode()).hexdigest(), imports)


def _named(tree: ast.Module) -> Iterator[str]:
    """What the import statements name, at any depth."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))
