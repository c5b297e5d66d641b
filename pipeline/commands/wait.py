"""`mnist-tfx wait`: waits until a served model answers."""

from __future__ import annotations

import argparse
import json

from mnist_tfx.pipeline.commands.options.server import add_server_arguments, add_version_arguments, connected, positive

SUMMARY = "Wait until a model (or its version or label) is served."
EXAMPLE = "mnist-tfx wait fashion_mnist --timeout 60"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_server_arguments(parser)
    add_version_arguments(parser)
    parser.add_argument(
        "--timeout", type=positive(float), default=60.0, metavar="S", help="seconds to wait (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object: model, version, address")


def run(args: argparse.Namespace) -> int:
    """Prints the version that answers; fails if there is none in time."""
    with connected(args) as client:
        version = client.wait_ready(args.timeout)
    if args.json:
        print(json.dumps({"model": args.model, "version": version, "address": args.address}))
    else:
        print(f"{args.model} version {version} is available at {args.address}")
    return 0
