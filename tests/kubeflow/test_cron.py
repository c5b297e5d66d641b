"""Cron expressions, the clocks, and their six-field form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.profiles import KubeflowProfile, load_profile
from mnist_tfx.kubeflow.remote.cron import parse_cron, parse_timezone
from mnist_tfx.kubeflow.remote.cron_zones import clock_changes, for_clock, kubeflow_expression
from mnist_tfx.kubeflow.remote.platform import Timing

PARIS, TOKYO, KOLKATA, ZERO = (
    ZoneInfo("Europe/Paris"),
    ZoneInfo("Asia/Tokyo"),
    ZoneInfo("Asia/Kolkata"),
    ZoneInfo("UTC"),
)
LONDON, NEW_YORK, CHICAGO = ZoneInfo("Europe/London"), ZoneInfo("America/New_York"), ZoneInfo("America/Chicago")
NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)  # a Monday


def next_runs(expression: str, zone: ZoneInfo, after: datetime = NOW, count: int = 3) -> list[str]:
    return [f"{run:%Y-%m-%d %H:%M %z}" for run in islice(parse_cron(expression).runs(after, zone), count)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 3 * * *", ["2027-03-02 03:00 +0100", "2027-03-03 03:00 +0100", "2027-03-04 03:00 +0100"]),
        ("*/30 13 * * *", ["2027-03-01 13:30 +0100", "2027-03-02 13:00 +0100", "2027-03-02 13:30 +0100"]),
        ("15 4 * * 1-5/2", ["2027-03-03 04:15 +0100", "2027-03-05 04:15 +0100", "2027-03-08 04:15 +0100"]),
        ("0 0 29 2 *", ["2028-02-29 00:00 +0100", "2032-02-29 00:00 +0100"]),
        ("0 3 1 jan,JUL *", ["2027-07-01 03:00 +0200", "2028-01-01 03:00 +0100", "2028-07-01 03:00 +0200"]),
        ("0 3 13 * FRI", ["2027-03-05 03:00 +0100", "2027-03-12 03:00 +0100", "2027-03-13 03:00 +0100"]),
        ("0 3 * * 7", ["2027-03-07 03:00 +0100", "2027-03-14 03:00 +0100", "2027-03-21 03:00 +0100"]),
    ],
)
def test_next_runs(expression: str, expected: list[str]) -> None:
    assert next_runs(expression, PARIS, count=len(expected)) == expected


def test_clocks_of_spring_and_autumn() -> None:
    before_spring, before_autumn = datetime(2027, 3, 27, 12, tzinfo=UTC), datetime(2027, 10, 30, 12, tzinfo=UTC)
    assert next_runs("30 2 * * *", PARIS, before_spring, 1) == ["2027-03-29 02:30 +0200"]
    assert next_runs("30 2 * * *", PARIS, before_autumn, 2) == ["2027-10-31 02:30 +0200", "2027-10-31 02:30 +0100"]
    assert clock_changes(parse_cron("30 2 * * *"), PARIS, NOW) == [
        "on 2027-03-28, the clocks of Europe/Paris change and 02:30 does not exist: no run",
        "on 2027-10-31, the clocks of Europe/Paris change and 02:30 comes twice: two runs",
        "on 2028-03-26, the clocks of Europe/Paris change and 02:30 does not exist: no run",
    ]
    assert clock_changes(parse_cron("0 3 * * *"), PARIS, NOW) == []
    assert clock_changes(parse_cron("30 2 * * *"), TOKYO, NOW) == []


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("0 3 * *", "has 4 fields, not 5"),
        ("0 0 3 * * *", "has 6 fields, not 5"),
        ("@daily", "has 1 fields"),
        ("60 3 * * *", "'60' is no minute: it takes 0 to 59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 3 0 * *", "'0' is no day of month"),
        ("0 3 * 13 *", "or JAN to DEC"),
        ("0 3 * * 8", "'8' is no day of week"),
        ("0 3 * * MO", "or SUN to SAT"),
        ("0 5-3 * * *", "'5-3' is no hour"),
        ("*/0 3 * * *", "is no minute"),
        ("5/15 3 * * *", "Write 5-59/15"),
        ("0 3 L * *", "'L' is no day of month"),
        ("0 3 ? * MON", "'?' is no day of month"),
        ("0 3 */2 * MON", "Write the days as a list"),
        ("0 3 31 2 *", "never fires"),
        ("0 3 30,31 FEB *", "never fires"),
        ("٣ 3 * * *", "is no minute"),
    ],
)
def test_refused_expressions(expression: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_cron(expression)
    assert message in str(raised.value)


def test_unknown_zone() -> None:
    with pytest.raises(UsageError, match=r"unknown time zone 'Europe/Pariss'. Did you mean 'Europe/Paris'\?"):
        parse_timezone("Europe/Pariss")
    with pytest.raises(UsageError):
        parse_timezone("../etc/passwd")


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/20 */6 * * 5-7", "0 0,20,40 0,6,12,18 * * 0,5-6"),
        ("0 3 * * 0-7", "0 0 3 * * *"),
        ("0 3 1 * SUN", "0 0 3 1 * 0"),
        ("0 3 * * FRI-SUN", "0 0 3 * * 0,5-6"),
    ],
)
def test_six_fields(expression: str, written: str) -> None:
    profile = load_profile("kubeflow-cpu")
    assert isinstance(profile, KubeflowProfile)
    assert kubeflow_expression(Timing(parse_cron(expression), ZERO), profile) == written


def test_for_another_clock() -> None:
    def shifted(expression: str, zone: ZoneInfo, clock: ZoneInfo = ZERO) -> str:
        return str(for_clock(parse_cron(expression), zone, clock, NOW))

    assert shifted("0 3 * * *", PARIS, PARIS) == "0 3 * * *"
    assert shifted("0 3 * * *", TOKYO) == "0 18 * * *"
    assert shifted("0 3 * * MON", TOKYO) == "0 18 * * 0"  # of the day before
    assert shifted("0 12 1 * *", TOKYO) == "0 3 1 * *"
    assert shifted("15 3 * * *", KOLKATA) == "45 21 * * *"
    for hour in range(24):  # whatever the time: these clocks change at one moment, which each shows as another hour
        at = NOW.replace(hour=hour, minute=30)
        assert str(for_clock(parse_cron("0 12 * * *"), LONDON, PARIS, at)) == "0 13 * * *"
    assert shifted("0 12 * * *", NEW_YORK, CHICAGO) == "0 11 * * *"
    assert shifted("*/15 * * * *", PARIS) == "0,15,30,45 * * * *"  # an hour more or less changes nothing
    assert shifted("0 3 * 6-8 *", PARIS) == "0 1 * 6-8 *"  # in summer only
    assert shifted("0 3 29 2 *", PARIS) == "0 2 29 2 *"  # on no day of this year
    for expression, zone, message in (
        ("0 3 * * *", PARIS, "CRON_SCHEDULE_TIMEZONE=Europe/Paris"),
        ("0 3 29 3 *", PARIS, "changes with the seasons"),  # in summer until 2030, whose clocks change on 31 March
        ("0 1 1 * *", PARIS, "changes with the seasons"),
        ("0 * * * MON", PARIS, "it falls on other days there"),
        ("0 3 1 * *", TOKYO, "it falls on other days there"),
        ("0 3,12 * * MON", TOKYO, "it falls on other days there"),
        ("0,45 3 * * *", KOLKATA, "its minutes wrap around"),
    ):
        with pytest.raises(UsageError) as raised:
            shifted(expression, zone)
        assert message in str(raised.value) and "--timezone UTC" in str(raised.value)
    with pytest.raises(UsageError, match="changes with the seasons"):  # at 3 in New York, Chicago's clocks are yet to
        shifted("0 3 * * *", NEW_YORK, CHICAGO)


@settings(max_examples=60, deadline=None)
@given(
    minutes=st.sampled_from(["0", "*/15", "5,50", "7-9"]),
    hours=st.sampled_from(["3", "*/5", "1-3", "0,23"]),
    days=st.sampled_from(["*", "1", "*/10", "28-31"]),
    weekdays=st.sampled_from(["*", "MON-FRI", "0", "6,7"]),
    zone=st.sampled_from([PARIS, TOKYO, ZERO]),
    start=st.datetimes(datetime(2027, 1, 1), datetime(2027, 12, 1)),
)
def test_runs_are_the_minutes_that_match(
    minutes: str, hours: str, days: str, weekdays: str, zone: ZoneInfo, start: datetime
) -> None:
    """Against the definition, minute by minute over two days; and the canonical form means the same."""
    if "*/" in days and weekdays != "*":
        return
    cron = parse_cron(f"{minutes} {hours} {days} * {weekdays}")
    after = start.replace(tzinfo=UTC, second=0, microsecond=0)
    end = after + timedelta(days=2)

    def matches(moment: datetime) -> bool:
        local = moment.astimezone(zone)
        return local.hour in cron.hours and local.minute in cron.minutes and cron.matches_day(local.date())

    expected = [at for number in range(1, 2 * 24 * 60 + 1) if matches(at := after + timedelta(minutes=number))]
    found = []
    for run in cron.runs(after, zone):
        if run > end:
            break
        found.append(run)
    assert found == expected
    assert parse_cron(str(cron)) == cron
