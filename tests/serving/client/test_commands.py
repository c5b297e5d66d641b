"""`mnist-tfx predict`, `wait` and `bench`, over a socket."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.names import METADATA_PATH
from mnist_tfx.pipeline.commands.options.server import add_server_arguments, connected
from mnist_tfx.serving.client import Unavailable
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.reference_server import LOADING, ReferenceServer, class_of, probabilities_of, serving

Run = Callable[..., Answer]


@pytest.fixture
def run(server: ReferenceServer) -> Run:
    """Runs a command against the server's model."""

    def on_server(command: str, *arguments: str | Path) -> Answer:
        return mnist_tfx(command, "kmnist", *arguments, "--address", f"127.0.0.1:{server.port}")

    return on_server


def encoded(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(buffer, kind)
    return buffer.getvalue()


def idx_of(images: Any) -> bytes:
    return struct.pack(">4I", 0x803, *images.shape) + images.tobytes()


def test_predict_files(run: Run, tmp_path: Path) -> None:
    png, jpeg = tmp_path / "boot.png", tmp_path / "boot.jpg"
    png.write_bytes(encoded())
    jpeg.write_bytes(encoded("JPEG"))
    answer = run("predict", png, jpeg)
    assert answer.code == 0, answer.err
    for line, path in zip(answer.out.splitlines(), (png, jpeg), strict=True):
        best = path.stat().st_size % 10
        first, second, third = probabilities_of([best])[0][[best, (best + 1) % 10, (best + 2) % 10]]
        others = f"(class {(best + 1) % 10} {second:.4f}, class {(best + 2) % 10} {third:.4f})"
        assert line == f"{path}  name {best}  {first:.4f}  {others}"


def write_class_names(folder: Path, names: list[str]) -> None:
    """What a version that was exported here says of its classes."""
    metadata = folder / METADATA_PATH
    metadata.parent.mkdir(parents=True)
    metadata.write_text(json.dumps({"class_names": names}))


@pytest.mark.parametrize(
    ("stored", "naming"),
    [(("4", "30"), "30"), (("3", "30"), "3"), ((".rolled_back/3", "30"), ".rolled_back/3")],
    ids=["it is not here", "it is older", "it was rolled back"],
)
def test_predict_names_runners_up_as_the_version_that_answered_does(
    run: Run, tmp_path: Path, stored: tuple[str, ...], naming: str
) -> None:
    """Version 3 answers; where it is not here, the newest one's names are the likeliest to be right."""
    png = tmp_path / "boot.png"
    png.write_bytes(encoded())
    best = png.stat().st_size % 10
    for place in stored:
        names = [f"{place} {index}" for index in range(10)]
        names[best] = f"name {best}"
        write_class_names(tmp_path / "serving" / "kmnist" / place, names)
    (tmp_path / "serving" / "kmnist" / "31").mkdir()  # made elsewhere
    [told] = json.loads(run("predict", "--json", png, "--home", tmp_path).out)
    labels = [f"name {best}", f"{naming} {(best + 1) % 10}", f"{naming} {(best + 2) % 10}"]
    assert told["version"] == 3 and [one["label"] for one in told["top"]] == labels
    names_file = tmp_path / "names"
    names_file.write_text("\n".join("abcdefghij"))
    [told] = json.loads(run("predict", "--json", png, "--home", tmp_path, "--class-names", names_file).out)
    assert told["top"][1]["label"] == "abcdefghij"[(best + 1) % 10]


def test_predict_names_no_runners_up_as_another_model_does(run: Run, tmp_path: Path) -> None:
    """A port of this machine may lead to a server elsewhere, whose model has other classes than the one here."""
    png = tmp_path / "boot.png"
    png.write_bytes(encoded())
    write_class_names(tmp_path / "serving" / "kmnist" / "4", [f"other {index}" for index in range(10)])
    [told] = json.loads(run("predict", "--json", png, "--home", tmp_path).out)
    assert [one["label"] for one in told["top"]] == [f"name {told['index']}", None, None]


@pytest.mark.parametrize("kind", ["BMP", "GIF"])
def test_predict_other_kinds_that_a_model_decodes(run: Run, tmp_path: Path, kind: str) -> None:
    image = tmp_path / "boot"
    image.write_bytes(encoded(kind))
    answer = run("predict", "--json", image)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)[0]["index"] == image.stat().st_size % 10


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_predict_mixed_with_idx(run: Run, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    png, idx = tmp_path / "a.png", tmp_path / "t10k"
    png.write_bytes(encoded())
    idx.write_bytes(pack(idx_of(images)))
    answer = run("predict", "--json", "--top", "1", png, idx, png)
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert [one["image"] for one in told] == [str(png), f"{idx}[0]", f"{idx}[1]", f"{idx}[2]", str(png)]
    assert [one["index"] for one in told[1:4]] == [class_of(image.tobytes()) for image in images]
    assert told[0]["version"] == 3 and len(told[0]["top"]) == 1


@pytest.mark.parametrize("content", [encoded(), idx_of(np.zeros((1, 28, 28), np.uint8))], ids=["png", "idx"])
def test_predict_stdin(run: Run, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))  # type: ignore[type-var]
    answer = run("predict", "-")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("stdin") and len(answer.out.splitlines()) == 1


