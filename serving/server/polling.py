"""How gRPC reads the server's sockets; to be said before anything imports grpc."""

from __future__ import annotations

import os


def read_in_polling_thread() -> None:
    """Has the thread that polls for events read the sockets itself.

    By default gRPC reads in threads of its own, which hand what they read to the polling thread. Without these
    hand-overs a lone caller's request takes the server a sixth less CPU time, and one of 16 callers' a tenth less.
    gRPC knows the choice as the experiment `event_engine_listener`, takes it from the environment only, and looks
    there once, when it is imported. A GRPC_EXPERIMENTS that is set already stays; a release that knows the experiment
    no more says so in its log and goes on.
    """
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
