"""What a device can do, and what of it the exported model and its training reach. Written for GPUs, runs on any CPU.

    .venv/bin/python -m benchmarks.gpu [--quick] [--home DIR] [--model FOLDER] [--library tensorflow|torch]

The device is the GPU that TensorFlow sees, else the one that PyTorch sees, if it is installed here, else the processor.
Its memory bandwidth (one large array added to another) and its FLOP/s (a float32 matrix product) are measured in the
same run, so no table of cards is needed: the least time of a call is the longer one of what its bytes and its FLOPs
take at these rates (the roofline of Williams, Waterman and Patterson 2009). Times are the best of many: other programs
only ever add. Then: seconds of training to a test accuracy on MNIST, imports not counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks import measure
from benchmarks.gpu_engines import TensorFlowEngine, TorchEngine, Work
from benchmarks.race import BATCH_SIZE, load_arrays
from benchmarks.serving_servers import newest_model
from mnist_tfx.components.datasets.prepare import prepare
from mnist_tfx.components.live.metadata import read_metadata
from mnist_tfx.components.trainer.export import read_weights
from mnist_tfx.components.trainer.precision import hardware_precision
from mnist_tfx.pipeline.home import CHECKOUT, Home


@dataclass(frozen=True)
class Effort:
    """How much is done."""

    batches: tuple[int, ...] = (1, 16, 64, 256, 1024, 4096, 16384)
    array: int = 1 << 27  # floats
    matrices: tuple[int, ...] = (1024, 4096)  # rows
    seconds: float = 1.0  # of each measurement
    accuracy: float = 0.98


QUICK = Effort(batches=(1, 64, 1024), array=1 << 25, matrices=(512, 1024), seconds=0.3, accuracy=0.95)


def find_engine(library: str | None) -> TensorFlowEngine | TorchEngine:
    """Of the library that is asked for, or that has a GPU."""
    if library is None and not tf.config.list_physical_devices("GPU") and importlib.util.find_spec("torch"):
        torch = TorchEngine()
        return torch if torch.torch_device == "cuda" else TensorFlowEngine()
    return TorchEngine() if library == "torch" else TensorFlowEngine()


def best_seconds(work: Work, seconds: float) -> float:
    """The quickest of as many calls as fit, at least three after the first, which makes what the others use."""
    work()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def seconds_of_training(
    torch_device: str | None, arrays: dict[str, np.ndarray], accuracy: float
) -> tuple[float, int, float]:
    """Seconds, epochs, and the test accuracy that was reached: by our Trainer, or by PyTorch's loop on its device."""
    with tempfile.TemporaryDirectory(prefix="mnist-tfx-benchmark-") as work:
        np.savez(Path(work) / "arrays.npz", allow_pickle=False, **arrays)
        command = ["-m", "benchmarks.our_training", "--precision", hardware_precision("auto")]
        if torch_device:
            command = ["benchmarks/torch_reference.py", "--device", torch_device]
        options = ["--data", f"{work}/arrays.npz", "--target", str(accuracy), "--batch-size", str(BATCH_SIZE)]
        log = Path(work) / "training.log"
        stdout = measure.stdout_of([sys.executable, *command, *options], log=log, cwd=CHECKOUT)
    epochs = json.loads(stdout.splitlines()[-1])["epochs"]
    return epochs[-1][0], len(epochs), epochs[-1][1]


def page(
    engine: TensorFlowEngine | TorchEngine, folder: Path, effort: Effort, arrays: dict[str, np.ndarray]
) -> list[str]:
    """Measures everything; the page's lines in Markdown."""
    load = os.getloadavg()[0]
    bandwidth = 3 * 4 * effort.array / best_seconds(engine.add(effort.array), effort.seconds)
    arithmetic = max(2 * size**3 / best_seconds(engine.multiply(size), effort.seconds) for size in effort.matrices)
    metadata, weights = read_metadata(str(folder)), read_weights(tf.saved_model.load(str(folder)))
    weight_bytes = 4 * sum(weight.shape.num_elements() for weight in weights)
    image_bytes = int(np.prod(metadata["image_shape"])) + 4 * len(metadata["class_names"])
    image_flops = 2 * sum(weight.shape.num_elements() for weight in weights if weight.shape.rank == 2)
    image_flops *= 2 if metadata["model"]["mirrored_averaging"] else 1
    rows = []
    for batch in effort.batches:
        images = np.random.default_rng(0).integers(0, 256, (batch, *metadata["image_shape"]), np.uint8)
        taken = best_seconds(engine.classify(folder, images), effort.seconds)
        by_memory = (weight_bytes + batch * image_bytes) / bandwidth
        least, bound = max((by_memory, "bandwidth"), (batch * image_flops / arithmetic, "FLOP/s"))
        rows.append(f"| {batch:,} | {taken * 1e3:.3g} | {batch / taken:,.0f} | {least / taken:.1%} | {bound} |")
    seconds, epochs, reached = seconds_of_training(engine.torch_device, arrays, effort.accuracy)
    trained = "PyTorch's loop" if engine.torch_device else f"our Trainer, {hardware_precision('auto')}"
    return [
        "# What a device can, and what the exported model and its training reach",
        "",
        f"`python -m benchmarks.gpu{' --quick' if effort is QUICK else ''}` writes this page.",
        "",
        f"- device: {engine.device}, through {engine.library}",
        f"- host: {measure.machine()}; load average {load:.1f} before",
        f"- memory bandwidth: {bandwidth / 1e9:,.1f} GB/s ({effort.array / 2**18:,.0f} MiB added to as much)",
        f"- float32 product: {arithmetic / 1e9:,.0f} GFLOP/s ({' or '.join(map(str, effort.matrices))} rows)",
        f"- model: {image_flops / 1e6:.2f} MFLOP an image, {weight_bytes / 2**20:.2f} MiB of weights",
        "",
        "Images a second from uint8 in main memory to probabilities there. The share is that of the least time that",
        "the two rates above leave a call, and the last column says which of them it is. It may be above 100 %: small",
        "models stay in caches, which are quicker than memory, and another program may have slowed the measured rates.",
        "",
        "| images a call | ms | images/s | of the most possible | bound by |",
        "| ---: | ---: | ---: | ---: | --- |",
        *rows,
        "",
        f"Training of 784-512-512-10 on MNIST to {effort.accuracy:.1%} of split test ({trained}, batch {BATCH_SIZE}):",
        f"{seconds:.1f} s, {epochs} epochs, {reached:.4f}{'' if reached >= effort.accuracy else ' (not reached)'}.",
    ]


def main() -> int:
    """Measures, prints and writes the page."""
    parser = argparse.ArgumentParser(description="Measure the exported model and training against the device.")
    parser.add_argument("--quick", action="store_true", help="fewer batch sizes, and training to 95 %% only")
    parser.add_argument("--library", choices=("tensorflow", "torch"), help="default: the one that has a GPU")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="default: the newest that was pushed for mnist")
    parser.add_argument("--home", metavar="DIR", help="with data and a model of mnist (default: as for mnist-tfx)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), metavar="FILE")
    args = parser.parse_args()
    home = Home.resolve(args.home)
    folder, effort = args.model or newest_model(home), QUICK if args.quick else Effort()
    prepare("mnist", home.datasets)
    try:
        lines = page(find_engine(args.library), folder, effort, load_arrays("mnist", home.datasets))
    except measure.BenchmarkFailed as error:
        print(error, file=sys.stderr)
        return 1
    args.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
