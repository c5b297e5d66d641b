"""The REST port: TF Serving's paths, formats and codes."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from tensorflow.core.framework import types_pb2

from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.serving.server import limits, rest_json
from mnist_tfx.serving.server.config import ServerOptions
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.json_reader import Reader
from mnist_tfx.serving.server.rest_bodies import Bodies, Body
from tests.serving.conftest import Running, running, wait_until

A64 = base64.b64encode(b"a").decode()


def ask(running: Running, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """The HTTP status and the parsed answer; a body that is not bytes is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", running.server.rest_port, timeout=30)
    try:
        payload = body if isinstance(body, bytes | Iterator) or body is None else json.dumps(body).encode()
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        assert response.headers.get_content_type() == "application/json"
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def predict(running: Running, model: str, body: Any) -> tuple[int, Any]:
    return ask(running, "POST", f"/v1/models/{model}:predict", body)


def test_rows_of_one_input(model_server: Running) -> None:
    code, answer = predict(model_server, "scale", {"instances": [[1, 2, 3.5], [0, 0, 0]]})
    assert code == 200
    assert answer == {"predictions": [{"y": [3, 6, 10.5], "factor": 3}, {"y": [0, 0, 0], "factor": 3}]}


def test_columns_of_one_input(model_server: Running) -> None:
    for inputs in ([[1, 2, 3]], {"x": [[1, 2, 3]]}):
        code, answer = predict(model_server, "scale", {"inputs": inputs, "signature_name": "serving_default"})
        assert (code, answer) == (200, {"outputs": {"y": [[3, 6, 9]], "factor": [3]}})


def test_one_output_stands_by_itself(model_server: Running) -> None:
    body = {"signature_name": "inverse", "instances": [2, 4]}
    assert predict(model_server, "mixed", body) == (200, {"predictions": [0.5, 0.25]})
    body = {"signature_name": "inverse", "inputs": [2, 4]}
    assert predict(model_server, "mixed", body) == (200, {"outputs": [0.5, 0.25]})


def test_named_inputs_bytes_and_types(model_server: Running) -> None:
    binary = {"b64": base64.b64encode(b"\xff\x00").decode()}
    instances: list[Any] = [{"numbers": [1, 2], "words": "ä"}, {"numbers": [-1, 0.5], "words": binary}]
    code, answer = predict(model_server, "mixed", {"instances": instances})
    assert code == 200
    first, second = answer["predictions"]
    assert first == {
        "doubled": [2, 4],
        "word": "ä",
        "word_bytes": {"b64": base64.b64encode("ä".encode()).decode()},
        "size": 2,
        "positive": True,
    }
    assert second["word"] == second["word_bytes"] == binary
    assert second["positive"] is False and second["doubled"] == [-2, 1]


def test_floats_are_written_short_and_not_a_number_as_such(model_server: Running) -> None:
    code, answer = predict(model_server, "mixed", b'{"signature_name": "inverse", "instances": [10, 0, -0.0, NaN]}')
    assert code == 200
    tenth, infinity, minus, nan = answer["predictions"]
    assert (tenth, infinity, minus) == (0.1, math.inf, -math.inf) and math.isnan(nan)


