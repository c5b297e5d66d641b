from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_tfx.contract.cpus import cpu_count, cpu_quota


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_counts() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from mnist_tfx.contract.cpus import cpu_count; print(cpu_count())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert 1 <= cpu_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("quota", "count"), [("150000 100000", 2), ("20000 100000", 1), ("max 100000", 8), ("6400000 100000", 8)]
)
def test_cpus_are_those_of_the_affinity_within_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, count: int
) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(cpu_quota, "__defaults__", (tmp_path, tmp_path / "own"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cpu_count() == count


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),  # a container of cgroup version 2
        ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "200000 100000"}, 0.5),  # the tightest counts
        ("4:cpu,cpuacct:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
        ("4:cpu:/k/p\n", {"cpu/k/cpu.cfs_quota_us": "-1", "cpu/k/cpu.cfs_period_us": "100000"}, math.inf),
        ("0::/../outside\n", {"cpu.max": "100000 100000"}, 1.0),  # another namespace's path
        ("", {}, math.inf),
    ],
)
def test_quota_of_cgroups(tmp_path: Path, own: str, files: dict[str, str], quota: float) -> None:
    cgroups = tmp_path / "cgroup"
    for name, text in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    assert cpu_quota(cgroups, tmp_path / "own") == quota
