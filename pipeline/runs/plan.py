"""What was decided before a run began, kept in its folder: of a run that fails early, nothing else tells it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.components.code_version import code_version, package_versions
from mnist_tfx.components.report.run import Execution, Plan
from mnist_tfx.pipeline.home import CHECKOUT

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.prepared import PreparedDataset
    from mnist_tfx.pipeline.recipes import Recipe

_FILE = "plan.json"  # in the run's folder


def write_plan(recipe: Recipe, dataset: PreparedDataset, run_folder: Path) -> None:
    """Keeps what a run is about to do, with what."""
    from mnist_tfx.pipeline.recipes import recipe_name

    revision = _revision()
    plan = Plan(
        class_names=dataset.class_names,
        image_shape=recipe.data.image_shape,
        data_fingerprint=dataset.fingerprint,
        recipe_name=recipe_name(recipe),
        recipe=recipe.model_dump(mode="json"),
        versions={**package_versions(), **({"code revision": revision} if revision else {})},
        code_version=code_version(),
    )
    run_folder.mkdir(parents=True, exist_ok=True)
    (run_folder / _FILE).write_text(json.dumps(asdict(plan), indent=2))


def read_plan(run_folder: Path) -> Plan | None:
    """What `write_plan` kept; None where it kept nothing, or not all, as on a full disk."""
    try:
        fields = json.loads((run_folder / _FILE).read_text())
        lists = {"class_names": tuple(fields["class_names"]), "image_shape": tuple(fields["image_shape"])}
        return Plan(**{**fields, **lists})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remembered_plan(executions: Iterable[Execution]) -> Plan:
    """What ML Metadata has of the plan of a run that left none: as far as it is in what the Trainer was told."""
    told = (each.parameters.get("custom_config") for each in executions if each.component == "Trainer")
    config = json.loads(str(next(told, None) or "{}"))
    return Plan(
        class_names=tuple(config.get("class_names", ())),
        image_shape=tuple(config.get("image_shape", (28, 28, 1))),
        data_fingerprint=config.get("data_fingerprint", ""),
        recipe={key: config[key] for key in ("model", "training") if key in config},
        code_version=config.get("code_version", ""),
    )


def _revision() -> str:
    """The commit of the checkout, with a mark where files differ from it; empty where this is no checkout."""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
