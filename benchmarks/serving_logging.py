"""Our server with a request log beside itself without one."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from benchmarks.serving_load import Answers
from benchmarks.serving_report import CONCURRENCY, Aim, ratio
from benchmarks.serving_servers import MODEL, Server

RATES = {"log 10%": 0.1, "log all": 1.0}
"""The share of requests that is logged, by the server's name."""

_DROPPED = re.compile(r'request_log_count\{[^}]*status_code="(?!OK")\w+"\} (\d+)')


def config(base_path: Path, prefix: Path, rate: float) -> str:
    """A ModelServerConfig that logs a share of the requests."""
    return f"""model_config_list {{ config {{
      name: "{MODEL}" base_path: "{base_path}" model_platform: "tensorflow"
      logging_config {{
        log_collector_config {{ type: "tfrecord" filename_prefix: "{prefix}" }}
        sampling_config {{ sampling_rate: {rate} }}
      }}
    }} }}"""


def dropped(server: Server) -> int:
    """Sampled requests that a server did not write."""
    with urllib.request.urlopen(f"http://{server.rest}/monitoring/prometheus/metrics") as response:
        return sum(map(int, _DROPPED.findall(response.read().decode())))


def aims(loads: Mapping[str, Mapping[int, list[Answers]]], lost: int) -> list[Aim]:
    """What logging may cost, with what was measured; of all requests only the cost is told."""
    failed = sum(sum(one.errors.values()) for by in loads.values() for rounds in by.values() for one in rounds)
    found = [Aim("failed calls", failed, "<=", 0), Aim("records dropped", lost, "<=", 0)]
    for concurrency in CONCURRENCY:
        with_log, without = (
            [one.per_second for one in loads[name][concurrency]] for name in (next(iter(RATES)), "ours")
        )
        what = f"throughput with a log of 10% of without, at concurrency {concurrency}"
        found.append(Aim(what, ratio(with_log, without), ">=", 0.95))
    return found
