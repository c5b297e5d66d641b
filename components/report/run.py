"""One run of the pipeline, as ML Metadata, a runner or the artifacts alone tell of it. No TensorFlow.

`pipeline.runs.store` fills these classes from ML Metadata, the report's executor from its inputs. Here, and not in
`pipeline`, since the report is also made on clusters; in `components.report`, since nothing of it enters a cache key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mnist_tfx.components.report.verdict import Verdict, judge
from mnist_tfx.contract.errors import PipelineError

if TYPE_CHECKING:
    from mnist_tfx.components.evaluator.quality import Quality
    from mnist_tfx.components.infra_validator.checks import Check

End = Literal["complete", "failed", "stopped", "killed", "running"]
Value = str | int | float | bool

KILLED = "killed"  # as `Execution.error_type`


@dataclass(frozen=True)
class Artifact:
    """An artifact as an execution read or wrote it; `name` is the channel, `properties` without TFX's own."""

    name: str
    id: int | None  # None is what only ML Metadata knows
    type: str
    uri: str
    properties: Mapping[str, Value]


@dataclass(frozen=True)
class Execution:
    """One execution of a node; None and empty is what only ML Metadata knows.

    `seconds` is None too where it is going on, its process was killed, or the clock was set back meanwhile.
    """

    id: int | None
    component: str
    state: str  # COMPLETE, CACHED, FAILED, CANCELED, RUNNING; empty: unknown
    begun: float | None = None  # seconds after the run's start
    seconds: float | None = None
    error_type: str | None = None
    error: str | None = None
    exit_code: int | None = None  # that of the command line where this execution failed the run
    parameters: Mapping[str, Value] = field(default_factory=dict)
    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()

    @property
    def cached(self) -> bool:
        """Whether it was answered from the cache."""
        return self.state == "CACHED"

    @property
    def killed(self) -> bool:
        """Whether its process vanished, so that the time of its end is unknown."""
        return self.error_type == KILLED


@dataclass(frozen=True)
class Plan:
    """What was decided before a run began. What is not known of an older run is empty."""

    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] = (28, 28, 1)
    data_fingerprint: str = ""
    recipe_name: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)  # by section
    versions: Mapping[str, str] = field(default_factory=dict)  # of packages, by name
    code_version: str = ""


@dataclass(frozen=True)
class Run:
    """One run of one dataset; what is not known is empty or None.

    Attributes:
        run_id: its name.
        dataset: what it was made of.
        executions: in the order in which they began.
        plan: what it was to do, with what.
        pipeline: TFX's name of the pipeline.
        started: UTC.
        seconds: how long it took; None where it is going on or its process was killed.
        end: how it ended; None where only its end decides, as the component that reports it is not told.
        error: what ended it, where this process was told.
        quality: what the Evaluator measured, and
        checks: what the infra validator checked, once they were read (`components.report.collect.measured`).
        log: the file.
        report: the HTML file, where it was made.
    """

    run_id: str
    dataset: str
    executions: tuple[Execution, ...] = ()
    plan: Plan = field(default_factory=Plan)
    pipeline: str = ""
    started: datetime | None = None
    seconds: float | None = None
    end: End | None = None
    error: PipelineError | None = None
    quality: Quality | None = None
    checks: tuple[Check, ...] = ()
    log: Path | None = None
    report: str | None = None

    def verdict(self) -> Verdict:
        """What came of it: the one verdict."""
        return judge(self)

    @property
    def failed(self) -> Execution | None:
        """The execution that failed."""
        return next((each for each in self.executions if each.state == "FAILED"), None)

    @property
    def push(self) -> Mapping[str, Value]:
        """What the Pusher says of the model; nothing where it did not run."""
        pushed = self.artifact("Pusher", "pushed_model")
        return pushed.properties if pushed else {}

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """Those of the infra validator, in words."""
        return tuple(str(check) for check in self.checks if not check.passed)

    def maker(self, component: str) -> Execution | None:
        """The execution of a component; None where it did not run or failed."""
        done = (each for each in self.executions if each.state in ("COMPLETE", "CACHED", ""))
        return next((each for each in done if each.component == component), None)

    def artifact(self, component: str, name: str) -> Artifact | None:
        """What a component made, by the name of its output; None where it did not run or failed."""
        maker = self.maker(component)
        return next((each for each in maker.outputs if each.name == name), None) if maker else None


def made_by(
    component: str, outputs: Mapping[str, Sequence[Any]], state: str = "", seconds: float | None = None
) -> Execution:
    """The execution that made TFX artifacts, by channel."""
    made = tuple(
        Artifact(
            name=name,
            id=artifact.id or None,
            type=artifact.type_name,
            uri=artifact.uri,
            properties=values_of({**artifact.mlmd_artifact.properties, **artifact.mlmd_artifact.custom_properties}),
        )
        for name, artifacts in outputs.items()
        for artifact in artifacts
    )
    return Execution(id=None, component=component, state=state, seconds=seconds, outputs=made)


def values_of(properties: Mapping[str, Any]) -> dict[str, Value]:
    """Python values of ML Metadata's properties, without those that TFX keeps for itself."""
    ours = (key for key in sorted(properties) if not key.startswith("__") and key not in _TFX_KEEPS)
    return {key: value for key in ours if (value := _value(properties[key])) is not None}


def _value(value: Any) -> Value | None:
    """None for what is no single value. One that came as JSON, as all do on clusters, lies in a structure of TFX's."""
    kind = value.WhichOneof("value")
    if kind == "struct_value" and _TFX_SINGLE_VALUE in value.struct_value.fields:
        value = value.struct_value.fields[_TFX_SINGLE_VALUE]
        kind = value.WhichOneof("kind")
    return getattr(value, kind) if kind in _SINGLE else None


_TFX_KEEPS = ("tfx_version", "is_external", "name", "pipeline_name", "producer_component", "state")
_TFX_SINGLE_VALUE = "__value__"  # tfx/types/artifact.py, _JSON_SINGLE_VALUE_KEY
_SINGLE = ("string_value", "int_value", "double_value", "bool_value", "number_value")
