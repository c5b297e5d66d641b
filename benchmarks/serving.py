"""Our model server beside an unbatched one and MLServer; its client; a rollover under load. Same machine, one run.

    .venv/bin/python -m benchmarks.serving [--hostile | --logging | --proxy] [--home DIR] [--quick] [--json]

The model is 784-512-512-10, the newest that was pushed for mnist. Each server is a process of its own; they and the
load generator share the cores and take turns in rounds, so that noise hits all alike. Every figure is the median of the
rounds; a ratio is the median of the rounds' ratios.

ours       `mnist-tfx serve` with its defaults: dynamic batching
unbatched  grpcio's server with a thread pool around our engine (benchmarks/serving_unbatched.py)
MLServer   the same weights in NumPy, over the V2 protocol, with its fastest settings (benchmarks/serving_servers.py)

With --hostile instead: what innocent callers meet beside each kind of attack (benchmarks/serving_hostile.py).
With --logging instead: ours with a request log beside ours without (benchmarks/serving_logging.py).
With --proxy instead: ours behind the logging proxy (benchmarks/serving_proxy.py).

MLServer lives in .tools/mlserver, which the first run makes. Exits with 1 where an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import (
    serving_codec,
    serving_hostile,
    serving_logging,
    serving_proxy,
    serving_report,
    serving_rollover,
    serving_servers,
)
from benchmarks.serving_load import Answers, Generator
from benchmarks.serving_report import BATCH, CONCURRENCY, figures
from benchmarks.serving_servers import CannotRun, EngineAlone, Server
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.pipeline.home import Home

_TOLERANCE = 1e-4  # between the servers' probabilities: NumPy and TensorFlow sum in different orders


@dataclass(frozen=True)
class Plan:
    """How long it all takes."""

    rounds: int
    seconds: float  # of each measurement in a round
    attack_seconds: float


FULL, QUICK = Plan(8, 2.0, 10.0), Plan(2, 1.0, 3.0)


def check_agreement(servers: Mapping[str, Server]) -> None:
    """All servers must give the same answers. Raises CannotRun."""
    answers = {}
    for name, server in servers.items():
        with Generator(server.method(1)) as generator:
            answers[name] = server.probabilities(generator.once())
    first = answers["ours"]
    for name, probabilities in answers.items():
        if not np.allclose(probabilities, first, rtol=0, atol=_TOLERANCE):
            raise CannotRun(f"{name} answers {probabilities.tolist()}, and ours {first.tolist()}")


def side_by_side(servers: Mapping[str, Server], plan: Plan) -> dict[str, dict[int, list[Answers]]]:
    """The rounds' answers by server and concurrency, one image a request."""
    found: dict[str, dict[int, list[Answers]]] = {name: defaultdict(list) for name in servers}
    with ExitStack() as stack:
        generators = {name: stack.enter_context(Generator(server.method(1))) for name, server in servers.items()}
        for generator in generators.values():
            generator.run(max(CONCURRENCY), 1.0)
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds} (load average {os.getloadavg()[0]:.1f})")
            for concurrency in CONCURRENCY:
                for name, generator in generators.items():
                    found[name][concurrency].append(generator.run(concurrency, plan.seconds))
    return found


def tables(loads: Mapping[str, Mapping[int, list[Answers]]]) -> dict[str, dict[int, dict[str, float]]]:
    """Each server's figures by concurrency."""
    return {name: {c: asdict(figures(rounds)) for c, rounds in by.items()} for name, by in loads.items()}


def batches(server: Server, engine: EngineAlone, plan: Plan) -> dict[str, list[float]]:
    """Images a second in each round, in requests of BATCH: through the server, and the engine alone."""
    cores = cpu_count()
    found: dict[str, list[float]] = defaultdict(list)
    with Generator(server.method(BATCH)) as generator:
        generator.run(max(CONCURRENCY), 1.0)
        engine.images_per_second(BATCH, cores, 0.5)
        for _ in range(plan.rounds):
            found["engine, 1 caller"].append(engine.images_per_second(BATCH, 1, plan.seconds / 2))
            found[f"engine, {cores} callers"].append(engine.images_per_second(BATCH, cores, plan.seconds / 2))
            for concurrency in CONCURRENCY:
                per_second = generator.run(concurrency, plan.seconds / 2).per_second
                found[f"server, concurrency {concurrency}"].append(per_second * BATCH)
    return found


