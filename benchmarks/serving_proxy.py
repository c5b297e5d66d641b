"""Our server behind the logging proxy, beside itself without; and what the client's own log takes instead."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving_load import Answers, Generator, percentile
from benchmarks.serving_report import CONCURRENCY, Aim
from benchmarks.serving_servers import CannotRun, Server
from mnist_tfx.serving.client import RequestLog
from mnist_tfx.serving.client.request_log import resolved_spec

PROXY = "proxy 10%"
_SHARE = 0.1
_CALLS = 500


@contextmanager
def proxied(server: Server, work: Path) -> Iterator[Server]:
    """A proxy in front of a server, which logs a tenth of what goes through it."""
    command = [sys.executable, "-m", "mnist_tfx.serving.client.proxy", "--listen", "127.0.0.1:0"]
    command += ["--server", server.address, "--folder", str(work / "requests"), "--sampling", str(_SHARE)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        found = re.fullmatch(r"listening on port (\d+)\n", said)
        if not found:
            raise CannotRun(f"the proxy does not start: {said}")
        yield Server(f"127.0.0.1:{found[1]}", process)
    finally:
        process.terminate()
        process.communicate()


def client_log_us(server: Server, work: Path) -> float:
    """Microseconds that the client's log takes of each call that it logs."""
    [method] = [server.method(1)]
    with Generator(method) as generator:
        answer = generator.once()
    log, request = RequestLog(work / "client"), method.requests[0]
    started = time.perf_counter()
    for _ in range(_CALLS):
        log.add("predict_log", "", lambda: (resolved_spec("predict_log", answer), request, answer))
    seconds = time.perf_counter() - started
    log.close()
    return seconds / _CALLS * 1e6


def aims(loads: Mapping[str, Mapping[int, list[Answers]]]) -> list[Aim]:
    """What the proxy may add, with what was measured; what it leaves of the throughput is in the table."""
    failed = sum(sum(one.errors.values()) for by in loads.values() for rounds in by.values() for one in rounds)
    one = min(CONCURRENCY)
    pairs = zip(loads[PROXY][one], loads["ours"][one], strict=True)
    added = [percentile(a.latencies, 50) - percentile(b.latencies, 50) for a, b in pairs]
    what = f"ms that the proxy adds at concurrency {one} (p50, median of rounds)"
    return [Aim("failed calls", failed, "<=", 0), Aim(what, statistics.median(added) * 1e3, "<=", 1.0)]