def test_the_words_that_stand_for_infinity_and_not_a_number(model_server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", model_server.server.rest_port, timeout=30)
    body = b'{"signature_name": "inverse", "instances": [0, -0.0, NaN]}'
    connection.request("POST", "/v1/models/mixed:predict", body)
    assert connection.getresponse().read() == b'{"predictions": [Infinity, -Infinity, NaN]}'
    connection.close()


def test_versions_and_labels(model_server: Running) -> None:
    for path, factor in (("versions/2", 2), ("versions/3", 3), ("labels/stable", 2), ("labels/canary", 3)):
        code, answer = predict(model_server, f"scale/{path}", {"instances": [[1, 1, 1]]})
        assert (code, answer["predictions"][0]["factor"]) == (200, factor)


def test_classify_and_regress(model_server: Running) -> None:
    body: dict[str, Any] = {"signature_name": "classify", "examples": [{"x": 0.25}, {"x": [1.0]}]}
    code, answer = ask(model_server, "POST", "/v1/models/examples:classify", body)
    assert (code, answer) == (200, {"results": [[["yes", 0.25], ["no", 0.75]], [["yes", 1.0], ["no", 0.0]]]})
    body = {"signature_name": "regress", "context": {"x": 5.0}, "examples": [{"x": 1.0}, {}]}
    code, answer = ask(model_server, "POST", "/v1/models/examples:regress", body)
    assert (code, answer) == (200, {"results": [3.0, 11.0]})


def test_status_and_metadata(model_server: Running) -> None:
    status = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    both = [{"version": version, **status} for version in ("3", "2")]
    for path, expected in (("", both), ("/versions/2", both[1:]), ("/labels/canary", both[:1])):
        assert ask(model_server, "GET", f"/v1/models/scale{path}") == (200, {"model_version_status": expected})
    code, answer = ask(model_server, "GET", "/v1/models/scale/versions/2/metadata")
    assert code == 200 and answer["model_spec"] == {"name": "scale", "version": "2", "signature_name": ""}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "words"),
    [
        ("GET", "/v1/models/nobody", None, 404, "Could not find any versions of model nobody"),
        ("GET", "/v1/models/scale/versions/9", None, 404, "Could not find version 9 of model scale"),
        ("POST", "/v1/models/nobody:predict", {"instances": [1]}, 404, "Latest(nobody)"),
        ("POST", "/v1/models/scale/versions/7:predict", {"instances": [1]}, 404, "Specific(scale, 7)"),
        ("POST", "/v1/models/scale/labels/x:predict", {"instances": [1]}, 400, "Unrecognized servable version label"),
        ("POST", "/v1/models/scale/versions/99999999999999999999:predict", {}, 400, "Failed to convert version"),
        ("GET", "/v1/models/scale:predict", None, 400, "Malformed request: GET /v1/models/scale:predict"),
        ("POST", "/v1/models/scale", {}, 400, "Malformed request: POST"),
        ("POST", "/v1/models/scale:explain", {}, 400, "Malformed request: POST"),
        ("GET", "/v1/nothing", None, 400, "Malformed request: GET"),
        ("GET", "/elsewhere", None, 404, "Not Found"),
        ("POST", "/v1/models/scale:predict", b"", 400, "The document is empty"),
        ("POST", "/v1/models/scale:predict", b"{", 400, "JSON Parse error"),
        ("POST", "/v1/models/scale:predict", b"[" * 100_000, 400, "JSON Parse error"),
        ("POST", "/v1/models/scale:predict", b"\xff\xfe", 400, "JSON Parse error"),
        ("POST", "/v1/models/scale:predict", [1], 400, "not an object"),
        ("POST", "/v1/models/scale:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("POST", "/v1/models/scale:predict", {"inputs": 1, "instances": [1]}, 400, "only one of"),
        ("POST", "/v1/models/scale:predict", {"instances": []}, 400, "No values in 'instances' array"),
        ("POST", "/v1/models/scale:predict", {"instances": 3}, 400, "to be a list"),
        ("POST", "/v1/models/scale:predict", {"instances": [[1, 2, 3], [1]]}, 400, "different sizes"),
        ("POST", "/v1/models/scale:predict", {"instances": [[1, 2, "3"]]}, 400, "not of expected type: float"),
        ("POST", "/v1/models/scale:predict", {"instances": [[None] * 3]}, 400, "Type: Null"),
        ("POST", "/v1/models/scale:predict", {"instances": [{"z": 1}]}, 400, "keys must be equal to: x"),
        ("POST", "/v1/models/scale:predict", {"inputs": {"z": 1}}, 400, "Missing named input: x"),
        ("POST", "/v1/models/scale:predict", {"instances": [[1, 1, 1]], "signature_name": "s"}, 400, '"s" not found'),
        ("POST", "/v1/models/scale:predict", {"instances": [1], "signature_name": 1}, 400, "must be a string"),
        ("POST", "/v1/models/slow:predict", {"instances": [1.5]}, 400, "not of expected type: int64"),
        ("POST", "/v1/models/slow:predict", {"instances": [10**30]}, 400, "out of the range"),
        ("POST", "/v1/models/mixed:predict", {"instances": ["a"]}, 400, "expecting list of objects"),
        (
            "POST",
            "/v1/models/mixed:predict",
            {"instances": [{"numbers": [1, 2], "words": {"b64": "?"}}]},
            400,
            "Unable to base64 decode",
        ),
        (
            "POST",
            "/v1/models/mixed:predict",
            {"signature_name": "total", "instances": [1, 2]},
            400,
            "no common batch size",
        ),
        ("POST", "/v1/models/examples:classify", {"examples": []}, 400, "non-empty list"),
        ("POST", "/v1/models/examples:classify", {"examples": [{"x": [[1]]}]}, 400, "unexpected JSON type"),
        ("POST", "/v1/models/examples:classify", {"examples": [{"x": [1, 1.5]}]}, 400, "expecting type: int64"),
        ("POST", "/v1/models/scale:classify", {"examples": [{"x": 1.0}]}, 400, "No classification inputs"),
    ],
)
def test_errors(model_server: Running, method: str, path: str, body: Any, code: int, words: str) -> None:
    answered, answer = ask(model_server, method, path, body)
    assert answered == code, answer
    assert list(answer) == ["error"] and words in answer["error"]


