"""`python -m mnist_tfx.serving.server`: the Python model server with TF Serving's flags and TF Serving's defaults."""

from __future__ import annotations

import argparse
import sys

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.serving.server.flags import add_flags, as_options, given_flags, tell_version
from mnist_tfx.serving.server.startup import load_libraries


def main() -> int:
    """Serves until a signal; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mnist_tfx.serving.server", description=__doc__)
    add_flags(parser)
    args = parser.parse_args()
    given = given_flags(args)
    if given.pop("version", False):
        return tell_version()

    try:
        load_libraries()
        from mnist_tfx.serving.server.config import ServerOptions
        from mnist_tfx.serving.server.main import ModelServer
        from mnist_tfx.serving.server.process import run

        return run(ModelServer(ServerOptions(**as_options(given))))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # while the libraries are loaded; later `run` hears it
        return 130


if __name__ == "__main__":
    sys.exit(main())
