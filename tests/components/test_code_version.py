"""What is part of the version of our code, and that every component's cache key has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tfx.dsl.compiler.compiler import Compiler
from tfx.orchestration.local import runner_utils

from mnist_tfx.components.code_version import code_version, source_told
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.pipeline.dag import Paths, create_pipeline
from mnist_tfx.pipeline.home import CHECKOUT
from mnist_tfx.pipeline.recipes import Recipe


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our code in another folder."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("components", "contract", "serving"):
        shutil.copytree(
            CHECKOUT / package, folder / "mnist_tfx" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder


STEPS = {
    "ExampleGen": "mnist_tfx.components.tfds_example_gen.component",
    "DataGate": "mnist_tfx.components.data_gate.component",
    "Transform": "mnist_tfx.components.transform.preprocessing",
    "Trainer": "mnist_tfx.components.trainer.run_fn",
    "InfraValidator": "mnist_tfx.components.infra_validator.component",
    "server": "mnist_tfx.serving.server.__main__",
    "Pusher": "mnist_tfx.components.pusher.component",
    "Report": "mnist_tfx.components.report.component",
}


def versions_in(folder: Path, **env: str) -> dict[str, str]:
    """What a process says of each step, and of one's source alone, that finds our code in `folder`."""
    code = (
        "from mnist_tfx.components.code_version import code_version as v, source_told as s; "
        f"[print(v(m)) for m in {[*STEPS.values()]}]; print(s({STEPS['Report']!r}).split()[0])"
    )
    env = {**os.environ, "PYTHONPATH": str(folder), **env}
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True)
    assert found.returncode == 0, found.stderr
    return dict(zip([*STEPS, SOURCE], found.stdout.decode().split(), strict=True))


SOURCE = "the Report's source"
HERE = {step: code_version(module) for step, module in STEPS.items()}
HERE[SOURCE] = source_told(STEPS["Report"]).split()[0]


def test_the_same_code_elsewhere_is_the_same_version_whatever_the_locale(copy: Path) -> None:
    assert versions_in(copy, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") == HERE


@pytest.mark.parametrize(
    ("path", "edit", "changes"),
    [
        ("components/trainer/training.py", "\nx = 1\n", {"Trainer"}),
        ("components/trainer/training.py", "\n# a comment\n\n", set()),
        ("components/transform/preprocessing.py", "\nx = 1\n", {"InfraValidator", "Report", "Trainer", "Transform"}),
        ("components/infra_validator/model_server.py", "\nx = 1\n", {"InfraValidator"}),
        ("serving/server/engine.py", "\nx = 1\n", {"server"}),
        ("serving/client/tensors.py", "\nx = 1\n", {"InfraValidator", "server"}),
        ("contract/models_config.py", "\nx = 1\n", {"DataGate", "InfraValidator", "Pusher", "Report"}),
        ("components/report/verdict.py", "\nx = 1\n", {"Report"}),
        ("components/report/page/templates/style.css", "\n", {"Report"}),
        ("components/report/page/templates/style.css~", "an editor's copy, which no image has", set()),
        ("serving/demo/page/demo.js", "\n", set()),
    ],
)
def test_an_edit_is_another_version_of_the_steps_that_run_it(
    copy: Path, path: str, edit: str, changes: set[str]
) -> None:
    source = copy / "mnist_tfx" / path
    before = source.read_text() if source.exists() else None
    source.write_text((before or "") + edit)
    try:
        found = versions_in(copy)
    finally:
        source.unlink() if before is None else source.write_text(before)
    source = {SOURCE} if "Report" in changes else set()
    assert {each for each in HERE if found[each] != HERE[each]} == changes | source


@pytest.mark.parametrize("library", ["tensorflow-model-analysis", "scipy", "scikit-learn"])
def test_an_upgraded_library_is_another_version_of_every_step(copy: Path, library: str) -> None:
    upgraded = copy / f"{library.replace('-', '_')}-99.0.dist-info"
    upgraded.mkdir()
    (upgraded / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 99.0\n")
    try:
        found = versions_in(copy)
    finally:
        shutil.rmtree(upgraded)
    assert {each for each in HERE if found[each] == HERE[each]} == {SOURCE}


def test_every_component_has_it_in_its_key_those_of_tfx_too(tiny: PreparedDataset, tiny_recipe: Recipe) -> None:
    paths = Paths("/root", str(tiny.data_dir), "/schema.pbtxt", "/backup", "/serving")
    compiled = Compiler().compile(create_pipeline(tiny_recipe, tiny, paths))
    deployment = runner_utils.extract_local_deployment_config(compiled)
    nodes = [entry.pipeline_node.node_info.id for entry in compiled.nodes]
    assert {"StatisticsGen", "Evaluator", "Trainer", "Pusher"} <= set(nodes)
    flags = {  # TFX hashes this message (tfx/orchestration/portable/cache_utils.py, get_cache_context)
        node: re.search("--code_version=([0-9a-f]{12})", str(runner_utils.extract_executor_spec(deployment, node)))
        for node in nodes
    }
    assert all(flags.values())
    assert flags["StatisticsGen"][1] == code_version("tfx")  # the libraries alone
    assert flags["Trainer"][1] == code_version("mnist_tfx.components.trainer.run_fn")
