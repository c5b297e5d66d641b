"""The set-up: what the lock promises, and how the shell scripts behave. Nothing here downloads anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((CHECKOUT / "scripts").glob("*.sh"))
LOCK = (CHECKOUT / "requirements.lock").read_text()
REMEDIES = ("Debian 13", "Ubuntu 24.04", "Fedora 40", "kubeflow/Dockerfile")


def requirements() -> dict[str, str]:
    """Every requirement of the lock: its name, and the rest of its lines."""
    joined = LOCK.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {re.split(r"[=\[ ;@]", line, maxsplit=1)[0]: line for line in lines}


def normalized(name: str) -> str:
    """A project's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_names_no_index_and_no_address() -> None:
    for word in ("://", "--index-url", "--extra-index-url", "--find-links", "--trusted-host"):
        assert word not in LOCK


def test_every_requirement_is_pinned_and_hashed() -> None:
    for name, line in requirements().items():
        assert re.match(rf"{re.escape(name)}(\[[\w,-]+\])?==\S+", line), line[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), name


def test_every_dependency_of_the_project_is_in_the_lock() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    declared = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        declared += extra
    names = {normalized(match.group()) for text in declared if (match := re.match(r"[\w.-]+", text))}
    assert names <= {normalized(name) for name in requirements()}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not on the PATH")
