"""How many CPUs this process may use, and what they can: the one place of the project that looks."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def cpu_count() -> int:
    """CPUs that this process may use, at least 1: those it may run on (affinity), within its cgroups' quota.

    A quota of 1.5 gives 2: a share of a CPU is one that a thread can use for a part of the time.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, math.ceil(min(cpu_quota(), usable))))


def cpu_quota(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> float:
    """How many CPUs' worth of time the cgroups around this process grant, of version 2 or 1; infinity: no limit.

    Args:
        cgroups: where the cgroups are mounted.
        own: says in which of them this process is.
    """
    ratios = [ratio for folder in _folders(cgroups, own, "") for ratio in _ratio(folder, "cpu.max")]
    for folder in _folders(cgroups / "cpu", own, "cpu"):
        ratios += _ratio(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us")
    return min(ratios, default=math.inf)


def cpu_flags(cpu_info: Path) -> set[str]:
    """What the CPU can, as `/proc/cpuinfo` says it; nothing where there is no such file."""
    return set(cpu_field(cpu_info, "flags|Features").split())


def cpu_field(cpu_info: Path, name: str) -> str:
    """What `/proc/cpuinfo` says under a name (a regular expression) of the first CPU; empty where it says nothing."""
    try:
        text = cpu_info.read_text()
    except OSError:
        return ""
    found = re.search(rf"^(?:{name})\s*: (.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def _folders(root: Path, own: Path, controller: str) -> list[Path]:
    """This process's cgroup and those around it; seen from within a container, often the root alone."""
    for line in _words(own):  # "0::/a/b" of version 2, "4:cpu,cpuacct:/a/b" of version 1
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            mine = root / path.lstrip("/")
            return [mine, *mine.parents][: len(mine.parts) - len(root.parts) + 1]
    return [root]


def _ratio(folder: Path, *files: str) -> Iterator[float]:
    """Quota by period, both in microseconds; nothing where there is no limit ("max", -1)."""
    words = [word for file in files for word in _words(folder / file)]
    if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
        yield int(words[0]) / int(words[1])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (OSError, UnicodeDecodeError):  # not this version of cgroups, or no Linux
        return []
