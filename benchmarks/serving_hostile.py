"""What callers who ask too much do to others: innocent traffic beside each kind of attack on our model server.

The attackers are a process of their own, `python -m benchmarks.serving_hostile ATTACK GRPC REST`, which is killed.
"""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from benchmarks import serving_servers
from benchmarks.serving_load import Generator
from benchmarks.serving_report import Aim
from benchmarks.serving_servers import Server
from mnist_tfx.serving.client import messages

GRPC_CALLERS, REST_CALLERS = 12, 4
PAUSE_SECONDS = 0.25  # beyond what is normal
MEMORY_BYTES = 2 * 2**30

_PATH = f"/v1/models/{serving_servers.MODEL}:predict"
_SERVICE = "/tensorflow.serving.PredictionService/"
_BODY_BYTES, _MESSAGE_BYTES = 32 * 2**20, 64 * 2**20  # the server's limits
_IMAGE = json.dumps({"signature_name": "images", "instances": [[[[7]] * 28] * 28]}).encode()


@dataclass(frozen=True)
class Suffered:
    """What innocent callers met."""

    attack: str
    answers: int
    failed: int
    worst_seconds: float
    peak_bytes: int


def measure(version: Path, work: Path, seconds: float, say: Callable[[str], None]) -> list[Suffered]:
    """Serves `version` and attacks it; first without an attack."""
    found = []
    with serving_servers.ours(version.parent, work / "hostile.log") as server:
        for attack in ("none", *ATTACKS):
            say(f"attack: {attack}")
            with _attackers(attack, server):
                found.append(_suffer(attack, server, seconds))
            time.sleep(1.5)  # what the last one left behind is given up
    return found


def aims(found: list[Suffered]) -> list[Aim]:
    """Of all attacks together."""
    normal, *attacked = found
    worst = max(one.worst_seconds for one in attacked) - normal.worst_seconds
    return [
        Aim("worst pause beyond normal, ms", worst * 1e3, "<=", PAUSE_SECONDS * 1e3),
        Aim("peak memory, MiB", max(one.peak_bytes for one in attacked) / 2**20, "<=", MEMORY_BYTES / 2**20),
        Aim("innocent calls that failed", sum(one.failed for one in attacked), "<=", 0),
    ]


def show(found: list[Suffered]) -> None:
    """Prints the table."""
    print(
        f"{GRPC_CALLERS} gRPC and {REST_CALLERS} REST callers  {'answers':>9} {'failed':>7} {'worst ms':>9} {'MiB':>6}"
    )
    for one in found:
        print(
            f"  beside {one.attack:27} {one.answers:8} {one.failed:7} {one.worst_seconds * 1e3:9.0f} "
            f"{one.peak_bytes / 2**20:6.0f}"
        )


def _suffer(attack: str, server: Server, seconds: float) -> Suffered:
    latencies: list[float] = []
    errors: list[str] = []
    stop = threading.Event()
    threads = [
        threading.Thread(target=_call_rest, args=(server.rest, latencies, errors, stop)) for _ in range(REST_CALLERS)
    ]
    with _memory(server.process.pid) as peak, Generator(server.method(1)) as generator:
        for thread in threads:
            thread.start()
        answers = generator.run(GRPC_CALLERS, seconds)
        stop.set()
        for thread in threads:
            thread.join()
    failed = sum(answers.errors.values()) + len(errors)
    if failed:
        print(f"{attack}: {dict(answers.errors)} {answers.words} {errors[:3]}", file=sys.stderr)
    latencies += answers.latencies
    return Suffered(attack, len(latencies), failed, max(latencies, default=seconds), max(peak))


def _call_rest(address: str, latencies: list[float], errors: list[str], stop: threading.Event) -> None:
    connection = http.client.HTTPConnection(address, timeout=10)
    while not stop.is_set():
        begin = time.perf_counter()
        try:
            connection.request("POST", _PATH, _IMAGE)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            errors.append(repr(error))
            connection.close()
            continue
        latencies.append(time.perf_counter() - begin)
        if response.status != 200:
            errors.append(f"{response.status} {answer[:200]!r}")
    connection.close()


