"""Addresses, retries, deadlines, replicas, waiting and TLS, of both clients, over a socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mnist_tfx.serving.client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidInput,
    InvalidOption,
    ResourceExhausted,
    Retry,
    ServingClientError,
    Tls,
    Unavailable,
)
from mnist_tfx.serving.client.channel import channel_options, resolve_target
from tests.fixtures.any_client import MakeClient
from tests.fixtures.certificates import CertificateAuthority
from tests.fixtures.dns_server import dns_server
from tests.fixtures.reference_server import AVAILABLE, LOADING, MODEL, ReferenceServer, serving

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
    [
        ("", "no address"),
        ("a:1,b:1", "ipv4:"),
        ("http://serving:8501/", r"Leave out the scheme: serving:8501\."),
        ("serving:99999", "1 to 65535"),
        ("serving:0", "1 to 65535"),
    ],
)
def test_what_is_no_address(address: str, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        resolve_target(address)


@contextmanager
def started_after(seconds: float, port: int) -> Iterator[None]:
    """A server that starts in a while, on a port that is free now."""
    done = threading.Event()

    def start() -> None:
        if not done.wait(seconds):
            with serving(port=port):
                done.wait(30)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_unavailable_and_cancelled_are_tried_again(server: ReferenceServer, connect: MakeClient) -> None:
    server.failures.extend([UNAVAILABLE, (grpc.StatusCode.CANCELLED, "")])
    assert len(connect(server, retry=FAST).predict(IMAGE)) == 1
    assert not server.failures


def test_retries_end(server: ReferenceServer, connect: MakeClient) -> None:
    server.failures.extend([UNAVAILABLE] * 4)
    with pytest.raises(Unavailable, match=r"queue is full.*after 3 attempts") as raised:
        connect(server, retry=FAST).predict(IMAGE)
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert len(server.failures) == 1


def test_a_server_that_goes_on_cancelling_is_told(server: ReferenceServer, connect: MakeClient) -> None:
    server.failures.extend([(grpc.StatusCode.CANCELLED, "the server stops")] * 3)
    with pytest.raises(Unavailable, match=r"the server stops \(CANCELLED.*after 3 attempts") as raised:
        connect(server, retry=FAST).predict(IMAGE)
    assert raised.value.code is grpc.StatusCode.CANCELLED


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


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), 1e10, "soon"])
def test_what_is_no_timeout(server: ReferenceServer, connect: MakeClient, seconds: Any) -> None:
    client = connect(server)
    for call in (lambda: client.predict(IMAGE, timeout=seconds), lambda: client.wait_ready(seconds)):
        with pytest.raises(InvalidInput, match="a timeout is a number of seconds above 0"):
            call()
    with pytest.raises(InvalidOption, match="a timeout is a number of seconds above 0"):
        connect(server, timeout=seconds)


def test_a_timeout_is_for_the_whole_call(server: ReferenceServer, connect: MakeClient) -> None:
    client = connect(server, batch_size=1, in_flight=1)
    client.predict(IMAGE)
    server.delay = 0.1
    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.predict(np.zeros((20, 28, 28), np.uint8), timeout=0.5)
    assert time.monotonic() - begin < 1.5
    assert sum(len(part) for part in client.predict_stream(np.zeros((7, 28, 28), np.uint8), timeout=0.5)) == 7


def test_a_server_that_restarts_is_waited_for(connect: MakeClient) -> None:
    """Longer than a handful of attempts would last; the second begins while no server is there."""
    with serving() as first:
        client = connect(first)
        client.predict(IMAGE)
    with started_after(2.5, first.port):
        assert len(client.predict(IMAGE, timeout=20)) == 1


def test_a_server_that_stops_during_a_call_is_waited_for(connect: MakeClient) -> None:
    with serving() as first:
        client = connect(first)
        client.predict(IMAGE)
        first.delay = 2.0
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.predict, IMAGE, timeout=20)
            time.sleep(0.3)
            first.delay = 0.0
            first.stop()
            with serving(port=first.port):
                assert len(answer.result()) == 1


def test_closing_ends_a_call_in_words(server: ReferenceServer) -> None:
    with Client(f"127.0.0.1:{server.port}", MODEL) as client, ThreadPoolExecutor(1) as pool:
        client.predict(IMAGE)
        server.delay = 1.0
        answer = pool.submit(client.predict, IMAGE)
        time.sleep(0.3)
        client.close()
        with pytest.raises(ServingClientError, match="the client is closed"):
            answer.result()


def test_closing_ends_an_asynchronous_call_in_words_and_cancelling_cancels(server: ReferenceServer) -> None:
    async def run() -> None:
        client = AsyncClient(f"127.0.0.1:{server.port}", MODEL)
        await client.predict(IMAGE)
        server.delay = 1.0
        cancelled, closed = (asyncio.create_task(client.predict(IMAGE)) for _ in range(2))
        await asyncio.sleep(0.3)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await client.close()
        with pytest.raises(ServingClientError, match="the client is closed"):
            await closed

    asyncio.run(run())


def test_an_asynchronous_client_belongs_to_one_loop(server: ReferenceServer) -> None:
    client = AsyncClient(f"127.0.0.1:{server.port}", MODEL)

    async def ask() -> None:
        await client.predict(IMAGE)

    asyncio.run(ask())
    with pytest.raises(ServingClientError, match="belongs to the event loop of its first call"):
        asyncio.run(ask())


def test_a_proxy_in_the_environment_does_not_get_calls_to_this_machine(
    server: ReferenceServer, connect: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.0)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "no_grpc_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        for host in ("127.0.0.1", "localhost", "dns:///localhost", "ipv4:127.0.0.1"):
            assert len(connect(f"{host}:{server.port}").predict(IMAGE, timeout=5)) == 1
        with pytest.raises(BlockingIOError):
            proxy.accept()
        with pytest.raises((Unavailable, DeadlineExceeded), match="has http_proxy: calls go through that proxy"):
            connect("serving.example:8500").predict(IMAGE, timeout=0.5)


def test_pings_are_no_more_frequent_than_servers_take() -> None:
    """Both clocks turned 30 times faster: a server's 5 minutes between pings, of which it lets 2 pass, and ours."""
    options = dict(channel_options("localhost", None))
    options["grpc.keepalive_time_ms"] //= 30
    options["grpc.http2.max_pings_without_data"] = 0  # gRPC would only delay the punishment

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(7)
        return request

    handler = grpc.method_handlers_generic_handler("test", {"Call": grpc.unary_unary_rpc_method_handler(answer)})
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, [handler], options=[("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}", list(options.items())) as channel:
            assert channel.unary_unary("/test/Call")(b"a long call", timeout=20) == b"a long call"
        server.stop(0).wait()


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
    with started_after(0.3, port):
        assert connect(f"127.0.0.1:{port}").wait_ready(10) == 3


def test_wait_ready_bridges_a_server_that_does_not_know_the_model_yet(
    server: ReferenceServer, connect: MakeClient
) -> None:
    server.failures.extend([(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model kmnist")] * 3)
    assert connect(server).wait_ready(10) == 3


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
