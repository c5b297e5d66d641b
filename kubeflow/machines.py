"""What a task's container gets, in each target's words, as the numbers that the compiled pipeline holds.

Vertex AI picks a machine by the limits of a task, so a machine type is translated into the processors and the memory
that it has. Sources: https://cloud.google.com/vertex-ai/docs/pipelines/machine-types and, for the numbers,
https://cloud.google.com/compute/docs/machine-resource and https://cloud.google.com/compute/docs/gpus.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from mnist_tfx.components.settings import Section
from mnist_tfx.kubeflow.kubernetes import Toleration

_GB_PER_CPU = {
    "n1-standard": 3.75,
    "n1-highmem": 6.5,
    "n1-highcpu": 0.9,
    "e2-standard": 4,
    "e2-highmem": 8,
    "e2-highcpu": 1,
    "n2-standard": 4,
    "n2-highmem": 8,
    "n2-highcpu": 1,
    "c2-standard": 4,
}
# Machines whose accelerators come with them: processors, gigabytes of memory, accelerator, how many.
_WITH_ACCELERATOR = {
    **{f"g2-standard-{cpu}": (cpu, 4.0 * cpu, "NVIDIA_L4", 1) for cpu in (4, 8, 12, 16, 32)},
    **{f"g2-standard-{24 * n}": (24 * n, 96.0 * n, "NVIDIA_L4", 2 * n) for n in (1, 2, 4)},
    **{f"a2-highgpu-{n}g": (12 * n, 85.0 * n, "NVIDIA_TESLA_A100", n) for n in (1, 2, 4, 8)},
    **{f"a2-ultragpu-{n}g": (12 * n, 170.0 * n, "NVIDIA_A100_80GB", n) for n in (1, 2, 4, 8)},
    **{f"a3-highgpu-{n}g": (26 * n, 234.0 * n, "NVIDIA_H100_80GB", n) for n in (1, 2, 4, 8)},
}
# What can be attached to an n1 machine, and in which numbers.
_ATTACHED = {
    "NVIDIA_TESLA_T4": (1, 2, 4),
    "NVIDIA_TESLA_P4": (1, 2, 4),
    "NVIDIA_TESLA_P100": (1, 2, 4),
    "NVIDIA_TESLA_V100": (1, 2, 4, 8),
}

KUBERNETES_RESOURCE = re.compile(r"[a-z0-9.-]+\.[a-z]+/[a-z0-9.-]+")

Count = Annotated[int, Field(ge=0, le=16)]


class VertexMachine(Section):
    """A machine of Google's: `machine_type = "n1-standard-8"`, `accelerator = "NVIDIA_TESLA_T4"`."""

    machine_type: str = "e2-standard-4"
    accelerator: str = ""
    accelerator_count: Count = 0

    @model_validator(mode="after")
    def _check(self) -> VertexMachine:
        name = self.machine_type
        if _size(name) is None:
            families = ", ".join(sorted({*_GB_PER_CPU, *(known.rpartition("-")[0] for known in _WITH_ACCELERATOR)}))
            raise ValueError(
                f"machine type {name!r} is not known here; write a family and a size, as in 'n1-standard-8'. "
                f"Families: {families}."
            )
        if "/" in self.accelerator:
            raise ValueError(f"accelerator {self.accelerator!r} is a Kubernetes name; Vertex AI wants {_WORDS}.")
        if bool(self.accelerator) != bool(self.accelerator_count):
            raise ValueError("accelerator and accelerator_count go together: set both, or neither.")
        if name in _WITH_ACCELERATOR:
            _, _, accelerator, count = _WITH_ACCELERATOR[name]
            if (self.accelerator, self.accelerator_count) != (accelerator, count):
                raise ValueError(f"a {name} has {count} x {accelerator}: write these as its accelerator and its count.")
        elif self.accelerator:
            if self.accelerator not in _ATTACHED:
                with_it = [known for known, values in _WITH_ACCELERATOR.items() if values[2] == self.accelerator]
                raise ValueError(
                    f"{self.accelerator} comes with the machine types {', '.join(with_it)}, not with {name}."
                    if with_it
                    else f"accelerator {self.accelerator!r} is not known here; Vertex AI wants {_WORDS}."
                )
            if not name.startswith("n1-"):
                raise ValueError(f"{self.accelerator} can be attached to n1 machines only, not to {name}.")
            if self.accelerator_count not in _ATTACHED[self.accelerator]:
                counts = ", ".join(map(str, _ATTACHED[self.accelerator]))
                raise ValueError(f"an n1 machine takes {counts} of {self.accelerator}, not {self.accelerator_count}.")
        return self

    @property
    def size(self) -> tuple[float, float]:
        """The machine's processors, and its memory in 10^9 bytes, as the compiled pipeline wants it."""
        return _size(self.machine_type) or (0, 0)


class KubeflowMachine(Section):
    """A container on Kubernetes; `accelerator` is a resource's name there, `nvidia.com/gpu`."""

    cpus: Annotated[float, Field(gt=0)] = 2
    memory_gb: Annotated[float, Field(gt=0)] = 8
    accelerator: str = ""
    accelerator_count: Count = 0
    node_selector: dict[str, str] = {}  # labels of the nodes that it may run on
    tolerations: tuple[Toleration, ...] = ()
    timeout_minutes: Annotated[int, Field(ge=0)] = 0  # after which a try of the task is stopped, and fails; 0: never

    @model_validator(mode="after")
    def _check(self) -> KubeflowMachine:
        if self.accelerator and not KUBERNETES_RESOURCE.fullmatch(self.accelerator):
            raise ValueError(
                f"accelerator {self.accelerator!r} is not the name of a Kubernetes resource; write 'nvidia.com/gpu'."
            )
        if bool(self.accelerator) != bool(self.accelerator_count):
            raise ValueError("accelerator and accelerator_count go together: set both, or neither.")
        return self

    @property
    def size(self) -> tuple[float, float]:
        """The same of the container's limits."""
        return self.cpus, self.memory_gb


_WORDS = ", ".join(sorted({*_ATTACHED, *(values[2] for values in _WITH_ACCELERATOR.values())}))


def _size(machine_type: str) -> tuple[int, float] | None:
    """Processors and gigabytes of a machine type; None where it is not known."""
    if machine_type in _WITH_ACCELERATOR:
        return _WITH_ACCELERATOR[machine_type][:2]
    family, _, cpus = machine_type.rpartition("-")
    if family not in _GB_PER_CPU or not cpus.isdecimal() or not 1 <= int(cpus) <= 128:
        return None
    return int(cpus), _GB_PER_CPU[family] * int(cpus)
