"""Runs on Kubeflow Pipelines 2."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from typing import Any

from mnist_tfx.kubeflow.profiles import KubeflowProfile
from mnist_tfx.kubeflow.remote.attempts import make_once
from mnist_tfx.kubeflow.remote.kfp_access import KubeflowAccess
from mnist_tfx.kubeflow.remote.kfp_schedules import KubeflowSchedules
from mnist_tfx.kubeflow.remote.kfp_uploads import experiment_id, version_of
from mnist_tfx.kubeflow.remote.kfp_verdicts import plain, verdicts
from mnist_tfx.kubeflow.remote.platform import (
    RUN_PHASES,
    TASK_PHASES,
    Job,
    RunState,
    Submitted,
    TaskState,
    Told,
    seconds_between,
)


class KubeflowPlatform:
    """Implements `Platform`."""

    def __init__(self, profile: KubeflowProfile, timeout_seconds: float = 60.0) -> None:
        """Needs no network.

        Raises:
            UsageError: a file that the profile names cannot be read.
        """
        self._access = KubeflowAccess(profile, timeout_seconds)
        self.schedules = KubeflowSchedules(self._access)

    def submit(self, job: Job) -> Submitted:
        """The run's name is made here, so that after a lost answer it can be looked for."""
        access, client = self._access, self._access.client
        name = f"{job.pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {secrets.token_hex(3)}"
        begun = {
            "experiment_id": experiment_id(access),
            "job_name": name,
            "pipeline_root": job.root,
            "service_account": access.profile.service_account or None,
            **version_of(access, job),
        }
        with redirect_stdout(None):  # where kfp's client prints a link
            run_id = make_once(
                lambda: access.ask("begin the run", client.run_pipeline, **begun),
                lambda: access.named(name, "runs", client.list_runs, experiment_id=begun["experiment_id"]),
            ).run_id
        return Submitted(run_id, access.page(f"runs/details/{run_id}"))

    def run_state(self, run_id: str, tasks: Sequence[str]) -> RunState:
        """Kubeflow does not tell the properties of artifacts."""
        run = self._access.read("tell of the run", self._access.client.get_run, run_id)
        details = (run.run_details.task_details if run.run_details else None) or []
        known = {plain(detail.display_name): detail for detail in details if detail.display_name}
        states = {task: _task_state(known[plain(task)]) for task in tasks if plain(task) in known}
        return RunState(RUN_PHASES.get(run.state or "", "waiting"), states, _error(run))

    def verdicts(self, run_id: str, state: RunState) -> Mapping[str, Told]:
        return verdicts(self._access, run_id, state)


def _task_state(detail: Any) -> TaskState:
    # What has not come yet, the server puts at the epoch.
    start, end = (each if each and each.year > 1970 else None for each in (detail.start_time, detail.end_time))
    return TaskState(TASK_PHASES.get(detail.state or "", "waiting"), seconds_between(start, end), _error(detail))


def _error(one: Any) -> str:
    return (one.error.message or "") if one.error else ""
