"""`mnist-tfx bench`: throughput and latency of a served model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.options.server import add_server_arguments, add_version_arguments, connected, positive

if TYPE_CHECKING:
    from mnist_tfx.serving.client import Client
    from mnist_tfx.serving.client.load import LoadReport

SUMMARY = "Measure a served model's throughput and latency."
EXAMPLE = "mnist-tfx bench fashion_mnist --concurrency 16 --duration 10"

_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
_RATE_CONCURRENCY = 64  # with a rate, enough that a request seldom waits for a free caller


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_server_arguments(parser)
    add_version_arguments(parser)
    parser.add_argument(
        "--concurrency",
        type=positive(int),
        metavar="N",
        help=f"at most N requests at once (default: 1; with --rate: {_RATE_CONCURRENCY})",
    )
    parser.add_argument(
        "--rate",
        type=positive(float),
        metavar="R",
        help="send R requests a second and count latency from the intended time (default: as fast as answers come)",
    )
    parser.add_argument("--batch", type=positive(int), default=1, metavar="N", help="images a request (default: 1)")
    parser.add_argument("--duration", type=positive(float), default=10.0, metavar="S", help="seconds (default: 10)")
    parser.add_argument(
        "--warmup", type=float, default=1.0, metavar="S", help="seconds of load before anything counts (default: 1)"
    )
    parser.add_argument("--timeout", type=positive(float), default=10.0, metavar="S", help="for a call (default: 10)")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints the measurement; 1 if no request was answered."""
    from mnist_tfx.serving.client import Retry
    from mnist_tfx.serving.client.load import Load, measure

    if not args.warmup >= 0:
        raise UsageError(f"--warmup must be at least 0 s, got {args.warmup}.")
    concurrency = args.concurrency or (_RATE_CONCURRENCY if args.rate else 1)
    load = Load(concurrency, args.batch, args.duration, args.warmup, args.rate)
    options = {"retry": Retry(attempts=1), "batch_size": args.batch, "timeout": args.timeout}
    with connected(args, **options) as client:
        images = _noise(client, args.batch)
        client.predict(images)  # a server that cannot answer at all is told in words, not measured
        print(f"measuring {client.model} at {args.address} for {args.duration:g} s ...", file=sys.stderr)
        report = measure(client, images, load)
    print(json.dumps(_as_json(report), indent=2) if args.json else _as_text(report))
    return 0 if report.latencies else 1


def _noise(client: Client, count: int) -> Any:
    from mnist_tfx.serving.client.load import random_images

    signature = client.metadata().signatures.get("images")
    spec = signature.inputs.get("images") if signature else None
    if spec is None or spec.dtype != "uint8" or spec.shape is None or None in spec.shape[1:]:
        raise UsageError(
            f"bench sends noise to the signature `images` of uint8 images of a known size; {client.model} has "
            f"{f'images: {spec}' if spec else 'no such signature'}."
        )
    return random_images([size or 0 for size in spec.shape[1:]], count)


def _as_json(report: LoadReport) -> dict[str, Any]:
    milliseconds = {name: report.percentile(percent) for name, percent in _PERCENTILES.items()}
    return {
        "concurrency": report.load.concurrency,
        "rate": report.load.rate,
        "batch": report.load.batch,
        "seconds": round(report.seconds, 3),
        "requests": len(report.latencies),
        "requests_per_second": round(report.requests_per_second, 1),
        "images_per_second": round(report.images_per_second, 1),
        "latency_ms": {name: None if one is None else round(one * 1e3, 3) for name, one in milliseconds.items()},
        "errors": dict(report.errors),
    }


def _as_text(report: LoadReport) -> str:
    told = _as_json(report)
    latency = "  ".join(f"{name} {value}" for name, value in told["latency_ms"].items() if value is not None)
    counted = "from the intended time" if report.load.rate else "from sending"
    asked = f", {report.load.rate:g}/s asked for" if report.load.rate else ""
    lines = [
        f"load      concurrency {report.load.concurrency}, batch {report.load.batch}, {told['seconds']} s{asked}",
        f"answers   {told['requests']}: {told['requests_per_second']} requests/s, {told['images_per_second']} images/s",
        f"latency   {latency or 'none'} ms, counted {counted}",
        f"errors    {sum(report.errors.values())}",
        *(f"          {count} x {report.words[code]}" for code, count in report.errors.most_common()),
    ]
    return "\n".join(lines)
