"""kubeflow/Dockerfile as a list of stages, for what follows its steps without Docker."""

from __future__ import annotations

import re
from pathlib import Path

DOCKERFILE = Path(__file__).resolve().parent.parent / "kubeflow" / "Dockerfile"


def stages() -> list[list[tuple[str, str]]]:
    """What stands before the first FROM, then each stage: its instructions, as pairs of name and arguments."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = [[]]
    for name, rest in re.findall(r"^([A-Z]+) (.*)$", text, flags=re.M):
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found