def test_a_slow_answer_and_a_slow_sender_are_given_up(served_models: Path) -> None:
    slow = {"model_name": "slow", "model_base_path": str(served_models / "slow")}
    with running(ServerOptions(port=0, rest_api_port=-1, rest_api_timeout_in_ms=100, **slow)) as one:
        code, answer = predict(one, "slow", {"instances": [200_000]})
        assert code == 504 and "rest_api_timeout_in_ms" in answer["error"]
        with socket.create_connection(("127.0.0.1", one.server.rest_port), timeout=30) as connection:
            connection.sendall(b"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            answer = connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 504 ") and b"rest_api_timeout_in_ms" in answer


def test_a_packed_body(model_server: Running) -> None:
    body = gzip.compress(json.dumps({"instances": [[1, 1, 1]]}).encode())
    headers = {"Content-Encoding": "gzip"}
    assert ask(model_server, "POST", "/v1/models/scale:predict", body, **headers)[0] == 200
    bomb = gzip.compress(b" " * (limits.MAX_BODY_BYTES + 1))
    code, answer = ask(model_server, "POST", "/v1/models/scale:predict", bomb, **headers)
    assert code == 413 and "larger than" in answer["error"]


def test_a_body_over_the_limit_is_not_read(model_server: Running) -> None:
    with socket.create_connection(("127.0.0.1", model_server.server.rest_port), timeout=30) as connection:
        size = limits.MAX_BODY_BYTES + 1
        connection.sendall(
            f"POST /v1/models/scale:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_more_requests_than_are_answered_at_once(model_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 1)
    one_row = {"instances": [[1, 1, 1]]}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, model_server, "slow", {"instances": [100_000]})
        wait_until(lambda: model_server.server._rest._server._answering == 1, "the first")
        words = "too many requests in hand, try again later"
        assert predict(model_server, "scale", one_row) == (503, {"error": words})
        assert first.result()[0] == 200
    assert predict(model_server, "scale", one_row)[0] == 200


