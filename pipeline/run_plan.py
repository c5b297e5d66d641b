"""What was decided before a run began, kept in its folder: of a run that fails early, nothing else tells it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mnist_tfx.components.code_version import code_version, package_versions
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.pipeline.recipes import Recipe
from mnist_tfx.pipeline.recipes.name import recipe_name
from mnist_tfx.pipeline.running.home import CHECKOUT

_FILE = "plan.json"  # in the run's folder


@dataclass(frozen=True)
class RunPlan:
    """One run. What is not known of an older run is empty."""

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    data_fingerprint: str
    recipe_name: str
    recipe: Mapping[str, Any]  # by section
    versions: Mapping[str, str]
    code_version: str

    def write(self, run_folder: Path) -> None:
        """Keeps it."""
        run_folder.mkdir(parents=True, exist_ok=True)
        (run_folder / _FILE).write_text(json.dumps(asdict(self), indent=2))


def make_plan(recipe: Recipe, dataset: PreparedDataset) -> RunPlan:
    """What the run is about to do, with what."""
    revision = _revision()
    return RunPlan(
        class_names=dataset.class_names,
        image_shape=recipe.data.image_shape,
        data_fingerprint=dataset.fingerprint,
        recipe_name=recipe_name(recipe),
        recipe=recipe.model_dump(mode="json"),
        versions={**package_versions(), **({"code revision": revision} if revision else {})},
        code_version=code_version(),
    )


def read_plan(run_folder: Path) -> RunPlan | None:
    """What `RunPlan.write` kept; None where it kept nothing."""
    path = run_folder / _FILE
    if not path.exists():
        return None
    fields = json.loads(path.read_text())
    lists = {"class_names": tuple(fields["class_names"]), "image_shape": tuple(fields["image_shape"])}
    return RunPlan(**{**fields, **lists})


def _revision() -> str:
    """The commit of the checkout, with a mark where files differ from it; empty where this is no checkout."""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
