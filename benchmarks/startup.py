"""How long the command line takes to answer, and the pipeline's modules to import: the median of five warm starts each.

.venv/bin/python -m benchmarks.startup [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mnist_tfx.pipeline.home import CHECKOUT

_REPEATS = 5
_IMPORTS = """
from mnist_tfx.pipeline.running.loading import collector_paused
with collector_paused():  # as `mnist-tfx run` does
    import mnist_tfx.pipeline.dag, mnist_tfx.pipeline.running.describe, mnist_tfx.pipeline.running.local_runner
"""
STARTS: dict[str, tuple[Sequence[str], float]] = {  # command, and the seconds it should stay below
    "mnist-tfx --help": ([str(Path(sys.executable).with_name("mnist-tfx")), "--help"], 0.5),
    "imports of a run": ([sys.executable, "-c", _IMPORTS], 6.0),
}


def median_seconds(command: Sequence[str]) -> float:
    """The median wall time of `command`, after one start that warms the disk cache."""
    seconds = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - started)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\nexited with {done.returncode}:\n{done.stderr}")
    return statistics.median(seconds[1:])


def main() -> int:
    """Prints each median and its aim; 0 where all aims are met."""
    parser = argparse.ArgumentParser(description="Measure start-up times.")
    parser.add_argument("--json", action="store_true", help="print one JSON object: name to seconds")
    args = parser.parse_args()
    medians = {name: median_seconds(command) for name, (command, _) in STARTS.items()}
    if args.json:
        print(json.dumps(medians))
    else:
        for name, seconds in medians.items():
            print(f"{name:22} {seconds:6.2f} s   (aim: below {STARTS[name][1]:g} s)")
    return 0 if all(seconds < STARTS[name][1] for name, seconds in medians.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
