"""What tests ask of a Kubernetes API server, and `kubectl`."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests

NAMESPACE = "mnist-tfx"
T = TypeVar("T")


@dataclass(frozen=True)
class Api:
    """An API server, as who has the token."""

    address: str
    token: str
    authority: Path
    kubeconfig: Path

    def request(self, method: str, path: str, body: Any = None, **parameters: Any) -> requests.Response:
        """A PATCH is a merge patch."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        return requests.request(
            method,
            self.address + path,
            params=parameters,
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind},
            verify=str(self.authority),
            timeout=60 + parameters.get("timeoutSeconds", 0),
            stream=parameters.get("watch", False),
        )

    def done(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        """The answer to what must succeed."""
        answer = self.request(method, path, body, **parameters)
        assert answer.ok, f"{method} {path}: {answer.text}"
        return answer.json()

    def get(self, path: str, **parameters: Any) -> Any:
        return self.done("GET", path, **parameters)

    def watch(self, path: str, version: str, seconds: int) -> Iterator[tuple[str, Any]]:
        """Events after a version of the list, as (type, object)."""
        asked = {"watch": True, "resourceVersion": version, "timeoutSeconds": seconds}
        with self.request("GET", path, **asked) as answer:
            assert answer.ok, answer.text
            for line in answer.iter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]

    def kubectl(self, *arguments: str | Path, fails: bool = False) -> str:
        """What it prints, of its errors and warnings too."""
        program = Path(sysconfig.get_path("scripts")) / "kubectl"
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.kubeconfig.parent)}
        ran = subprocess.run(
            [program, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert (ran.returncode != 0) is fails, f"kubectl {' '.join(map(str, arguments))}: {ran.stdout}"
        return ran.stdout

    def pods(self, name: str = "tf-serving") -> list[Any]:
        """The pods of an app."""
        labels = f"app.kubernetes.io/name={name}"
        return self.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=labels)["items"]


def wait(ask: Callable[[], T], what: str, seconds: float = 60) -> T:
    """The first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{what}: not after {seconds:g} s"
        time.sleep(0.2)
    return answer


def condition(thing: Any, kind: str) -> Any:
    """A condition of an object's status; {} before it is set."""
    return next((each for each in thing.get("status", {}).get("conditions", []) if each["type"] == kind), {})


def is_ready(pod: Any) -> bool:
    """Whether Services send it requests."""
    return condition(pod, "Ready").get("status") == "True" and "deletionTimestamp" not in pod["metadata"]
