"""What benchmarks.serving compares, each a process: our server, an unbatched one, MLServer, the engine alone."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import v2_protocol
from benchmarks.our_pipeline import COMMAND
from benchmarks.serving_load import Method
from mnist_tfx.contract.names import METADATA_PATH
from mnist_tfx.pipeline.home import CHECKOUT, Home
from mnist_tfx.serving.client import messages, tensors

MODEL = "mnist"
MLSERVER = "mlserver==1.7.*"

_SHAPES = ((784, 512), (512,), (512, 512), (512,), (512, 10), (10,))
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_REQUESTS = 32  # of one size; sent in turn, so that no answer can be one of a cache
_REMEDY = f"run `mnist-tfx run --dataset {MODEL} --recipe benchmark` first."


class CannotRun(Exception):
    """A server cannot be had here; the message says why."""


@dataclass(frozen=True)
class Server:
    """A running server, and how to ask it."""

    address: str
    process: subprocess.Popen[str]
    speaks_v2: bool = False
    rest: str = ""

    def method(self, batch: int) -> Method:
        """The method that classifies, with requests of `batch` images of noise."""
        images = np.random.default_rng(0).integers(0, 256, (_REQUESTS, batch, 28, 28, 1), np.uint8)
        if self.speaks_v2:
            requests = [v2_protocol.infer_request(MODEL, some.reshape(batch, -1)) for some in images]
            return Method(self.address, v2_protocol.INFER, requests)
        return Method(self.address, _PREDICT, [predict_request(some) for some in images])

    def probabilities(self, answer: bytes) -> npt.NDArray[np.float32]:
        """What an answer says: float32 [N, 10]."""
        if self.speaks_v2:
            return v2_protocol.read_outputs(answer)["probabilities"]
        return tensors.decode(messages.PredictResponse.FromString(answer).outputs["probabilities"])


def predict_request(images: npt.NDArray[np.uint8]) -> bytes:
    """A PredictRequest of images (uint8 [N, 28, 28, 1]) to the signature `images`."""
    request = messages.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = "images"
    tensors.encode(images, request.inputs["images"])
    return bytes(request.SerializeToString())


def newest_model(home: Home) -> Path:
    """The folder of the newest version that was pushed. Exits where there is none."""
    versions = [path for path in home.serving(MODEL).glob("[0-9]*") if path.name.isdecimal()]
    if not versions:
        sys.exit(f"no model of {MODEL} in {home.root}: {_REMEDY}")
    return max(versions, key=lambda path: int(path.name))


def write_weights(version: Path, path: Path) -> None:
    """Writes the weights for `benchmarks.serving_mlserver`. Exits where the model is no plain 784-512-512-10."""
    import tensorflow as tf

    checkpoint = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    names = [f"_weights/{index}/.ATTRIBUTES/VARIABLE_VALUE" for index in range(len(_SHAPES))]
    shapes = checkpoint.get_variable_to_shape_map()
    found = tuple(tuple(shapes.get(name, ())) for name in names)
    settings = json.loads((version / METADATA_PATH).read_text())
    if found != _SHAPES or settings["normalization"] != "unit":
        sys.exit(f"{version} is no 784-512-512-10 of pixels in [0, 1]: {_REMEDY}")
    weights = [checkpoint.get_tensor(name) for name in names]
    np.savez(path, **{f"{'kb'[index % 2]}{index // 2}": array for index, array in enumerate(weights)})


@contextmanager
def ours(base_path: Path, log: Path, config: Path | None = None) -> Iterator[Server]:
    """`mnist-tfx serve` with its defaults, which batch, on a folder of versions or as a `models.config` says."""
    command = [str(COMMAND), "serve", "--engine=python", "--port=0", "--rest_api_port=-1"]
    models = [f"--model_name={MODEL}", f"--model_base_path={base_path}"]
    command += models if config is None else [f"--model_config_file={config}"]
    with open(log, "w") as lines, _process(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.write(line)
            if match := re.search(r"is AVAILABLE at gRPC ([\d.]+:\d+), REST http://([\d.]+:\d+)", line):
                drain = threading.Thread(target=shutil.copyfileobj, args=(process.stderr, lines), daemon=True)
                drain.start()  # a full pipe would stop the server
                try:
                    yield Server(match.group(1), process, rest=match.group(2))
                finally:
                    process.kill()
                    drain.join()
                return
        raise CannotRun(f"mnist-tfx serve ended; {log} has what it said")


@contextmanager
def unbatched(version: Path, log: Path) -> Iterator[Server]:
    """A thread pool of grpcio's around our engine, without batching."""
    command = [sys.executable, "-m", "benchmarks.serving_unbatched", str(version)]
    with open(log, "w") as lines, _process(command, stdout=subprocess.PIPE, stderr=lines) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise CannotRun(f"the unbatched server ended; {log} has what it said")
        yield Server(f"127.0.0.1:{port}", process)


@contextmanager
def mlserver(weights: Path, folder: Path) -> Iterator[Server]:
    """MLServer with the fastest settings found for this model.

    In this process (`parallel_workers` 0: handing requests to workers costs more than the model), without adaptive
    batching (a quarter slower here at concurrency 16, three times at 1), without metrics and access log.
    """
    python = _isolated("mlserver", MLSERVER)
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("serving_mlserver.py"), folder / "dense_runtime.py")
    grpc_port, http_port = _free_ports(2)
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "grpc_port": grpc_port,
        "http_port": http_port,
        "metrics_endpoint": None,
    }
    parameters = {"extra": {"weights": str(weights)}}
    runtime = {"name": MODEL, "implementation": "dense_runtime.DenseModel", "parameters": parameters}
    for name, content in (("settings", settings), ("model-settings", runtime)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    log = folder / "log"
    command = [str(python.with_name("mlserver")), "start", str(folder)]
    with open(log, "w") as lines, _process(command, stdout=lines, stderr=lines, cwd=folder) as process:
        yield Server(f"127.0.0.1:{grpc_port}", process, speaks_v2=True)


@dataclass(frozen=True)
class EngineAlone:
    """The process of benchmarks.serving_engine."""

    process: subprocess.Popen[str]

    def images_per_second(self, batch: int, threads: int, seconds: float) -> float:
        """Measures once."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(batch, threads, seconds, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


@contextmanager
def engine_alone(version: Path, log: Path) -> Iterator[EngineAlone]:
    """Our engine without a server."""
    command = [sys.executable, "-m", "benchmarks.serving_engine", str(version)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with open(log, "w") as lines, _process(command, stderr=lines, **pipes) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise CannotRun(f"the engine could not be started; {log} has what it said")
        yield EngineAlone(process)


@contextmanager
def _process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **{"cwd": CHECKOUT, **options})
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _isolated(name: str, requirement: str) -> Path:
    """The interpreter of an environment of its own. Raises CannotRun."""
    command = ["bash", str(CHECKOUT / "scripts" / "isolated.sh"), name, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise CannotRun(f"{requirement} cannot be installed: {' '.join(said[-3:])}")
    return Path(done.stdout.strip())


def _free_ports(count: int) -> list[int]:
    """MLServer takes only ports that are given; these were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