@pytest.mark.parametrize("content", [encoded(), idx_of(np.zeros((1, 28, 28), np.uint8))], ids=["png", "idx"])
def test_predict_a_pipe(run: Run, content: bytes) -> None:
    """As in `mnist-tfx predict kmnist <(convert ...)`: what is read of it once is gone."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    answer = run("predict", f"/dev/fd/{reading}")
    os.close(reading)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("/dev/fd/") and len(answer.out.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # with a mark at its beginning, as Windows writes it
def test_predict_names_the_runners_up(run: Run, tmp_path: Path, encoding: str) -> None:
    names, image = tmp_path / "names", tmp_path / "a.bmp"
    names.write_text("".join(f"cloth {one}\n" for one in range(10)), encoding=encoding)
    image.write_bytes(encoded("BMP"))
    assert image.stat().st_size % 10 == 2  # which is what the server says of it
    out = run("predict", image, "--class-names", names, "--top", "10").out
    assert "(cloth 3 " in out and " cloth 0 " in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read {path}: No such file"),
        (b"hello", "{path} is neither PNG nor JPEG"),
        (encoded() + b"broken", "{path}: Unknown image file format"),
        (idx_of(np.zeros((1, 32, 32), np.uint8)), "[1, 32, 32, 1] do not fit"),
        (idx_of(np.zeros((1, 28, 28), np.uint8))[:-1], "{path} is cut off"),
    ],
)
def test_predict_tells_what_is_wrong_with_a_file(run: Run, tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "image"
    if content is not None:
        path.write_bytes(content)
    answer = run("predict", path)
    assert (answer.code, answer.out) == (2, "")
    assert words.format(path=path) in answer.err


def test_nothing_answers(tmp_path: Path) -> None:
    with serving() as gone:
        pass
    png = tmp_path / "a.png"
    png.write_bytes(encoded())
    for command in (
        ["predict", "kmnist", png, "--timeout", "60"],
        ["wait", "kmnist", "--timeout", "0.3"],
        ["bench", "kmnist"],
    ):
        begin = time.monotonic()
        answer = mnist_tfx(*command, "--address", f"127.0.0.1:{gone.port}")
        assert time.monotonic() - begin < 30, "none of them waits longer than it was told to"
        assert answer.code == 1 and answer.out == ""
        assert answer.err.startswith("error: ") and "mnist-tfx serve" in answer.err


@pytest.mark.parametrize(
    "words",
    [  # of gRPC as it is installed, and of older ones
        "errors resolving nowhere:8500: [field:hostname lookup error:address lookup failed for nowhere:8500]",
        "DNS resolution failed for nowhere:8500",
    ],
)
def test_where_no_such_host_is_known_a_server_is_asked_for(words: str) -> None:
    parser = argparse.ArgumentParser()
    add_server_arguments(parser)
    args = parser.parse_args(["kmnist", "--address", "nowhere:8500"])
    with pytest.raises(PipelineError, match="Is a server running at nowhere:8500"), connected(args):
        raise Unavailable(words)


def test_unknown_model_and_options(server: ReferenceServer, run: Run, tmp_path: Path) -> None:
    png = tmp_path / "a.png"
    png.write_bytes(encoded())
    answer = mnist_tfx("predict", "nobody", png, "--address", f"127.0.0.1:{server.port}")
    assert answer.code == 1 and "mnist-tfx status" in answer.err
    for options, words in (
        (["--ca", tmp_path / "ca.pem"], "cannot read"),
        (["--address", "a b"], "no address"),
    ):
        answer = run("predict", png, *options) if options[0] != "--address" else mnist_tfx("wait", "kmnist", *options)
        assert answer.code == 2 and words in answer.err


def test_wait(server: ReferenceServer, run: Run) -> None:
    answer = run("wait")
    assert (answer.code, answer.out) == (0, f"kmnist version 3 is available at 127.0.0.1:{server.port}\n")
    assert json.loads(run("wait", "--json").out) == {
        "model": "kmnist",
        "version": 3,
        "address": f"127.0.0.1:{server.port}",
    }
    server.states = {4: LOADING}
    answer = run("wait", "--timeout", "0.3")
    assert answer.code == 1 and "version 4 is LOADING" in answer.err
    with pytest.raises(SystemExit, match="2"):
        run("wait", "--timeout", "0")


@pytest.mark.parametrize("options", [["--concurrency", "3"], ["--rate", "100"]], ids=["closed", "open"])
def test_bench(server: ReferenceServer, run: Run, options: list[str]) -> None:
    answer = run("bench", "--json", "--batch", "2", "--duration", "0.4", "--warmup", "0.1", *options)
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["requests"] > 0 and told["errors"] == {} and set(server.batches) == {2}
    assert told["images_per_second"] == pytest.approx(2 * told["requests_per_second"], abs=0.2)
    latency = told["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    if "--rate" in options:
        assert told["requests"] == 40
    else:
        assert 1 < server.most_at_once <= 3


def test_bench_with_a_rate_counts_from_the_intended_time(server: ReferenceServer, run: Run) -> None:
    """One caller of a server that takes 20 ms, asked for 100 a second: the last of 30 waits for all before it."""
    server.delay = 0.02
    options = ["--rate", "100", "--concurrency", "1", "--duration", "0.3", "--warmup", "0"]
    told = json.loads(run("bench", "--json", *options).out)
    assert told["requests"] == 30
    assert told["latency_ms"]["max"] >= 300


def test_bench_counts_errors(server: ReferenceServer, run: Run) -> None:
    ordinary = server._outputs
    calls: list[int] = []

    def sometimes(name: str, inputs: Any, context: grpc.ServicerContext) -> dict[str, Any]:
        calls.append(1)
        if len(calls) % 2 == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "queue is full")
        return ordinary(name, inputs, context)

    server._outputs = sometimes  # type: ignore[method-assign]
    answer = run("bench", "--duration", "1", "--warmup", "0")
    assert answer.code == 0
    assert "x queue is full (UNAVAILABLE" in answer.out


def test_bench_of_what_cannot_answer(server: ReferenceServer, run: Run) -> None:
    server.signatures = {"double": server.signatures["double"]}
    answer = run("bench", "--duration", "1")
    assert answer.code == 2 and "no such signature" in answer.err
