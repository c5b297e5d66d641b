"""Where the server listens: every address that `--host` stands for, for gRPC and REST alike."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from mnist_tfx.contract.errors import PipelineError

ALL_ADDRESSES = "::"
_WILDCARDS = ("", "*", "0.0.0.0", ALL_ADDRESSES)
_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # a name may stand for addresses that this machine lacks


def addresses_of(host: str) -> list[str]:
    """The numeric addresses of a host that are this machine's; a wildcard stays one, for IPv6 and IPv4 together.

    gRPC by itself takes 0.0.0.0 for both, and is content with one of the addresses of a name.

    Raises:
        PipelineError: the name is unknown, or no address of this machine.
    """
    if host in _WILDCARDS:
        return [ALL_ADDRESSES]
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise PipelineError(f"--host {host}: {error}. Give a name or an address of this machine.") from error
    addresses = [address for address in dict.fromkeys(str(entry[4][0]) for entry in found) if _is_ours(address)]
    if not addresses:
        raise PipelineError(f"--host {host} is no address of this machine.")
    return addresses


def is_loopback(addresses: Sequence[str]) -> bool:
    """Whether only this machine reaches all of them."""
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def bracketed(host: str) -> str:
    """The host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def listening_sockets(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets that listen on a port of each address (0: any port, the same for all). Raises OSError."""
    sockets: list[socket.socket] = []
    with ExitStack() as failed:
        for address in addresses:
            sockets.append(failed.enter_context(_listen(address, port)))
            port = sockets[0].getsockname()[1]
        failed.pop_all()
    return sockets


def _listen(address: str, port: int) -> socket.socket:
    if address == ALL_ADDRESSES and not socket.has_dualstack_ipv6():
        address = "0.0.0.0"
    is_ipv6 = ":" in address
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    return socket.create_server((address, port), family=family, dualstack_ipv6=address == ALL_ADDRESSES)


def _is_ours(address: str) -> bool:
    try:
        _listen(address, 0).close()
    except OSError as error:
        return error.errno not in _NOT_OURS
    return True
