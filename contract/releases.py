"""`<serving>/releases.jsonl`: who changed what is served, when, from which version to which. Only appended to.

Each change is written down before it begins and when it has ended, so that a change that was killed half-way shows too.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

FILE_NAME = "releases.jsonl"
ROLLBACK, CANARY, PROMOTE, FOLLOW_LATEST = "rollback", "canary", "promote", "follow-latest"

BEGUN, DONE, FAILED = "begun", "done", "failed"


@dataclass(frozen=True)
class Release:
    """One change. `before` and `after` are version numbers; `before` is None where nothing had that role."""

    id: str
    time: str  # of its begin; UTC, ISO 8601
    action: str
    model: str
    before: int | None
    after: int
    by: str  # user@host
    reason: str
    outcome: str  # begun (and not ended: it goes on, or was killed), done or failed


def read_releases(serving: Path, model: str | None = None) -> list[Release]:
    """Every change, the oldest first, each with its last outcome."""
    path = serving / FILE_NAME
    return parse(path.read_text(errors="replace") if path.exists() else "", model)


def parse(text: str, model: str | None = None) -> list[Release]:
    """The changes that the text of the file tells of. Lines that a crash cut off are passed over."""
    releases: dict[str, Release] = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            if entry["outcome"] == BEGUN:
                releases[entry["id"]] = Release(**entry)
            elif entry["id"] in releases:
                releases[entry["id"]] = replace(releases[entry["id"]], outcome=entry["outcome"])
        except (ValueError, KeyError, TypeError):
            continue
    return [release for release in releases.values() if model in (None, release.model)]


@contextmanager
def recorded(serving: Path, action: str, model: str, before: int | None, after: int, reason: str) -> Iterator[None]:
    """Records a change around what makes it."""
    by = f"{_user()}@{socket.gethostname()}"
    begun = Release(uuid4().hex[:12], _now(), action, model, before, after, by, reason, BEGUN)
    _append(serving, asdict(begun))
    try:
        yield
    except BaseException:
        _append(serving, {"id": begun.id, "time": _now(), "outcome": FAILED})
        raise
    _append(serving, {"id": begun.id, "time": _now(), "outcome": DONE})


def withdrawn_versions(releases: Iterable[Release]) -> frozenset[int]:
    """The versions of one model that were rolled back and not put into service again since."""
    withdrawn: set[int] = set()
    for release in releases:
        if release.outcome != DONE:
            continue
        undoes_a_rollback = release.after in withdrawn
        if release.action == ROLLBACK and release.before is not None and not undoes_a_rollback:
            withdrawn.add(release.before)
        withdrawn.discard(release.after)
    return frozenset(withdrawn)


def stable_before(releases: Iterable[Release], stable: int) -> int | None:
    """What was stable before `stable` was promoted, where that is on record; to pin what is live changes nothing."""
    promotions = [r for r in releases if r.outcome == DONE and r.action == PROMOTE and r.after == stable != r.before]
    return promotions[-1].before if promotions else None


def _append(serving: Path, entry: dict[str, object]) -> None:
    with open(serving / FILE_NAME, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        cut_off = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * cut_off + json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
