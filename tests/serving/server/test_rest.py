"""The REST port: TF Serving's paths, formats and codes."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import math
import socket
from typing import Any

import pytest

from serving.server import rest
from tests.serving.conftest import Running

A64 = base64.b64encode(b"a").decode()


def ask(running: Running, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """The HTTP status and the parsed answer; a body that is not bytes is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", running.server.rest_port, timeout=30)
    try:
        payload = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
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
            "unable to base64 decode",
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
        ("POST", "/v1/models/scale:classify", {"examples": [{"x": 1.0}]}, 400, "method_name to be"),
    ],
)
def test_errors(model_server: Running, method: str, path: str, body: Any, code: int, words: str) -> None:
    answered, answer = ask(model_server, method, path, body)
    assert answered == code, answer
    assert list(answer) == ["error"] and words in answer["error"]


def test_a_slow_answer_is_given_up(model_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server.server._rest._server, "_timeout", 0.2)
    code, answer = predict(model_server, "slow", {"instances": [400_000]})
    assert code == 504 and "rest_api_timeout_in_ms" in answer["error"]


def test_a_packed_body(model_server: Running) -> None:
    body = gzip.compress(json.dumps({"instances": [[1, 1, 1]]}).encode())
    headers = {"Content-Encoding": "gzip"}
    assert ask(model_server, "POST", "/v1/models/scale:predict", body, **headers)[0] == 200
    bomb = gzip.compress(b" " * (rest.MAX_BODY_BYTES + 1))
    code, answer = ask(model_server, "POST", "/v1/models/scale:predict", bomb, **headers)
    assert code == 413 and "larger than" in answer["error"]


def test_a_body_over_the_limit_is_not_read(model_server: Running) -> None:
    with socket.create_connection(("127.0.0.1", model_server.server.rest_port), timeout=30) as connection:
        size = rest.MAX_BODY_BYTES + 1
        connection.sendall(
            f"POST /v1/models/scale:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_slow_sender_is_given_up(model_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server.server._rest._server, "_timeout", 0.2)
    with socket.create_connection(("127.0.0.1", model_server.server.rest_port), timeout=30) as connection:
        connection.sendall(b"POST /v1/models/scale:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 504 ")


def test_too_many_requests(model_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_CONCURRENT_REQUESTS", 0)
    assert ask(model_server, "GET", "/v1/models/scale")[0] == 503
    monkeypatch.undo()
    monkeypatch.setattr(rest, "MAX_BODIES_BYTES", 10)
    assert predict(model_server, "scale", {"instances": [[1, 1, 1]]})[0] == 429


def test_bytes_that_are_no_http(model_server: Running) -> None:
    with socket.create_connection(("127.0.0.1", model_server.server.rest_port), timeout=30) as connection:
        connection.sendall(b"\x00\xff not http\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 400") or connection.recv(100) == b""
    assert ask(model_server, "GET", "/v1/models/scale")[0] == 200
