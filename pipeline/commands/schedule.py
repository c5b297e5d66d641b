"""`mnist-tfx schedule`: runs of the pipeline at fixed times, on Vertex AI or Kubeflow Pipelines."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.remote import (
    add_pipeline_arguments,
    add_request_arguments,
    add_target_arguments,
    compiled_job,
    open_platform,
    read_profile,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mnist_tfx.kubeflow.profiles import Profile
    from mnist_tfx.kubeflow.remote.platform import Schedule, Schedules, Timing

SUMMARY = "run the pipeline at fixed times on Vertex AI or Kubeflow Pipelines"
EXAMPLE = (
    "mnist-tfx schedule create --target vertex --dataset mnist --profile my-vertex.toml "
    '--cron "0 3 * * *" --timezone Europe/Paris'
)

_NEXT_RUNS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verbs and their options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser(
        "create",
        help="create a schedule, or change the one of this name",
        description="Creates a schedule, or changes the one of this name. A paused one stays paused.",
        epilog=f"example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_target_arguments(create)
    add_request_arguments(create)
    add_pipeline_arguments(create)
    create.add_argument("--name", help="default: the dataset and the recipe, or `monitor`, as in mnist-default")
    create.add_argument("--cron", required=True, help="minute, hour, day of month, month, day of week: '0 3 * * *'")
    create.add_argument("--timezone", default="UTC", metavar="ZONE", help="of --cron: Europe/Paris (default: UTC)")
    create.add_argument(
        "--max-concurrent-runs", type=_count, default=1, metavar="N", help="at once (default: %(default)s)"
    )
    create.add_argument("--catch-up", action="store_true", help="make up for missed runs (Kubeflow)")
    create.add_argument("--dry-run", action="store_true", help="name the next runs and create nothing")
    create.set_defaults(act=_create)
    for verb, act, help_text in (
        ("list", _list, "the schedules that this program made"),
        ("show", _show, "one schedule and its next runs"),
        ("pause", _pause, "begin no new runs from now on"),
        ("resume", _resume, "begin runs again"),
        ("delete", _delete, "remove a schedule; its past runs stay"),
    ):
        subparser = verbs.add_parser(verb, help=help_text, description=help_text.capitalize() + ".")
        if verb != "list":
            subparser.add_argument("name", help="the schedule's name, as `schedule list` shows it")
        add_target_arguments(subparser)
        add_request_arguments(subparser)
        if verb == "resume":
            subparser.add_argument("--catch-up", action="store_true", help="make up for the pause's runs (Vertex AI)")
        subparser.set_defaults(act=act)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    act: Callable[[argparse.Namespace, Profile], None] = args.act
    act(args, read_profile(args))
    return 0


def _create(args: argparse.Namespace, profile: Profile) -> None:
    from mnist_tfx.contract.names import plain_name
    from mnist_tfx.kubeflow.remote.cron import parse_cron, parse_timezone
    from mnist_tfx.kubeflow.remote.cron_zones import check_timing, clock_changes
    from mnist_tfx.kubeflow.remote.platform import Timing, check_schedule_name, plain_recipe_name
    from mnist_tfx.pipeline.recipes import load_recipe

    cron, zone = parse_cron(args.cron), parse_timezone(args.timezone)
    recipe = load_recipe(project_of(args), args.recipe, args.set)
    what = args.recipe if args.pipeline == "train" else args.pipeline
    timing = Timing(cron, zone, args.max_concurrent_runs, args.catch_up)
    name = check_schedule_name(args.name or f"{plain_name(args.dataset)}-{plain_recipe_name(what)}")
    check_timing(timing, profile)
    now = datetime.now(UTC)
    runs = _next_runs(timing, now)
    for when in runs:
        print(f"next run: {_when(when)}", file=sys.stderr)
    for change in clock_changes(cron, zone, now):
        print(f"note: {change}", file=sys.stderr)
    if args.dry_run:
        _print({"name": name, "change": "none", "next_runs": _isoformat(runs)}, as_json=args.json)
        return
    schedules = open_platform(profile, args.request_timeout).schedules
    with compiled_job(args, recipe, profile) as job:
        schedule, done = schedules.put(name, job, timing)
    if schedule.state == "paused":
        print(f"note: it is paused; `mnist-tfx schedule resume {name} ...` begins runs again", file=sys.stderr)
    _print({"change": done, **_as_json(schedule), "next_runs": _isoformat(runs)}, as_json=args.json)


def _list(args: argparse.Namespace, profile: Profile) -> None:
    schedules = open_platform(profile, args.request_timeout).schedules.all()
    if args.json:
        print(json.dumps([_as_json(schedule) for schedule in schedules], indent=2))
        return
    from rich.table import Table

    from mnist_tfx.pipeline.runs.views import stdout_console

    table = Table("name", "state", "cron", "time zone", "next run")
    for schedule in schedules:
        runs = _runs_of(schedule)
        table.add_row(schedule.name, schedule.state, schedule.cron, schedule.timezone, _when(runs[0]) if runs else "")
    stdout_console().print(table)


def _show(args: argparse.Namespace, profile: Profile) -> None:
    _, schedule = _find(args, profile)
    _print({**_as_json(schedule), "next_runs": _isoformat(_runs_of(schedule))}, as_json=args.json)


def _pause(args: argparse.Namespace, profile: Profile) -> None:
    schedules, schedule = _find(args, profile)
    schedules.pause(schedule)
    _print({"name": schedule.name, "state": "paused"}, as_json=args.json)


def _resume(args: argparse.Namespace, profile: Profile) -> None:
    schedules, schedule = _find(args, profile)
    schedules.resume(schedule, catch_up=args.catch_up)
    _print({"name": schedule.name, "state": "active"}, as_json=args.json)


def _delete(args: argparse.Namespace, profile: Profile) -> None:
    schedules, schedule = _find(args, profile)
    schedules.delete(schedule)
    _print({"name": schedule.name, "state": "deleted"}, as_json=args.json)


def _find(args: argparse.Namespace, profile: Profile) -> tuple[Schedules, Schedule]:
    from mnist_tfx.kubeflow.remote.platform import find_schedule

    schedules = open_platform(profile, args.request_timeout).schedules
    return schedules, find_schedule(schedules, args.name)


def _next_runs(timing: Timing, now: datetime) -> list[datetime]:
    return list(islice(timing.cron.runs(now, timing.zone), _NEXT_RUNS))


def _runs_of(schedule: Schedule) -> list[datetime]:
    """The next runs of an active schedule; none where its cron expression is not of our kind."""
    from mnist_tfx.contract.errors import UsageError
    from mnist_tfx.kubeflow.remote.cron import parse_cron, parse_timezone
    from mnist_tfx.kubeflow.remote.platform import Timing

    if schedule.state != "active":
        return []
    try:
        timing = Timing(parse_cron(schedule.cron), parse_timezone(schedule.timezone))
    except UsageError:  # changed by somebody in a console
        return [schedule.next_run] if schedule.next_run else []
    return _next_runs(timing, datetime.now(UTC))


def _as_json(schedule: Schedule) -> dict[str, Any]:
    return {**asdict(schedule), "next_run": schedule.next_run.isoformat() if schedule.next_run else None}


def _isoformat(runs: list[datetime]) -> list[str]:
    return [when.isoformat() for when in runs]


def _when(when: datetime) -> str:
    return f"{when:%a %Y-%m-%d %H:%M %Z}"


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    for key, value in answer.items():
        if value not in (None, "", []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{key.replace('_', ' ')}: {text}")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10")
    return int(text)
