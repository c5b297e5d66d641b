"""The engine with no server around it: how many images a second a program computes that calls it itself.

    .venv/bin/python -m benchmarks.serving_engine VERSION_FOLDER [--threads N]

A process of its own, so that it can take turns with the servers. Prints "ready"; then, for each line "BATCH THREADS
SECONDS" on stdin, the images a second, as `THREADS` threads call the signature `images` with arrays of BATCH images.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time

import numpy as np

from mnist_tfx.serving.server.engine import Engine

_SIGNATURE = "images"


def images_per_second(engine: Engine, batch: int, threads: int, seconds: float) -> float:
    """Measures once."""
    inputs = {_SIGNATURE: np.random.default_rng(0).integers(0, 256, (batch, 28, 28, 1), np.uint8)}
    outputs = tuple(engine.signatures[_SIGNATURE].outputs)
    counts = [0] * threads
    started = time.perf_counter()
    end = started + seconds

    def call(index: int) -> None:
        while time.perf_counter() < end:
            engine.run(_SIGNATURE, inputs, outputs)
            counts[index] += batch

    callers = [threading.Thread(target=call, args=(index,)) for index in range(threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(counts) / (time.perf_counter() - started)


def main() -> None:
    """Measures what stdin asks for, until it ends."""
    parser = argparse.ArgumentParser(description="Measure the engine without a server.")
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=0, help="for one operation (default: all cores)")
    args = parser.parse_args()
    engine = Engine(args.folder, args.threads)
    print("ready", flush=True)
    for line in sys.stdin:
        batch, threads, seconds = line.split()
        print(images_per_second(engine, int(batch), int(threads), float(seconds)), flush=True)


if __name__ == "__main__":
    main()
