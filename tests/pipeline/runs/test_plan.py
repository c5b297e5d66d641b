from __future__ import annotations

import json
from pathlib import Path

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.components.report.run import Execution
from mnist_tfx.pipeline.recipes import Recipe
from mnist_tfx.pipeline.runs.plan import read_plan, remembered_plan, write_plan


def test_a_plan_is_read_as_it_was_written(tmp_path: Path, tiny: PreparedDataset, tiny_recipe: Recipe) -> None:
    write_plan(tiny_recipe, tiny, tmp_path / "run")
    plan = read_plan(tmp_path / "run")
    assert plan is not None
    assert (plan.class_names, plan.image_shape, plan.data_fingerprint) == (
        tiny.class_names,
        (28, 28, 1),
        tiny.fingerprint,
    )
    assert plan.recipe["training"]["epochs"] == 2 and plan.versions["tensorflow"]


def test_half_a_plan_is_none_and_ml_metadata_remembers_the_most(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"class_names": ["a", ')
    assert read_plan(tmp_path) is None and read_plan(tmp_path / "elsewhere") is None
    told = json.dumps({"class_names": ["a", "b"], "image_shape": [8, 8, 3], "training": {"epochs": 2}})
    trainer = Execution(7, "Trainer", "COMPLETE", parameters={"custom_config": told})
    plan = remembered_plan([Execution(6, "TfdsExampleGen", "COMPLETE"), trainer])
    assert (plan.class_names, plan.image_shape) == (("a", "b"), (8, 8, 3))
    assert plan.recipe == {"training": {"epochs": 2}} and plan.recipe_name == ""
    assert remembered_plan([]).class_names == ()
