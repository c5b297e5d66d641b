"""What is part of the version of our code, and that every component's cache key has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tfx.dsl.compiler.compiler import Compiler
from tfx.orchestration.local import runner_utils

from components.code_version import code_version
from components.datasets.prepared import PreparedDataset
from pipeline.dag import Paths, create_pipeline
from pipeline.home import CHECKOUT
from pipeline.recipes import Recipe


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our code in another folder."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("components", "serving"):
        shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def version_in(folder: Path, name: str = "code_version") -> str:
    """What a process says that finds our code in `folder`."""
    code = f"from components.code_version import {name}; print({name}())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.decode().strip()


def test_the_same_code_elsewhere_is_the_same_version(copy: Path) -> None:
    assert version_in(copy) == code_version()


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("components/training.py", True),
        ("components/infra_validator/checks.py", True),
        ("serving/server/engine.py", True),
        ("serving/client/tensors.py", True),
        ("serving/releases/models_config.py", True),
        ("components/report/verdict.py", False),
        ("serving/demo/pages.py", False),
    ],
)
def test_an_edit_is_another_version_where_it_can_change_an_answer(copy: Path, path: str, counts: bool) -> None:
    source = copy / path
    before = source.read_text()
    source.write_text(before + "\n")
    try:
        assert (version_in(copy) != code_version()) == counts
    finally:
        source.write_text(before)


def test_an_upgraded_library_is_another_version(copy: Path) -> None:
    upgraded = copy / "tensorflow_model_analysis-99.0.dist-info"
    upgraded.mkdir()
    (upgraded / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorflow-model-analysis\nVersion: 99.0\n")
    try:
        assert version_in(copy) != code_version()
        assert version_in(copy, "report_version") != version_in(copy)
    finally:
        shutil.rmtree(upgraded)


def test_every_component_has_it_in_its_key_those_of_tfx_too(tiny: PreparedDataset, tiny_recipe: Recipe) -> None:
    paths = Paths("/root", str(tiny.data_dir), "/schema.pbtxt", "/backup", "/serving")
    compiled = Compiler().compile(create_pipeline(tiny_recipe, tiny, paths))
    deployment = runner_utils.extract_local_deployment_config(compiled)
    nodes = [entry.pipeline_node.node_info.id for entry in compiled.nodes]
    assert {"StatisticsGen", "Evaluator", "Trainer", "Pusher"} <= set(nodes)
    for node in nodes:  # TFX hashes this message (tfx/orchestration/portable/cache_utils.py, get_cache_context)
        assert code_version() in str(runner_utils.extract_executor_spec(deployment, node)), node
