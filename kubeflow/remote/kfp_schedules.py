"""Recurring runs of Kubeflow Pipelines 2."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import kfp_server_api

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.remote.attempts import make_once, read
from mnist_tfx.kubeflow.remote.kfp_access import KubeflowAccess
from mnist_tfx.kubeflow.remote.kfp_uploads import KubeflowUploads
from mnist_tfx.kubeflow.remote.platform import MANAGED_BY, Change, Job, Schedule, Timing
from mnist_tfx.kubeflow.remote.timing import kubeflow_expression

_OURS = f"made by {MANAGED_BY}"
_STATES: dict[str, Literal["active", "paused"]] = {"ENABLED": "active", "DISABLED": "paused"}
_FIRST = datetime.min.replace(tzinfo=UTC)


class KubeflowSchedules:
    """A recurring run cannot be changed: an update makes another one and deletes the first."""

    def __init__(self, access: KubeflowAccess, uploads: KubeflowUploads) -> None:
        self._access = access
        self._uploads = uploads
        self._api = access.api.recurring_runs

    def all(self) -> list[Schedule]:
        """Ours, by name."""
        return sorted((self._described(one) for one in self._ours()), key=lambda schedule: schedule.name)

    def put(self, name: str, job: Job, timing: Timing) -> tuple[Schedule, Change]:
        """Creates the schedule, or replaces those of this name. At no time are two of them enabled."""
        wanted = kfp_server_api.V2beta1RecurringRun(
            display_name=name,
            description=f"{_OURS} from recipe {job.recipe}; pipeline {job.digest}; {timing.cron} in {timing.zone.key}",
            experiment_id=self._uploads.experiment(),
            pipeline_version_reference=self._uploads.version(job),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(pipeline_root=job.root, parameters={}),
            trigger=kfp_server_api.V2beta1Trigger(
                cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=kubeflow_expression(timing, self._access.profile))
            ),
            max_concurrency=str(timing.max_concurrent_runs),
            no_catchup=not timing.catch_up,
            service_account=self._access.profile.service_account or None,
            mode="ENABLE",
        )
        present = self._named(name)
        enabled = [one for one in present if _state(one) == "active"]
        same = [one for one in enabled or present if _same(one, wanted)]
        if same:
            for double in present:
                if double is not same[0]:
                    self._delete(double)
            return self._described(same[0]), "unchanged"
        if present and not enabled:
            wanted.mode = "DISABLE"
        made = self._replace(present, enabled, wanted)
        return self._described(made), "updated" if present else "created"

    def pause(self, schedule: Schedule) -> None:
        """No new runs from now on."""
        self._disable(schedule.schedule_id)

    def resume(self, schedule: Schedule, *, catch_up: bool) -> None:
        """New runs from now on.

        Raises:
            UsageError: catch-up is asked for, which Kubeflow decides when a schedule is created.
        """
        if catch_up:
            raise UsageError(
                "Kubeflow decides on catch-up when a schedule is created: `mnist-tfx schedule create ... --catch-up`."
            )
        self._enable(schedule.schedule_id)

    def delete(self, schedule: Schedule) -> None:
        """Its past runs stay."""
        for one in self._named(schedule.name):
            self._delete(one)

    def _replace(self, present: list[Any], enabled: list[Any], wanted: kfp_server_api.V2beta1RecurringRun) -> Any:
        before = {one.recurring_run_id for one in present}

        def make() -> Any:
            what = f"create schedule {wanted.display_name}"
            return self._access.ask(what, self._api.recurring_run_service_create_recurring_run, wanted)

        def find() -> Any:
            named = self._named(wanted.display_name)
            return next((one for one in named if one.recurring_run_id not in before and _same(one, wanted)), None)

        try:
            for one in enabled:
                self._disable(one.recurring_run_id)
            made = make_once(make, find)
        except BaseException:  # Ctrl-C too: rather the old nightly run than none
            for one in enabled:
                self._enable(one.recurring_run_id)
            raise
        for one in present:
            self._delete(one)
        return made

    def _ours(self) -> list[Any]:
        experiment = self._uploads.find_experiment()
        if experiment is None:
            return []
        listed = self._access.list_all(
            "list schedules",
            self._api.recurring_run_service_list_recurring_runs,
            "recurring_runs",
            experiment_id=experiment,
        )
        return [one for one in listed if (one.description or "").startswith(_OURS)]

    def _named(self, name: str) -> list[Any]:
        """The newest first."""
        named = [one for one in self._ours() if one.display_name == name]
        return sorted(named, key=lambda one: one.created_at or _FIRST, reverse=True)

    def _disable(self, recurring_run_id: str) -> None:
        call = self._api.recurring_run_service_disable_recurring_run
        read(lambda: self._access.ask("pause the schedule", call, recurring_run_id))

    def _enable(self, recurring_run_id: str) -> None:
        call = self._api.recurring_run_service_enable_recurring_run
        read(lambda: self._access.ask("resume the schedule", call, recurring_run_id))

    def _delete(self, one: Any) -> None:
        def call() -> bool:
            self._access.ask(
                f"delete schedule {one.display_name}",
                self._api.recurring_run_service_delete_recurring_run,
                one.recurring_run_id,
            )
            return True

        def gone() -> bool | None:
            return None if any(left.recurring_run_id == one.recurring_run_id for left in self._ours()) else True

        make_once(call, gone)

    def _described(self, one: Any) -> Schedule:
        digest = re.search(r"; pipeline ([0-9a-f]+);", one.description or "")
        clock = ZoneInfo(self._access.profile.cron_timezone)
        return Schedule(
            name=one.display_name,
            schedule_id=one.recurring_run_id,
            state=_state(one),
            cron=_cron(one).removeprefix("0 "),
            timezone=clock.key,
            max_concurrent_runs=int(one.max_concurrency or 1),
            pipeline_digest=digest[1] if digest else "",
            url=f"{self._access.profile.endpoint.rstrip('/')}/#/recurringrun/details/{one.recurring_run_id}",
        )


def _state(one: Any) -> Literal["active", "paused", "ended"]:
    return _STATES.get(one.status or ("DISABLED" if one.mode == "DISABLE" else "ENABLED"), "ended")


def _cron(one: Any) -> str:
    schedule = one.trigger.cron_schedule if one.trigger else None
    return (schedule.cron or "") if schedule else ""


def _same(current: Any, wanted: Any) -> bool:
    """Whether a replacement would change nothing. The server fills in a service account where none is asked for."""

    def told(one: Any) -> tuple[object, ...]:
        version = one.pipeline_version_reference
        return (
            _cron(one),
            str(one.max_concurrency or ""),
            bool(one.no_catchup),
            version.pipeline_version_id if version else "",
            (one.runtime_config.pipeline_root or "") if one.runtime_config else "",
        )

    same_account = wanted.service_account in (None, current.service_account)
    return told(current) == told(wanted) and same_account
