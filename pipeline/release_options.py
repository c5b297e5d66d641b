"""What the commands `rollback`, `canary` and `promote` have in common: their options, and what they print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pipeline.home import Home

if TYPE_CHECKING:
    from serving.releases.plans import Plan
    from serving.releases.servers import RunningServer
    from serving.releases.state import ModelState

DEFAULT_ADDRESS = "127.0.0.1:8500"


def add_release_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the model and the options."""
    parser.add_argument("model", metavar="MODEL", help="a model's name, such as mnist")
    add_address(parser)
    parser.add_argument("--no-wait", action="store_true", help="change the files without asking a server")
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long a server may take for each step (default: %(default)g)",
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; goes into the record that `status` shows")
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def add_address(parser: argparse.ArgumentParser) -> None:
    """Declares `--address`."""
    parser.add_argument(
        "--address",
        action="append",
        metavar="HOST:PORT",
        help=f"gRPC port of a server that serves this home; may be repeated (default: {DEFAULT_ADDRESS})",
    )


def open_servers(stack: ExitStack, addresses: list[str] | None) -> list[RunningServer]:
    """The servers named by `--address`, closed with the stack."""
    from serving.releases.servers import RunningServer

    return [stack.enter_context(RunningServer(address)) for address in addresses or [DEFAULT_ADDRESS]]


def make_release(args: argparse.Namespace, decide: Callable[[ModelState], Plan]) -> int:
    """Decides and makes a change, then prints what was changed; returns the exit code."""
    from pipeline.release_view import released_json, released_lines
    from serving.releases.apply import release

    home = Home.resolve(args.home)
    with ExitStack() as stack:
        servers = [] if args.no_wait else open_servers(stack, args.address)
        released = release(
            home.serving_root, args.model, decide, servers=servers, timeout=args.timeout, reason=args.reason
        )
        # None: it serves the model as the files say; `release` has waited for that.
        problems = {one.address: None if one.states(args.model) is not None else one.problem for one in servers}
    if args.json:
        print(json.dumps(released_json(released, problems), indent=2))
    else:
        print("\n".join(released_lines(released, problems)))
    if released.plan.pin is None and home.is_locked():
        print(
            f"note: a run is going on in {home.root}. What it pushes goes live at once. To keep version "
            f"{released.plan.after} live: mnist-tfx promote {args.model} {released.plan.after}",
            file=sys.stderr,
        )
    return 0
