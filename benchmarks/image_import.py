"""How time and memory of the import of image files grow with their number.

    .venv/bin/python -m benchmarks.image_import [--counts 20000,100000] [--work DIR]

Each count is a process of its own: 28 x 28 grey PNG files of random pixels in 10 folders, imported, and then, with one
more file, imported again, which keeps every image in its split. All files differ, and the perceptual hashes of random
pixels are spread evenly: images of one thing have more to compare with. Memory is the process's peak in each stage.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import MemorySampler
from mnist_tfx.components.datasets.images.listing import ImageSource
from mnist_tfx.components.datasets.images.prepare import prepare_images

_SIDE, _CLASSES = 28, 10
_STAGES = {
    "listing the files": "list",
    "looking at the images": "look",
    "dividing the images": "divide",
    "fitting and writing the images": "write",
    "listing what became of the files": "CSV",
}


@dataclass(frozen=True)
class Stage:
    """One stage of one import."""

    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Import:
    """One import of `files` files; `again`: of one more than were there before."""

    files: int
    again: bool
    stages: Mapping[str, Stage]

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(stage.seconds for stage in self.stages.values())


class _Watch:
    """The progress of an import, which notes time and memory of each stage."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self._stage, self._since = "", time.perf_counter()

    def __enter__(self) -> _Watch:
        self._sampler = MemorySampler(os.getpid())
        self._sampler.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._sampler.__exit__(*error)
        self._end()

    def __call__(self, stage: str, done: int = 0, total: int | None = None) -> None:
        if stage in _STAGES and stage != self._stage:
            self._end()
            self._stage, self._since, self._sampler.peak_bytes = stage, time.perf_counter(), 0

    def _end(self) -> None:
        if self._stage:
            seconds, peak = time.perf_counter() - self._since, self._sampler.peak_bytes / 2**20
            self.stages[_STAGES[self._stage]] = Stage(seconds, peak)


def write_files(folder: Path, first: int, count: int) -> None:
    """Writes `count` PNG files, numbered from `first` on; the same number always has the same pixels."""
    for name in range(_CLASSES):
        (folder / f"class{name}").mkdir(parents=True, exist_ok=True)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0))
    end = _chunk(b"IEND", b"")
    for number in range(first, first + count):
        pixels = np.zeros((_SIDE, _SIDE + 1), np.uint8)  # each row begins with its filter, none
        pixels[:, 1:] = np.random.default_rng(number).integers(0, 256, (_SIDE, _SIDE), np.uint8)
        data = _chunk(b"IDAT", zlib.compress(pixels.tobytes(), 0))
        path = folder / f"class{number % _CLASSES}" / f"{number:07d}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + end)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def measure_imports(count: int, work: Path) -> Iterator[Import]:
    """Imports `count` files, and then one more."""
    write_files(work / "images", 0, count)
    for again in (False, True):
        write_files(work / "images", count, int(again))
        with _Watch() as watch:
            prepare_images("scale", ImageSource(work / "images"), work / "datasets", progress=watch)
        yield Import(count + again, again, watch.stages)


def table(imports: Sequence[Import]) -> str:
    """Seconds and peak MiB of each stage, as Markdown."""
    stages = list(imports[0].stages)
    lines = [
        f"| files | | seconds | files/s | {' | '.join(f'{stage}: s, peak MiB' for stage in stages)} |",
        f"| ---: | --- | ---: | ---: | {' | '.join(['---:'] * len(stages))} |",
    ]
    for each in imports:
        how = "again" if each.again else "first"
        cells = (f"{stage.seconds:.1f}, {stage.peak_mib:,.0f}" for stage in each.stages.values())
        speed = f"{each.files / each.seconds:,.0f}"
        lines.append(f"| {each.files:,} | {how} | {each.seconds:.0f} | {speed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measures each count and writes the table after each import; 0 where all of it ran."""
    parser = argparse.ArgumentParser(description="Time and memory of the import of image files, by their number.")
    parser.add_argument("--counts", default="20000,100000", metavar="N,N", help="numbers of files")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where to write them (default: a temporary folder)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), metavar="FILE")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # the process of one count
    args = parser.parse_args()
    if args.one:
        for each in measure_imports(args.one, args.work):
            print(json.dumps(asdict(each)), flush=True)
        return 0
    title = f"# Import of image files, {os.cpu_count()} processors, Python {platform.python_version()}"
    told = "`python -m benchmarks.image_import` writes this table."
    imports: list[Import] = []
    for count in map(int, args.counts.split(",")):
        print(f"{count:,} files ... (load average {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-", dir=args.work) as work:
            command = [sys.executable, "-m", "benchmarks.image_import", "--one", str(count), "--work", work]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                for line in process.stdout:
                    row = json.loads(line)
                    stages = {name: Stage(**stage) for name, stage in row["stages"].items()}
                    imports.append(Import(row["files"], row["again"], stages))
                    args.output.write_text(f"{title}\n\n{told}\n\n{table(imports)}\n")
        if process.returncode:
            return 1
    print(table(imports))
    return 0


if __name__ == "__main__":
    sys.exit(main())
