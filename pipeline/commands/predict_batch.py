"""`mnist-tfx predict MODEL --batch`: classifies whole folders or datasets into Parquet files, without a server."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tfx.components.settings import BeamSettings
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.remedies import FIRST_RUN
from mnist_tfx.pipeline.commands.options.refused import refuse_given
from mnist_tfx.pipeline.commands.options.server import OF_A_SERVER, positive
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.log_capture import output_to

if TYPE_CHECKING:
    from mnist_tfx.serving.releases.state import ModelState

_PART = 4096
_SHOWN = 10


class _InsteadOfImages(argparse.Action):
    """`--batch`: with it, no images need be named.

    With nargs="*" they never need be, but argparse would then take none where an option comes before them.
    """

    def __init__(self, *args: Any, images: argparse.Action, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._images = images

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, values)
        self._images.required = False


def add_batch_arguments(parser: argparse.ArgumentParser, images: argparse.Action) -> None:
    """Declares `--batch`, which is instead of the argument `images`, and what goes with it."""
    batch = parser.add_argument_group("batch prediction", "of any number of images, in Beam; no server is asked")
    batch.add_argument(
        "--batch",
        metavar="IN",
        action=_InsteadOfImages,
        images=images,
        help="a folder of images, TFRecord files of tf.Examples (a pattern in quotes), or tfds:NAME:SPLIT",
    )
    batch.add_argument("--out", metavar="DIR", help="for the Parquet files; a call that was stopped goes on there")
    batch.add_argument("--part", type=positive(int), metavar="N", help=f"images of a Parquet file (default: {_PART})")
    batch.add_argument("--recipe", metavar="NAME", help="whose section [beam] says where Beam runs (default: default)")
    batch.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as beam.workers=2")


def run_batch(args: argparse.Namespace) -> int:
    """Predicts, and says what lies in the folder."""
    if args.out is None:
        raise UsageError("--batch needs --out DIR, the folder for the predictions.")
    why = "--batch asks no server, and writes the probabilities of all classes"
    refuse_given(args, (*OF_A_SERVER, "top", "class_names"), why)
    if args.images:
        raise UsageError(f"--batch takes no images of their own: leave {args.images[0]} out.")
    home, part = Home.resolve(args.home), args.part or _PART
    started = time.monotonic()
    log = home.root / "predict.log"
    beam_settings = _beam_settings(args)
    try:
        with output_to(log):
            from mnist_tfx.components.batch_prediction.inputs import find_inputs
            from mnist_tfx.components.batch_prediction.predict import BatchModel, predict_batch, read_manifest
            from mnist_tfx.components.beam_arguments import beam_arguments

            arguments = beam_arguments(beam_settings)
            version, folder = _version(args, home, read_manifest(args.out))
            inputs = find_inputs(args.batch, str(home.datasets), part)
            model = BatchModel(args.model, version, str(folder))
            found = predict_batch(args.batch, inputs, model, args.out, part, arguments)
    except RuntimeError as error:  # what Beam makes of a worker's error
        raise PipelineError(f"the prediction failed: {error}. Its log: {log}. The same call goes on.") from error
    seconds = time.monotonic() - started
    if args.json:
        told = {"out": args.out, "version": version, "seconds": round(seconds, 3)} | asdict(found)
        problems = dict(found.unreadable[:_SHOWN])  # all are in the folder
        print(json.dumps(told | {"unreadable": len(found.unreadable), "problems": problems}, indent=2))
        return 0
    for key, problem in found.unreadable[:_SHOWN]:
        print(f"{key} {problem}", file=sys.stderr)
    print(
        f"{args.model} version {version}: {found.images:,} images in {found.parts:,} files of {args.out}, "
        f"{found.new_images:,} of them now ({seconds:.1f} s); {len(found.unreadable):,} unreadable"
    )
    return 0


def _beam_settings(args: argparse.Namespace) -> BeamSettings:
    """Those of the model's recipe; the defaults for a model without one."""
    from mnist_tfx.pipeline.projects import shipped_datasets
    from mnist_tfx.pipeline.recipes import load_recipe

    if not (args.project or args.recipe or args.set or args.model in shipped_datasets()):
        return BeamSettings()
    return load_recipe(args.project or args.model, args.recipe or "default", args.set).beam


def _version(args: argparse.Namespace, home: Home, manifest: dict[str, object] | None) -> tuple[int, Path]:
    """Number and folder of the version that is asked for, that was begun with, or that is live."""
    from mnist_tfx.serving.releases.state import read_state

    state = read_state(home.serving_root, args.model)
    begun = manifest["model"] if manifest else None
    number = _labelled(args.label, state) if args.version is None else args.version
    if number is None and isinstance(begun, dict) and begun["model"] == args.model:
        number = begun["version"]
    number = state.live if number is None else number
    if number is None:
        raise PipelineError(f"model {args.model!r} has no version in {state.folder} that could be loaded. {FIRST_RUN}")
    for version in (*state.stored, *state.rolled_back):
        if version.number == number and version.whole:
            return version.number, version.path
    known = ", ".join(map(str, state.whole)) or "none"
    raise UsageError(f"model {args.model!r} has no version {number} in {state.folder}; it has: {known}.")


def _labelled(label: str | None, state: ModelState) -> int | None:
    if label is None:
        return None
    labels = state.pin.labels if state.pin else {}
    if label not in labels:
        raise UsageError(f"model {state.model!r} has no label {label!r}; it has: {', '.join(labels) or 'none'}.")
    return labels[label]
