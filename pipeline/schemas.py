"""The curated schemas, as files whose path changes with their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mnist_tfx.contract.errors import UsageError, unknown_name

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


def curated_schema(dataset: str) -> Path:
    """The file with a dataset's curated schema.

    Raises:
        UsageError: the dataset has none.
    """
    source = SCHEMAS / dataset / "schema.pbtxt"
    if not source.is_file():
        known = [path.parent.name for path in SCHEMAS.glob("*/schema.pbtxt")]
        raise UsageError(
            f"{unknown_name('schema', dataset, known)} Write schemas/{dataset}/schema.pbtxt; the one of mnist is a "
            "good start for small grayscale images."
        )
    return source


def schema_digest(dataset: str) -> str:
    """Names the content of a dataset's curated schema: the first 12 hex digits of its SHA-256.

    ImportSchemaGen's only parameter is the path: with the path of the original, an edited schema would be a cache hit.
    """
    return hashlib.sha256(curated_schema(dataset).read_bytes()).hexdigest()[:12]


def snapshot_schema(dataset: str, folder: Path) -> Path:
    """Copies a dataset's curated schema to a path named by its content.

    Raises:
        UsageError: the dataset has no curated schema.
    """
    target = folder / dataset / schema_digest(dataset) / "schema.pbtxt"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(curated_schema(dataset).read_bytes())
    partial.replace(target)
    return target
