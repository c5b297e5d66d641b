"""Plays the whole loop on MNIST: serve, see the requests drift, label them, train on, push, and look again.

`make demo-loop`, or `python -m scripts.demo_loop [--home DIR]`: each step is a command that a person would type, and
its answer. What people "send" are the last 5,000 images of MNIST's split train, which no training here reads; from
some day on they come turned by 20 degrees, as from a new scanner. Labels are MNIST's own.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from scipy import ndimage

from mnist_tfx.pipeline.feedback import image_id
from mnist_tfx.pipeline.home import Home
from mnist_tfx.serving.client import Client

_COMMAND = Path(sys.executable).with_name("mnist-tfx")
_MODEL, _PORT, _DEGREES, _BATCH = "mnist", 8590, 20.0, 100
_ADDRESS = f"localhost:{_PORT}"
_SETTINGS = (  # a few epochs are enough here, and bounds that they reach
    "data.splits.train=train[:50000]",
    "data.splits.eval=train[50000:55000]",
    "min_accuracy=0.97",
    "min_class_accuracy=0.94",
    "training.epochs=5",
    "training.monitor_from=0",
)
_SENT = "train[55000:]"
_UPRIGHT, _TURNED = slice(0, 1000), slice(1000, 4000)  # of what is sent; then of the rest half of each
_RETRAINED = ("training.warm_start=true", "min_span_accuracy=0.95")


def main() -> int:
    """Plays it; 1 where a step says something else than it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", metavar="DIR", help="whose data sets are used (default: MNIST_TFX_HOME, else var/)")
    home = Home.resolve(parser.parse_args().home)
    place = Home(home.root / "demo-loop")
    shutil.rmtree(place.root, ignore_errors=True)
    started = time.monotonic()
    tell("0. the data")
    command(home, "data", "prepare", "--dataset", _MODEL)
    (place.datasets / _MODEL).parent.mkdir(parents=True)
    (place.datasets / _MODEL).symlink_to(home.datasets / _MODEL, target_is_directory=True)  # spans are the demo's own
    try:
        play(place)
    except Unexpected as what:
        print(f"demo-loop: {what}", file=sys.stderr)
        return 1
    tell(f"done in {time.monotonic() - started:.0f} s")
    return 0


class Unexpected(Exception):
    """A step did not say what it should."""


def play(home: Home) -> None:
    """Each step with its verdict."""
    images, labels = sent(home)
    turned = turn(images)
    label_of = {image_id(image): str(label) for image, label in zip(turned, labels, strict=True)}

    tell("1. a model is trained, judged and pushed")
    first = run(home, _SETTINGS)

    with served(home):
        tell("2. people send digits like those it was trained on")
        send(images[_UPRIGHT])
        monitor(home, expected=0)

        tell(f"3. a new scanner turns them by {_DEGREES:.0f} degrees")
        send(turned[_TURNED])
        monitor(home, expected=3)

        tell("4. what was asked is labelled: a new span of the data")
        command(home, "feedback", _MODEL, "--export", str(home.root / "to-label"), "--limit", "5000")
        label(home.root / "to-label" / "labels.csv", label_of)
        command(home, "feedback", _MODEL, "--labels", str(home.root / "to-label" / "labels.csv"), "--test")

        tell("5. training goes on from the served model; judged on the old test split and on the new one, and pushed")
        second = run(home, (*_SETTINGS, *_RETRAINED))
        if second["pushed_version"] == first["pushed_version"]:
            raise Unexpected("no new version was pushed")

        tell("6. people go on sending, both kinds, to the new version")
        rest = slice(_TURNED.stop, None)
        send(np.concatenate([images[rest][::2], turned[rest][1::2]]))
        monitor(home, "--version", second["pushed_version"], expected=0)

    tell("accuracy                     before   after")
    for span, name in zip(second["spans"], ("upright, the old test split", "turned, the new test split"), strict=True):
        print(f"{name:<28} {span['baseline_accuracy']:.4f}   {span['accuracy']:.4f}   ({span['examples']:,} images)")


def sent(home: Home) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images, uint8 [N, 28, 28, 1], and labels, int64 [N]."""
    data = tfds.load(_MODEL, data_dir=home.datasets, split=_SENT, download=False, batch_size=-1)
    return tfds.as_numpy(data["image"]), tfds.as_numpy(data["label"])


def turn(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Counterclockwise, with black where nothing was."""
    return ndimage.rotate(images, _DEGREES, axes=(2, 1), reshape=False, order=1)


def send(images: npt.NDArray[np.uint8]) -> None:
    """Asks the server about them."""
    with Client(_ADDRESS, _MODEL) as client:
        for begin in range(0, len(images), _BATCH):
            client.predict(images[begin : begin + _BATCH])
    print(f"{len(images):,} images sent")
    time.sleep(2)  # the log is written within about a second


def label(file: Path, label_of: dict[str, str]) -> None:
    """Fills in the column `label` of the images that have come turned: somebody has looked at them."""
    with open(file, encoding="utf-8", newline="") as reading:
        rows = list(csv.DictReader(reading))
    for row in rows:
        row["label"] = label_of.get(row["id"], "")
    with open(file, "w", encoding="utf-8", newline="") as writing:
        table = csv.DictWriter(writing, rows[0])
        table.writeheader()
        table.writerows(rows)
    print(f"{sum(bool(row['label']) for row in rows):,} of {len(rows):,} images labelled")


def run(home: Home, settings: tuple[str, ...]) -> Any:
    """A run of the pipeline that has to push; what `--json` says of it."""
    sets = [part for setting in settings for part in ("--set", setting)]
    [outcome] = json.loads(command(home, "run", "--dataset", _MODEL, *sets, "--json", quiet=True))
    if not outcome["pushed_version"]:
        raise Unexpected("the model was not pushed")
    print(f"accuracy {outcome['accuracy']:.4f}, pushed as version {outcome['pushed_version']}")
    return outcome


def monitor(home: Home, *options: str, expected: int) -> None:
    """`mnist-tfx monitor`, which has to end with this exit code."""
    command(home, "monitor", _MODEL, *options, expected=expected)
    print(f"exit code {expected}")


@contextmanager
def served(home: Home) -> Iterator[None]:
    """A server that logs every request."""
    arguments = ["--log-requests", "--port", str(_PORT), "--rest_api_port", "0"]
    print("$ mnist-tfx serve", *arguments)
    with open(home.root / "serve.log", "w") as log:
        server = subprocess.Popen([_COMMAND, "serve", *arguments], stdout=log, stderr=log, env=_in(home))
    try:
        command(home, "wait", _MODEL, "--address", _ADDRESS)
        yield
    finally:
        server.terminate()
        server.wait()


def command(home: Home, *arguments: str, expected: int = 0, quiet: bool = False) -> str:
    """Runs `mnist-tfx`, prints the call and its answer."""
    shown = [argument if " " not in argument else repr(argument) for argument in arguments]
    print("$ mnist-tfx", *shown, flush=True)
    done = subprocess.run([_COMMAND, *arguments], capture_output=True, text=True, check=False, env=_in(home))
    if not quiet:
        print(done.stdout, end="", flush=True)
    if done.returncode != expected:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        raise Unexpected(f"`mnist-tfx {' '.join(arguments)}` ended with {done.returncode}, expected {expected}")
    return done.stdout


def _in(home: Home) -> dict[str, str]:
    return {**os.environ, "MNIST_TFX_HOME": str(home.root)}


def tell(text: str) -> None:
    """A heading."""
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
