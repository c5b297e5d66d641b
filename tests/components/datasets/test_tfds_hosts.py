"""TFDS's own way: a builder of the tests whose host is a web server on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.image_classification import MNIST

from components.datasets.prepare import prepare
from components.datasets.published import IDX_FILES
from components.datasets.reachable import unreachable_reason
from components.errors import DataRejected, PipelineError
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


@pytest.fixture
def host(tmp_path: Path, direct: None) -> Iterator[str]:
    """The address of a web server that holds a tiny dataset."""
    write_idx_files(tmp_path / "www", train=20, test=10)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
