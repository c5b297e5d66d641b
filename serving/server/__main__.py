"""`python -m serving.server`: the Python model server with TF Serving's flags and TF Serving's defaults."""

from __future__ import annotations

import argparse
import sys

from components.errors import PipelineError
from serving.server.flags import add_flags, as_options, given_flags
from serving.server.startup import load_libraries


def main() -> int:
    """Serves until a signal; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: loopback)")
    add_flags(parser)
    args = parser.parse_args()

    load_libraries()
    from serving.server.config import ServerOptions
    from serving.server.main import ModelServer, run

    try:
        return run(ModelServer(ServerOptions(host=args.host, **as_options(given_flags(args)))))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
