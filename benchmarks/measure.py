"""Measures a command from the outside: wall time with imports, and the peak memory of its process tree."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from mnist_tfx.contract.cpus import cpu_count, cpu_field, cpu_flags

_CPU_INFO = Path("/proc/cpuinfo")
_WIDEST = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
_SAMPLE_SECONDS = 0.2
_TAIL_LINES = 30


@dataclass(frozen=True)
class Measurement:
    """What one command took, and what it printed on stdout."""

    seconds: float
    peak_mib: float  # the largest sum over the process tree at one moment
    stdout: str


def machine() -> str:
    """The processors, in words: how many, their name, and the widest arithmetic that matters here."""
    name = cpu_field(_CPU_INFO, "model name") or "of no name"
    widest = next((flag for flag in _WIDEST if flag in cpu_flags(_CPU_INFO)), "neither AVX-512 nor AVX2")
    return f"{cpu_count()} processors, {name} with {widest}"


class BenchmarkFailed(Exception):
    """A measured command did not exit with 0. The message ends with the last lines it printed."""


def run(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Measurement:
    """Runs `command` to its end and measures it; its stderr goes to the file `log`.

    Raises:
        BenchmarkFailed: the command's exit code is not 0.
    """
    started = time.perf_counter()
    process = _start(command, log, env, cwd)
    with MemorySampler(process.pid) as sampler:
        stdout = _finish(process, command, log)
    seconds = time.perf_counter() - started
    return Measurement(seconds, sampler.peak_bytes / 2**20, stdout)


def stdout_of(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Runs `command` to its end with nothing beside it, as sampling memory would be; its stderr goes to the file `log`.

    Raises:
        BenchmarkFailed: the command's exit code is not 0.
    """
    return _finish(_start(command, log, env, cwd), command, log)


def _start(command: Sequence[str], log: Path, env: Mapping[str, str] | None, cwd: Path | None) -> subprocess.Popen[str]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stderr:
        return subprocess.Popen(command, env=env, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=stderr)


def _finish(process: subprocess.Popen[str], command: Sequence[str], log: Path) -> str:
    stdout, _ = process.communicate()
    if process.returncode != 0:
        tail = "\n".join([*log.read_text(errors="replace").splitlines(), *stdout.splitlines()][-_TAIL_LINES:])
        raise BenchmarkFailed(f"{' '.join(command)}\nexited with {process.returncode}; {log} ends with:\n{tail}")
    return stdout


class MemorySampler:
    """Samples the memory of processes and their descendants in a thread."""

    def __init__(self, *pids: int) -> None:
        self.peak_bytes = 0
        self._roots = [psutil.Process(pid) for pid in pids]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            try:
                tree = [each for root in self._roots for each in (root, *root.children(recursive=True))]
            except psutil.NoSuchProcess:
                return
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory_bytes, tree)))


def _memory_bytes(process: psutil.Process) -> int:
    """The process's proportional share (PSS) on Linux, else its resident set (RSS).

    The sum of RSS over a tree counts a shared page once for each process: it would charge Beam's worker processes for
    TensorFlow's library several times over.
    """
    try:
        if sys.platform == "linux":
            return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended since it was listed
        return 0
