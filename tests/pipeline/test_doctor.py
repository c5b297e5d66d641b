"""The checks of `mnist-tfx doctor`, on this machine as it is: real sockets, real folders, a real prepared dataset."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.datasets.published import IDX_FILES
from mnist_tfx.pipeline.doctor import checks as doctor
from mnist_tfx.pipeline.doctor import machine
from mnist_tfx.pipeline.doctor.machine import memory_mib
from mnist_tfx.pipeline.home import Home
from tests.fixtures.command import mnist_tfx

NOWHERE = "http://127.0.0.1:9"  # the discard port, where nobody listens


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends every request to a proxy that does not exist."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, NOWHERE)
        monkeypatch.setenv(name.upper(), NOWHERE)
    monkeypatch.setenv("no_proxy", "")


def test_the_environment_that_runs_the_tests_is_fit() -> None:
    checks = [doctor.check_python(), doctor.check_packages(), doctor.check_glibc()]
    assert [check.status for check in checks] == ["ok", "ok", "ok"], checks


def test_a_free_port_is_ok_and_a_busy_one_a_warning_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        busy = doctor.check_port(port, "gRPC")
    assert (busy.name, busy.status) == (f"port {port}", "warn")
    assert "in use" in busy.found
    assert str(port) in busy.remedy
    assert doctor.check_port(port, "gRPC").status == "ok"


@pytest.mark.parametrize(
    ("folder", "limit", "usage", "cache"),
    [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_page_cache_of_a_container_is_memory_that_a_run_can_have(
    tmp_path: Path, folder: str, limit: str, usage: str, cache: str
) -> None:
    """As after a set-up of 3 GB: a container's use then is nearly its limit, and most of it files' content."""
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    (place / limit).write_text(f"{1024 * 2**20}\n")
    (place / usage).write_text(f"{1000 * 2**20}\n")
    (place / "memory.stat").write_text(f"anon 5\n{cache} {900 * 2**20}\n")
    assert memory_mib(tmp_path) == (1024, 924)


def test_a_home_that_does_not_exist_can_be_made_but_is_not(tmp_path: Path) -> None:
    home = Home(tmp_path / "new" / "home")
    assert doctor.check_home(home).status == "ok"
    assert doctor.check_disk(home).status in ("ok", "warn")
    assert not list(tmp_path.iterdir())


def test_a_home_that_exists_is_left_as_it_was(tmp_path: Path) -> None:
    assert doctor.check_home(Home(tmp_path)).status == "ok"
    assert not list(tmp_path.iterdir())


def test_a_home_below_a_file_cannot_be_written_to(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    check = doctor.check_home(Home(file / "home"))
    assert check.status == "fail"
    assert str(file) in check.found
    assert "--home" in check.remedy


def test_a_gpu_is_named_and_counts_where_tensorflow_finds_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "nvidia-smi", "echo NVIDIA H100 80GB HBM3; echo NVIDIA H100 80GB HBM3")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    for library in ("cudart", "cublas", "cudnn"):
        (tmp_path / f"lib{library}.so.12").touch()
    check = doctor.check_gpu()
    assert (check.status, check.found) == ("ok", "2 (NVIDIA H100 80GB HBM3): training will use it")


def test_a_gpu_without_tensorflow_is_told_as_one_without_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "nvidia-smi", "echo NVIDIA H100 80GB HBM3")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(doctor.machine, "missing_cuda_libraries", lambda: ["cudnn"])
    assert f"tensorflow[and-cuda]=={version('tensorflow')}'" in doctor.check_gpu().remedy
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # where the packages are looked for
    check = doctor.check_gpu()
    assert check.status == "warn" and check.remedy.endswith("'tensorflow[and-cuda]'")


def test_where_the_driver_fails_gpus_are_counted_by_their_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "nvidia-smi", "exit 9")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "_DEVICES", tmp_path)
    for name in ("nvidiactl", "nvidia-uvm"):  # the driver's own
        (tmp_path / name).touch()
    check = doctor.check_gpu()
    assert check.status == "ok" and check.found.startswith("none: ")
    for name in ("nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    assert doctor.check_gpu().found.startswith("2 (NVIDIA)")


def test_prepared_data_is_ok_without_a_network(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    prepare("kmnist", home.datasets, source=small_idx_files(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(home.datasets))
    for place in (home, Home(tmp_path / "other")):
        check = doctor.check_data("kmnist", place)
        assert check.status == "ok"
        assert "40 examples" in check.found


@pytest.mark.parametrize(("name", "tool"), [("mnist", "npm"), ("fashion_mnist", "apt-get")])
def test_data_out_of_reach_fails_where_the_fallback_is_missing_too(
    name: str, tool: str, tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = doctor.check_data(name, Home(tmp_path))
    assert check.status == "fail"
    assert tool in check.remedy
    assert str(tmp_path / "datasets") in check.remedy


def test_data_out_of_reach_is_a_warning_where_the_fallback_is_there(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path / "npm", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    check = doctor.check_data("mnist", Home(tmp_path))
    assert check.status == "warn"
    assert "mnist-tfx data prepare" in check.remedy


def test_half_a_dataset_is_not_prepared(tmp_path: Path, no_network: None) -> None:
    home = Home(tmp_path / "home")
    prepared = prepare("kmnist", home.datasets, source=small_idx_files(tmp_path))
    folder = home.datasets / "mnist"
    (home.datasets / "kmnist").rename(folder)
    next((folder / prepared.version).glob("*.tfrecord*")).unlink()
    assert doctor.check_data("mnist", home).status != "ok"


def test_json_says_what_the_text_says(tmp_path: Path, no_network: None) -> None:
    file = tmp_path / "file"
    file.write_text("")
    as_json = mnist_tfx("doctor", "--json", "--home", file / "home")
    assert as_json.code == 1
    answer = json.loads(as_json.out)
    assert answer["ok"] is False
    names = [check["name"] for check in answer["checks"]]
    assert {"Python", "glibc", "memory", "cores", "GPU", "home", "disk", "data mnist", "port 8500"} <= set(names)
    for check in answer["checks"]:
        assert set(check) == {"name", "status", "found", "remedy"}
        assert bool(check["remedy"]) == (check["status"] != "ok"), check

    text = mnist_tfx("doctor", "--home", file / "home")
    assert text.code == 1
    assert all(name in text.out for name in names)


def test_it_answers_without_importing_tensorflow(tmp_path: Path, no_network: None) -> None:
    code = (
        "import sys; from pathlib import Path; from mnist_tfx.pipeline.doctor.checks import examine; "
        "from mnist_tfx.pipeline.home import Home; "
        "examine(Home(Path(sys.argv[1]))); sys.exit('tensorflow' in sys.modules or 'tfx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def write_program(path: Path, body: str) -> None:
    """A shell script that can be found on a PATH."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def small_idx_files(folder: Path) -> Path:
    """Four IDX files of 20 blank images each, two of every class."""
    count = 20
    source = folder / "idx"
    source.mkdir()
    for name in IDX_FILES:
        if "images" in name:
            content = struct.pack(">IIII", 0x0803, count, 28, 28) + bytes(count * 28 * 28)
        else:
            content = struct.pack(">II", 0x0801, count) + bytes(i % 10 for i in range(count))
        (source / name).write_bytes(content)
    return source
