"""Work that goes on beside the requests, in threads that nothing ends but the server's stop."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.serving.server.errors import ServingError


def say(line: str) -> None:
    """Tells the user, on stderr."""
    print(line, file=sys.stderr, flush=True)


def repeat(job: Callable[[], None], seconds: float, stopping: threading.Event, failed: str) -> None:
    """Does a job every so many seconds, in a thread of its own, until `stopping` is set.

    Whatever the job raises, it is done again. An error is told once, behind the words of `failed`, and again only after
    the job has succeeded or failed otherwise.
    """

    def loop() -> None:
        told = ""
        while not stopping.wait(seconds):
            words = ""
            try:
                job()
            except (PipelineError, ServingError) as error:
                words = str(error)
            except Exception as error:
                words = f"{type(error).__name__}: {error}"
            if words and words != told:
                say(f"error: {failed}: {words}")
            told = words

    threading.Thread(target=loop, name=job.__name__.strip("_"), daemon=True).start()
