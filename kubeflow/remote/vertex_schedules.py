"""Schedules of Vertex AI Pipelines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from google.cloud.aiplatform_v1.types import CreatePipelineJobRequest
from google.cloud.aiplatform_v1.types import Schedule as VertexSchedule
from google.protobuf.field_mask_pb2 import FieldMask

from mnist_tfx.kubeflow.remote.attempts import make_once, read
from mnist_tfx.kubeflow.remote.platform import MANAGED_BY, Change, Job, Schedule, Timing
from mnist_tfx.kubeflow.remote.timing import check_timing
from mnist_tfx.kubeflow.remote.vertex_access import VertexAccess, moment
from mnist_tfx.kubeflow.remote.vertex_job import pipeline_job

_UPDATED = FieldMask(paths=["cron", "create_pipeline_job_request", "max_concurrent_run_count", "allow_queueing"])
_STATES: dict[int, Literal["active", "paused", "ended"]] = {
    VertexSchedule.State.ACTIVE: "active",
    VertexSchedule.State.PAUSED: "paused",
}

_LAST = datetime.max.replace(tzinfo=UTC)


class VertexSchedules:
    """Speaks with ScheduleService itself: the SDK's wrapper updates no schedule's pipeline, and drops `catch_up`."""

    def __init__(self, access: VertexAccess, console: str) -> None:
        self._access = access
        self._console = console

    def all(self) -> list[Schedule]:
        """Ours, by name."""
        return sorted((self._described(one) for one in self._ours()), key=lambda schedule: schedule.name)

    def put(self, name: str, job: Job, timing: Timing) -> tuple[Schedule, Change]:
        """Creates the schedule, or updates the one of this name; removes doubles that two callers may have made."""
        check_timing(timing, self._access.profile)
        wanted = VertexSchedule(
            display_name=name,
            cron=f"TZ={timing.zone.key} {timing.cron}",
            max_concurrent_run_count=timing.max_concurrent_runs,
            allow_queueing=False,  # a run that is due while the last one goes on is left out, not kept for later
            create_pipeline_job_request=CreatePipelineJobRequest(
                parent=self._access.parent, pipeline_job=pipeline_job(job, self._access.profile)
            ),
        )
        present = self._named(name)
        for double in present[1:]:
            self.delete(self._described(double))
        if not present:
            made = make_once(lambda: self._create(wanted), lambda: next(iter(self._named(name)), None))
            return self._described(made), "created"
        [current] = present[:1]
        if _same(current, wanted):
            return self._described(current), "unchanged"
        wanted.name = current.name
        return self._described(read(lambda: self._update(wanted))), "updated"

    def pause(self, schedule: Schedule) -> None:
        """No new runs from now on."""

        def call() -> None:
            with self._access.asking(f"pause schedule {schedule.name}"):
                self._access.schedules.pause_schedule(
                    name=schedule.schedule_id, retry=None, timeout=self._access.timeout_seconds
                )

        read(call)

    def resume(self, schedule: Schedule, *, catch_up: bool) -> None:
        """New runs from now on; with `catch_up`, those that the pause left out come first."""

        def call() -> None:
            with self._access.asking(f"resume schedule {schedule.name}"):
                self._access.schedules.resume_schedule(
                    name=schedule.schedule_id, catch_up=catch_up, retry=None, timeout=self._access.timeout_seconds
                )

        read(call)

    def delete(self, schedule: Schedule) -> None:
        """Its past runs stay."""

        def call() -> bool:
            with self._access.asking(f"delete schedule {schedule.name}"):
                self._access.schedules.delete_schedule(
                    name=schedule.schedule_id, retry=None, timeout=self._access.timeout_seconds
                )
            return True

        make_once(call, lambda: None if self._exists(schedule) else True)

    def _create(self, wanted: VertexSchedule) -> VertexSchedule:
        with self._access.asking(f"create schedule {wanted.display_name}"):
            return self._access.schedules.create_schedule(
                parent=self._access.parent, schedule=wanted, retry=None, timeout=self._access.timeout_seconds
            )

    def _update(self, wanted: VertexSchedule) -> VertexSchedule:
        with self._access.asking(f"update schedule {wanted.display_name}"):
            return self._access.schedules.update_schedule(
                schedule=wanted, update_mask=_UPDATED, retry=None, timeout=self._access.timeout_seconds
            )

    def _ours(self) -> list[VertexSchedule]:
        def call() -> list[VertexSchedule]:
            with self._access.asking("list schedules"):
                listed = self._access.schedules.list_schedules(
                    parent=self._access.parent, retry=None, timeout=self._access.timeout_seconds
                )
                return [one for one in listed if _labels(one).get("managed-by") == MANAGED_BY]

        return read(call)

    def _named(self, name: str) -> list[VertexSchedule]:
        """The oldest first."""
        named = [one for one in self._ours() if one.display_name == name]
        return sorted(named, key=lambda one: moment(one.create_time) or _LAST)

    def _exists(self, schedule: Schedule) -> bool:
        return any(one.name == schedule.schedule_id for one in self._ours())

    def _described(self, one: VertexSchedule) -> Schedule:
        zone, _, cron = one.cron.partition(" ") if "TZ=" in one.cron else ("", "", one.cron)
        return Schedule(
            name=one.display_name,
            schedule_id=one.name,
            state=_STATES.get(one.state, "ended"),
            cron=cron,
            timezone=zone.partition("=")[2] or "UTC",
            max_concurrent_runs=one.max_concurrent_run_count,
            pipeline_digest=_labels(one).get("pipeline-digest", ""),
            url=f"{self._console}/{one.name.rpartition('/')[2]}?project={self._access.profile.project}",
            next_run=moment(one.next_run_time),
        )


def _labels(one: VertexSchedule) -> dict[str, str]:
    return dict(one.create_pipeline_job_request.pipeline_job.labels)


def _same(current: VertexSchedule, wanted: VertexSchedule) -> bool:
    """Whether an update would change nothing; the pipeline itself is compared by the digest among its labels."""

    def told(one: VertexSchedule) -> tuple[object, ...]:
        job = one.create_pipeline_job_request.pipeline_job
        root = job.runtime_config.gcs_output_directory
        return (one.cron, one.max_concurrent_run_count, _labels(one), job.service_account, job.network, root)

    return told(current) == told(wanted) and not current.allow_queueing