def run(version: Path, work: Path, plan: Plan) -> dict[str, Any]:
    """Measures everything; the result is JSON-able but for its aims. Raises CannotRun."""
    weights = work / "weights.npz"
    serving_servers.write_weights(version, weights)
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        say("starting the servers")
        servers = {
            "ours": stack.enter_context(serving_servers.ours(version.parent, work / "ours.log")),
            "unbatched": stack.enter_context(serving_servers.unbatched(version, work / "unbatched.log")),
        }
        try:
            servers["MLServer"] = stack.enter_context(serving_servers.mlserver(weights, work / "mlserver"))
            check_agreement(servers)
        except (CannotRun, OSError) as error:
            left_out["MLServer"] = str(error)
            servers.pop("MLServer", None)
        engine = stack.enter_context(serving_servers.engine_alone(version, work / "engine.log"))
        loads = side_by_side(servers, plan)
        say(f"requests of {BATCH} images")
        images = batches(servers["ours"], engine, plan)
        say("the client")
        codec = {}
        for batch in (1, BATCH):
            with Generator(servers["ours"].method(batch)) as generator:
                codec[batch] = serving_codec.measure(generator.once(), batch)
    say("a rollover under load")
    rollover = serving_rollover.measure(version, work, max(CONCURRENCY))

    return {
        "model": str(version),
        "left_out": left_out,
        "one_image_a_request": tables(loads),
        "images_per_second_of_batches": {name: statistics.median(rates) for name, rates in images.items()},
        "client_us_a_request": {batch: asdict(times) for batch, times in codec.items()},
        "rollover": asdict(rollover),
        "aims": serving_report.aims(loads, images, codec[1], rollover),
    }


def attacked(version: Path, work: Path, plan: Plan) -> dict[str, Any]:
    """Measures what attacks do to others. Raises CannotRun."""
    found = serving_hostile.measure(version, work, plan.attack_seconds, say)
    return {"hostile": [asdict(one) for one in found], "aims": serving_hostile.aims(found)}


def logging(version: Path, work: Path, plan: Plan) -> dict[str, Any]:
    """Measures what a request log costs. Raises CannotRun."""
    with ExitStack() as stack:
        say("starting the servers")
        servers = {"ours": stack.enter_context(serving_servers.ours(version.parent, work / "ours.log"))}
        for name, rate in serving_logging.RATES.items():
            config = work / f"{rate}.config"
            config.write_text(serving_logging.config(version.parent, work / f"requests-{rate}", rate))
            servers[name] = stack.enter_context(serving_servers.ours(version.parent, work / f"{rate}.log", config))
        loads = side_by_side(servers, plan)
        dropped = sum(map(serving_logging.dropped, servers.values()))
    return {"one_image_a_request": tables(loads), "aims": serving_logging.aims(loads, dropped)}


def proxy(version: Path, work: Path, plan: Plan) -> dict[str, Any]:
    """Measures what the logging proxy costs. Raises CannotRun."""
    with ExitStack() as stack:
        say("starting the servers")
        ours = stack.enter_context(serving_servers.ours(version.parent, work / "ours.log"))
        servers = {"ours": ours, serving_proxy.PROXY: stack.enter_context(serving_proxy.proxied(ours, work))}
        loads = side_by_side(servers, plan)
        say("the client's log")
        client = serving_proxy.client_log_us(ours, work)
    return {"one_image_a_request": tables(loads), "client_log_us": client, "aims": serving_proxy.aims(loads)}


def say(words: str) -> None:
    """Progress, on stderr."""
    print(f"{words} ...", file=sys.stderr, flush=True)


def main() -> int:
    """Measures and prints; 0 where all aims are met."""
    parser = argparse.ArgumentParser(description="Compare our model server with an unbatched one and with MLServer.")
    parser.add_argument("--home", metavar="DIR", help="a home with a model of mnist (default: as for mnist-tfx)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--hostile", action="store_true", help="attack our server instead")
    instead.add_argument("--logging", action="store_true", help="compare our server with a request log and without")
    instead.add_argument("--proxy", action="store_true", help="compare our server behind the logging proxy and without")
    parser.add_argument("--quick", action="store_true", help="two short rounds instead of eight")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    args = parser.parse_args()
    version = serving_servers.newest_model(Home.resolve(args.home))
    with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-") as work:
        try:
            plan = QUICK if args.quick else FULL
            measure = attacked if args.hostile else logging if args.logging else proxy if args.proxy else run
            result = measure(version, Path(work), plan)
        except CannotRun as error:
            print(error, file=sys.stderr)
            return 1
    if args.json:
        told = [asdict(aim) | {"met": aim.met} for aim in result["aims"]]
        print(json.dumps(result | {"aims": told}, indent=2))
    elif args.hostile:
        serving_hostile.show([serving_hostile.Suffered(**one) for one in result["hostile"]])
        serving_report.show_aims(result["aims"])
    elif args.logging or args.proxy:
        if args.proxy:
            print(f"the client's own log takes {result['client_log_us']:.0f} us of a call that it logs\n")
        serving_report.show_loads(result["one_image_a_request"])
        serving_report.show_aims(result["aims"])
    else:
        serving_report.show(result)
    return 0 if all(aim.met for aim in result["aims"]) else 1


if __name__ == "__main__":
    sys.exit(main())
