"""The container image, as far as it can be tested without Docker: rules on the Dockerfile, its context, its steps."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from docker.utils.build import exclude_paths
from packaging.requirements import Requirement

from scripts.dockerfile import stages

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK = (CHECKOUT / "requirements.lock").read_text()
GPU_LOCK = (CHECKOUT / "kubeflow" / "requirements-gpu.lock").read_text()
INSTALL = "kubeflow/install.sh"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order; a FROM begins a stage."""
    return [instruction for stage in stages() for instruction in stage]


def context() -> set[str]:
    patterns = (CHECKOUT / ".dockerignore").read_text().splitlines()
    ignored = [line for line in patterns if line and not line.startswith("#")]
    present = {path for path in exclude_paths(str(CHECKOUT), ignored) if (CHECKOUT / path).is_file()}
    return present - {".dockerignore"}  # Docker reads it, and copies it nowhere


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z0-9,-]+\])?==(\S+)", lock, flags=re.M))


def developers_tools() -> set[str]:
    text = (CHECKOUT / INSTALL).read_text()
    matched = re.search(r"DEVELOPERS_TOOLS=\(([^)]*)\)", text)
    assert matched
    return set(matched[1].split())


def test_bases_and_pins() -> None:
    arguments = dict(rest.split("=", 1) for name, rest in stages()[0] if name == "ARG")
    assert arguments["BASE"] == "python:3.11-slim-trixie"  # Debian 13
    assert arguments["BEAM_VERSION"] == pins(LOCK)["apache-beam"]
    assert [rest for name, rest in instructions() if name == "FROM"] == [
        "apache/beam_python3.11_sdk:${BEAM_VERSION} AS beam",
        "${BASE} AS build",
        "${BASE}",
    ]
    uv = re.search(r"UV_VERSION=(\S+)", (CHECKOUT / "scripts" / "setup.sh").read_text())
    assert uv and any(rest.endswith(f" uv=={uv[1]}") for name, rest in instructions() if name == "RUN")


def test_all_is_installed_by_the_script_that_is_tested() -> None:
    build = stages()[2]
    assert ("ARG", "ACCELERATOR=cpu") in build
    assert [rest for name, rest in build if name == "RUN"][1:] == [
        f'bash {INSTALL} dependencies /app/venv "$ACCELERATOR"',
        f"bash {INSTALL} code /app/venv",
    ]
    before_code = build[: build.index(("COPY", ". ."))]
    copied = {source for name, rest in before_code if name == "COPY" for source in rest.split()[:-1]}
    assert copied == {
        "requirements.lock",
        INSTALL,
        "kubeflow/requirements-gpu.lock",
    }  # our code does not spoil the layer


