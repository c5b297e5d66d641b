"""What Kubernetes is told of a task's pod, beside its image and resources: the platform spec of Kubeflow Pipelines.

It is the second document of a compiled file, as the package kfp-kubernetes writes it: for each executor the JSON of a
`KubernetesExecutorConfig` (kubernetes_platform/proto/kubernetes_executor_config.proto, github.com/kubeflow/pipelines).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from mnist_tfx.components.settings import Section

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names
SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_LAUNCHERS = re.compile(r"/(gcs|s3|minio|tmp|kfp-launcher)(/|$)")  # argocompiler/container.go mounts its own there


class Toleration(Section):
    """Lets a task onto nodes with a taint: `{ key = "nvidia.com/gpu", operator = "Exists" }`."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""  # empty: all of them

    @model_validator(mode="after")
    def _check(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists asks for no value: leave `value` out, or write operator = 'Equal'.")
        if self.operator == "Equal" and not self.key:
            raise ValueError("a toleration without a key needs operator = 'Exists'; it then tolerates everything.")
        return self


class Volume(Section):
    """A PersistentVolumeClaim, which all tasks read and write at once: ReadWriteMany, or all on one node."""

    claim: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]  # also the volume's name in the pod
    mount_path: str
    sub_path: str = ""  # the folder of the volume that is mounted; empty: its root

    @model_validator(mode="after")
    def _check(self) -> Volume:
        if not re.fullmatch(r"(/[\w.-]+){2,}", self.mount_path) or _LAUNCHERS.match(self.mount_path):
            raise ValueError(
                f"mount_path {self.mount_path!r}: write an absolute path of two folders or more that is none of the "
                "launcher's own (/gcs, /s3, /minio, /tmp), as in '/mnt/mnist-tfx'."
            )
        return self

    def mount(self) -> dict[str, str]:
        """Its mount in a pod, in the words of `pvcMount`."""
        mount = {"constant": self.claim, "mountPath": self.mount_path}
        return {**mount, "subPath": self.sub_path} if self.sub_path else mount


def _check_secret(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9.-]+/[\w.-]+", text):
        raise ValueError(
            f"{text!r} names no value of a Secret; write 'SECRET/KEY', as in 'mlpipeline-minio/accesskey'."
        )
    return text


SecretKey = Annotated[str, AfterValidator(_check_secret)]


def secret_variable(variable: str, secret: str) -> dict[str, Any]:
    """A variable of the container that has the value of `SECRET/KEY`, in the words of `secretAsEnv`."""
    name, _, key = secret.partition("/")
    return {"secretName": name, "keyToEnv": [{"secretKey": key, "envVar": variable}]}
