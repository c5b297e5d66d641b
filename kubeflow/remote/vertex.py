"""Runs on Vertex AI Pipelines."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from mnist_tfx.kubeflow.profiles import VertexProfile
from mnist_tfx.kubeflow.remote.attempts import read
from mnist_tfx.kubeflow.remote.platform import (
    RUN_PHASES,
    TASK_PHASES,
    Exists,
    Job,
    RunState,
    Submitted,
    TaskState,
    Told,
    in_words,
    seconds_between,
)
from mnist_tfx.kubeflow.remote.vertex_access import VertexAccess
from mnist_tfx.kubeflow.remote.vertex_schedules import VertexSchedules
from mnist_tfx.kubeflow.verdict import PARAMETER, TaskVerdict

_CONSOLE = "https://console.cloud.google.com/vertex-ai"

# https://cloud.google.com/vertex-ai/docs/training/understanding-training-service#common-errors
_EXIT_STATUS = re.compile(r"exited with a non-zero status of (\d+)")
_OUR_ERROR = re.compile(r"^mnist_tfx\.(?:\w+\.)*errors\.\w+: (.*(?:\n .*)*)", re.MULTILINE)


class VertexPlatform:
    """Implements `Platform`."""

    def __init__(self, profile: VertexProfile, timeout_seconds: float = 60.0) -> None:
        """Needs credentials, but no network.

        Raises:
            PipelineError: there are no credentials.
            UsageError: the profile's certificate file cannot be read.
        """
        self._access = VertexAccess(profile, timeout_seconds)
        self.schedules = VertexSchedules(self._access, f"{_CONSOLE}/locations/{profile.region}/pipelines/schedules")

    def submit(self, job: Job) -> Submitted:
        """The run's id is made here: what exists when a request is repeated is this very run."""
        access, profile, client = self._access, self._access.profile, self._access.pipelines
        run_id = f"{job.pipeline[:90]}-{datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(3)}"
        request = {"parent": access.parent, "pipeline_job": access.pipeline_job(job), "pipeline_job_id": run_id}

        def begin() -> None:
            with suppress(Exists):
                access.ask("begin the run", client.create_pipeline_job, **request)

        read(begin)
        place = f"{_CONSOLE}/locations/{profile.region}/pipelines/runs/{run_id}?project={profile.project}"
        return Submitted(run_id, place)

    def run_state(self, run_id: str, tasks: Sequence[str]) -> RunState:
        name = f"{self._access.parent}/pipelineJobs/{run_id}"
        job = self._access.read("tell of the run", self._access.pipelines.get_pipeline_job, name=name)
        states = {
            detail.task_name: _task_state(detail) for detail in job.job_detail.task_details if detail.task_name in tasks
        }
        return RunState(
            RUN_PHASES.get(job.state.name.removeprefix("PIPELINE_STATE_"), "waiting"), states, job.error.message
        )

    def verdicts(self, run_id: str, state: RunState) -> Mapping[str, Told]:
        """From what each task made; of one that failed, from the exit status that its error tells."""
        found = {}
        for name, task in state.tasks.items():
            text = next((str(made[PARAMETER]) for made in task.outputs.values() if PARAMETER in made), "")
            status = _EXIT_STATUS.search(task.error)
            told = TaskVerdict.from_text(text)
            if told is None and status:
                told = TaskVerdict(int(status[1]), _after_traceback(task.error))
            found[name] = Told(told)
        return found


def _after_traceback(text: str) -> str:
    """The message of one of our own errors at the end of a text, where there is one."""
    found = _OUR_ERROR.search(text)
    return found[1] if found else in_words(text, 500)


def _task_state(detail: Any) -> TaskState:
    return TaskState(
        phase=TASK_PHASES.get(detail.state.name, "waiting"),
        seconds=seconds_between(detail.start_time, detail.end_time),
        error=detail.error.message,
        # Of the only artifact: TFX's properties and custom properties are its metadata here.
        outputs={
            key: dict(listed.artifacts[0].metadata or {}) if listed.artifacts else {}
            for key, listed in detail.outputs.items()
        },
    )
