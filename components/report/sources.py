"""What a report is made from: a run and its artifacts. TFX tells of them, and so does ML Metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mnist_tfx.components.report.content import ArtifactRow, ExecutionRow, Failure, Outcome


@dataclass(frozen=True)
class Sources:
    """One run. What is not known is empty or None."""

    dataset: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    executions: tuple[ExecutionRow, ...]
    run_id: str = ""
    started: datetime | None = None  # UTC
    seconds: float | None = None
    outcome: Outcome | None = None  # where the run did not get to its end; None: the artifacts tell
    failures: tuple[Failure, ...] = ()
    recipe_name: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data_fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    code_version: str = ""

    def artifact(self, component: str, name: str) -> ArtifactRow | None:
        """What a component made, by the name of its output; None where it did not run or failed."""
        for execution in self.executions:
            if execution.component == component and execution.state in ("COMPLETE", "CACHED", ""):
                for artifact in execution.outputs:
                    if artifact.name == name:
                        return artifact
        return None
