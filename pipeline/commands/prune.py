"""`mnist-tfx prune`: removes old versions, runs and reports."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.contract.versions import model_names
from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.release import add_server_arguments, open_servers
from mnist_tfx.pipeline.commands.options.server import positive
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.log_capture import output_to

SUMMARY = "Remove old versions, runs and reports; what is served, pinned, or shared with what stays is kept."
EXAMPLE = "mnist-tfx prune --keep 3 --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--dataset", metavar="NAME", help="only versions and runs of this dataset")
    parser.add_argument(
        "--keep",
        type=positive(int),
        default=5,
        metavar="N",
        help="the N newest of each are kept (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what would go, and remove nothing")
    add_server_arguments(parser)
    parser.add_argument("--home", metavar="DIR", help="where all state lives (default: MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints what goes and its bytes, a line each, or one JSON object."""
    home = Home.resolve(args.home)
    if args.dataset not in (None, *model_names(home.serving_root)) and not home.runs(args.dataset).is_dir():
        project_of(args)  # raises where there is no such dataset
    with ExitStack() as stack:
        has_runs = home.metadata_db.exists()
        try:
            if has_runs and not args.dry_run:
                stack.enter_context(home.lock())
        except PipelineError as error:
            print(f"note: runs are left alone: {error}", file=sys.stderr)
            has_runs = False
        versions, staying = _prune_versions(args, home)
        gone = [*versions, *(_prune_runs(args, home, staying) if has_runs else [])]
    total = sum(each.bytes for each in gone)
    if args.json:
        told = {"dry_run": args.dry_run, "bytes": total, "removed": [asdict(each) for each in gone]}
        print(json.dumps(told, indent=2))
        return 0
    for each in gone:
        print(f"{each.kind:<8} {each.dataset}  {each.name}  {each.bytes:,} bytes")
    print(f"{len(gone)} {'would be removed' if args.dry_run else 'removed'}, {total:,} bytes")
    return 0


@dataclass(frozen=True)
class _Gone:
    kind: str
    dataset: str
    name: str
    bytes: int


def _prune_versions(args: argparse.Namespace, home: Home) -> tuple[list[_Gone], set[tuple[str, str]]]:
    """What goes, and dataset and number of the versions that stay, rolled back ones included."""
    from mnist_tfx.contract.models_config import ModelsConfig
    from mnist_tfx.serving.releases.apply import changes_kept_out
    from mnist_tfx.serving.releases.prune import remove_versions, unneeded_versions
    from mnist_tfx.serving.releases.state import read_state

    gone: list[_Gone] = []
    staying: set[tuple[str, str]] = set()
    config = ModelsConfig.read(home.serving_root)
    if config.lists_nothing:
        lost = f"{config.path} lists no model: what was pinned is lost"
        print(f"note: versions are left alone: {lost}. mnist-tfx status tells what to do", file=sys.stderr)
    for model in model_names(home.serving_root):
        with ExitStack() as stack:
            servers = open_servers(stack, args, model)
            if not args.dry_run:
                stack.enter_context(changes_kept_out(home.serving_root))
            state = read_state(home.serving_root, model)
            going = unneeded_versions(state, args.keep, servers) if args.dataset in (None, model) else []
            gone += [_Gone("version", model, str(one.number), _size(one.path)) for one in going]
            staying |= {(model, str(one.number)) for one in (*state.stored, *state.rolled_back) if one not in going}
            if not args.dry_run:
                remove_versions(state, going)
    return gone, staying


def _prune_runs(args: argparse.Namespace, home: Home, versions: set[tuple[str, str]]) -> list[_Gone]:
    from mnist_tfx.pipeline.runs.prune import remove_runs, unneeded_runs

    found, listed = unneeded_runs(home, args.keep, versions), model_names(home.serving_root)
    going = [each for each in found if args.dataset in (None, each.run.dataset)]
    # Of a folder that cannot be read it is not known which versions stay, and who pushed them.
    going = [one for one in going if one.run.dataset in listed or not home.serving(one.run.dataset).exists()]
    gone = [_Gone("run", one.run.dataset, one.run.run_id, sum(map(_size, one.paths))) for one in going]
    if going and not args.dry_run:
        remove_runs(home, going)
        with output_to(Path(os.devnull)):  # TensorFlow is chatty from its import on
            from mnist_tfx.pipeline.runs.report import write_index

            write_index(home)
    return gone


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