@contextmanager
def _memory(pid: int) -> Iterator[list[int]]:
    """The resident bytes of a process and its children, looked at 50 times a second."""
    process, sizes, stop = psutil.Process(pid), [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            with suppress(psutil.NoSuchProcess):
                sizes.append(sum(one.memory_info().rss for one in (process, *process.children(recursive=True))))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        stop.set()
        thread.join()


@contextmanager
def _attackers(attack: str, server: Server) -> Iterator[None]:
    if attack == "none":
        yield
        return
    command = [sys.executable, "-m", __name__, attack, server.address, server.rest]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it begins
        yield
    finally:
        process.kill()
        process.communicate()


# In the attackers' process. Each attack is what one attacker does, again and again.


def _post(rest: str, body: Any, **headers: str) -> None:
    connection = http.client.HTTPConnection(rest, timeout=60)
    with suppress(OSError, http.client.HTTPException):
        connection.request("POST", _PATH, body, headers)
        connection.getresponse().read()
    connection.close()


def _packed_json(_address: str, rest: str) -> None:
    value = b'{"signature_name": "images", "instances": [' + b"[1]," * (_BODY_BYTES // 4 - 20) + b"[1]]}"
    packed = gzip.compress(value, 9)
    while True:
        _post(rest, packed, **{"Content-Encoding": "gzip"})


def _large_json(_address: str, rest: str) -> None:
    image = json.dumps([[[7]] * 28] * 28).encode()
    body = b'{"signature_name": "images", "instances": [' + b",".join([image] * 900) + b"]}"
    while True:
        _post(rest, body)


def _stalled_posts(_address: str, rest: str, sent: int) -> None:
    connection = http.client.HTTPConnection(rest, timeout=60)
    with suppress(OSError, http.client.HTTPException):
        connection.putrequest("POST", _PATH)
        connection.putheader("Content-Length", str(_BODY_BYTES))
        connection.endheaders(b"[" * sent)
        connection.getresponse().read()
    connection.close()


def _chunked(_address: str, rest: str) -> None:
    while True:
        _post(rest, iter([_IMAGE[:100], _IMAGE[100:]]))  # without a length it is chunked


def _no_http(_address: str, rest: str) -> None:
    host, port = rest.split(":")
    with suppress(OSError), socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size" + bytes(4000))
        connection.recv(1000)


def _call(address: str, method: str, request: bytes) -> None:
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        call = channel.unary_unary(_SERVICE + method)
        while True:
            with suppress(grpc.RpcError):
                call(request, timeout=60)


def _headers_only(address: str, _rest: str, method: str) -> None:
    forever = threading.Event()

    def nothing() -> Iterator[bytes]:
        forever.wait()
        yield b""

    with grpc.insecure_channel(address) as channel, suppress(grpc.RpcError):
        channel.stream_unary(_SERVICE + method)(nothing())


def _strings(address: str, _rest: str) -> None:
    request = messages.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = serving_servers.MODEL, "images"
    tensor = request.inputs["images"]
    tensor.dtype, tensor.tensor_content = 7, bytes(2**20)
    for size in (1, 2**20):
        tensor.tensor_shape.dim.add().size = size
    _call(address, "Predict", request.SerializeToString())


def _numbers(address: str, _rest: str) -> None:
    images = np.zeros((1000, 28, 28, 1), np.int32)
    request = messages.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = serving_servers.MODEL, "images"
    tensor = request.inputs["images"]
    tensor.dtype = 4
    for size in images.shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.int_val.extend(images.ravel().tolist())
    _call(address, "Predict", request.SerializeToString())


def _examples(address: str, _rest: str) -> None:
    listed = b"\x0a\x00" * (_MESSAGE_BYTES // 2 - 100)  # Input.example_list.examples, each empty
    inner = _field(1, listed)
    spec = _field(1, _field(1, serving_servers.MODEL.encode()))
    _call(address, "Classify", spec + _field(2, inner))


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 0x7F:
        length += struct.pack("B", size & 0x7F | 0x80)
        size >>= 7
    return struct.pack("B", number << 3 | 2) + length + struct.pack("B", size) + content


ATTACKS: dict[str, tuple[int, Callable[[str, str], None]]] = {
    "4 gzip bombs": (4, _packed_json),
    "4 large JSON bodies": (4, _large_json),
    "16 stalled POSTs": (16, partial(_stalled_posts, sent=2**10)),
    "16 POSTs stalled at the end": (16, partial(_stalled_posts, sent=_BODY_BYTES - 1)),
    "16 chunked POSTs": (16, _chunked),
    "4 that speak no HTTP": (4, _no_http),
    "4 of a million empty strings": (4, _strings),
    "4 of 784,000 numbers": (4, _numbers),
    "2 of 33 million examples": (2, _examples),
    "64 Predict, headers only": (64, partial(_headers_only, method="Predict")),
    "64 Classify, headers only": (64, partial(_headers_only, method="Classify")),
}
"""How many at once, and what each does with the gRPC and the REST address."""


def main() -> None:
    """Attacks until it is killed."""
    name, address, rest = sys.argv[1:]
    count, attack = ATTACKS[name]

    def again_and_again() -> None:
        while True:
            attack(address, rest)
            time.sleep(0.05)

    for _ in range(count):
        threading.Thread(target=again_and_again, daemon=True).start()
    time.sleep(0.2)
    print("attacking", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
