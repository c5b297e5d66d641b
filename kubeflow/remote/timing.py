"""Whether a profile's platform can run at the times that are asked for. Needs neither a network nor credentials."""

from __future__ import annotations

from datetime import UTC, datetime

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.profiles import KubeflowProfile, Profile
from mnist_tfx.kubeflow.remote.cron import parse_timezone
from mnist_tfx.kubeflow.remote.cron_zones import for_clock, six_fields
from mnist_tfx.kubeflow.remote.platform import Timing


def check_timing(timing: Timing, profile: Profile) -> None:
    """Raises UsageError, with what to do instead, where the platform cannot."""
    if isinstance(profile, KubeflowProfile):
        kubeflow_expression(timing, profile)
    elif timing.catch_up:
        raise UsageError(
            "on Vertex AI, missed runs are those of a pause: `mnist-tfx schedule resume NAME --catch-up` makes up for "
            "them; `create` takes no --catch-up."
        )


def kubeflow_expression(timing: Timing, profile: KubeflowProfile) -> str:
    """The six fields that say the same in the time zone in which the installation reads schedules.

    Raises:
        UsageError: there are none.
    """
    clock = parse_timezone(profile.cron_timezone)
    return six_fields(for_clock(timing.cron, timing.zone, clock, datetime.now(UTC)))
