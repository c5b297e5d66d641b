"""`mnist-tfx submit`: one run of the pipeline on Vertex AI or Kubeflow Pipelines."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.remote import (
    add_pipeline_arguments,
    add_request_arguments,
    add_target_arguments,
    compiled_job,
    open_platform,
    read_profile,
    seconds,
)

if TYPE_CHECKING:
    from mnist_tfx.kubeflow.remote.follow import Verdict

SUMMARY = "run the pipeline on Vertex AI or Kubeflow Pipelines"
EXAMPLE = "mnist-tfx submit --target vertex --dataset mnist --profile my-vertex.toml --wait"
_POLL = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_target_arguments(parser)
    add_request_arguments(parser)
    add_pipeline_arguments(parser)
    parser.add_argument("--no-cache", action="store_true", help="run every component, even where its answer is known")
    parser.add_argument("--wait", action="store_true", help="follow the run until it ends, with its exit code")
    parser.add_argument(
        "--poll", type=seconds, metavar="SECONDS", help=f"with --wait: between two looks at it (default: {_POLL:g})"
    )


def run(args: argparse.Namespace) -> int:
    """Compiles, begins the run, and follows it if told to."""
    from mnist_tfx.pipeline.recipes import load_recipe

    if args.poll is not None and not args.wait:
        raise UsageError("--poll goes with --wait.")
    profile = read_profile(args)
    if args.no_cache:
        profile = profile.model_copy(update={"cache": False})
    recipe = load_recipe(project_of(args), args.recipe, args.set)
    platform = open_platform(profile, args.request_timeout)
    with compiled_job(args, recipe, profile) as job:
        submitted = platform.submit(job)
    answer: dict[str, Any] = {"target": profile.target, "run": submitted.run_id, "url": submitted.url}
    if not args.wait:
        _print(answer, as_json=args.json)
        return 0
    from mnist_tfx.kubeflow.remote.follow import describe, follow
    from mnist_tfx.pipeline.running.live_view import make_observer

    print(f"watch it at {submitted.url}", file=sys.stderr)
    try:
        with make_observer(job.pipeline, job.tasks, describe) as observer:
            verdict = follow(platform, job, submitted, observer, args.poll or _POLL)
    except KeyboardInterrupt:
        print(f"stopped watching; the run goes on: {submitted.url}", file=sys.stderr)
        return 130
    return _report(answer, verdict, as_json=args.json)


def _report(answer: dict[str, Any], verdict: Verdict, *, as_json: bool) -> int:
    code = verdict.error.exit_code if verdict.error else 0
    answer |= {
        "succeeded": verdict.error is None,
        "pushed_version": verdict.pushed_version or None,
        "note": verdict.note or None,
        "exit_code": code,
        "error": str(verdict.error) if verdict.error else None,
    }
    _print(answer, as_json=as_json)
    if verdict.error:
        print(f"error: {verdict.error}", file=sys.stderr)
    return code


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    print(f"run {answer['run']}\nwatch it at {answer['url']}")
    if "succeeded" in answer:
        pushed = f", version {answer['pushed_version']} pushed" if answer["pushed_version"] else ""
        print(f"succeeded{pushed}" if answer["succeeded"] else "did not succeed")
        if answer["note"]:
            print(f"note: {answer['note']}")
