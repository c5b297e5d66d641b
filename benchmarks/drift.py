"""At which sample size `mnist-tfx monitor` sees which drift, and that it sees none where there is none.

    .venv/bin/python -m benchmarks.drift [--home DIR] [--output FILE]

Needs a pushed MNIST model and Fashion-MNIST's data in the home: `mnist-tfx run --dataset all`. MNIST's test images, as
they are and changed, go through our server in a process of its own; the client logs them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import tensorflow_datasets as tfds
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.utils import io_utils

from mnist_tfx.components.monitoring.checks import LOW_CONFIDENCE
from mnist_tfx.components.monitoring.distributions import CLASSES, MEASURES
from mnist_tfx.components.monitoring.watch import Report, watch
from mnist_tfx.components.settings import MonitoringSettings
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.projects import shipped
from mnist_tfx.serving.client import Client, RequestLog
from tests.fixtures.server_process import server_processes

SIZES = (50, 100, 200, 500, 1000, 2000)
CLEAN_SAMPLES = 20  # of each size and split
_MODEL = "mnist"

Images = npt.NDArray[np.uint8]


def _changed(images: Images, change: Callable[..., Any], **options: Any) -> Images:
    return np.stack([change(image[..., 0].astype(np.float32), **options) for image in images])[..., None]


def _as_pixels(images: npt.NDArray[Any]) -> Images:
    return np.rint(np.clip(images, 0, 255)).astype(np.uint8)


def drifts(fashion: Images) -> Mapping[str, Callable[[Images, npt.NDArray[np.int64]], Images]]:
    """What is done to images with these labels, by name; `fashion` are sent instead."""
    noise = np.random.default_rng(1)
    return {
        "inverted": lambda images, labels: 255 - images,
        "shifted by 4 pixels": lambda images, labels: np.pad(images, ((0, 0), (0, 0), (4, 0), (0, 0)))[:, :, :28],
        "noise (deviation 40)": lambda images, labels: _as_pixels(images + noise.normal(0, 40, images.shape)),
        "Fashion-MNIST": lambda images, labels: fashion[: len(images)],
        "one class only (1)": lambda images, labels: images[labels == 1],
        "blurred (1.5 pixels)": lambda images, labels: _as_pixels(
            _changed(images, scipy.ndimage.gaussian_filter, sigma=1.5)
        ),
        "turned by 20 degrees": lambda images, labels: _as_pixels(
            _changed(images, scipy.ndimage.rotate, angle=20, reshape=False, order=1)
        ),
    }


class Bench:
    """A server, and what `monitor` says of requests to it."""

    def __init__(self, home: Home, address: str, folder: Path) -> None:
        self._home, self._address, self._folder = home, address, folder
        self._number = 0
        schema_file = shipped(_MODEL).schema_file
        self._schema = io_utils.parse_pbtxt_file(str(schema_file), schema_pb2.Schema())

    def ask(self, images: Images) -> Report:
        """Sends the images, logs them by themselves, and looks at that log."""
        self._number += 1
        folder = self._folder / str(self._number)
        log = RequestLog(folder)
        with Client(self._address, _MODEL, log=log, batch_size=16) as client:
            client.predict(images)
        log.close()
        return watch(
            _MODEL,
            str(self._home.serving(_MODEL)),
            self._schema,
            MonitoringSettings(logs=str(folder / "requests")),
            since=datetime.now(UTC) - timedelta(hours=1),
        )


def seen(report: Report) -> set[str]:
    """The checks that say drift."""
    [version] = report.versions
    return {check.name for check in version.all_checks() if check.drifts}


def measure(bench: Bench, test: Mapping[str, Any], evals: Images, fashion: Images) -> str:
    """All tables, as Markdown."""
    rng = np.random.default_rng(0)
    columns = ["any check", CLASSES, *MEASURES, LOW_CONFIDENCE, "label in the schema", "image in the schema"]
    lines = [
        "How many images it takes until a check says drift, and goes on to in larger samples:",
        "",
        *_head("drift", columns),
    ]
    for name, change in drifts(fashion).items():
        found = []
        for size in SIZES:
            chosen = rng.permutation(len(test["image"]))[: size * 20 if "only" in name else size]
            images = change(test["image"][chosen], test["label"][chosen])[:size]
            by = seen(bench.ask(images))
            found.append(by | {"any check"} if by else by)
            print(f"{name}, {size} images: {', '.join(sorted(by)) or 'in order'}", file=sys.stderr)
        lines.append(_row(name, [_from(column, found) for column in columns]))
    lines += ["", f"False alarms of {CLEAN_SAMPLES} clean samples of each size:", ""]
    lines += _head("images", [str(size) for size in SIZES])
    for name, images in (("split test, of which the reference is made", test["image"]), ("split eval", evals)):
        cells = []
        for size in SIZES:
            reports = [bench.ask(images[rng.permutation(len(images))[:size]]) for _ in range(CLEAN_SAMPLES)]
            cells.append(str(sum(report.drifts for report in reports)))
            told = [", ".join(sorted(seen(report))) for report in reports if report.drifts]
            print(f"clean: {name}, {size} images: {told or 'in order'}", file=sys.stderr)
        lines.append(_row(name, cells))
    return "\n".join(lines)


def _from(check: str, found: Sequence[set[str]]) -> str:
    """The smallest size from which on it is among what was found."""
    unseen = [index for index, by in enumerate(found) if check not in by]
    first = unseen[-1] + 1 if unseen else 0
    return str(SIZES[first]) if first < len(SIZES) else ""


def _head(name: str, columns: Sequence[str]) -> list[str]:
    return [_row(name, columns), _row("---", ["---:"] * len(columns))]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the tables."""
    parser = argparse.ArgumentParser(description="Which drift is seen at which sample size.")
    parser.add_argument("--home", metavar="DIR", help="with a pushed MNIST model (default: as for mnist-tfx)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), metavar="FILE")
    args = parser.parse_args(argv)
    home = Home.resolve(args.home)

    def load(dataset: str, split: str) -> Any:
        return tfds.load(dataset, split=split, data_dir=home.datasets, download=False, batch_size=-1)

    test = tfds.as_numpy(load(_MODEL, "test"))
    evals = tfds.as_numpy(load(_MODEL, "train[55000:]"))["image"]
    fashion = tfds.as_numpy(load("fashion_mnist", "test"))["image"]
    with (
        tempfile.TemporaryDirectory(prefix="mnist-tfx-drift-") as folder,
        server_processes(_MODEL, home.serving(_MODEL), Path(folder) / "server.log", 1) as [server],
    ):
        tables = measure(Bench(home, server.address, Path(folder)), test, evals, fashion)
    text = (
        "# Which drift `mnist-tfx monitor` sees in how many images\n\n`python -m benchmarks.drift` writes these "
        "tables: MNIST's recipe `default`, settings as shipped.\n\n" + tables.strip() + "\n"
    )
    args.output.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
