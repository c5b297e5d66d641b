"""The options of every command that calls a model server, and its errors in the command line's words."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mnist_tfx.contract.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from mnist_tfx.serving.client import Client, Tls

DEFAULT_ADDRESS = "localhost:8500"
OF_A_SERVER = ("address", "tls", "ca", "cert", "key", "server_name", "timeout")  # without effect where none is asked


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares MODEL, the address and TLS."""
    parser.add_argument("model", metavar="MODEL", help="the model's name on the server, such as fashion_mnist")
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        default=DEFAULT_ADDRESS,
        help="the server's gRPC address, or a target such as dns:///name:8500 (default: %(default)s)",
    )
    add_tls_arguments(parser)


def add_tls_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares TLS and mutual TLS; `tls_of` reads them."""
    parser.add_argument("--tls", action="store_true", help="use TLS; any option below does, too")
    parser.add_argument("--ca", metavar="FILE", help="trust these certificates (PEM) instead of the well-known ones")
    parser.add_argument("--cert", metavar="FILE", help="the client's certificate (PEM), for mutual TLS")
    parser.add_argument("--key", metavar="FILE", help="the client certificate's key (PEM)")
    parser.add_argument("--server-name", metavar="NAME", help="the name in the server's certificate, if not the host's")


def positive(kind: type[int] | type[float]) -> Any:
    """For argparse: reads a number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
        return value

    parse.__name__ = kind.__name__  # argparse's messages name the type by it
    return parse


def share(text: str) -> float:
    """For argparse: reads a number above 0, up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0, and at most 1, got {text}")
    return value


def port(text: str) -> int:
    """For argparse: reads the number of a port, or 0."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must be from 0 to 65535, got {text}")
    return value


def add_version_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the choice of the version that answers."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--version", type=int, metavar="N", help="this version (default: the latest)")
    choice.add_argument("--label", metavar="NAME", help="the version with this label, such as stable")


def tls_of(args: argparse.Namespace) -> Tls | None:
    """What the options of `add_tls_arguments` ask for; None for plain text. Raises serving.client.InvalidOption."""
    from mnist_tfx.serving.client import Tls

    files = {"ca": args.ca, "cert": args.cert, "key": args.key, "server_name": args.server_name}
    return Tls(**files) if args.tls or any(files.values()) else None


@contextmanager
def connected(args: argparse.Namespace, **options: Any) -> Iterator[Client]:
    """A client for the parsed options; what it raises inside the block becomes a PipelineError with the remedy."""
    from mnist_tfx.serving.client import Client, InvalidInput, InvalidOption, ServingClientError, SignatureNotFound

    try:
        pinned = {"version": getattr(args, "version", None), "label": getattr(args, "label", None)}
        with Client(args.address, args.model, tls=tls_of(args), **pinned, **options) as client:
            yield client
    except (InvalidInput, InvalidOption, SignatureNotFound) as error:
        raise UsageError(str(error)) from error
    except ServingClientError as error:
        raise PipelineError(f"{error}{_remedy(error, args)}") from error


def _remedy(error: Any, args: argparse.Namespace) -> str:
    from mnist_tfx.serving.client import DeadlineExceeded, ModelNotFound, Unavailable

    if isinstance(error, Unavailable | DeadlineExceeded):  # `wait` runs into its deadline, and quotes the last attempt
        words = str(error).lower()
        if "handshake" in words or "certificate" in words:
            return (
                ". The server's TLS and the options --tls, --ca, --cert, --key and --server-name do not fit together."
            )
        if "connect" in words or "resol" in words or "socket" in words:
            return f". Is a server running at {args.address}? Start one: mnist-tfx serve"
    if isinstance(error, ModelNotFound):
        return ". See what there is: mnist-tfx status"
    return ""
