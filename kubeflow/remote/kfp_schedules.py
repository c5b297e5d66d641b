"""Recurring runs of Kubeflow Pipelines 2."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.remote.attempts import delete_once, make_once
from mnist_tfx.kubeflow.remote.cron import parse_timezone
from mnist_tfx.kubeflow.remote.cron_zones import kubeflow_expression
from mnist_tfx.kubeflow.remote.kfp_access import KubeflowAccess
from mnist_tfx.kubeflow.remote.kfp_uploads import experiment_id, find_experiment, version_of
from mnist_tfx.kubeflow.remote.platform import MANAGED_BY, Change, Job, Schedule, Timing

_OURS = f"made by {MANAGED_BY}"
_STATES: dict[str, Literal["active", "paused"]] = {"ENABLED": "active", "DISABLED": "paused"}


class KubeflowSchedules:
    """A recurring run cannot be changed: an update makes another one and deletes the first.

    So its description says for ever what was wanted of it, and two of the same description are the same.
    """

    def __init__(self, access: KubeflowAccess) -> None:
        self._access, self._client = access, access.client

    def all(self) -> list[Schedule]:
        return sorted((self._described(one) for one in self._ours()), key=lambda schedule: schedule.name)

    def put(self, name: str, job: Job, timing: Timing) -> tuple[Schedule, Change]:
        """At no time are two schedules of this name enabled."""
        access = self._access
        wanted: dict[str, Any] = {
            "job_name": name,
            "cron_expression": kubeflow_expression(timing, access.profile),
            "max_concurrency": str(timing.max_concurrent_runs),
            "no_catchup": not timing.catch_up,
            "pipeline_root": job.root,
            "service_account": access.profile.service_account or None,
            "experiment_id": experiment_id(access),
            **version_of(access, job),
        }
        digest = hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()[:16]
        made_from = f"recipe {job.recipe}; pipeline {job.digest}; {timing.cron} in {timing.zone}; settings {digest}"
        wanted["description"] = f"{_OURS} from {made_from}"
        present = self._named(name)
        enabled = [one for one in present if _state(one) == "active"]
        if same := [one for one in enabled or present if one.description == wanted["description"]]:
            for double in present:
                if double is not same[0]:
                    self._delete(double)
            return self._described(same[0]), "unchanged"
        made = self._replace(present, enabled, {**wanted, "enabled": bool(enabled) or not present})
        return self._described(made), "updated" if present else "created"

    def pause(self, schedule: Schedule) -> None:
        for one in self._named(schedule.name):
            self._disable(one.recurring_run_id)

    def resume(self, schedule: Schedule, *, catch_up: bool) -> None:
        """Raises UsageError where catch-up is asked for: Kubeflow decides on it when a schedule is created."""
        if catch_up:
            raise UsageError(
                "Kubeflow decides on catch-up when a schedule is created: `mnist-tfx schedule create ... --catch-up`."
            )
        self._enable(schedule.schedule_id)

    def delete(self, schedule: Schedule) -> None:
        for one in self._named(schedule.name):
            self._delete(one)

    def _replace(self, present: list[Any], enabled: list[Any], wanted: Mapping[str, Any]) -> Any:
        name, before = wanted["job_name"], {one.recurring_run_id for one in present}

        def find() -> Any:
            new = (one for one in self._named(name) if one.recurring_run_id not in before)
            return next((one for one in new if one.description == wanted["description"]), None)

        create, what = self._client.create_recurring_run, f"create schedule {name}"
        try:
            for one in enabled:
                self._disable(one.recurring_run_id)
            made = make_once(lambda: self._access.ask(what, create, **wanted), find)
        except BaseException:  # Ctrl-C too: rather the old nightly run than none
            for one in enabled:
                self._enable(one.recurring_run_id)
            raise
        for one in present:
            self._delete(one)
        return made

    def _ours(self) -> list[Any]:
        experiment = find_experiment(self._access)
        if experiment is None:
            return []
        of_experiment = {"experiment_id": experiment.experiment_id}
        listed = self._access.list_all("recurring_runs", self._client.list_recurring_runs, **of_experiment)
        return [one for one in listed if (one.description or "").startswith(_OURS)]

    def _named(self, name: str) -> list[Any]:
        """The newest first."""
        named = [one for one in self._ours() if one.display_name == name]
        return sorted(named, key=lambda one: one.created_at or datetime.min.replace(tzinfo=UTC), reverse=True)

    def _disable(self, recurring_run_id: str) -> None:
        self._access.read("pause the schedule", self._client.disable_recurring_run, recurring_run_id)

    def _enable(self, recurring_run_id: str) -> None:
        self._access.read("resume the schedule", self._client.enable_recurring_run, recurring_run_id)

    def _delete(self, one: Any) -> None:
        what, delete = f"delete schedule {one.display_name}", self._client.delete_recurring_run
        delete_once(
            lambda: self._access.ask(what, delete, one.recurring_run_id),
            lambda: any(left.recurring_run_id == one.recurring_run_id for left in self._ours()),
        )

    def _described(self, one: Any) -> Schedule:
        digest = re.search(r"; pipeline ([0-9a-f]+);", one.description or "")
        cron = one.trigger.cron_schedule if one.trigger else None
        return Schedule(
            name=one.display_name,
            schedule_id=one.recurring_run_id,
            state=_state(one),
            cron=(cron.cron or "").removeprefix("0 ") if cron else "",
            timezone=parse_timezone(self._access.profile.cron_timezone).key,
            max_concurrent_runs=int(one.max_concurrency or 1),
            pipeline_digest=digest[1] if digest else "",
            url=self._access.page(f"recurringrun/details/{one.recurring_run_id}"),
        )


def _state(one: Any) -> Literal["active", "paused", "ended"]:
    return _STATES.get(one.status or ("DISABLED" if one.mode == "DISABLE" else "ENABLED"), "ended")