def test_final_stage_is_not_root_and_builds_nothing() -> None:
    final = stages()[3]
    assert [rest for name, rest in final if name == "USER"] == ["1000:1000"]
    assert final[-1] == ("ENTRYPOINT", '["/app/entrypoint.sh"]')
    assert [rest.split()[-2:] for name, rest in final if name == "COPY"] == [
        ["/opt/apache/beam/boot", "/opt/apache/beam/boot"],
        ["/app/venv", "/app/venv"],
        ["kubeflow/entrypoint.sh", "/app/entrypoint.sh"],
    ]
    commands = " ".join(rest for name, rest in final if name == "RUN")
    assert "pip uninstall --yes --root-user-action=ignore pip setuptools wheel" in commands
    # Where Kubeflow's launcher puts its copies, as the image's user; before change 10857 it mounts nothing there.
    assert "--owner app --group app /app /app/var /gcs /s3 /minio" in commands
    everything = " ".join(rest for _, rest in instructions())
    for word in ("apt-get", "curl", "gcc", "sudo", ":latest", "TOKEN", "PASSWORD", "UV_INDEX", "--trusted-host"):
        assert word not in everything
    assert not {name for name, _ in instructions()} - {
        *("FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "LABEL", "USER", "ENTRYPOINT"),
    }


def test_what_the_dockerfile_copies_is_in_the_context() -> None:
    present = context()
    for name, rest in instructions():
        if name == "COPY" and "--from=" not in rest and rest != ". .":
            sources = [word for word in rest.split()[:-1] if not word.startswith("--")]
            assert set(sources) <= present


def test_context_is_small_and_complete() -> None:
    present = context()
    tracked = set(
        subprocess.run(["git", "ls-files"], cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout.split()
    )
    packages = ("components/", "kubeflow/", "pipeline/", "schemas/", "serving/")
    wanted = {
        path for path in tracked if path.startswith(packages) and path.endswith((".py", ".toml", ".pbtxt", ".lock"))
    }
    wanted = {path for path in wanted if (CHECKOUT / path).exists()}
    assert wanted | {"pyproject.toml", "setup.py", "requirements.lock", "README.md"} <= present
    assert not [
        path for path in present if path.startswith(("tests", "benchmarks", "var", "scripts", "serving/k8s", "."))
    ]
    assert sum((CHECKOUT / path).stat().st_size for path in present) < 3_000_000


def test_developers_tools_are_the_extra_dev_and_what_only_that_needs() -> None:
    with open(CHECKOUT / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    dev = {Requirement(one).name for one in extras["dev"]}
    users = {}
    for block in re.findall(r"^[a-z0-9._-]+(?:\[.*\])?==(?:.*\n)(?:    .*\n)*", LOCK, flags=re.M):
        name = re.match(r"[a-z0-9._-]+", block)
        assert name
        users[name[0]] = set(re.findall(r"^    #(?: via)?\s+([a-z0-9._-]+)", block, flags=re.M)) - {"via"}
    needless: set[str] = set()
    while more := {
        name
        for name, needing in users.items()
        if needing <= needless | ({"mnist-tfx"} if name in dev else set()) and name not in needless
    }:
        needless |= more
    assert developers_tools() == needless


BOOT_ASKS = ("-m", "pip", "show", "apache-beam")  # of `python`: sdks/python/container/boot.go and piputil.go of Beam


def test_what_beam_s_boot_asks_for_stays_in_the_image() -> None:
    assert "pip" in pins(LOCK) and "pip" not in developers_tools()
    shown = subprocess.run([sys.executable, *BOOT_ASKS], capture_output=True, text=True)
    assert shown.returncode == 0 and f"\nVersion: {pins(LOCK)['apache-beam']}\n" in shown.stdout, shown.stderr


def test_gpu_lock_is_what_tensorflow_asks_for() -> None:
    locked = pins(GPU_LOCK)
    asked = [Requirement(one) for one in importlib.metadata.requires("tensorflow") or () if "and-cuda" in one]
    assert len(asked) > 5
    for requirement in asked:
        assert requirement.specifier.contains(locked[requirement.name])
    assert not set(locked) & set(pins(LOCK))
    assert GPU_LOCK.count("--hash=sha256:") >= len(locked) and "http" not in GPU_LOCK


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["run", "--dataset", "all"], "mnist-tfx run --dataset all"), (["--help"], "mnist-tfx --help"), ([], "mnist-tfx")],
)
def test_entrypoint(tmp_path: Path, arguments: list[str], expected: str) -> None:
    command = tmp_path / "mnist-tfx"
    command.write_text('#!/bin/sh\necho mnist-tfx "$@"\n')
    command.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    entrypoint: list[str | Path] = ["sh", CHECKOUT / "kubeflow" / "entrypoint.sh"]
    ran = subprocess.run([*entrypoint, *arguments], env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == expected
    as_worker = [*entrypoint, "--id=1", "--provision_endpoint=localhost:1"]
    worker = subprocess.run(as_worker, env=environment, capture_output=True, text=True)
    assert "/opt/apache/beam/boot" in worker.stderr and worker.returncode == 127


def test_cloud_build_builds_this_dockerfile() -> None:
    content = yaml.safe_load((CHECKOUT / "kubeflow" / "cloudbuild.yaml").read_text())
    [step] = content["steps"]
    assert "kubeflow/Dockerfile" in step["args"] and "ACCELERATOR=${_ACCELERATOR}" in step["args"]
    assert content["images"] == ["${_IMAGE}"] and set(content["substitutions"]) == {"_IMAGE", "_ACCELERATOR"}


def test_install_script_refuses_other_accelerators(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["bash", INSTALL, "dependencies", tmp_path / "venv", "tpu"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert ran.returncode == 2 and "it takes cpu or gpu" in ran.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_install_steps(tmp_path: Path) -> None:
    """The Dockerfile's steps in a clean copy of its context; then the installed pipeline compiles itself."""
    uv = shutil.which("uv") or str(CHECKOUT / ".tools" / "uv" / "bin" / "uv")
    copy, venv = tmp_path / "build", tmp_path / "venv"
    for path in context():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / path, copy / path)
    # The image's C library, whatever this machine's is.
    with (copy / "pyproject.toml").open("a") as project:
        project.write('\n[tool.uv.pip]\npython-platform = "x86_64-manylinux_2_40"\n')
    environment = {**os.environ, "PATH": f"{Path(uv).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def step(*command: str | Path) -> str:
        ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    locks = ["-r", "requirements.lock", "-r", "kubeflow/requirements-gpu.lock"]
    step("bash", INSTALL, "dependencies", venv, "cpu")
    step("bash", INSTALL, "code", venv)
    checked = subprocess.run(["uv", "pip", "check", "--python", venv], env=environment, capture_output=True, text=True)
    complaints = [line for line in checked.stderr.splitlines() if "requires" in line]
    assert len(complaints) == 1 and "pyfarmhash" in complaints[0], checked.stderr  # pyproject.toml says why
    step("uv", "pip", "install", "--dry-run", "--python", venv, "--require-hashes", *locks)
    assert f"\nVersion: {pins(LOCK)['apache-beam']}\n" in step(venv / "bin" / "python", *BOOT_ASKS)
    shutil.rmtree(copy)  # nothing of the sources is needed any more
    installed = {path.name for path in (venv / "bin").iterdir()}
    assert "mnist-tfx" in installed
    assert not installed & {"uv", "pytest", "mypy", "ruff", "kubectl", "hadolint", "playwright"}
    packages = next((venv / "lib").glob("python3.11/site-packages"))
    assert not [name for name in ("pytest", "mypy", "hypothesis") if (packages / name).exists()]
    # Where the C library is older than the image's, .venv's interpreter brings a newer one.
    program = (
        f"import site, sys; site.addsitedir({str(packages)!r}); sys.argv = ['mnist-tfx', *sys.argv[1:]]; "
        "from mnist_tfx.pipeline.cli import main; from mnist_tfx import pipeline; "
        "assert '/venv/' in pipeline.__file__; sys.exit(main())"
    )
    home = tmp_path / "home"
    environment |= {"MNIST_TFX_HOME": str(home)}
    copy.mkdir()

    def mnist_tfx(*arguments: str) -> str:
        return step(CHECKOUT / ".venv" / "bin" / "python", "-I", "-S", "-c", program, *arguments)

    assert "schedule" in mnist_tfx("--help")
    mnist_tfx("data", "prepare", "--dataset", "mnist")
    for target, ending in (("vertex", "json"), ("kubeflow", "yaml")):
        output = ("-o", str(tmp_path / f"pipeline.{ending}"))
        mnist_tfx("compile", "--target", target, "--dataset", "mnist", "--profile", f"{target}-gpu", *output)
    shutil.rmtree(venv)  # gigabytes that pytest would keep


def test_hadolint() -> None:
    """Its whole rule set."""
    hadolint = Path(sys.executable).parent / "hadolint"
    linted = subprocess.run([hadolint, CHECKOUT / "kubeflow" / "Dockerfile"], capture_output=True, text=True)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
