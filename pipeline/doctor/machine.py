"""Facts about this machine: C libraries, memory, GPUs. Imports no TensorFlow."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

_PROGRAM_SECONDS = 5.0  # getconf and nvidia-smi answer at once, or are stuck
_CGROUPS = Path("/sys/fs/cgroup")
_DEVICES = Path("/dev")
# Of cgroup version 2, then 1, in bytes: the limit and the use of this container, and how much of the use is page cache
# that the kernel gives up first. `docker stats` takes the same from it (docker/cli, calculateMemUsageUnixNoCache).
_CGROUP_MEMORY = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def glibc_of_interpreter() -> str | None:
    """The version of the glibc that this process runs with (scripts/glibc.sh may have put it beside it), if any."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ") or None
    except (ValueError, OSError):  # another C library does not know the name
        return None


def glibc_of_system() -> str | None:
    """The version of the system's glibc, if any."""
    return (_output(["getconf", "GNU_LIBC_VERSION"]) or "").strip().removeprefix("glibc ") or None


def memory_mib(cgroups: Path = _CGROUPS) -> tuple[int, int]:
    """Memory in MiB that a process can have: in all, and now; within this container's limit.

    Args:
        cgroups: where the cgroups are mounted.
    """
    memory = psutil.virtual_memory()
    total, available = memory.total // 2**20, memory.available // 2**20
    for folder, limit_file, usage_file, cache in _CGROUP_MEMORY:
        place = cgroups / folder
        try:
            limit, usage = (int((place / file).read_text()) for file in (limit_file, usage_file))
            usage -= int(dict(line.split() for line in (place / "memory.stat").read_text().splitlines())[cache])
        except (OSError, ValueError):  # not this cgroup version; "max" means no limit
            continue
        total, available = min(total, limit // 2**20), max(0, min(available, (limit - usage) // 2**20))
    return total, available


def nvidia_gpus() -> list[str]:
    """The name of each NVIDIA GPU, as nvidia-smi tells; without it, "NVIDIA" for each device file."""
    if program := shutil.which("nvidia-smi"):
        names = _output([program, "--query-gpu=name", "--format=csv,noheader"])
        if names is not None:
            return [name.strip() for name in names.splitlines() if name.strip()]
    return ["NVIDIA" for device in _DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", device.name)]


def missing_cuda_libraries() -> list[str]:
    """CUDA libraries that TensorFlow would load, but that are neither in NVIDIA's wheels nor where the loader looks."""
    wheels = importlib.util.find_spec("nvidia")
    roots = (wheels and wheels.submodule_search_locations) or []
    folders = [folder / "lib" for root in roots for folder in Path(root).iterdir()]
    folders += [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    return [
        name
        for name in ("cudart", "cublas", "cudnn")
        if not any(any(folder.glob(f"lib{name}.so*")) for folder in folders) and not ctypes.util.find_library(name)
    ]


def _output(command: Sequence[str]) -> str | None:
    """What the command prints; None where it is not there, fails or does not end."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PROGRAM_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
