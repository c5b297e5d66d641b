from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_tfx.pipeline.home import CHECKOUT
from tests.fixtures.command import mnist_tfx
from tests.fixtures.run_process import COMMAND
from tests.fixtures.tiny_run import TinyRun


@contextmanager
def tensorboard(*arguments: str | Path) -> Iterator[str]:
    """`mnist-tfx tensorboard --port 0 ARGUMENTS`; gives the address that it printed."""
    command = [sys.executable, "-c", COMMAND, "tensorboard", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def answer(address: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=30) as response:
        return str(response.read().decode())


def test_it_shows_the_trainings_of_all_runs_or_of_one(tiny_run: TinyRun) -> None:
    logs = tiny_run.artifact("Trainer", "model_run")
    with tensorboard("--home", tiny_run.home.root) as address:
        assert "<title>TensorBoard</title>" in answer(address)
        shown = json.loads(answer(f"{address}data/runs"))
    assert f"{logs.relative_to(tiny_run.home.root / 'runs')}/train" in shown
    with tensorboard(tiny_run.run_id, "--home", tiny_run.home.root) as address:
        assert json.loads(answer(f"{address}data/runs")) == ["train", "validation"]
        tags = json.loads(answer(f"{address}data/plugin/scalars/tags"))
        assert {"epoch_accuracy", "epoch_loss", "epoch_learning_rate"} <= set(tags["train"])


def test_what_it_cannot_show_or_where_it_cannot_listen_is_told(tiny_run: TinyRun, tmp_path: Path) -> None:
    told = mnist_tfx("tensorboard", "--home", tmp_path)
    assert told.code == 2 and "Make one: mnist-tfx run" in told.err
    assert mnist_tfx("tensorboard", "latst", "--home", tiny_run.home.root).code == 2
    with socket.create_server(("localhost", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = mnist_tfx("tensorboard", "--port", port, "--home", tiny_run.home.root)
    assert told.code == 1 and port in told.err and "--port" in told.err
