"""How a client reaches its servers: addresses, TLS, load balancing, keepalive and retries."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import grpc

from mnist_tfx.serving.client.errors import InvalidOption

DEFAULT_PORT = 8500
MAX_ANSWER_BYTES = 64 << 20

_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):")
_HOST = re.compile(r"[\w.-]+|\[[0-9a-fA-F:.%\w]+\]")
_HOST_AND_PORT = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.%\w]+\]):(\d{1,5})", re.ASCII)
_MAX_PORT = 65_535
_LOOPBACK = re.compile(r"(dns:(//[^/]*/)?|ipv[46]:)?(localhost|127\.[\d.]+|\[?::1\]?)(:\d+)?$|unix(-abstract)?:")
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # gRPC takes the first that is set (http_proxy_mapper.cc)

# A server that is back is used again within seconds; gRPC's default backs off for up to two minutes.
RECONNECT: Sequence[tuple[str, Any]] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_OPTIONS: Sequence[tuple[str, Any]] = (
    # All addresses that the name resolves to are used in turn; gRPC's own default stays with the first.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # Servers answer pings that come more often than every 5 minutes, or without a call, with GOAWAY "too_many_pings"
    # (gRPC's doc/keepalive.md), which fails the calls under way. A peer that vanished without a word is noticed earlier
    # all the same: with keepalive on, its timeout is also TCP_USER_TIMEOUT, how long what was sent may go unconfirmed.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    *RECONNECT,
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # Clients in one process do not share a connection, and so neither its failures.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS, and with a certificate and its key, mTLS. All files are PEM.

    Attributes:
        ca: the certificates to trust; gRPC's built-in roots if None.
        cert: the client's own certificate chain, for servers that ask for one.
        key: the private key of `cert`.
        server_name: the name that the server's certificate must be for, if it is not the address's host.
    """

    ca: str | PathLike[str] | None = None
    cert: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidOption("a client certificate and its key go together: give both `cert` and `key`, or neither.")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises InvalidOption if one cannot be read or is no PEM file."""
        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self.ca), private_key=_pem(self.key), certificate_chain=_pem(self.cert)
        )


def _pem(path: str | PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidOption(f"cannot read {path}: {error.strerror or error}.") from error
    if b"-----BEGIN " not in content:
        raise InvalidOption(f"{path} is no PEM file: it holds no line `-----BEGIN ...-----`.")
    return content


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how fast a call is tried again after UNAVAILABLE or a server's CANCELLED, inside its deadline.

    gRPC's own retry policy (gRFC A6) gives up on requests over 256 KiB and after 5 attempts, so the client has its own.

    Attributes:
        attempts: how often a call is tried in all; 1 for no retries, None for as often as the deadline allows.
        initial_backoff: the mean pause before the second attempt, in seconds; each next one is twice as long.
        max_backoff: the longest mean pause, in seconds. Each pause is drawn from half to one and a half of its mean.
    """

    attempts: int | None = None
    initial_backoff: float = 0.05
    max_backoff: float = 1.0

    def __post_init__(self) -> None:
        if (self.attempts is not None and self.attempts < 1) or self.initial_backoff < 0 or self.max_backoff < 0:
            raise InvalidOption(f"retry needs at least 1 attempt and pauses of at least 0 s, got {self}.")

    def backoff(self, attempt: int) -> float:
        """The mean pause after the `attempt`th failure (1 or more), in seconds."""
        return min(self.max_backoff, self.initial_backoff * 2.0 ** min(attempt - 1, 62))


def resolve_target(address: str) -> str:
    """The gRPC target of `host`, `host:port`, or a target such as `dns:///name:port` and `ipv4:1.2.3.4:1,1.2.3.5:2`.

    Raises:
        InvalidOption: it is none of these.
    """
    if _SCHEME.match(address):
        return address
    if found := _HOST_AND_PORT.fullmatch(address):
        if not 1 <= int(found[1]) <= _MAX_PORT:
            raise InvalidOption(f"{address!r} has no port of a server: it must be 1 to {_MAX_PORT}.")
        return address
    if _HOST.fullmatch(address):
        return f"{address}:{DEFAULT_PORT}"
    remedy = "Give HOST, HOST:PORT, dns:///NAME:PORT for all addresses of a name, or ipv4:IP:PORT,IP:PORT for several."
    if address.startswith(("http://", "https://", "grpc://")):
        remedy = f"Leave out the scheme: {address.split('://', 1)[1].rstrip('/') or 'HOST:PORT'}."
    raise InvalidOption(f"{address!r} is no address of a gRPC server. {remedy}")


def is_loopback(target: str) -> bool:
    """Whether a target is this machine by its name."""
    return _LOOPBACK.match(target) is not None


def proxy_variable(target: str) -> str | None:
    """The environment variable that sends calls to a target through a proxy, unless `no_proxy` names the host."""
    variable = next((name for name in _PROXIES if name in os.environ), None)
    return variable if variable is not None and os.environ[variable] and not is_loopback(target) else None


def channel_options(target: str, tls: Tls | None) -> list[tuple[str, Any]]:
    """The channel's options."""
    options = list(_OPTIONS)
    if is_loopback(target):
        options.append(("grpc.enable_http_proxy", 0))  # gRPC itself sends even localhost to an http_proxy
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def open_channel(library: Any, address: str, tls: Tls | None) -> Any:
    """A channel of `grpc` or `grpc.aio` that connects at the first call. Raises InvalidOption for a wrong address."""
    target = resolve_target(address)
    options = channel_options(target, tls)
    if tls is None:
        return library.insecure_channel(target, options)
    return library.secure_channel(target, tls.credentials(), options)
