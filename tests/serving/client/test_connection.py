"""Addresses, retries, deadlines, replicas, waiting and TLS, of both clients, over a socket."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving.client import (
    DeadlineExceeded,
    InvalidInput,
    InvalidOption,
    ResourceExhausted,
    Retry,
    ServingClientError,
    Tls,
    Unavailable,
)
from serving.client.channel import resolve_target
from tests.fixtures.any_client import MakeClient
from tests.fixtures.certificates import CertificateAuthority
from tests.fixtures.dns_server import dns_server
from tests.fixtures.reference_server import AVAILABLE, LOADING, ReferenceServer, serving

IMAGE = np.zeros((28, 28), np.uint8)
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "The batch scheduling queue is full")
FAST = Retry(attempts=3, initial_backoff=0.001)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("serving", "serving:8500"),
        ("10.0.0.1", "10.0.0.1:8500"),
        ("[::1]", "[::1]:8500"),
        ("localhost:1", "localhost:1"),
        ("dns:///serving.models:8500", "dns:///serving.models:8500"),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
        ("unix:/run/serving.sock", "unix:/run/serving.sock"),
    ],
)
def test_addresses(address: str, target: str) -> None:
    assert resolve_target(address) == target


@pytest.mark.parametrize(
    ("address", "words"),
    [("", "no address"), ("a:1,b:1", "ipv4:"), ("http://serving:8501/", r"Leave out the scheme: serving:8501\.")],
)
def test_what_is_no_address(address: str, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        resolve_target(address)


def test_unavailable_is_tried_again(server: ReferenceServer, connect: MakeClient) -> None:
    server.failures.extend([UNAVAILABLE] * 2)
    assert len(connect(server, retry=FAST).predict(IMAGE)) == 1
    assert not server.failures


def test_retries_end(server: ReferenceServer, connect: MakeClient) -> None:
    server.failures.extend([UNAVAILABLE] * 4)
    with pytest.raises(Unavailable, match=r"queue is full.*after 3 attempts") as raised:
        connect(server, retry=FAST).predict(IMAGE)
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert len(server.failures) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.FAILED_PRECONDITION, ServingClientError),
        (grpc.StatusCode.INTERNAL, ServingClientError),
    ],
    ids=str,
)
def test_nothing_else_is_tried_again(
    server: ReferenceServer, connect: MakeClient, code: grpc.StatusCode, kind: type[ServingClientError]
) -> None:
    server.failures.extend([(code, "the server's words")] * 2)
    with pytest.raises(kind, match="the server's words") as raised:
        connect(server, retry=FAST).predict(IMAGE)
    assert (raised.value.code, raised.value.details) == (code, "the server's words")
    assert type(raised.value) is kind
    assert len(server.failures) == 1


def test_retries_stay_inside_the_deadline(server: ReferenceServer, connect: MakeClient) -> None:
    server.failures.extend([UNAVAILABLE] * 100)
    client = connect(server, timeout=0.3, retry=Retry(attempts=100, initial_backoff=0.1))
    with pytest.raises((Unavailable, DeadlineExceeded)):
        client.predict(IMAGE)
    assert len(server.failures) >= 94  # 0.3 s have room for 6 pauses of at least 0.05 s


def test_deadline(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server)
    client.predict(IMAGE)
    server.delay = 1.0
    with pytest.raises(DeadlineExceeded) as raised:
        client.predict(IMAGE, timeout=0.05)
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(InvalidInput, match="timeout"):
        client.predict(IMAGE, timeout=0)


def test_no_server(connect: MakeClient) -> None:
    with serving() as gone:
        pass
    with pytest.raises(Unavailable, match=f"127.0.0.1:{gone.port} after 3 attempts"):
        connect(gone, retry=FAST).predict(IMAGE)


def test_backoff_grows_to_its_bound() -> None:
    retry = Retry(initial_backoff=0.1, max_backoff=0.5)
    assert [retry.backoff(attempt) for attempt in (1, 2, 3, 4, 1000)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    with pytest.raises(InvalidOption, match="at least 1 attempt"):
        Retry(attempts=0)


def test_replicas_take_turns_and_one_may_stop(connect: MakeClient) -> None:
    with serving() as first:
        with serving() as second:
            client = connect(f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}")
            client.predict(IMAGE)
            for _ in range(200):
                client.predict(IMAGE)
                if first.batches and second.batches:
                    break
            assert first.batches and second.batches
        for _ in range(20):
            client.predict(IMAGE)


def test_all_addresses_of_a_name_take_turns(connect: MakeClient) -> None:
    """A headless Service: one name, one port, an address a pod."""
    name = "serving.models.test"
    with dns_server({name: ["127.0.0.1", "127.0.0.2"]}) as dns, serving() as first:
        with serving(host="127.0.0.2", port=first.port) as second:
            client = connect(f"dns://127.0.0.1:{dns.port}/{name}:{first.port}")
            client.predict(IMAGE)
            for _ in range(200):
                client.predict(IMAGE)
                if first.batches and second.batches:
                    break
            alternating = len(first.batches), len(second.batches)
            for _ in range(20):
                client.predict(IMAGE)
            assert (len(first.batches), len(second.batches)) == tuple(count + 10 for count in alternating)
        for _ in range(20):
            client.predict(IMAGE)


def test_a_name_that_does_not_exist(connect: MakeClient) -> None:
    with dns_server({}) as dns, pytest.raises(Unavailable, match=r"nowhere\.test"):
        connect(f"dns://127.0.0.1:{dns.port}/nowhere.test:8500", retry=FAST).predict(IMAGE)


def test_wait_ready(server: ReferenceServer, connect: MakeClient) -> None:
    server.states = {5: LOADING}
    ready = threading.Timer(0.3, server.states.update, [{5: AVAILABLE}])
    ready.start()
    assert connect(server).wait_ready(10) == 5
    ready.join()


def test_wait_ready_for_a_server_that_starts_later(connect: MakeClient) -> None:
    with serving() as early:
        port = early.port
    done = threading.Event()

    def start() -> None:
        time.sleep(0.3)
        with serving(port=port):
            done.wait(10)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        assert connect(f"127.0.0.1:{port}").wait_ready(10) == 3
    finally:
        done.set()
        thread.join()


def test_wait_ready_for_a_label(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server, label="stable")
    with pytest.raises(DeadlineExceeded, match="Unrecognized servable version label: stable"):
        client.wait_ready(0.3)
    server.labels = {"stable": 3}
    assert client.wait_ready(10) == 3


def test_wait_ready_tells_what_it_saw_last(server: ReferenceServer, connect: MakeClient) -> None:
    server.states = {5: LOADING}
    with pytest.raises(DeadlineExceeded, match=r"not ready after 0.3 s: version 5 is LOADING"):
        connect(server).wait_ready(0.3)
    with pytest.raises(DeadlineExceeded, match=r"not ready after 0.3 s: .*NOT_FOUND"):
        connect(server, model="nobody").wait_ready(0.3)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of an authority, and of a key and a certificate for localhost, for server and client alike."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = CertificateAuthority()
    pair = authority.issue("serving")
    for name, content in (("ca", authority.certificate), ("cert", pair.certificate), ("key", pair.key)):
        (folder / f"{name}.pem").write_bytes(content)
    return folder


def server_credentials(folder: Path, *, ask_clients: bool) -> grpc.ServerCredentials:
    ca, cert, key = ((folder / f"{name}.pem").read_bytes() for name in ("ca", "cert", "key"))
    return grpc.ssl_server_credentials([(key, cert)], ca if ask_clients else None, ask_clients)


def test_tls(connect: MakeClient, certificates: Path) -> None:
    ca = certificates / "ca.pem"
    with serving(credentials=server_credentials(certificates, ask_clients=False)) as server:
        for tls in (Tls(ca=ca), Tls(ca=ca, server_name="localhost")):
            assert len(connect(server, tls=tls).predict(IMAGE)) == 1
        for wrong in (Tls(ca=ca, server_name="elsewhere"), Tls(), None):
            with pytest.raises(Unavailable):
                connect(server, tls=wrong, retry=FAST).predict(IMAGE)


def test_mutual_tls(connect: MakeClient, certificates: Path) -> None:
    ca, cert, key = (certificates / f"{name}.pem" for name in ("ca", "cert", "key"))
    with serving(credentials=server_credentials(certificates, ask_clients=True)) as server:
        assert len(connect(server, tls=Tls(ca=ca, cert=cert, key=key)).predict(IMAGE)) == 1
        with pytest.raises(Unavailable):
            connect(server, tls=Tls(ca=ca), retry=FAST).predict(IMAGE)


def test_certificates_that_cannot_be_used(connect: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "der").write_bytes(b"\x30\x82")
    with pytest.raises(InvalidOption, match="go together"):
        Tls(cert="cert.pem")
    for path, words in ((tmp_path / "der", "no PEM file"), (tmp_path / "nothing", "cannot read .*nothing: No such")):
        with pytest.raises(InvalidOption, match=words):
            connect("localhost", tls=Tls(ca=path))
