"""Five-field cron expressions: read strictly, and told when they fire in a time zone.

A field is `*`, a number, a name (`MON`, `JAN`), a range `a-b`, or a list; `*` and ranges may have a step: `*/15`.
A day matches where day of month and day of week both match; where both are restricted, one of them is enough
(POSIX.1-2024, crontab). Implementations differ on what is restricted where a field is written `*/2`; those are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mnist_tfx.contract.errors import UsageError, unknown_name

_DAYS_SEARCHED = 8 * 366  # 29 February can be eight years away: 2096 and 2104
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True)
class _Kind:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()

    @property
    def every(self) -> frozenset[int]:
        return frozenset(range(self.first, self.last + 1))


_KINDS = (
    _Kind("minute", 0, 59),
    _Kind("hour", 0, 23),
    _Kind("day of month", 1, 31),
    _Kind("month", 1, 12, _MONTHS),
    _Kind("day of week", 0, 6, _WEEKDAYS),
)


class Cron(NamedTuple):
    """A parsed expression: the values at which each field matches. Sunday is 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    def __str__(self) -> str:
        """The canonical expression: numbers, ranges and lists only, which every implementation reads alike."""
        return " ".join(_written(values, kind) for values, kind in zip(self, _KINDS, strict=True))

    @property
    def every_day(self) -> bool:
        """Whether it matches on each day of the year."""
        return all(field == kind.every for field, kind in zip(self[2:], _KINDS[2:], strict=True))

    def matches_day(self, day: date) -> bool:
        """Whether it fires on `day` at all."""
        if day.month not in self.months:
            return False
        by_date = day.day in self.days
        by_weekday = day.isoweekday() % 7 in self.weekdays
        if self.days != _KINDS[2].every and self.weekdays != _KINDS[4].every:
            return by_date or by_weekday
        return by_date and by_weekday

    def runs(self, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """When it fires after `after` (an aware time), as times in `zone`, up to eight years ahead.

        A time that the clocks leave out fires not at all on that day, and one that they show twice fires twice: every
        moment at which a clock in `zone` shows a matching minute, which is how Kubeflow's controller counts.
        """
        first_day = after.astimezone(zone).date()
        times = [time(hour, minute) for hour in self.hours for minute in self.minutes]
        for number in range(_DAYS_SEARCHED):
            day = first_day + timedelta(days=number)
            if self.matches_day(day):
                moments = {moment for at in times for moment in moments_of(datetime.combine(day, at), zone)}
                yield from (moment.astimezone(zone) for moment in sorted(moments) if moment > after)


def moments_of(local: datetime, zone: ZoneInfo) -> list[datetime]:
    """The moments, in UTC, at which clocks in `zone` show `local`: none in spring's gap, two in autumn's overlap."""
    found = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(moment for moment in found if moment.astimezone(zone).replace(tzinfo=None, fold=0) == local)


def parse_cron(expression: str) -> Cron:
    """Reads a five-field expression.

    Raises:
        UsageError: it has another number of fields, a field does not fit, or it can never fire.
    """
    texts = expression.split()
    if len(texts) != len(_KINDS):
        raise UsageError(
            f"cron expression {expression!r} has {len(texts)} fields, not 5: minute, hour, day of month, month, day of "
            "week. For example '0 3 * * *' is each day at 03:00. (No seconds, no time zone and no @daily here.)"
        )
    fields = [_parse_field(text.upper(), kind, expression) for text, kind in zip(texts, _KINDS, strict=True)]
    cron = Cron(*fields)
    day, weekday = texts[2], texts[4]
    if "*" not in (day, weekday) and (day + weekday).count("*"):
        raise UsageError(
            f"cron expression {expression!r} restricts both the day of month ({day}) and the day of week ({weekday}), "
            "one of them by a step of '*': schedulers differ on what that means. Write the days as a list: 1,3,5."
        )
    if next(cron.runs(datetime.now(UTC), ZoneInfo("UTC")), None) is None:
        raise UsageError(f"cron expression {expression!r} never fires: no month it names has such a day.")
    return cron


def parse_timezone(name: str) -> ZoneInfo:
    """A zone of the IANA database.

    Raises:
        UsageError: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        from zoneinfo import available_timezones

        nearest = str(unknown_name("time zone", name, available_timezones())).split(" Known:")[0]
        raise UsageError(f"{nearest} Zones have IANA names, such as Europe/Paris or UTC.") from None


def _parse_field(text: str, kind: _Kind, expression: str) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        matched = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", part)
        if not matched or (matched[1] == "*" and matched[2]):
            raise _unfit(part, kind, expression)
        start_text, end_text, step_text = matched.groups()
        step = int(step_text or 1)
        if start_text == "*":
            start, end = kind.first, kind.last
        else:
            start = _value(start_text, kind, expression)
            end = _value(end_text, kind, expression) if end_text else start
        if kind.names == _WEEKDAYS and end_text == "SUN" and start > 0:
            end = 7  # FRI-SUN: Sunday also ends the week
        if step == 0 or start > end:
            raise _unfit(part, kind, expression)
        if step_text and start_text != "*" and not end_text:
            raise UsageError(
                f"cron expression {expression!r}: {part!r} starts at one {kind.name} and has a step; schedulers differ "
                f"on where it ends. Write {start}-{kind.last}/{step}."
            )
        values.update(value % 7 if kind.names == _WEEKDAYS else value for value in range(start, end + 1, step))
    return frozenset(values)


def _value(text: str, kind: _Kind, expression: str) -> int:
    if text in kind.names:
        return kind.first + kind.names.index(text)
    if not text.isdecimal() or not text.isascii():
        raise _unfit(text, kind, expression)
    value = int(text)
    if value not in kind.every and not (kind.names == _WEEKDAYS and value == 7):
        raise _unfit(text, kind, expression)
    return value


def _unfit(part: str, kind: _Kind, expression: str) -> UsageError:
    names = f" or {kind.names[0]} to {kind.names[-1]}" if kind.names else ""
    return UsageError(
        f"cron expression {expression!r}: {part!r} is no {kind.name}: it takes {kind.first} to {kind.last}{names}, "
        "'*', ranges a-b, lists a,b, and steps such as */5."
    )


def _written(values: frozenset[int], kind: _Kind) -> str:
    if values == kind.every:
        return "*"
    ordered = sorted(values)
    ranges: list[list[int]] = []
    for value in ordered:
        if ranges and value == ranges[-1][-1] + 1:
            ranges[-1].append(value)
        else:
            ranges.append([value])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ranges)
