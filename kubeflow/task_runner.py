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

from components import errors
from components.errors import PipelineError, UsageError
from kubeflow.executor_input import OUTPUT_FILE, Values, command_line
from kubeflow.ir import CompiledPipeline
from pipeline.live import Observer

_LOG, _COMMAND = "task.log", "command.sh"
_TAIL_LINES = 8
_Present: TypeAlias = Callable[[Mapping[str, pb.ArtifactList]], Mapping[str, Sequence[Any]]]
# A message of ours in the traceback that ends the log of a failed task; its further lines are indented.
_OUR_ERROR = re.compile(r"^components\.(?:\w+\.)*errors\.(\w+): (.*(?:\n .*)*)", re.MULTILINE)


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


def run_tasks(
    pipeline: CompiledPipeline, folder: Path, cache: Path, root: tuple[str, Path], observer: Observer, present: _Present
) -> list[FinishedTask]:
    """Runs every task of a compiled pipeline.

    Each has a folder `TASK` in `folder`, with its outputs, its log and `command.sh`, which runs it alone once more. A
    task for which the file allows it is answered from the cache where an earlier run had the same inputs and
    parameters, as a backend would do.

    Args:
        pipeline: the compiled file.
        folder: the run's own.
        cache: remembers finished tasks, for later runs.
        root: an address in the file, and the folder here that takes its place.
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
            given = values.executor_input(name, str(folder / name))
            spec = pipeline.spec.root.dag.tasks[name]
            command = _here(command_line(pipeline.executor(spec), given), root)
            known = cache / _key(command, folder / name)
            cached = spec.caching_options.enable_cache and known.exists() and _is_whole(Path(known.read_text()))
            if not cached:
                _run(name, command, folder / name, list(given.outputs.artifacts))
                cache.mkdir(parents=True, exist_ok=True)
                known.write_text(str(folder / name))
            outputs = values.take_output(name, given, Path(known.read_text()))
        except BaseException as error:
            observer.failed(name, time.monotonic() - started, error)
            raise
        task = FinishedTask(name, time.monotonic() - started, cached, outputs)
        observer.finished(name, task.seconds, cached, present(outputs))
        finished.append(task)
    return finished


def _here(command: Sequence[str], root: tuple[str, Path]) -> list[str]:
    """The command with this Python, and with the folder in the root's place, also within JSON."""
    address, folder = root
    places = re.compile(re.escape(address.rstrip("/")) + r"(?=[/\"'\\\s]|$)")
    words = [places.sub(lambda _: str(folder), word) for word in command]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def _key(command: Sequence[str], folder: Path) -> str:
    """Names what a task is given: all of its command but its own folder."""
    return hashlib.sha256("\0".join(command).replace(str(folder), "").encode()).hexdigest()[:32]


def _is_whole(folder: Path) -> bool:
    return (folder / OUTPUT_FILE).exists()


def _run(name: str, command: Sequence[str], folder: Path, outputs: Sequence[str]) -> None:
    for key in outputs:  # in a bucket, any path can be written to at once
        (folder / key).mkdir(parents=True)
    script, log = folder / _COMMAND, folder / _LOG
    folders = shlex.join(outputs)
    again = f"rm -rf .temp {OUTPUT_FILE} {folders}\nmkdir {folders}"
    script.write_text(f"#!/bin/sh\nset -e\ncd {shlex.quote(str(folder))}\n{again}\n{shlex.join(command)}\n")
    with log.open("wb") as output:
        # In its own folder: the code comes from where it is installed, as in the image, not from the checkout.
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ)
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
