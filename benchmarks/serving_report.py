"""What benchmarks.serving says: medians over rounds, aims and whether they are met, tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.serving_codec import CodecTimes
from benchmarks.serving_load import Answers, percentile
from benchmarks.serving_rollover import Rollover

CONCURRENCY = (1, 16)
BATCH = 64


@dataclass(frozen=True)
class Figures:
    """One server under one load; medians of the rounds."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int  # in all rounds


@dataclass(frozen=True)
class Aim:
    """Something that should hold."""

    what: str
    value: float
    relation: str  # "<=" or ">="
    limit: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.relation == "<=" else self.value >= self.limit


def figures(rounds: Iterable[Answers]) -> Figures:
    """The medians over rounds."""
    rounds = list(rounds)
    return Figures(
        statistics.median(one.per_second for one in rounds),
        statistics.median(percentile(one.latencies, 50) for one in rounds) * 1e3,
        statistics.median(percentile(one.latencies, 99) for one in rounds) * 1e3,
        sum(sum(one.errors.values()) for one in rounds),
    )


def ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def aims(
    loads: Mapping[str, Mapping[int, list[Answers]]],
    images: Mapping[str, list[float]],
    codec: CodecTimes,
    rollover: Rollover,
) -> list[Aim]:
    """Each aim with what was measured."""
    most = max(CONCURRENCY)
    found = []
    for name, least in (("MLServer", 2.5), ("unbatched", 1.5)):
        if name in loads:
            pair = loads["ours"][most], loads[name][most]
            rates, tails = (
                [[read(one) for one in rounds] for rounds in pair]
                for read in (lambda one: one.per_second, lambda one: percentile(one.latencies, 99))
            )
            found.append(Aim(f"throughput of {name}'s at concurrency {most}", ratio(*rates), ">=", least))
            found.append(Aim(f"p99 of {name}'s at concurrency {most}", ratio(*tails), "<=", 1.0))
    failed = sum(sum(one.errors.values()) for rounds in loads["ours"].values() for one in rounds)
    served, alone = images[f"server, concurrency {most}"], images["engine, 1 caller"]
    return [
        *found,
        Aim("failed calls", failed, "<=", 0),
        Aim(f"images/s in batches of {BATCH}, of the engine's with no server", ratio(served, alone), ">=", 0.75),
        Aim("client: us to encode an image", codec.encode, "<=", 10),
        Aim("client: us to decode an answer", codec.decode, "<=", 10),
        Aim(
            "rollover: failed calls and answers from the old version", rollover.errors + rollover.late_answers, "<=", 0
        ),
        Aim("rollover: p99 of the second around the swap, of normal", rollover.swap_p99 / rollover.normal_p99, "<=", 3),
    ]


def show(result: Mapping[str, Any]) -> None:
    """Prints the result as text."""
    show_loads(result["one_image_a_request"])
    for name, why in result["left_out"].items():
        print(f"  {name} is left out: {why}")
    print(f"\n{BATCH} images a request{'images/s':>26}")
    for name, rate in result["images_per_second_of_batches"].items():
        print(f"  {name:28} {rate:14,.0f}")
    print("\nclient, without the call        encode us  decode us")
    for batch, times in result["client_us_a_request"].items():
        print(f"  request of {batch:<3} images {times['encode']:18.1f} {times['decode']:10.1f}")
    rollover = result["rollover"]
    print(f"\nrollover at concurrency {max(CONCURRENCY)}: {rollover['answers']} answers, {rollover['errors']} errors")
    print(
        f"  p99 ms: normal {rollover['normal_p99'] * 1e3:.1f}, while the new version loads "
        f"({rollover['load_seconds']:.1f} s) {rollover['loading_p99'] * 1e3:.1f}, "
        f"in the second around the swap {rollover['swap_p99'] * 1e3:.1f}"
    )
    show_aims(result["aims"])


def show_loads(tables: Mapping[str, Any]) -> None:
    """Prints each server's figures, and of ours."""
    print("one image a request" + f"{'requests/s':>25} {'of ours':>8} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7}")
    for concurrency in CONCURRENCY:
        for name, by in tables.items():
            one, ours = by[concurrency], tables["ours"][concurrency]
            rate = one["requests_per_second"]
            print(
                f"  concurrency {concurrency:<3} {name:12} {rate:14,.0f} {rate / ours['requests_per_second']:8.2f} "
                f"{one['p50_ms']:8.2f} {one['p99_ms']:8.2f} {one['errors']:7}"
            )


def show_aims(found: Iterable[Aim]) -> None:
    """Prints what should hold, and whether it does."""
    print(f"\n{'aims':66} {'measured':>9} {'aim':>8}")
    for aim in found:
        print(
            f"  {aim.what:64} {aim.value:9.2f} {f'{aim.relation} {aim.limit:g}':>8}  {'met' if aim.met else 'MISSED'}"
        )
