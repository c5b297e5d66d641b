"""Runs on Kubeflow Pipelines 2."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import kfp_server_api

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.profiles import KubeflowProfile
from mnist_tfx.kubeflow.remote.attempts import make_once, read
from mnist_tfx.kubeflow.remote.kfp_access import KubeflowAccess, equals
from mnist_tfx.kubeflow.remote.kfp_schedules import KubeflowSchedules
from mnist_tfx.kubeflow.remote.kfp_uploads import KubeflowUploads
from mnist_tfx.kubeflow.remote.platform import Job, RunPhase, RunState, Submitted, TaskPhase, TaskState, Told
from mnist_tfx.kubeflow.verdict import PARAMETER, TaskVerdict

_RUN_PHASES: Mapping[str, RunPhase] = {
    "RUNNING": "running",
    "CANCELING": "running",
    "PAUSED": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "stopped",
}
_TASK_PHASES: Mapping[str, TaskPhase] = {
    "RUNNING": "running",
    "CANCELING": "running",
    "PAUSED": "running",
    "SUCCEEDED": "done",
    "SKIPPED": "cached",
    "FAILED": "failed",
    "CANCELED": "stopped",
}


class KubeflowPlatform:
    """Implements `Platform`."""

    def __init__(self, profile: KubeflowProfile, timeout_seconds: float = 60.0) -> None:
        """Needs no network.

        Raises:
            UsageError: a file that the profile names cannot be read.
        """
        self._access = KubeflowAccess(profile, timeout_seconds)
        self._uploads = KubeflowUploads(self._access)
        self.schedules = KubeflowSchedules(self._access, self._uploads)

    def submit(self, job: Job) -> Submitted:
        """Begins a run. Its name is made here, so that after a lost answer it can be looked for."""
        access = self._access
        experiment = self._uploads.experiment()
        version = self._uploads.version(job)
        run = kfp_server_api.V2beta1Run(
            experiment_id=experiment,
            display_name=f"{job.pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {secrets.token_hex(3)}",
            pipeline_version_reference=version,
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(pipeline_root=job.root, parameters={}),
            service_account=access.profile.service_account or None,
        )

        def make() -> Any:
            return access.ask("begin the run", access.api.runs.run_service_create_run, run)

        def find() -> Any:
            listed = access.list_all(
                "look for the run",
                access.api.runs.run_service_list_runs,
                "runs",
                experiment_id=experiment,
                filter=equals(run.display_name),
            )
            return next((one for one in listed if one.display_name == run.display_name), None)

        run_id = make_once(make, find).run_id
        return Submitted(run_id, f"{access.profile.endpoint.rstrip('/')}/#/runs/details/{run_id}")

    def run_state(self, run_id: str, tasks: Sequence[str]) -> RunState:
        """How far it is; Kubeflow does not tell the properties of artifacts."""
        run = self._run(run_id)
        known = {_plain(detail.display_name): detail for detail in _details(run) if detail.display_name}
        states = {task: _task_state(known[_plain(task)]) for task in tasks if _plain(task) in known}
        error = (run.error.message or "") if run.error else ""
        return RunState(_RUN_PHASES.get(run.state or "", "waiting"), states, error)

    def verdicts(self, run_id: str, state: RunState) -> Mapping[str, Told]:
        """By way of the user interface: output parameters from ML Metadata; of failed tasks, from their pods."""
        found = {}
        try:
            executions = read(lambda: self._access.executions(run_id))
        except PipelineError:  # of an installation that shows less, nothing is told
            return {}
        for execution in executions:
            kept = execution.custom_properties
            name = kept["task_name"].string_value or kept["display_name"].string_value
            task = next((task for task in state.tasks if _plain(task) == _plain(name)), None)
            if task is None:
                continue
            outputs = kept["outputs"].struct_value
            verdict = TaskVerdict.from_text(outputs[PARAMETER]) if PARAMETER in outputs else None
            pod, namespace = kept["pod_name"].string_value, kept["namespace"].string_value
            if verdict is None and pod and state.tasks[task].phase == "failed":
                verdict = TaskVerdict.from_text(self._access.termination_message(pod, namespace))
            found[task] = Told(verdict, self._access.log_page(pod, namespace) if pod else "")
        return found

    def _run(self, run_id: str) -> Any:
        access = self._access
        return read(lambda: access.ask("tell of the run", access.api.runs.run_service_get_run, run_id))


def _details(run: Any) -> list[Any]:
    return (run.run_details.task_details if run.run_details else None) or []


def _plain(name: str) -> str:
    """A task's name without what differs between the pipeline and Kubernetes: case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _task_state(detail: Any) -> TaskState:
    seconds = 0.0
    if detail.start_time and detail.start_time.year > 1970:  # not begun: the epoch
        end = detail.end_time if detail.end_time and detail.end_time.year > 1970 else datetime.now(UTC)
        seconds = max(0.0, (end - detail.start_time).total_seconds())
    error = (detail.error.message or "") if detail.error else ""
    return TaskState(_TASK_PHASES.get(detail.state or "", "waiting"), seconds, error)
