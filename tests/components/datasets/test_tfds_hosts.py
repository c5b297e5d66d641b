"""TFDS's own way: a builder of the tests whose host is a web server on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.image_classification import MNIST

from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.datasets.published import IDX_FILES
from mnist_tfx.components.datasets.reachable import unreachable_reason
from mnist_tfx.contract.errors import DataRejected, PipelineError
from tests.fixtures.small_disk import small_disk
from tests.fixtures.tiny_dataset import write_idx_files


class TinyHosted(MNIST):  # type: ignore[misc]
    """Downloads tiny files; `host` and `url_infos` are set by the test."""

    host = ""
    url_infos: ClassVar[dict[str, UrlInfo]] = {}

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        paths = dl_manager.download({name: f"{self.host}/{name}" for name in IDX_FILES})
        train, test = (tuple(paths[name] for name in names) for names in (IDX_FILES[:2], IDX_FILES[2:]))
        return {"train": self._generate_examples(20, *train), "test": self._generate_examples(10, *test)}


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps this machine's addresses away from proxies."""
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")


@contextmanager
def _serving(folder: Path, handler: type[http.server.SimpleHTTPRequestHandler]) -> Iterator[str]:
    """The address of a web server that holds a tiny dataset, in `folder`."""
    write_idx_files(folder, train=20, test=10)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def host(tmp_path: Path, direct: None) -> Iterator[str]:
    """The address of a web server that holds a tiny dataset, in the folder `www`."""
    with _serving(tmp_path / "www", http.server.SimpleHTTPRequestHandler) as address:
        yield address


def _record_sums(monkeypatch: pytest.MonkeyPatch, host: str, folder: Path) -> None:
    infos = {}
    for name in IDX_FILES:
        content = (folder / name).read_bytes()
        infos[f"{host}/{name}"] = UrlInfo(len(content), hashlib.sha256(content).hexdigest(), name)
    monkeypatch.setattr(TinyHosted, "host", host)
    monkeypatch.setattr(TinyHosted, "url_infos", infos)


def test_reachable_hosts_are_taken(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _record_sums(monkeypatch, host, tmp_path / "www")
    assert prepare("tiny_hosted", tmp_path / "data").split_sizes == {"train": 20, "test": 10}


def test_changed_download_is_rejected(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _record_sums(monkeypatch, host, tmp_path / "www")
    changed = tmp_path / "www" / IDX_FILES[0]
    expected = hashlib.sha256(changed.read_bytes()).hexdigest()
    changed.write_bytes(changed.read_bytes()[:-1] + b"\xff")
    with pytest.raises(DataRejected) as caught:
        prepare("tiny_hosted", tmp_path / "data")
    for part in (IDX_FILES[0], expected, hashlib.sha256(changed.read_bytes()).hexdigest()):
        assert part in str(caught.value)
    assert not (tmp_path / "data" / "tiny_hosted").exists()


def test_host_without_the_files_is_a_clear_error(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _record_sums(monkeypatch, host, tmp_path / "www")
    for name in IDX_FILES:
        (tmp_path / "www" / name).unlink()
    with pytest.raises(PipelineError, match="HTTP 404"):
        prepare("tiny_hosted", tmp_path / "data")


@pytest.mark.usefixtures("direct")
def test_a_host_that_refuses_the_download_is_a_source_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

    with _serving(tmp_path / "www", Refusing) as host:
        _record_sums(monkeypatch, host, tmp_path / "www")
        with pytest.raises(PipelineError, match=r"cannot be had from here. Tried:\n  TFDS: DownloadError: .*403"):
            prepare("tiny_hosted", tmp_path / "data")


@pytest.mark.usefixtures("direct")
def test_a_full_disk_is_not_blamed_on_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "small") as disk:

        class Filling(http.server.SimpleHTTPRequestHandler):
            """Another program takes all the room while the files come."""

            def do_GET(self) -> None:
                disk.fill()
                super().do_GET()

        with _serving(tmp_path / "www", Filling) as host:
            _record_sums(monkeypatch, host, tmp_path / "www")
            with pytest.raises(PipelineError) as caught:
                prepare("tiny_hosted", disk.seen / "data")
            message = str(caught.value)
            assert message.startswith(f"the disk of {disk.seen / 'data'} is full (0 MiB free now). Free space there")
            assert "cannot be had" not in message
        assert not [path for path in (disk.seen / "data").iterdir() if path.name not in (".lock", "downloads")]


def test_a_fault_of_our_own_is_not_blamed_on_the_hosts(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _record_sums(monkeypatch, host, tmp_path / "www")
    monkeypatch.setattr(TinyHosted, "_generate_examples", lambda self, count: iter(()))
    with pytest.raises(PipelineError) as caught:
        prepare("tiny_hosted", tmp_path / "data")
    message = str(caught.value)
    assert message.startswith("the preparation of dataset 'tiny_hosted' failed: TypeError: ")
    assert "test_tfds_hosts.py:" in message and "cannot be had" not in message
    assert not (tmp_path / "data" / "tiny_hosted").exists()


def test_silent_hosts_are_given_up_within_seconds(direct: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}/file" for each in (first, second)]
        start = time.monotonic()
        reason = unreachable_reason(urls)
        assert time.monotonic() - start < 8
    assert reason is not None
    for url in urls:
        assert url.split("/")[2] in reason


def test_one_host_of_several_is_enough_where_asked(host: str) -> None:
    urls = [f"{host}/{IDX_FILES[0]}", "http://127.0.0.1:9/file"]
    assert unreachable_reason(urls, all_hosts=False) is None
    assert "127.0.0.1:9" in (unreachable_reason(urls) or "")
