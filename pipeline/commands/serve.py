"""`mnist-tfx serve`: a model server for the machine you are on."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.versions import version_number
from mnist_tfx.pipeline.commands.options.server import share
from mnist_tfx.pipeline.home import Home
from mnist_tfx.serving.server.flags import OWN, add_flags, as_command_line, as_options, given_flags, tell_version
from mnist_tfx.serving.server.startup import load_libraries

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

SUMMARY = "serve the pushed models over gRPC and REST, as TF Serving does"
EXAMPLE = "mnist-tfx serve"

BINARY = "tensorflow_model_server"
_CONFIG_NAME = "models.config"
_MODEL_FLAGS = ("model_name", "model_base_path", "model_config_file")
_POLL = "model_config_file_poll_wait_seconds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options: ours, and TF Serving's flags."""
    parser.description = (
        f"{SUMMARY[0].upper()}{SUMMARY[1:]}. Without a flag that names models, all models under HOME/serving are "
        "served, as HOME/serving/models.config says if it exists; versions that come later are taken up, and by our "
        "own server models, too. The flags are TF Serving's, and so are the formats of the files they name. What TF "
        "Serving leaves off unless told is on here: REST (port 8501) and, in our own server, batching and Prometheus "
        "metrics."
    )
    parser.add_argument("--home", metavar="DIR", help="where the models are (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument(
        "--engine",
        choices=("auto", BINARY, "python"),
        default="auto",
        help=f"auto: {BINARY} if it is on the PATH, else our own server (default: auto)",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="serve a page beside the models, on the REST port: draw a digit or drop an image, and see the answer",
    )
    parser.add_argument(
        "--log-requests",
        nargs="?",
        type=share,
        const=1.0,
        metavar="SHARE",
        help="write this share of the requests, with their answers, to HOME/requests/MODEL (default: all), which "
        "`mnist-tfx monitor` reads; off unless asked for: they are what your users sent",
    )
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until a signal; or turns into `tensorflow_model_server`."""
    given = {"port": 8500, "rest_api_port": 8501} | given_flags(args)
    own = [name for name in OWN if name in given]
    named = [name for name in _MODEL_FLAGS if name in given]
    if args.demo and args.engine == BINARY:
        raise UsageError(f"--demo is a page of our own server: {BINARY} serves none. Add --engine python.")
    if args.demo and not given["rest_api_port"]:
        raise UsageError("--demo is on the REST port, which --rest_api_port 0 switches off: leave one of them out.")
    if args.log_requests is not None:
        if args.engine == BINARY:
            raise UsageError(f"--log-requests is our own server's: {BINARY} has no request log. Add --engine python.")
        if named:
            raise UsageError(
                "--log-requests is for the models under HOME/serving: for others, write logging_config into the file "
                "of --model_config_file."
            )
    if named and args.home is not None:
        raise UsageError(f"--{named[0]} says which models to serve, and so does --home: leave one of them out.")
    if args.engine == BINARY or (args.engine == "auto" and not own and not args.demo and args.log_requests is None):
        binary = shutil.which(BINARY)
        if binary is not None:
            return _become(binary, args, given, own)
        if args.engine == BINARY:
            raise UsageError(f"{BINARY} is not on the PATH. Install TF Serving, or leave out --engine.")
    return _serve(args, given)


def _serve(args: argparse.Namespace, given: dict[str, Any]) -> int:
    if given.pop("version", False):
        return tell_version()
    load_libraries()
    from mnist_tfx.serving.demo.pages import application
    from mnist_tfx.serving.server.config import MonitoringConfig, ServerOptions
    from mnist_tfx.serving.server.main import ModelServer
    from mnist_tfx.serving.server.process import run

    demo = application if args.demo else None
    # What TF Serving leaves off unless told, a user of this command expects: metrics, and the speed of batching.
    options = ServerOptions(**as_options({"enable_batching": True} | given))
    monitoring = MonitoringConfig(enable=True) if not options.monitoring_config_file else None
    if any(flag in given for flag in _MODEL_FLAGS):
        server = ModelServer(options, monitoring=monitoring, demo=demo)
    else:
        home = Home.resolve(args.home)
        options = replace(
            options,
            allow_version_labels_for_unavailable_models=True,  # the file was written while a server had them
            model_config_file_poll_wait_seconds=options.model_config_file_poll_wait_seconds if _POLL in given else 1,
        )
        folder = ServingFolder(home.serving_root)

        def models() -> ModelServerConfig:
            return logged(folder.models(), home, args.log_requests)

        server = ModelServer(options, source=models, monitoring=monitoring, demo=demo)
    return run(server)


def logged(models: ModelServerConfig, home: Home, share: float | None) -> ModelServerConfig:
    """The models with their requests logged where `monitor` looks for them; where the file says how, as it says."""
    for model in models.model_config_list.config:
        if share is not None and not model.HasField("logging_config"):
            model.logging_config.log_collector_config.type = "tfrecord"
            model.logging_config.log_collector_config.filename_prefix = str(home.requests(model.name))
            model.logging_config.sampling_config.sampling_rate = share
    return models


class ServingFolder:
    """What a serving folder holds, asked again and again: what is live stays so when the folder has a bad moment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = folder / _CONFIG_NAME
        self._had_config = False
        self._names: list[str] = []

    def models(self) -> ModelServerConfig:
        """As its models.config says, else the newest version of each of its models.

        Raises:
            PipelineError: there is no model in it, the file cannot be used, or the folder cannot be read.
        """
        from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

        from mnist_tfx.serving.server.config_files import read_models

        if self._config.exists():
            self._had_config = True
            return read_models(str(self._config))
        if self._had_config:  # editors write a file anew, and for a moment there is none
            self._had_config = False
            raise PipelineError(f"{self._config} is gone. If it stays so, the newest version of each model is served")
        models = ModelServerConfig()
        self._names = self._found()
        for name in self._names:
            base_path = str(self._folder / name)
            models.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
        if not self._names:
            raise PipelineError(
                f"no model has been pushed to {self._folder} yet. Make one with: make run (or: mnist-tfx run --dataset "
                "mnist, or --project DIR)"
            )
        return models

    def _found(self) -> list[str]:
        """Folders with at least one version; one that cannot be read is a model if it was one before."""
        try:
            folders = sorted(self._folder.iterdir()) if self._folder.exists() else []
        except OSError as error:
            raise PipelineError(f"{self._folder} cannot be read: {error.strerror}") from error
        return [folder.name for folder in folders if self._is_model(folder)]

    def _is_model(self, folder: Path) -> bool:
        try:
            return folder.is_dir() and any(version_number(path.name) is not None for path in folder.iterdir())
        except OSError:  # such as lost+found, which only root may read
            return folder.name in self._names


def _become(binary: str, args: argparse.Namespace, given: dict[str, Any], own: list[str]) -> int:
    """Replaces this process by TF Serving's server, with the same flags."""
    if own:
        raise UsageError(
            f"--{own[0]} is for our own server: {BINARY} listens on all addresses, takes each list of models that a "
            "client sends it, and has no request log. Add --engine python."
        )
    if given.get("version"):
        given = {"version": True}
    elif not any(flag in given for flag in _MODEL_FLAGS):
        from google.protobuf import text_format

        serving = Home.resolve(args.home).serving_root
        models = ServingFolder(serving).models()
        config = serving / _CONFIG_NAME
        if not config.exists():
            config = serving / ".tensorflow_model_server.config"
            config.write_text(text_format.MessageToString(models))
        given = given | {
            "model_config_file": str(config),
            _POLL: given.get(_POLL, 1),
            "allow_version_labels_for_unavailable_models": True,
        }
    print(f"{binary} takes over; it listens on all addresses", file=sys.stderr, flush=True)
    os.execv(binary, [binary, *as_command_line(given)])
