"""Runs the tasks of a compiled pipeline on this machine, each by its own command, as a process of its own."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, TypeAlias

from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.contract import errors
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.ir import CompiledPipeline
from mnist_tfx.kubeflow.local.executor_input import OUTPUT_FILE, Values, command_line, has_output
from mnist_tfx.pipeline.observer import Observer

_LOG, _COMMAND = "task.log", "command.sh"
_TAIL_LINES = 8
_Present: TypeAlias = Callable[[Mapping[str, pb.ArtifactList]], Mapping[str, Sequence[Any]]]
# A message of ours in the traceback that ends the log of a failed task; its further lines are indented.
_OUR_ERROR = re.compile(r"^mnist_tfx\.(?:\w+\.)*errors\.(\w+): (.*(?:\n .*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Places:
    """Where a run here keeps everything."""

    logs: Path  # a folder per task, with its log and `command.sh`, which runs it alone once more
    outputs: str  # a folder per task: a path, or an address in a bucket
    cache: Path  # remembers finished tasks, for later runs
    root: str  # an address in the compiled file
    root_here: str  # what takes its place; the same, where nothing shall


@dataclass(frozen=True)
class FinishedTask:
    """A task that ran to its end; `outputs` as the backend keeps them."""

    name: str
    seconds: float
    cached: bool  # taken from an earlier run
    outputs: Mapping[str, pb.ArtifactList]


def order_of(pipeline: CompiledPipeline) -> list[str]:
    """The tasks in an order in which they can run, by what each waits for; the same file gives the same order.

    Raises:
        UsageError: the pipeline has parts that only a cluster can run.
    """
    if any(component.HasField("dag") for component in pipeline.spec.components.values()):
        raise UsageError(f"{pipeline.path} has graphs inside its graph, which cannot be run here.")
    waits: dict[str, list[str]] = {}
    for name, task in pipeline.spec.root.dag.tasks.items():
        executor = pipeline.executor(task)
        if executor is None or not executor.HasField("container"):
            raise UsageError(f"task {name} has no container, and cannot be run here.")
        if task.trigger_policy.condition:
            raise UsageError(f"task {name} has a condition, which cannot be judged here.")
        waits[name] = list(task.dependent_tasks)
    sorter = TopologicalSorter(waits)
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def run_tasks(pipeline: CompiledPipeline, places: Places, observer: Observer, present: _Present) -> list[FinishedTask]:
    """Runs every task of a compiled pipeline.

    A task for which the file allows it is answered from the cache where an earlier run had the same inputs and
    parameters, as a backend would do.

    Args:
        pipeline: the compiled file.
        places: where everything is kept.
        observer: is told how the run goes.
        present: makes what the observer understands of a task's outputs.

    Raises:
        PipelineError: a task failed. Where it failed with one of our own errors, that one, with its exit code.
    """
    values = Values(pipeline)
    finished = []
    for name in order_of(pipeline):
        started = time.monotonic()
        observer.started(name)
        try:
            own = f"{places.outputs}/{name}"
            given = values.executor_input(name, own)
            spec = pipeline.spec.root.dag.tasks[name]
            command = _here(command_line(pipeline.executor(spec), given), places)
            known = places.cache / _key(command, own)
            cached = spec.caching_options.enable_cache and known.exists() and has_output(known.read_text())
            if not cached:
                _run(name, command, places.logs / name, _fresh_folders(own, given))
                places.cache.mkdir(parents=True, exist_ok=True)
                known.write_text(own)
            outputs = values.take_output(name, given, known.read_text())
        except BaseException as error:
            observer.failed(name, time.monotonic() - started, error)
            raise
        task = FinishedTask(name, time.monotonic() - started, cached, outputs)
        observer.finished(name, task.seconds, cached, present(outputs))
        finished.append(task)
    return finished


def _here(command: Sequence[str], places: Places) -> list[str]:
    """The command with this Python, and with what takes the root's place, also within JSON."""
    address = re.compile(re.escape(places.root.rstrip("/")) + r"(?=[/\"'\\\s]|$)")
    words = [address.sub(lambda _: places.root_here, word) for word in command]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def _key(command: Sequence[str], own: str) -> str:
    """Names what a task is given: all of its command but its own folder."""
    return hashlib.sha256("\0".join(command).replace(own, "").encode()).hexdigest()[:32]


def _fresh_folders(own: str, given: pb.ExecutorInput) -> list[str]:
    """Shell commands that make a task's output folders anew; a bucket needs none, any path in it can be written to."""
    if "://" in own:
        return []
    folders = shlex.join([f"{own}/{key}" for key in given.outputs.artifacts])
    return [f"rm -rf {shlex.join([f'{own}/{OUTPUT_FILE}', f'{own}/.temp'])} {folders}", f"mkdir -p {folders}"]


def _run(name: str, command: Sequence[str], folder: Path, before: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    script, log = folder / _COMMAND, folder / _LOG
    lines = ["#!/bin/sh", "set -e", f"cd {shlex.quote(str(folder))}", *before, f"exec {shlex.join(command)}"]
    script.write_text("\n".join([*lines, ""]))
    with log.open("wb") as output:
        # In its own folder: the code comes from where it is installed, as in the image, not from the checkout.
        process = subprocess.Popen(
            ["sh", str(script)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(os.environ),
        )
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code:
        raise _failure(name, code, log.read_text(errors="replace"), folder)


def _failure(name: str, code: int, log: str, folder: Path) -> PipelineError:
    """Our own error, as the task raised it; else one with the end of the log."""
    where = f"  log of the task: {folder / _LOG}\n  run it alone once more: sh {folder / _COMMAND}"
    found = _OUR_ERROR.findall(log)
    kind = getattr(errors, found[-1][0], None) if found else None
    if isinstance(kind, type) and issubclass(kind, PipelineError):
        return kind(f"{found[-1][1]}\n{where}")
    tail = "\n".join(f"    {line}" for line in log.splitlines()[-_TAIL_LINES:])
    return PipelineError(f"task {name} failed with exit code {code}; the end of its log:\n{tail}\n{where}")