def test_more_bodies_than_may_arrive_at_once(model_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 1)
    bodies = model_server.server._rest._server._bodies
    one_row = {"instances": [[1, 1, 1]]}
    with stalled(model_server, 1, b"{") as [slow]:
        wait_until(lambda: len(bodies.arriving) == 1, "its body")
        monkeypatch.setattr(limits, "SLOW_SECONDS", 60)
        words = "too many large requests in hand, try again later"
        assert predict(model_server, "scale", one_row) == (503, {"error": words})
        monkeypatch.setattr(limits, "SLOW_SECONDS", 0)
        assert predict(model_server, "scale", one_row)[0] == 200
        assert slow.recv(100).startswith(b"HTTP/1.1 503 ")


@contextmanager
def stalled(running: Running, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Connections that send the beginning of a large body, and no more."""
    head = f"POST /v1/models/scale:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {limits.MAX_BODY_BYTES}\r\n\r\n"
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", running.server.rest_port), timeout=30))
            one.sendall(head.encode() + sent)
            sockets.append(one)
        yield sockets


def test_bodies_that_stall_stop_nobody(model_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived is charged, not what was announced; where that is too much, the slowest goes."""
    monkeypatch.setattr(limits, "MAX_BODIES_BYTES", 16 * 120_000 + 50_000)
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.2)
    bodies = model_server.server._rest._server._bodies
    large = {"instances": [[1, 2, 3]] * 100 + [[1, 2, 3.0 + 1e-7]] * 6000}
    with stalled(model_server, 16, b"[" * 120_000) as sockets:
        wait_until(lambda: bodies.held_bytes >= 16 * 120_000, "their bodies")
        assert predict(model_server, "scale", {"instances": [[1, 1, 1]]})[0] == 200
        time.sleep(0.25)
        assert predict(model_server, "scale", large)[0] == 400  # 6,100 rows, which was read
        assert sockets[0].recv(100).startswith(b"HTTP/1.1 503 ")
    wait_until(lambda: (bodies.held_bytes, bodies.arriving) == (0, {}), "all to be over")


