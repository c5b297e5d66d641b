"""`mnist-tfx predict`: classifies image files through gRPC; with `--batch`, many of them without a server."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import METADATA_PATH
from mnist_tfx.contract.versions import ROLLED_BACK, stored_versions
from mnist_tfx.pipeline.commands import predict_batch
from mnist_tfx.pipeline.commands.options.server import add_server_arguments, add_version_arguments, connected, positive
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from mnist_tfx.serving.client import Classification, Client

SUMMARY = "Classify image files with a served model, through gRPC; or many of them into Parquet files, with --batch."
EXAMPLE = (
    "mnist-tfx predict fashion_mnist boot.png shirt.jpg"
    "\nexample: mnist-tfx predict mnist --batch scans/ --out predictions/"
)

_ROWS = 128  # images read before they are sent
_STDIN = "stdin"
_TIMEOUT = 10.0
_TOP = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_server_arguments(parser)
    add_version_arguments(parser)
    images = parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="a PNG, JPEG, BMP, GIF or IDX file (also gzipped IDX), or - for stdin",
    )
    parser.add_argument(
        "--top", type=positive(int), metavar="K", help=f"tell the K likeliest classes (default: {_TOP})"
    )
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="the names of all classes, one a line, to name the runners-up "
        "(default: as the version that answers has them in HOME/serving, if the server is on this machine)",
    )
    parser.add_argument("--home", metavar="DIR", help="where that version is (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument(
        "--timeout", type=positive(float), metavar="S", help=f"seconds for {_ROWS} images (default: {_TIMEOUT:g})"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON list, one object an image; with --batch, one object"
    )
    predict_batch.add_batch_arguments(parser, images)


def run(args: argparse.Namespace) -> int:
    """Prints one line, or one JSON object, an image."""
    if args.batch is not None:
        return predict_batch.run_batch(args)
    if args.out is not None or args.part is not None or args.recipe is not None or args.set:
        raise UsageError("--out, --part, --recipe and --set go with --batch IN.")
    from mnist_tfx.serving.client import Retry
    from mnist_tfx.serving.client.channel import is_loopback

    # Where no server is, that is said within a second: `mnist-tfx wait` is for one that starts.
    retry = Retry(attempts=5)
    with connected(args, class_names=_given_names(args), timeout=args.timeout or _TIMEOUT, retry=retry) as client:
        answers = _classify(client, args.images, args.top or _TOP)
        if args.class_names is None and is_loopback(args.address):
            answers = _with_names(answers, Home.resolve(args.home).serving(args.model))
        if args.json:
            _print_json(answers)
        else:
            for name, answer in answers:
                print(f"{name}  {answer.label}  {answer.probability:.4f}{_others(answer)}", flush=True)
    return 0


def _others(answer: Classification) -> str:
    others = [f"{one.label or f'class {one.index}'} {one.probability:.4f}" for one in answer.top[1:]]
    return f"  ({', '.join(others)})" if others else ""


def _print_json(answers: Iterator[tuple[str, Classification]]) -> None:
    """A valid list only once it is whole: an error leaves its end out."""
    print("[", end="")
    for number, (name, answer) in enumerate(answers):
        print("," if number else "", json.dumps({"image": name, **asdict(answer)}), sep="\n", end="")
    print("\n]")


def _classify(client: Client, images: list[str], top: int) -> Iterator[tuple[str, Classification]]:
    """The name and the answer of each image; an IDX file's are called FILE[0], FILE[1], ..."""
    from mnist_tfx.serving.client import idx

    encoded: list[tuple[str, str | bytes]] = []
    for image in images:
        with _opened(image) as file:
            name = _STDIN if image == "-" else image
            start = file.peek(4)
            if not start.startswith((idx.GZIP, idx.IMAGES, idx.LABELS)):
                # What is no regular file, such as the pipe of <(convert ...), can be read only once.
                encoded.append((name, image if image != "-" and os.path.isfile(image) else file.read()))
                if len(encoded) == _ROWS:
                    yield from _classify_encoded(client, encoded, top)
                    encoded.clear()
                continue
            yield from _classify_encoded(client, encoded, top)
            encoded.clear()
            batches = idx.read_images(file, name, gzipped=start.startswith(idx.GZIP), rows=_ROWS)
            number = 0
            for predictions in client.predict_stream(batches):
                for row in range(len(predictions)):
                    yield f"{name}[{number}]", predictions.classification(row, top)
                    number += 1
    yield from _classify_encoded(client, encoded, top)


def _classify_encoded(
    client: Client, images: list[tuple[str, str | bytes]], top: int
) -> Iterator[tuple[str, Classification]]:
    answers = client.classify(*[image for _, image in images], top=top)
    yield from zip([name for name, _ in images], answers, strict=True)


@contextmanager
def _opened(image: str) -> Iterator[BufferedReader]:
    if image == "-":
        yield cast(BufferedReader, sys.stdin.buffer)
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(image, "rb"))
        except OSError as error:
            raise UsageError(f"cannot read {image}: {error.strerror or error}.") from error
        yield file


def _given_names(args: argparse.Namespace) -> list[str] | None:
    """The names of all classes, as `--class-names` gives them: a server tells only the likeliest one's."""
    if args.class_names is None:
        return None
    with _opened(args.class_names) as file:
        return file.read().decode("utf-8-sig", "replace").splitlines()


def _with_names(answers: Iterator[tuple[str, Classification]], folder: Path) -> Iterator[tuple[str, Classification]]:
    """The answers with the runners-up named as the model on this machine has them.

    They stay without names where it calls the likeliest class otherwise: the server then has another model.
    """
    names_of = cache(lambda version: dict(enumerate(_class_names(folder, version))))
    for image, answer in answers:
        names = names_of(answer.version)
        if names.get(answer.index) == answer.label:
            answer = replace(answer, top=tuple(replace(one, label=names.get(one.index)) for one in answer.top))
        yield image, answer


def _class_names(folder: Path, number: int) -> list[str]:
    """The names of all classes as the version that answered has them, or the newest one if that is not here."""
    stored = stored_versions(folder)
    answered = [version for version in (*stored, *stored_versions(folder / ROLLED_BACK)) if version.number == number]
    for version in answered or reversed(stored):
        with suppress(OSError, ValueError, KeyError, TypeError):  # a model made elsewhere has no such file
            return [str(name) for name in json.loads((version.path / METADATA_PATH).read_text())["class_names"]]
    return []
