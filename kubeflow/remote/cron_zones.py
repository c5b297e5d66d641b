"""Schedules and clocks: what a change of the clocks does, the same for another clock, what a platform can keep."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.profiles import KubeflowProfile, Profile
from mnist_tfx.kubeflow.remote.cron import Cron, moments_of, parse_timezone
from mnist_tfx.kubeflow.remote.platform import Timing

_DAYS_LOOKED_AT = 400  # every change of the clocks that recurs is within a year
_EVERY_WEEKDAY = frozenset(range(7))


def clock_changes(cron: Cron, zone: ZoneInfo, now: datetime) -> list[str]:
    """The coming year's days on which the clocks keep `cron` from firing as often as it says, each in a sentence.

    Hourly and more frequent schedules are not mentioned: an hour more or less is what one expects of them.
    """
    if len(cron.hours) == 24:
        return []
    changes = []
    for number in range(_DAYS_LOOKED_AT):
        day = now.astimezone(zone).date() + timedelta(days=number)
        midnights = [datetime.combine(day + timedelta(days=more), time(), zone).utcoffset() for more in (0, 1)]
        if midnights[0] == midnights[1] or not cron.matches_day(day):
            continue
        for at in sorted(time(hour, minute) for hour in cron.hours for minute in cron.minutes):
            times = len(moments_of(datetime.combine(day, at), zone))
            if times != 1:
                how = "does not exist: no run" if times == 0 else "comes twice: two runs"
                changes.append(f"on {day}, the clocks of {zone.key} change and {at:%H:%M} {how}")
    return changes


def for_clock(cron: Cron, zone: ZoneInfo, clock: ZoneInfo, now: datetime) -> Cron:
    """The expression that, read by a clock in zone `clock`, fires when `cron` fires in `zone`.

    Raises:
        UsageError: no single expression does: the two zones' distance changes with the seasons, or a time that moves
            over midnight takes along days of the month, which cannot be written.
    """
    if zone.key == clock.key:
        return cron
    once_an_hour = cron._replace(minutes=frozenset({min(cron.minutes)}))
    # On 400 days on which it fires, which may be those of years: on which of them the clocks change differs by year.
    runs = islice(once_an_hour.runs(now, zone), len(cron.hours) * _DAYS_LOOKED_AT)
    found = {_later(cron, distance) for distance in {_offset(at, clock) - _offset(at, zone) for at in runs}}
    remedy = f"give the time in {clock.key}: --timezone {clock.key}, with the hour that suits you there"
    if len(found) > 1:
        raise UsageError(
            f"this Kubeflow reads schedules in {clock.key}, whose distance to {zone.key} changes with the seasons: "
            f"no cron expression fires at the same time in {zone.key} all year.\n  remedy: {remedy}; or have the "
            f"cluster's administrator set CRON_SCHEDULE_TIMEZONE={zone.key} for ml-pipeline-scheduledworkflow, and "
            "write the same into the profile."
        )
    [shifted] = found
    if isinstance(shifted, str):
        raise UsageError(
            f"{cron} in {zone.key} is no one cron expression in {clock.key}: {shifted}.\n  remedy: {remedy}."
        )
    return shifted


def _later(cron: Cron, distance: timedelta) -> Cron | str:
    """The expression that fires `distance` later; where no single one does, why."""
    shifted = {_shift(hour, minute, distance) for hour in cron.hours for minute in cron.minutes}
    hours = frozenset(hour for _, hour, _ in shifted)
    minutes = frozenset(minute for _, _, minute in shifted)
    days = {day for day, _, _ in shifted}
    if len(hours) * len(minutes) != len(shifted):
        return "its minutes wrap around"
    if cron.every_day or days == {0}:
        return cron._replace(hours=hours, minutes=minutes)
    if len(days) > 1 or not cron._replace(weekdays=_EVERY_WEEKDAY).every_day:
        return "it falls on other days there"
    [moved] = days
    weekdays = frozenset((weekday + moved) % 7 for weekday in cron.weekdays)
    return cron._replace(hours=hours, minutes=minutes, weekdays=weekdays)


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
    """The six fields, seconds first, that say the same in the time zone in which the installation reads schedules.

    Its parser (robfig/cron 1.2) takes no 7 for Sunday, and reads `*/2` as `*` where it decides whether a day field is
    restricted; the canonical form has neither. Days of the week count from Sunday = 0 there as here.

    Raises:
        UsageError: there are none.
    """
    clock = parse_timezone(profile.cron_timezone)
    return f"0 {for_clock(timing.cron, timing.zone, clock, datetime.now(UTC))}"


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None  # a ZoneInfo always has one for a moment
    return offset


def _shift(hour: int, minute: int, distance: timedelta) -> tuple[int, int, int]:
    """Days, hour and minute of a time of day after `distance`."""
    days, minutes = divmod(hour * 60 + minute + round(distance.total_seconds() / 60), 24 * 60)
    return days, *divmod(minutes, 60)
