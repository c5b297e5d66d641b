"""Machines on one network that share no `/tmp`: network and mount namespaces, which root may make on Linux."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_NETWORK = f"10.213.{os.getpid() % 256}"  # of this process: two may run at a time
GATEWAY = f"{_NETWORK}.1"  # this machine's own address there
_ENTER = """
mount -t overlay overlay -o lowerdir="$2:/opt" /opt && mount --bind "$1" /mnt && mount -t tmpfs tmpfs /tmp &&
mkdir -p "$1" && mount --bind /mnt "$1" && cd /tmp && shift 2 && exec "$@"
"""


def address(number: int) -> str:
    """Of the machine with that number, from 2 to 254."""
    return f"{_NETWORK}.{number}"


@dataclass(frozen=True)
class Network:
    """A bridge with machines.

    Attributes:
        name: of the bridge.
        shared: a folder that every machine sees, at the same path.
        image: what lies under `/opt` of every machine.
        logs: gets a file for each process.
    """

    name: str
    shared: Path
    image: Path
    logs: Path

    def add(self, number: int) -> Machine:
        """Connects a machine."""
        machine = Machine(self, f"{self.name}-{number}", address(number))
        inner, outer = f"{self.name}n{number}", f"{self.name}h{number}"
        _ip(f"netns add {machine.name}")
        _ip(f"link add {outer} type veth peer name {inner} netns {machine.name}")
        _ip(f"link set {outer} master {self.name} up")
        for command in ("link set lo up", f"addr add {machine.address}/24 dev {inner}", f"link set {inner} up"):
            _ip(f"-n {machine.name} {command}")
        return machine


@dataclass(frozen=True)
class Machine:
    """One of them."""

    network: Network
    name: str
    address: str

    def start(self, title: str, *command: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts a process, with an empty `/tmp` as its folder."""
        enter = ["ip", "netns", "exec", self.name, "sh", "-c", _ENTER, "sh"]
        given = [*enter, str(self.network.shared), str(self.network.image), *command]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (self.network.logs / f"{self.name}-{title}.log").open("ab") as log:
            return subprocess.Popen(
                given, env={**os.environ, "PATH": path, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def processes(self) -> list[int]:
        """The ids of all its processes."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [int(pid) for pid in listed.stdout.split()]

    def stop(self) -> None:
        """Ends all its processes at once, and takes it off the network."""
        while pids := self.processes():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)
        _ip(f"link del {self.name.replace('-', 'h')}")  # with its other end; the kernel takes its time with a namespace
        _ip(f"netns del {self.name}")


@contextmanager
def network(shared: Path, image: Path, logs: Path) -> Iterator[Network]:
    """A bridge; at the end all that runs on its machines is ended."""
    made = Network(f"mt{os.getpid() % 100_000}", shared, image, logs)
    logs.mkdir(parents=True, exist_ok=True)
    _ip(f"link add {made.name} type bridge")
    try:
        _ip(f"addr add {GATEWAY}/24 dev {made.name}")
        _ip(f"link set {made.name} up")
        yield made
    finally:
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        for name in (line.split()[0] for line in listed.splitlines() if line.startswith(f"{made.name}-")):
            Machine(made, name, "").stop()
        _ip(f"link del {made.name}")


def possible() -> bool:
    """Whether this user may make them."""
    if not (shutil.which("ip") and shutil.which("unshare")):
        return False
    return subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode == 0


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True)
