"""What submitting and scheduling need of a place where compiled pipelines run: Vertex AI, or Kubeflow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from mnist_tfx.contract.errors import PipelineError, UsageError, unknown_name
from mnist_tfx.kubeflow.remote.cron import Cron
from mnist_tfx.kubeflow.verdict import TaskVerdict

MANAGED_BY = "mnist-tfx"  # marks what this program made, where a platform keeps marks

TaskPhase: TypeAlias = Literal["waiting", "running", "done", "cached", "failed", "stopped", "skipped"]
RunPhase: TypeAlias = Literal["waiting", "running", "succeeded", "failed", "stopped"]
Change: TypeAlias = Literal["created", "updated", "unchanged"]


class Unreachable(PipelineError):
    """The platform gave no answer, or could not work just now. Whether it did what it was asked is not known."""


@dataclass(frozen=True)
class Job:
    """A compiled pipeline."""

    dataset: str
    recipe: str
    file: Path
    pipeline: str  # its name in the file
    spec: Mapping[str, Any]  # the pipeline specification, as JSON
    root: str  # where artifacts go

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, each after those that it waits for."""
        waiting = {
            name: set(task.get("dependentTasks", ())) for name, task in self.spec["root"]["dag"]["tasks"].items()
        }
        ordered: list[str] = []
        while ready := [name for name, needed in waiting.items() if needed <= set(ordered)]:
            ordered += ready
            for name in ready:
                del waiting[name]
        return (*ordered, *waiting)

    @property
    def digest(self) -> str:
        """Of the file's content: 16 hexadecimal digits."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Submitted:
    """A run that was begun."""

    run_id: str
    url: str  # where a person can watch it


@dataclass(frozen=True)
class TaskState:
    """A task of a run; `outputs` has the properties of each output artifact, as far as the platform tells them."""

    phase: TaskPhase
    seconds: float = 0.0
    error: str = ""
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """How far a run is. A task that the platform does not mention yet is missing."""

    phase: RunPhase
    tasks: Mapping[str, TaskState]
    error: str = ""


@dataclass(frozen=True)
class Told:
    """What a task tells of itself; `log` is where a person can read more."""

    verdict: TaskVerdict | None
    log: str = ""


@dataclass(frozen=True)
class Timing:
    """When a schedule runs its pipeline."""

    cron: Cron
    zone: ZoneInfo
    max_concurrent_runs: int = 1
    catch_up: bool = False  # whether runs that were missed are made up for


@dataclass(frozen=True)
class Schedule:
    """A schedule as the platform has it."""

    name: str
    schedule_id: str
    state: Literal["active", "paused", "ended"]
    cron: str  # as the platform holds it
    timezone: str
    max_concurrent_runs: int
    pipeline_digest: str
    url: str
    next_run: datetime | None = None  # as the platform tells it; None: it does not


class Schedules(Protocol):
    """Where the platform refuses, each method raises PipelineError with a remedy; where it is silent, Unreachable."""

    def all(self) -> list[Schedule]:
        """Those that this program made, by name."""
        ...

    def put(self, name: str, job: Job, timing: Timing) -> tuple[Schedule, Change]:
        """Creates the schedule, or changes the one of this name. One that is paused stays so."""
        ...

    def pause(self, schedule: Schedule) -> None:
        """No new runs from now on; those that go on do."""
        ...

    def resume(self, schedule: Schedule, *, catch_up: bool) -> None:
        """New runs from now on."""
        ...

    def delete(self, schedule: Schedule) -> None:
        """Its past runs stay."""
        ...


class Platform(Protocol):
    """Raises what `Schedules` raises."""

    @property
    def schedules(self) -> Schedules:
        """Its schedules."""
        ...

    def submit(self, job: Job) -> Submitted:
        """Begins a run; if an answer is lost and the call repeated, still only one."""
        ...

    def run_state(self, run_id: str, tasks: Sequence[str]) -> RunState:
        """How far a run is, and each of `tasks`, named as in the pipeline."""
        ...

    def verdicts(self, run_id: str, state: RunState) -> Mapping[str, Told]:
        """What the tasks of an ended run tell of themselves, by name; a task of which nothing is told is missing."""
        ...


def find_schedule(schedules: Schedules, name: str) -> Schedule:
    """The schedule of this name.

    Raises:
        UsageError: there is none.
    """
    known = {schedule.name: schedule for schedule in schedules.all()}
    if name not in known:
        if not known:
            raise UsageError(f"there is no schedule {name!r}, nor any other; `mnist-tfx schedule create` makes one.")
        raise unknown_name("schedule", name, known)
    return known[name]


def check_schedule_name(name: str) -> str:
    """`name`, if both platforms take it for a schedule.

    Raises:
        UsageError: they do not.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise UsageError(f"schedule name {name!r}: use lower case letters, digits and '-', 63 at most.")
    return name
