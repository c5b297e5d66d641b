"""What one caller may ask of the server, in one place: bytes, counts and patience.

The rule behind the numbers: what a message may cost is known before it is paid. A caller who goes beyond a limit, or
who stalls, loses its own call and nobody else's; what is small is never refused because something large is in hand.
"""

from __future__ import annotations

# gRPC

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of a request; a larger one is RESOURCE_EXHAUSTED. `--grpc_channel_arguments=grpc.max_receive_message_length=...`."""

MAX_CALLS = 1024
"""Calls in hand; one more is RESOURCE_EXHAUSTED."""

MAX_HELD_BYTES = 256 * 2**20
"""Of the large requests in hand; one more is UNAVAILABLE."""

LARGE_MESSAGE_BYTES = 64 * 2**10
"""From here on a request is weighed, parsed and decoded off the polling thread, one after the other."""

LARGE_VALUES_BYTES = 4 * 2**10
"""From here on too, if its values are not bytes that can be taken as they are."""

MAX_PARTS = 2**18
"""Messages and strings in a large request, beyond its packed numbers; more is RESOURCE_EXHAUSTED."""

# REST

MAX_BODY_BYTES = 32 * 2**20
"""Of a request, also unpacked; a larger one is 413."""

MAX_BODIES_BYTES = 128 * 2**20
"""Of the large bodies that have arrived; for one more, the slowest sender is given up."""

LARGE_BODY_BYTES = 64 * 2**10
"""A smaller body counts for nothing and is read where it arrives; a larger or a packed one is read by `Reader`."""

MAX_REQUESTS = 256
"""Requests that are being answered, and as many whose body arrives; for one more, the slowest sender is given up."""

LARGE_ANSWER_VALUES = 2**14
"""An answer of more is written by `Reader`."""

MAX_JSON_VALUES = 4 * 2**20
"""Commas and brackets in a body."""

MAX_JSON_DEPTH = 64
"""Of a tensor: NumPy's own limit."""

READER_BYTES = 2**30
"""Address space of the process that reads large bodies."""

# Clients that stall

STALL_SECONDS = 30.0
"""A client may take so long to send a gRPC request, or to take an answer."""

BODY_STALL_SECONDS = 10.0
"""Between two pieces of a body; the whole request has `--rest_api_timeout_in_ms`."""

SLOW_SECONDS = 1.0
"""A client that takes so long is slow: it can be given up for others."""

MAX_SLOW_CALLS = 16
"""Calls that wait for slow clients, each with up to `MAX_MESSAGE_BYTES`; of more, the oldest is given up."""
