"""The client without TensorFlow: what it imports, and its distribution alone in an environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.reference_server import MODEL, serving

CHECKOUT = Path(__file__).resolve().parents[3]
SOURCES = CHECKOUT / "serving" / "client"


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `code`."""
    listing = "import sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{listing}"], cwd=CHECKOUT, capture_output=True, check=True)
    return set(json.loads(done.stdout))


def test_the_client_imports_no_tensorflow() -> None:
    modules = imported_by(
        "import mnist_tfx.serving.client, mnist_tfx.serving.client.idx, mnist_tfx.serving.client.load"
    )
    assert {"grpc", "google", "numpy"} <= modules
    heavy = {name for name in modules if name.startswith(("tensorflow", "keras", "tfx", "absl", "pandas"))}
    assert not heavy
    assert not modules & {"components", "pipeline", "schemas", "ml_dtypes", "PIL"}


def test_the_commands_import_no_tensorflow_before_they_run() -> None:
    modules = imported_by("from mnist_tfx.pipeline.cli import build_parser; build_parser()")
    assert not modules & {"tensorflow", "grpc", "numpy"}


def test_the_distribution_asks_for_no_older_python_than_its_code_is_checked_for() -> None:
    told = tomllib.loads((SOURCES / "pyproject.toml").read_text())["project"]["requires-python"]
    checked = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["mypy"]["python_version"]
    assert told == f">={checked}"


@pytest.mark.slow
def test_the_distribution_works_alone(tmp_path: Path) -> None:
    """Builds the wheel, installs it from the package index into an empty environment, and predicts from there."""
    copy = shutil.copytree(SOURCES, tmp_path / "client", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, copy], check=True)
    [wheel] = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", wheel], check=True)
    names = "from importlib.metadata import distributions; print(*[one.name for one in distributions()])"
    listing = subprocess.run([python, "-c", names], check=True, capture_output=True, text=True)
    installed = {name.lower().replace("_", "-") for name in listing.stdout.split()}
    assert installed - {"typing-extensions"} == {"grpcio", "protobuf", "numpy", "mnist-tfx-client"}
    np.save(tmp_path / "images.npy", np.full((3, 28, 28), 9, np.uint8))
    code = (
        "import sys, numpy; from mnist_tfx.serving.client import Client\n"
        "client = Client(sys.argv[1], sys.argv[2])\n"
        "print(*client.predict(numpy.load('images.npy')).labels, sep=',')"
    )
    with serving() as server:
        arguments = [python, "-c", code, f"127.0.0.1:{server.port}", MODEL]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ",".join(["name 6"] * 3)