def test_scripts_pass_shellcheck() -> None:
    subprocess.run(["shellcheck", *SCRIPTS], check=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout that holds only what the set-up reads, in a folder whose name has a space."""
    root = tmp_path / "a checkout"
    shutil.copytree(CHECKOUT / "scripts", root / "scripts")
    for name in ("requirements.lock", "pyproject.toml", "setup.py"):
        shutil.copy(CHECKOUT / name, root)
    return root


def write_programs(folder: Path, programs: Mapping[str, str]) -> None:
    """Puts bash scripts with these bodies into `folder`, to be found on a PATH."""
    folder.mkdir()
    for name, body in programs.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (folder / name).chmod(0o755)


def system(root: Path, glibc: str, programs: Mapping[str, str]) -> dict[str, str]:
    """The environment of a system with this glibc and these programs besides the basic ones, but without apt-get."""
    folder = root.parent / "bin"
    write_programs(folder, {"getconf": f'echo "{glibc}"', **programs})
    for name in ("awk", "bash", "cat", "dirname", "grep", "head", "mkdir", "mktemp", "rm", "sed", "sort"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return {**os.environ, "PATH": str(folder)}


def run_glibc(root: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs scripts/glibc.sh of the copy; uv is a program that would fail."""
    bash = str(shutil.which("bash"))
    command = [bash, "scripts/glibc.sh", "/nowhere/uv"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", ["2.39", "2.41", "2.100"])
def test_a_new_glibc_is_left_alone(copy: Path, version: str) -> None:
    before = sorted(copy.rglob("*"))
    done = run_glibc(copy, system(copy, f"glibc {version}", {}))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(copy.rglob("*")) == before


@pytest.mark.parametrize("version", ["2.31", "2.9", "2.38"])
def test_an_old_glibc_without_apt_ends_with_the_remedies(copy: Path, version: str) -> None:
    before = sorted(copy.rglob("*"))
    done = run_glibc(copy, system(copy, f"glibc {version}", {}))
    assert done.returncode == 1
    assert f"glibc {version}" in done.stderr
    assert all(remedy in done.stderr for remedy in REMEDIES)
    assert sorted(copy.rglob("*")) == before


def test_a_system_without_glibc_ends_with_the_remedies(copy: Path) -> None:
    done = run_glibc(copy, system(copy, "", {}))
    assert done.returncode == 1
    assert all(remedy in done.stderr for remedy in REMEDIES)


def test_apt_without_a_debian_mirror_ends_with_the_remedies(copy: Path) -> None:
    (copy / ".venv").mkdir()
    apt_get = """case "$*" in
      *--print-uris*) echo "'mirror+file:/ubuntu/dists/jammy/InRelease' ubuntu_jammy_InRelease 0" ;;
      *) echo "E: The repository does not have a Release file" >&2; exit 100 ;;
    esac"""
    done = run_glibc(copy, system(copy, "glibc 2.35", {"apt-get": apt_get, "dpkg-deb": "exit 1"}))
    assert done.returncode == 1
    assert "does not have a Release file" in done.stderr
    assert "none of apt's archives is a Debian mirror" in done.stderr
    assert all(remedy in done.stderr for remedy in REMEDIES)


# Stands in for uv, so that the real script runs without a download: notes how it was called, makes what uv would make.
UV = """
echo "$* index=${UV_DEFAULT_INDEX:-} bytecode=${PYTHONDONTWRITEBYTECODE-unset}" >>"$UV_LOG"
sleep "${UV_SECONDS:-0}"
[ "$1 $2" != "${UV_FAILS_AT:-}" ] || exit 7
case "$1 $2" in
  "venv --quiet") mkdir -p .venv/bin ;;
  "pip install") echo >.venv/bin/mnist-tfx; chmod +x .venv/bin/mnist-tfx ;;
esac
"""


class SetUp:
    """scripts/setup.sh of a copied checkout, on a system with a new glibc and a uv that downloads nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root.parent / "uv.log"
        folder = root.parent / "bin"
        write_programs(folder, {"uv": UV, "getconf": "echo glibc 2.41"})
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        unwanted = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
        inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.environment = {**inherited, "PATH": path, "UV_LOG": str(self.log), "PIP_CONFIG_FILE": os.devnull}

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Starts the script from another folder, with these environment variables added."""
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / "setup.sh")],
            cwd=self.root.parent,
            env={**self.environment, **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, **variables: str) -> tuple[int, str]:
        """Runs the script to its end; its exit code and all that it printed."""
        process = self.start(**variables)
        out, errors = process.communicate(timeout=60)
        return process.returncode, out + errors

    def calls(self) -> list[str]:
        """How uv was called since the last time this was asked."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def set_up(copy: Path) -> SetUp:
    """The set-up of the copied checkout, not run yet."""
    return SetUp(copy)


def test_set_up_makes_the_environment_once_and_then_does_nothing(set_up: SetUp) -> None:
    assert set_up.run()[0] == 0
    made = set_up.calls()
    assert [call.split(" --")[0] for call in made] == ["venv", "pip sync", "pip install"]
    assert "--require-hashes" in made[1]
    assert set_up.run() == (0, "")
    assert set_up.calls() == []


def test_set_up_starts_anew_when_the_lock_changes(set_up: SetUp) -> None:
    set_up.run()
    set_up.calls()
    with (set_up.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert set_up.run()[0] == 0
    assert len(set_up.calls()) == 3


def test_set_up_starts_anew_after_it_was_interrupted(set_up: SetUp) -> None:
    assert set_up.run(UV_FAILS_AT="pip sync")[0] != 0
    assert len(set_up.calls()) == 2
    assert set_up.run()[0] == 0
    assert len(set_up.calls()) == 3


def test_set_up_starts_anew_where_the_checkout_was_moved(set_up: SetUp) -> None:
    set_up.run()
    set_up.calls()
    set_up.root = set_up.root.rename(set_up.root.with_name("moved"))
    assert set_up.run()[0] == 0
    assert len(set_up.calls()) == 3


def test_a_second_set_up_waits_for_the_first(set_up: SetUp) -> None:
    both = [set_up.start(UV_SECONDS="0.3") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert len(set_up.calls()) == 3


def test_uv_follows_pips_mirror_and_writes_bytecode(set_up: SetUp) -> None:
    mirror = "https://mirror.example/simple"
    assert set_up.run(PIP_INDEX_URL=mirror, PYTHONDONTWRITEBYTECODE="1")[0] == 0
    for call in set_up.calls():
        assert f"index={mirror} " in call
        assert call.endswith("bytecode=unset")


def test_uvs_own_mirror_wins(set_up: SetUp) -> None:
    own = "https://own.example/simple"
    assert set_up.run(PIP_INDEX_URL="https://mirror.example/simple", UV_DEFAULT_INDEX=own)[0] == 0
    assert all(f"index={own} " in call for call in set_up.calls())