def test_a_body_that_stalls_is_given_up_by_itself(model_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_STALL_SECONDS", 0.2)
    with stalled(model_server, 1, b"{") as [one]:
        answer = one.recv(1000)
        assert answer.startswith(b"HTTP/1.1 504 ") and b"no more of the body" in answer


def test_a_body_in_pieces_is_not_charged_in_advance(model_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BODIES_BYTES", 10)
    for encoding in ({}, {"Content-Encoding": "gzip"}):
        body = json.dumps({"instances": [[1, 1, 1]]}).encode()
        pieces = iter([gzip.compress(body) if encoding else body])  # without a length
        assert ask(model_server, "POST", "/v1/models/scale:predict", pieces, **encoding)[0] == 200


def test_a_large_body_is_read_in_another_process(model_server: Running) -> None:
    """The answer is the same; one that unpacks to millions of lists is refused, at nobody's expense."""
    rows = [[number / 7, 2, 3] for number in range(1000)]
    body = gzip.compress(json.dumps({"inputs": rows}).encode() + b" " * 100_000)
    headers = {"Content-Encoding": "gzip"}
    code, answer = ask(model_server, "POST", "/v1/models/scale:predict", body, **headers)
    assert code == 200 and answer["outputs"]["y"][7] == [3, 6, 9]
    bomb = gzip.compress(b'{"instances": [' + b"[]," * (limits.MAX_BODY_BYTES // 3 - 10) + b"[]]}")
    assert len(bomb) < 2**16
    assert ask(model_server, "POST", "/v1/models/scale:predict", bomb, **headers)[0] == 413
    bomb = gzip.compress(b'{"instances": [' + b"[]," * 1_500_000 + b"[]]}")
    with ThreadPoolExecutor(2) as pool:
        bombs = [pool.submit(ask, model_server, "POST", "/v1/models/scale:predict", bomb, **headers) for _ in "ab"]
        answered = 0
        while not all(one.done() for one in bombs):
            assert predict(model_server, "scale", {"instances": [[1, 1, 1]]})[0] == 200
            answered += 1
    assert {one.result()[0] for one in bombs} == {400}  # more rows than a batch takes
    assert answered > 4, "others were held up until the large bodies were read"


def test_a_reading_process_that_dies_is_replaced(model_server: Running) -> None:
    body = json.dumps({"instances": [[1.25, 2, 3]] * 900}).encode() + b" " * 100_000
    for _ in range(2):
        assert ask(model_server, "POST", "/v1/models/scale:predict", body)[0] == 200
        process = model_server.server._rest._server._reader._process
        assert process is not None
        process.kill()
        process.wait()
        code, answer = ask(model_server, "POST", "/v1/models/scale:predict", body)
        assert code == 503 and "try again later" in answer["error"]


def test_large_examples(model_server: Running) -> None:
    body = {"signature_name": "regress", "examples": [{"x": float(number)} for number in range(900)]}
    code, answer = ask(model_server, "POST", "/v1/models/examples:regress", json.dumps(body).encode() + b" " * 100_000)
    assert code == 200 and answer["results"][899] == 1799


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("YWI=", b"ab"),
        ("YWI", b"ab"),
        ("YWI.", b"ab"),
        (" Y W\nI\t= ", b"ab"),
        ("YW==", b"a"),
        ("YQ", b"a"),
        ("YWJj", b"abc"),
        ("", b""),
        ("+/+/", b"\xfb\xff\xbf"),
        ("YWI==", None),
        ("YWJj=", None),
        ("YWJjZ", None),
        ("YW=I", None),
        ("-_-_", None),
        ("YWJ\u00e4", None),
        ("YWI\u0000", None),
    ],
)
def test_base64_as_absl_reads_it(model_server: Running, text: str, expected: bytes | None) -> None:
    body = {"inputs": {"numbers": [[1, 2]], "words": [{"b64": text}]}}
    code, answer = predict(model_server, "mixed", body)
    if expected is None:
        assert code == 400 and answer["error"] == "Unable to base64 decode"
    else:
        assert code == 200
        assert answer["outputs"]["word_bytes"] == [{"b64": base64.b64encode(expected).decode()}]


NAME = "team%2F%C3%A4%3a%20inference"


def test_an_input_named_b64_and_a_name_that_is_escaped(model_server: Running) -> None:
    body = {"signature_name": "base64", "instances": [{"b64": 2.5}, {"b64": 1}]}
    assert predict(model_server, NAME, body) == (200, {"predictions": [5, 2]})
    body = {"signature_name": "base64", "inputs": {"b64": [2.5]}}
    assert predict(model_server, NAME, body) == (200, {"outputs": [5]})
    assert ask(model_server, "GET", f"/v1/models/{NAME}/versions/1")[0] == 200
    body = {"signature_name": "classify", "examples": [{"x": 0.25}]}
    code, answer = ask(model_server, "POST", f"/v1/models/{NAME}:classify", body)
    assert (code, answer) == (200, {"results": [[["", 0.25], ["", 0.75]]]})


def nested(depth: int) -> bytes:
    return b'{"inputs": ' + b"[" * depth + b"1" + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("path", "body", "headers", "code", "words"),
    [
        ("scale:predict", nested(100), {}, 400, "nested deeper than 64 levels"),
        ("scale:predict", nested(30_000), {}, 400, "JSON Parse error"),
        ("scale:predict", nested(100_000), {}, 400, "JSON Parse error"),
        ("scale:predict", b"{}", {"Content-Encoding": "gzip"}, 400, "the body is not gzip"),
        ("scale:predict", gzip.compress(b"{}", mtime=0) * 2, {"Content-Encoding": "gzip"}, 400, "behind its end"),
        ("scale:predict", gzip.compress(b"{}", mtime=0)[:-4], {"Content-Encoding": "gzip"}, 400, "cut off"),
        ("scale:predict", b"{}", {"Content-Encoding": "br"}, 400, "Content-Encoding 'br' is not supported"),
        ("scale/versions/" + "9" * 5000 + ":predict", b"{}", {}, 400, "Failed to convert version"),
        ("scale/versions/%D9%A3:predict", b"{}", {}, 400, "Malformed request"),
        ("sc%FFale:predict", b"{}", {}, 400, "Failed to decode model name"),
        ("scale:predict", b'{"instances": [' + b"9" * 5000 + b"]}", {}, 400, "JSON Parse error"),
        ("scale:predict", b'{"signature_name": "\\ud800", "inputs": 1}', {}, 400, "surrogate"),
        ("mixed:predict", b'{"inputs": {"numbers": [[1, 2]], "words": ["\\udc00"]}}', {}, 400, "surrogate"),
        ("examples:classify", b'{"examples": [{"\\ud83d": 1}]}', {}, 400, "surrogate"),
        ("mixed:predict", b'{"inputs": {"words": ["\xed\xa0\x80"]}}', {}, 400, "JSON Parse error"),
        ("scale:predict", b'{"inputs": "\\ud83d\\ude00"}', {}, 400, "not of expected type: float"),
        ("mixed:predict", b'{"inputs": {"numbers": [[1, 2]], "words": [{"b64": 1}]}}', {}, 400, "for base64 data"),
    ],
)
def test_what_a_client_got_wrong_is_told(
    model_server: Running,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: bytes,
    headers: dict[str, str],
    code: int,
    words: str,
) -> None:
    answered, answer = ask(model_server, "POST", f"/v1/models/{path}", body, **headers)
    assert answered == code, answer
    assert words in answer["error"] and "Traceback" not in caplog.text


def test_pages_of_other_origins(served_models: Path) -> None:
    scale = {"model_name": "scale", "model_base_path": str(served_models / "scale")}
    for cors in (True, False):
        options = ServerOptions(port=0, rest_api_port=-1, rest_api_enable_cors_support=cors, **scale)
        with running(options) as one:
            for method, origin, code in (("GET", "", 200), ("OPTIONS", "https://page", 200), ("OPTIONS", "", 400)):
                connection = http.client.HTTPConnection("127.0.0.1", one.server.rest_port, timeout=30)
                connection.request(method, "/v1/models/scale", headers={"Origin": origin} if origin else {})
                response = connection.getresponse()
                response.read()
                assert response.status == code
                assert response.headers.get("Access-Control-Allow-Origin") == ("*" if cors else None)
                connection.close()


def test_a_connection_that_closes_half_way(model_server: Running, caplog: pytest.LogCaptureFixture) -> None:
    bodies = model_server.server._rest._server._bodies
    with stalled(model_server, 3, b"[" * 100_000):
        wait_until(lambda: len(bodies.arriving) == 3, "their bodies")
    wait_until(lambda: (bodies.held_bytes, bodies.arriving) == (0, {}), "all to be over")
    assert model_server.server._rest._server._in_hand == 0
    assert not caplog.records


def test_bytes_that_are_no_http(model_server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", model_server.server.rest_port), timeout=30) as connection:
        connection.sendall(b"POST /v1/models/scale:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size")
        assert b" 400 Bad Request" in connection.recv(100)
    with socket.create_connection(("127.0.0.1", model_server.server.rest_port), timeout=30) as connection:
        connection.sendall(b"\x00\xff not http\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 400") or connection.recv(100) == b""
    assert ask(model_server, "GET", "/v1/models/scale")[0] == 200
    assert not caplog.records  # or a client could fill the disk


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0), (0, 0), (0, 2, 0), (2, 0, 3), (2, 3, 0), (2, 3)], ids=str)
def test_arrays_become_lists_as_numpy_has_them(shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    assert rest_json.to_json("y", array) == array.tolist()


def test_a_number_that_is_too_large_for_bfloat16() -> None:
    body = json.dumps({"inputs": [10**400]}).encode()
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: input x: a number is out of the range of bfloat16"):
        rest_json.read_predict(body, "", {"serving_default": ({"x": types_pb2.DT_BFLOAT16}, None)})


def test_a_process_that_starts_longer_than_a_call_may_take_serves_the_next() -> None:
    body = b'{"inputs": [1]}'
    call = ("read_predict", body, "", {"serving_default": ({"x": types_pb2.DT_INT64}, None)})
    reader = Reader()
    try:
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
            reader.call(time.monotonic(), *call)
        process = reader._process
        name, arrays, _ = reader.call(time.monotonic() + 60, *call)
        assert (name, arrays["x"].tolist()) == ("serving_default", [1])
        assert reader._process is process
    finally:
        reader.close()


def test_where_no_process_can_be_had_a_later_call_may_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    call = ("read_predict", b'{"inputs": [1]}', "", {"serving_default": ({"x": types_pb2.DT_INT64}, None)})
    reader = Reader()
    try:
        for missing in ("Pipe", "subprocess.Popen"):
            with monkeypatch.context() as patched, pytest.raises(ServingError, match=r"UNAVAILABLE: .*Too many open"):
                patched.setattr(f"mnist_tfx.serving.server.json_reader.{missing}", exhausted)
                reader.call(time.monotonic() + 60, *call)
        assert reader.call(time.monotonic() + 60, *call)[0] == "serving_default"
    finally:
        reader.close()


def test_a_sender_is_given_up_in_the_moment_in_which_more_comes() -> None:
    """Its body must not be taken for whole."""

    async def read() -> Body:
        loop = asyncio.get_running_loop()
        protocol = BaseProtocol(loop)
        protocol.connection_made(asyncio.Transport())
        stream = StreamReader(protocol, 2**16, loop=loop)
        body = Body(Bodies())
        reading = asyncio.create_task(body.read(make_mocked_request("POST", "/", payload=stream)))
        await asyncio.sleep(0)
        stream.feed_data(b"the beginning")
        while not body.data:
            await asyncio.sleep(0)
        stream.feed_data(b"more")
        assert body.give_up() and not body.give_up()
        stream.feed_eof()
        await asyncio.wait_for(reading, 10)
        return body

    with pytest.raises(ServingError, match="UNAVAILABLE: given up for others"):
        asyncio.run(read())


def test_a_drain_waits_until_an_answer_is_taken(served_models: Path) -> None:
    options = ServerOptions(port=0, rest_api_port=-1, model_name="mixed", model_base_path=str(served_models / "mixed"))
    body = json.dumps({"inputs": {"numbers": [[1, 2]], "words": ["x" * 6 * 2**20]}}).encode()  # comes back twice
    with running(options) as one, socket.socket() as connection:
        connection.settimeout(30)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**17)
        connection.connect(("127.0.0.1", one.server.rest_port))
        head = f"POST /v1/models/mixed:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        received = connection.recv(2000)
        stopping = threading.Thread(target=one.server.stop, args=(20,))
        stopping.start()
        time.sleep(2)  # longer than idle connections have
        size = int(received.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        expected = received.index(b"\r\n\r\n") + 4 + size
        count = len(received)
        while count < expected and (piece := connection.recv(2**20)):
            count += len(piece)
        stopping.join()
    assert count == expected and size > 12 * 2**20


def test_a_stop_leaves_out_what_waits_and_says_nothing_of_it(
    served_models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ServerOptions(port=0, rest_api_port=-1, model_name="slow", model_base_path=str(served_models / "slow"))
    body = b'{"instances": [200000]}'
    head = f"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with running(options) as one, ExitStack() as stack:
        for _ in range(2 * cpu_count() + 1):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", one.server.rest_port)))
            connection.sendall(head.encode() + body)
        wait_until(lambda: one.server._rest._server._answering == 2 * cpu_count() + 1, "the requests")
        one.server.stop(0)
    assert "unforeseen" not in caplog.text
