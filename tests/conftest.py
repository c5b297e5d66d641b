"""What tests share: one tiny dataset, and one whole run of the pipeline on it."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.pipeline.recipes import Recipe
from tests.fixtures.tiny_dataset import prepare_tiny
from tests.fixtures.tiny_run import RECIPE_TOML, TinyRun, first_run, tiny_recipe_of

# Of these files each takes half a minute or more.
LONG = (
    "tests/pipeline/test_end_to_end.py",
    "tests/kubeflow/local/test_run.py",
    "tests/pipeline/test_projects.py",
    "tests/pipeline/test_new_data.py",
    "tests/components/test_tuner.py",
    "tests/pipeline/test_monitor_command.py",
    "tests/test_notebook.py",
)
_BYTES_A_WORKER = 2 * 2**30


def pytest_configure() -> None:
    """Heeds Ctrl-C: a shell that starts the tests in the background has them ignore it, and all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, since tests wait, too, if there is the memory for them."""
    return max(1, min(cpu_count() + 1, psutil.virtual_memory().total // _BYTES_A_WORKER))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes long: no worker is to be left alone with it in the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Tiny KMNIST, 600 and 200 examples, in the folder `datasets` of a home."""
    return prepare_tiny(tmp_path_factory.mktemp("home") / "datasets")


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """A small net and few epochs, for `tiny`."""
    return tiny_recipe_of()


@pytest.fixture(scope="session")
def tiny_recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recipe as a file."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(RECIPE_TOML)
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny: PreparedDataset, tiny_recipe_file: Path) -> TinyRun:
    """`mnist-tfx run` of `tiny_recipe` in a fresh home. Tests that add runs to it leave serving/ as it was."""
    run = first_run(tiny, tiny_recipe_file)
    assert run.answer.code == 0, run.answer.err
    return run
