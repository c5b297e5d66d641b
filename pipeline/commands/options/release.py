"""What the commands `rollback`, `canary` and `promote` have in common: their options, and what they print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.options.refused import refuse_given
from mnist_tfx.pipeline.commands.options.server import (
    DEFAULT_ADDRESS,
    OF_A_SERVER,
    add_tls_arguments,
    positive,
    tls_of,
)
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from mnist_tfx.serving.releases.plans import Plan
    from mnist_tfx.serving.releases.servers import RunningServer
    from mnist_tfx.serving.releases.state import ModelState

_TIMEOUT = 60.0


def add_release_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the model and the options."""
    parser.add_argument("model", metavar="MODEL", help="a model's name, such as mnist")
    add_server_arguments(parser)
    parser.add_argument("--no-wait", action="store_true", help="change the files without asking a server")
    parser.add_argument(
        "--timeout",
        type=positive(float),
        metavar="SECONDS",
        help=f"how long a server may take for each step (default: {_TIMEOUT:g})",
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; goes into the record that `status` shows")
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `--address`, and TLS for it."""
    parser.add_argument(
        "--address",
        action="append",
        metavar="HOST:PORT",
        help=f"gRPC port of a server that serves this home; may be repeated (default: {DEFAULT_ADDRESS})",
    )
    add_tls_arguments(parser)


def open_servers(stack: ExitStack, args: argparse.Namespace, model: str) -> list[RunningServer]:
    """The servers named by `--address`, closed with the stack.

    Raises:
        UsageError: an address or a PEM file is none.
    """
    from mnist_tfx.serving.client import InvalidOption
    from mnist_tfx.serving.releases.servers import RunningServer

    try:
        tls, addresses = tls_of(args), args.address or [DEFAULT_ADDRESS]
        return [stack.enter_context(closing(RunningServer(address, model, tls))) for address in addresses]
    except InvalidOption as error:
        raise UsageError(str(error)) from error


def make_release(args: argparse.Namespace, decide: Callable[[ModelState], Plan]) -> int:
    """Decides and makes a change, then prints what was changed; returns the exit code."""
    from mnist_tfx.pipeline.commands.release_view import released_json, released_lines
    from mnist_tfx.serving.releases.apply import release

    if args.no_wait:
        refuse_given(args, OF_A_SERVER, "--no-wait asks no server")
    home, timeout = Home.resolve(args.home), args.timeout or _TIMEOUT
    with ExitStack() as stack:
        servers = [] if args.no_wait else open_servers(stack, args, args.model)
        released = release(home.serving_root, args.model, decide, servers=servers, timeout=timeout, reason=args.reason)
        # None: it serves the model as the files say; `release` has waited for that.
        problems = {one.address: None if one.states() is not None else one.problem for one in servers}
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
