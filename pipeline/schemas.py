"""The curated schemas, as files whose path changes with their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from components.errors import UsageError, unknown_name

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


def snapshot_schema(dataset: str, folder: Path) -> Path:
    """Copies a dataset's curated schema to a path named by its content.

    ImportSchemaGen's only parameter is the path: with the path of the original, an edited schema would be a cache hit.

    Raises:
        UsageError: the dataset has no curated schema.
    """
    source = SCHEMAS / dataset / "schema.pbtxt"
    if not source.is_file():
        known = [path.parent.name for path in SCHEMAS.glob("*/schema.pbtxt")]
        raise UsageError(
            f"{unknown_name('schema', dataset, known)} Write schemas/{dataset}/schema.pbtxt; the one of mnist is a "
            "good start for small grayscale images."
        )
    content = source.read_bytes()
    target = folder / dataset / hashlib.sha256(content).hexdigest()[:12] / "schema.pbtxt"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(target)
    return target
