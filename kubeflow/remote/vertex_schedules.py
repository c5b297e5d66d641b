"""Schedules of Vertex AI Pipelines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from google.cloud.aiplatform_v1.types import CreatePipelineJobRequest
from google.cloud.aiplatform_v1.types import Schedule as VertexSchedule
from google.protobuf.field_mask_pb2 import FieldMask

from mnist_tfx.kubeflow.remote.attempts import delete_once, make_once
from mnist_tfx.kubeflow.remote.cron_zones import check_timing
from mnist_tfx.kubeflow.remote.platform import MANAGED_BY, Change, Job, Schedule, Timing
from mnist_tfx.kubeflow.remote.vertex_access import VertexAccess

_UPDATED = FieldMask(paths=["cron", "create_pipeline_job_request", "max_concurrent_run_count", "allow_queueing"])
_STATES: dict[int, Literal["active", "paused", "ended"]] = {
    VertexSchedule.State.ACTIVE: "active",
    VertexSchedule.State.PAUSED: "paused",
}


class VertexSchedules:
    """Speaks with ScheduleService itself: the SDK's wrapper updates no schedule's pipeline, and drops `catch_up`."""

    def __init__(self, access: VertexAccess, console: str) -> None:
        self._access, self._client, self._console = access, access.schedules, console

    def all(self) -> list[Schedule]:
        return sorted((self._described(one) for one in self._ours()), key=lambda schedule: schedule.name)

    def put(self, name: str, job: Job, timing: Timing) -> tuple[Schedule, Change]:
        """Doubles that two callers may have made are removed."""
        access = self._access
        check_timing(timing, access.profile)
        wanted = VertexSchedule(
            display_name=name,
            cron=f"TZ={timing.zone.key} {timing.cron}",
            max_concurrent_run_count=timing.max_concurrent_runs,
            allow_queueing=False,  # a run that is due while the last one goes on is left out, not kept for later
            create_pipeline_job_request=CreatePipelineJobRequest(
                parent=access.parent, pipeline_job=access.pipeline_job(job)
            ),
        )
        present = self._named(name)
        for double in present[1:]:
            self._delete(double)
        if not present:
            made = make_once(
                lambda: access.ask(
                    f"create schedule {name}", self._client.create_schedule, parent=access.parent, schedule=wanted
                ),
                lambda: next(iter(self._named(name)), None),
            )
            return self._described(made), "created"
        if _same(present[0], wanted):
            return self._described(present[0]), "unchanged"
        wanted.name = present[0].name
        what = f"update schedule {name}"
        updated = access.read(what, self._client.update_schedule, schedule=wanted, update_mask=_UPDATED)
        return self._described(updated), "updated"

    def pause(self, schedule: Schedule) -> None:
        what = f"pause schedule {schedule.name}"
        for one in self._named(schedule.name):
            self._access.read(what, self._client.pause_schedule, name=one.name)

    def resume(self, schedule: Schedule, *, catch_up: bool) -> None:
        """With `catch_up`, those runs that the pause left out come first."""
        what = f"resume schedule {schedule.name}"
        oldest = next((one.name for one in self._named(schedule.name)), schedule.schedule_id)
        self._access.read(what, self._client.resume_schedule, name=oldest, catch_up=catch_up)

    def delete(self, schedule: Schedule) -> None:
        for one in self._named(schedule.name):
            self._delete(one)

    def _delete(self, one: Any) -> None:
        what = f"delete schedule {one.display_name}"
        delete_once(
            lambda: self._access.ask(what, self._client.delete_schedule, name=one.name),
            lambda: any(left.name == one.name for left in self._ours()),
        )

    def _ours(self) -> list[Any]:
        listed = self._access.read("list schedules", self._client.list_schedules, parent=self._access.parent)
        return [one for one in listed if _labels(one).get("managed-by") == MANAGED_BY]

    def _named(self, name: str) -> list[Any]:
        """The oldest first."""
        named = [one for one in self._ours() if one.display_name == name]
        return sorted(named, key=lambda one: one.create_time or datetime.max.replace(tzinfo=UTC))

    def _described(self, one: Any) -> Schedule:
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
            next_run=datetime.fromtimestamp(one.next_run_time.timestamp(), UTC) if one.next_run_time else None,
        )


def _labels(one: VertexSchedule) -> dict[str, str]:
    return dict(one.create_pipeline_job_request.pipeline_job.labels)


def _same(current: VertexSchedule, wanted: VertexSchedule) -> bool:
    """Whether an update would change nothing; the pipeline itself is compared by the digest among its labels."""

    def told(one: VertexSchedule) -> tuple[object, ...]:
        job = one.create_pipeline_job_request.pipeline_job
        run = (job.service_account, job.network, job.encryption_spec, job.runtime_config.gcs_output_directory)
        return (one.cron, one.max_concurrent_run_count, one.allow_queueing, _labels(one), *run)

    return told(current) == told(wanted)
