"""`mnist-tfx compile`: the pipeline as a file for Vertex AI or Kubeflow Pipelines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import TARGETS
from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.refused import refuse_given
from mnist_tfx.pipeline.commands.options.remote import (
    add_pipeline_arguments,
    add_target_arguments,
    compile_into,
    read_profile,
)
from mnist_tfx.pipeline.home import RUN_LOG

if TYPE_CHECKING:
    from mnist_tfx.kubeflow.compile import Upload

SUMMARY = "compile the pipeline for Vertex AI or Kubeflow Pipelines, check the file, run it here"
EXAMPLE = "mnist-tfx compile --target vertex --dataset mnist --profile vertex-gpu -o pipeline.json"

# What --check has no use for. (A project that one stands in has its own dataset and home.)
_OF_COMPILING = ("profile", "profile_set", "set", "output", "run_local", "as_", "in_bucket")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_target_arguments(parser, required=False)  # --check needs none of them
    add_pipeline_arguments(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it: .json (Vertex AI) or .yaml")
    parser.add_argument(
        "--run-local",
        metavar="DIR",
        help="then run the compiled file on this machine; DIR takes the place of the profile's root",
    )
    parser.add_argument(
        "--as",
        dest="as_",
        choices=TARGETS,
        help="with --run-local: what to behave as around each task (default: the profile's target)",
    )
    parser.add_argument(
        "--in-bucket",
        action="store_true",
        help="with --run-local: read and write the bucket itself, with your credentials; DIR gets only the logs",
    )
    parser.add_argument("--check", metavar="FILE", help="only check a compiled file, whoever compiled it")


def run(args: argparse.Namespace) -> int:
    """Checks a file, or compiles one, and runs it if told to."""
    if args.check:
        refuse_given(args, _OF_COMPILING, "--check only looks at a file that is compiled already")
        return _check(Path(args.check), args)
    missing = [f"--{name}" for name in ("target", "dataset", "profile", "output") if not getattr(args, name)]
    if missing:
        raise UsageError(f"compile needs {', '.join(missing)} (or --check FILE). Example: {EXAMPLE}")
    if args.in_bucket and not args.run_local:
        raise UsageError("--in-bucket goes with --run-local DIR.")
    if args.as_ and not args.run_local:
        raise UsageError("--as goes with --run-local DIR.")
    return _compile(Path(args.output), args)


def _check(path: Path, args: argparse.Namespace) -> int:
    from mnist_tfx.kubeflow.check import check_file, rules_of

    target = check_file(path, args.target)
    rules = rules_of(target)
    if args.json:
        print(json.dumps({"file": str(path), "target": target, "rules": [rule.name for rule in rules]}, indent=2))
        return 0
    for rule in rules:
        print(f"ok  {rule.name:25} {rule.says}")
    print(f"{path} keeps all rules of {target}.")
    return 0


def _compile(output: Path, args: argparse.Namespace) -> int:
    from mnist_tfx.pipeline.recipes import load_recipe

    profile = read_profile(args)
    backend = args.as_ or profile.target
    if args.in_bucket and backend == "kubeflow":
        raise UsageError("--in-bucket goes with --as vertex: Kubeflow's launcher copies with credentials of its own.")
    recipe = load_recipe(project_of(args), args.recipe, args.set)
    dataset, needed = compile_into(output, args, recipe, profile)
    if not args.run_local:
        _report(output, needed, as_json=args.json)
        return 0
    from mnist_tfx.kubeflow.ir import read_compiled
    from mnist_tfx.kubeflow.local.run import check_target, run_local
    from mnist_tfx.kubeflow.local.tasks import order_of
    from mnist_tfx.pipeline.log_capture import output_to
    from mnist_tfx.pipeline.running.describe import describer
    from mnist_tfx.pipeline.running.live_view import make_observer
    from mnist_tfx.pipeline.runs.ids import claim_run_id
    from mnist_tfx.pipeline.runs.views import tell_runs

    pipeline, folder = read_compiled(output), Path(args.run_local).resolve()
    check_target(pipeline, backend)
    nodes = order_of(pipeline)
    run_folder = folder / "runs" / recipe.project.model
    run_folder /= claim_run_id(run_folder, dataset.name)
    log = run_folder / RUN_LOG
    with make_observer(dataset.name, nodes, describer(dataset.class_names)) as observer, output_to(log):
        run = run_local(
            pipeline, profile, folder, run_folder, dataset, needed, backend, observer, in_bucket=args.in_bucket
        )
    return tell_runs([run], as_json=args.json)


def _report(output: Path, needed: list[Upload], *, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "file": str(output),
                    "uploads": [{"source": str(each.source), "destination": each.destination} for each in needed],
                },
                indent=2,
            )
        )
        return
    print(f"{output} keeps all rules. Before it runs, these must lie in the bucket:")
    for each in needed:
        print(f"  {each.command()}")
