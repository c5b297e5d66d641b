"""What submitting and scheduling need of a place where compiled pipelines run: Vertex AI, or Kubeflow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from mnist_tfx.contract.errors import PipelineError, UsageError, unknown_name
from mnist_tfx.contract.names import plain_name
from mnist_tfx.kubeflow.ir import read_content
from mnist_tfx.kubeflow.remote.cron import Cron
from mnist_tfx.kubeflow.verdict import TaskVerdict

MANAGED_BY = "mnist-tfx"  # marks what this program made, where a platform keeps marks
OTHER_REMEDY = "correct the profile or the recipe; `mnist-tfx compile` checks what can be checked here."

TaskPhase: TypeAlias = Literal["waiting", "running", "done", "cached", "failed", "stopped", "skipped"]
RunPhase: TypeAlias = Literal["waiting", "running", "succeeded", "failed", "stopped"]
# By the platforms' names of states; only a task is SKIPPED, which is what both call an answer from the cache.
_EITHER: Mapping[str, Literal["running", "stopped", "failed"]] = {
    **dict.fromkeys(("RUNNING", "PAUSED", "CANCELING", "CANCELLING", "CANCEL_PENDING"), "running"),
    **dict.fromkeys(("CANCELED", "CANCELLED"), "stopped"),
    "FAILED": "failed",
}
RUN_PHASES: Mapping[str, RunPhase] = {**_EITHER, "SUCCEEDED": "succeeded"}
TASK_PHASES: Mapping[str, TaskPhase] = {
    **_EITHER,
    "SUCCEEDED": "done",
    "SKIPPED": "cached",
    "NOT_TRIGGERED": "skipped",
}
Change: TypeAlias = Literal["created", "updated", "unchanged"]


class Unreachable(PipelineError):
    """The platform gave no answer, or could not work just now. Whether it did what it was asked is not known."""


class Exists(Unreachable):
    """What is to be made is there: by somebody else, or by a request whose answer was lost."""


@dataclass(frozen=True)
class Job:
    """A compiled pipeline."""

    dataset: str
    recipe: str
    file: Path
    pipeline: str  # its name in the file
    spec: Mapping[str, Any]  # the pipeline specification, as JSON
    root: str  # where artifacts go

    @staticmethod
    def read(file: Path, dataset: str, recipe: str) -> Job:
        """A file that was compiled here, of either kind."""
        content = read_content(file)
        spec = content.get("pipelineSpec", content)
        return Job(dataset, recipe, file, spec["pipelineInfo"]["name"], spec, root=spec["defaultPipelineRoot"])

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, each after those that it waits for."""
        tasks = self.spec["root"]["dag"]["tasks"]
        return tuple(TopologicalSorter({name: tasks[name].get("dependentTasks", ()) for name in tasks}).static_order())

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
    """Where the platform refuses, each method raises PipelineError with a remedy; where it is silent, Unreachable.

    `all`: those that this program made, by name. `put` creates the schedule, or changes the one of this name; it stays
    paused where it is. After `pause` there are no new runs; those that go on do. Past runs outlive `delete`. Of doubles
    that two callers made at once, `pause` and `delete` mean all, and `resume` the one that `put` would keep.
    """

    def all(self) -> list[Schedule]: ...
    def put(self, name: str, job: Job, timing: Timing) -> tuple[Schedule, Change]: ...
    def pause(self, schedule: Schedule) -> None: ...
    def resume(self, schedule: Schedule, *, catch_up: bool) -> None: ...
    def delete(self, schedule: Schedule) -> None: ...


class Platform(Protocol):
    """Raises what `Schedules` raises.

    `submit` begins a run: if an answer is lost and the call repeated, still only one. `run_state`: how far a run is,
    and each of `tasks`, named as in the pipeline. `verdicts`: what the tasks of an ended run tell of themselves, by
    name; a task of which nothing is told is missing.
    """

    @property
    def schedules(self) -> Schedules: ...
    def submit(self, job: Job) -> Submitted: ...
    def run_state(self, run_id: str, tasks: Sequence[str]) -> RunState: ...
    def verdicts(self, run_id: str, state: RunState) -> Mapping[str, Told]: ...


def find_schedule(schedules: Schedules, name: str) -> Schedule:
    """The schedule of this name; of doubles, an active one. Raises UsageError where there is none."""
    known = {schedule.name: schedule for schedule in sorted(schedules.all(), key=lambda one: one.state == "active")}
    if not known:
        raise UsageError(f"there is no schedule {name!r}, nor any other; `mnist-tfx schedule create` makes one.")
    if name not in known:
        raise unknown_name("schedule", name, known)
    return known[name]


def check_schedule_name(name: str) -> str:
    """`name`, if both platforms take it for a schedule. Raises UsageError where they do not."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise UsageError(f"schedule name {name!r}: use lower case letters, digits and '-', 63 at most.")
    return name


def plain_recipe_name(name: str) -> str:
    """A recipe's name as labels and schedules take it: of a file, its own without `.toml`."""
    return plain_name(Path(name).name.removesuffix(".toml")) or "recipe"


def read_setting(path: str, setting: str) -> bytes:
    """The file that a setting of the profile names. Raises UsageError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{setting} of the profile cannot be read: {error}.") from error


def seconds_between(start: datetime | None, end: datetime | None) -> float:
    """Of a task that may go on yet, or has not begun."""
    return max(0.0, ((end or datetime.now(UTC)) - start).total_seconds()) if start else 0.0


def in_words(text: object, longest: int = 600) -> str:
    """A message in one line; a platform's may be pages long."""
    return " ".join(str(text).split())[:longest].rstrip(".")
