"""A Flink cluster as Kubernetes has one for Beam: a machine with JobManager and job server, and machines with workers.

Beside each TaskManager runs a worker pool, as our image starts it: by Beam's boot program, in our environment.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mnist_tfx.components.settings import BeamSettings
from mnist_tfx.pipeline.home import CHECKOUT
from tests.real.beam.machines import Machine, Network, address
from tests.real.beam.programs import Programs

MAIN = address(2)  # of JobManager and job server
_START_SECONDS = 90.0
_REST, _JOBS, _POOL = 8081, 8099, 50000  # _POOL is fixed in boot.go
# `env.java.opts.all` of the configuration that Flink 1.19 comes with.
_OPENED = ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent")
_JAVA = (
    "java",
    "-Xmx768m",
    "-XX:MaxDirectMemorySize=1g",
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPENED),
)
_ENTRY_POINT = CHECKOUT / "kubeflow" / "entrypoint.sh"  # the image's
_CONFIGURATION = "/opt/flink/conf"
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
# What Flink's shell scripts work out before they start a TaskManager, in MiB. By default a tenth of the memory is the
# network's, which does not suffice for StatisticsGen: 171 tasks in one slot, and 16 MiB for each that shuffles.
_MEMORY = {
    **{"framework.heap.size": 128, "framework.off-heap.size": 128, "task.heap.size": 512, "task.off-heap.size": 64},
    **{"managed.size": 256, "network.min": 768, "network.max": 768},
    **{"jvm-metaspace.size": 256, "jvm-overhead.min": 192, "jvm-overhead.max": 192},
}
_RESOURCES = {"taskmanager.cpu.cores": "1"} | {f"taskmanager.memory.{part}": f"{mib}m" for part, mib in _MEMORY.items()}
# By default, Flink restarts no job without checkpoints; Beam's `--number_of_execution_retries` is for streaming alone
# (FlinkExecutionEnvironments.java), so it is the cluster's to say. `fixed-delay` counts each region of the job that ran
# on a lost TaskManager, and gives up at once; `exponential-delay` counts what fails within its delay as one.
_RESTART = {
    "restart-strategy.type": "exponential-delay",
    "restart-strategy.exponential-delay.initial-backoff": "10 s",
    "restart-strategy.exponential-delay.attempts-before-reset-backoff": "5",
}


@dataclass
class FlinkCluster:
    """A running cluster.

    Attributes:
        settings: with which components run their Beam pipelines there.
        task_managers: the process of each, by its machine.
        pools: the process of each worker pool; the workers are its descendants.
    """

    programs: Programs
    network: Network
    environment: Mapping[str, str]
    slots: int
    main: Machine
    task_managers: dict[Machine, subprocess.Popen[bytes]] = field(default_factory=dict)
    pools: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def settings(self) -> BeamSettings:
        return BeamSettings(
            runner="flink",
            job_endpoint=f"{self.main.address}:{_JOBS}",
            worker_pool=f"localhost:{_POOL}",
            workers=len(self.task_managers) * self.slots,
        )

    def add_worker(self, number: int) -> Machine:
        """Starts a machine with a worker pool and a TaskManager."""
        machine = self.network.add(number)
        environment = {**self.environment, "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1"}
        self.pools.append(machine.start("pool", "sh", str(_ENTRY_POINT), "--worker_pool", env=environment))
        self.start_task_manager(machine)
        return machine

    def start_task_manager(self, machine: Machine) -> None:
        """Starts a TaskManager, as Kubernetes does anew where one has ended."""
        options = {"taskmanager.host": machine.address, "taskmanager.numberOfTaskSlots": str(self.slots), **_RESOURCES}
        command = _flink(self.programs, _TASK_MANAGER, self.main, options)
        self.task_managers[machine] = machine.start("taskmanager", *command, env=self.environment)

    def ask(self, path: str) -> Any:
        """What the JobManager's REST API answers."""
        with urllib.request.urlopen(f"http://{self.main.address}:{_REST}/{path}", timeout=10) as answer:
            return json.load(answer)


def _flink(programs: Programs, entry: str, main: Machine, options: Mapping[str, str]) -> list[str]:
    given = {
        "jobmanager.rpc.address": main.address,
        "jobmanager.bind-host": "0.0.0.0",
        "rest.address": main.address,
        "rest.bind-address": "0.0.0.0",
        "jobmanager.memory.process.size": "1g",
        **options,
    }
    words = [word for key, value in given.items() for word in ("-D", f"{key}={value}")]
    return [*_JAVA, "-cp", programs.engine, entry, "--configDir", _CONFIGURATION, *words]


def flink_cluster(
    joined: Network, programs: Programs, *, workers: int = 2, slots: int = 1, environment: Mapping[str, str]
) -> FlinkCluster:
    """Starts a cluster on new machines of a network, which ends them.

    Args:
        joined: the network.
        programs: what the cluster is made of.
        workers: how many machines with workers.
        slots: of each, which is how many tasks it runs at a time.
        environment: of the workers, with which they find object stores.
    """
    for path, content in (("apache/beam/boot", programs.boot.read_bytes()), ("flink/conf/flink-conf.yaml", b"")):
        (joined.image / path).parent.mkdir(parents=True, exist_ok=True)
        (joined.image / path).write_bytes(content)
        (joined.image / path).chmod(0o755)
    cluster = FlinkCluster(programs, joined, environment, slots, joined.add(2))
    manager = cluster.main.start("jobmanager", *_flink(programs, _JOB_MANAGER, cluster.main, _RESTART), env=environment)
    _wait(lambda: cluster.ask("overview"), manager)
    command = [*_JAVA, "-cp", programs.job_server, _JOB_SERVER, f"--flink-master={cluster.main.address}:{_REST}"]
    command += [f"--job-host={cluster.main.address}", f"--job-port={_JOBS}", "--artifacts-dir=/tmp/artifacts"]
    server = cluster.main.start("jobserver", *command, env=environment)
    _wait(lambda: _listens(cluster.main.address, _JOBS), server)
    for number in range(3, 3 + workers):
        cluster.add_worker(number)
    for manager in cluster.task_managers.values():
        _wait(lambda: len(cluster.ask("taskmanagers")["taskmanagers"]) >= workers, manager)
    return cluster


def _listens(address: str, port: int) -> bool:
    socket.create_connection((address, port), 1).close()
    return True


def _wait(ready: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            if ready():
                return
        except OSError:
            pass
        assert process.poll() is None and time.monotonic() < deadline, "the cluster does not start; its logs say why"
        time.sleep(0.5)
