"""benchmarks.gpu runs from end to end without a GPU, on a tiny model and a few images."""

from __future__ import annotations

import re

import numpy as np

from benchmarks.gpu import Effort, find_engine, page
from tests.fixtures.tiny_run import TinyRun

EFFORT = Effort(batches=(1, 8), array=1 << 12, matrices=(32, 64), seconds=0.01, accuracy=0.0)


def test_the_page_has_the_devices_rates_a_row_a_batch_and_a_training(tiny_run: TinyRun) -> None:
    random = np.random.default_rng(0)
    arrays = {f"x_{split}": random.integers(0, 256, (64, 28, 28, 1), np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": random.integers(0, 10, 64) for split in ("train", "test")}
    told = "\n".join(page(find_engine("tensorflow"), tiny_run.model, EFFORT, arrays))
    assert "through TensorFlow" in told
    assert re.search(r"- memory bandwidth: [\d.,]+ GB/s \(0 MiB", told)
    assert re.search(r"- float32 product: \d+ GFLOP/s \(32 or 64 rows\)", told)
    # 784-16-10: a product is a multiplication and an addition for each weight of a kernel; biases are weights, too.
    assert "- model: 0.03 MFLOP an image, 0.05 MiB of weights" in told
    assert re.findall(r"^\| ([\d,]+) \| [\d.e-]+ \| [\d,]+ \| [\d.]+% \| (?:bandwidth|FLOP/s) \|$", told, re.M) == [
        "1",
        "8",
    ]
    assert re.search(r"to 0.0% of split test \(our Trainer, \w+, batch 256\):\n[\d.]+ s, 1 epochs, 0\.\d{4}\.$", told)
