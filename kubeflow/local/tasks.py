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

from etils import epath
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.components.code_version import SOURCE
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.kubeflow.entrypoint import POD_ROOT, TERMINATION_LOG
from mnist_tfx.kubeflow.ir import CompiledPipeline
from mnist_tfx.kubeflow.local.backends import Vertex
from mnist_tfx.kubeflow.local.executor_input import Values, command_line, kept
from mnist_tfx.kubeflow.verdict import TaskVerdict
from mnist_tfx.pipeline.observer import Observer

_LOG, _COMMAND = "task.log", "command.sh"
_RETRY = "MNIST_TFX_RETRY"
_TAIL_LINES = 8
_Present: TypeAlias = Callable[[Mapping[str, pb.ArtifactList]], Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class Places:
    """Where a run here keeps everything."""

    logs: Path  # a folder per task, with its log and `command.sh`, which runs it alone once more
    cache: Path  # remembers what finished tasks made, for later runs
    roots: Sequence[str]  # addresses in the compiled file
    root_here: str  # what takes their place; empty: nothing

    def here(self, text: str) -> str:
        """A text with what takes the roots' place, also within JSON."""
        if not self.root_here:
            return text
        roots = "|".join(map(re.escape, sorted(self.roots, key=len, reverse=True)))  # one may lie in another
        return re.sub(rf"(?:{roots})(?=[/\"'\\\s]|$)", lambda _: self.root_here, text)


@dataclass(frozen=True)
class FinishedTask:
    """A task that ran to its end; `outputs` lie where this machine can read them."""

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
    return list(TopologicalSorter(dict(sorted(waits.items()))).static_order())


def run_tasks(
    pipeline: CompiledPipeline, backend: Vertex, places: Places, observer: Observer, present: _Present
) -> list[FinishedTask]:
    """Runs every task of a compiled pipeline.

    A task for which the file allows it is answered from the cache where an earlier run had the same inputs and
    parameters, as a backend would do.

    Args:
        pipeline: the compiled file.
        backend: in whose way.
        places: where everything is kept.
        observer: is told how the run goes.
        present: makes what the observer understands of a task's outputs.

    Raises:
        PipelineError: a task failed. Where it failed with one of our own errors, that one, with its exit code.
    """
    values = Values(pipeline, backend, places.here)
    finished = []
    for name in order_of(pipeline):
        started = time.monotonic()
        observer.started(name)
        try:
            given = values.executor_input(name)
            spec = pipeline.spec.root.dag.tasks[name]
            executor = pipeline.executor(spec)
            known = places.cache / _key(pipeline.root, executor, given)
            made = _remembered(known, backend) if spec.caching_options.enable_cache else None
            cached = made is not None
            if made is None:
                _try(name, executor, given, backend, places, observer, spec.retry_policy.max_retry_count)
                made = kept(given, backend.after(name, pipeline.spec.components[spec.component_ref.name], given))
                known.parent.mkdir(parents=True, exist_ok=True)
                known.write_text(json_format.MessageToJson(made))
            values.take(name, made)
            outputs = _readable(made, backend)
        except BaseException as error:
            observer.failed(name, time.monotonic() - started, error)
            raise
        task = FinishedTask(name, time.monotonic() - started, cached, outputs)
        observer.finished(name, task.seconds, cached, present(outputs))
        finished.append(task)
    return finished


def _try(
    name: str, executor: Any, given: pb.ExecutorInput, backend: Vertex, places: Places, observer: Observer, retries: int
) -> None:
    """Runs a task up to 1 + `retries` times, as both backends do whatever it failed with; without their pauses.

    On Kubeflow each try is a new pod, of the same input (`getTaskRetryStrategyFromInput`, argocompiler/container.go in
    github.com/kubeflow/pipelines). Vertex AI: https://cloud.google.com/vertex-ai/docs/pipelines/configure-retries.
    """
    for attempt in range(retries + 1):
        # Not which code it is: the task may be run again once that is mended.
        environment = {each.name: places.here(each.value) for each in executor.container.env if each.name != SOURCE}
        environment |= backend.before(name, given)
        try:
            _run(name, command_line(executor, given, places.here), places.logs / name, environment, given, attempt)
            return
        except PipelineError:
            if attempt == retries:
                raise
            observer.progress(name, f"it failed; retry {attempt + 1} of {retries}")


def _key(root: str, executor: Any, given: pb.ExecutorInput) -> str:
    """Names what a task is given: which artifacts, which parameters, and its command before they are filled in.

    And the `root` of its outputs: what was made for another one has addresses that mean nothing under this one.
    """
    artifacts = {key: [each.uri for each in given.inputs.artifacts[key].artifacts] for key in given.inputs.artifacts}
    parameters = {key: json_format.MessageToDict(value) for key, value in given.inputs.parameter_values.items()}
    words = [*executor.container.command, *executor.container.args]
    outputs = sorted(given.outputs.artifacts)
    told = [root, sorted(artifacts.items()), sorted(parameters.items()), words, outputs]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def _remembered(known: Path, backend: Vertex) -> pb.ExecutorOutput | None:
    """What a task made in an earlier run; None where it was not run, or its outputs are gone."""
    try:
        made = json_format.Parse(known.read_text(), pb.ExecutorOutput())
    except (FileNotFoundError, json_format.ParseError):  # a kill, or a full disk, leaves a part of it
        return None
    addresses = [artifact.uri for artifacts in made.artifacts.values() for artifact in artifacts.artifacts]
    return made if all(epath.Path(backend.place(address)).exists() for address in addresses) else None


def _readable(made: pb.ExecutorOutput, backend: Vertex) -> dict[str, pb.ArtifactList]:
    outputs = {}
    for key, artifacts in made.artifacts.items():
        outputs[key] = pb.ArtifactList(artifacts=artifacts.artifacts)
        for artifact in outputs[key].artifacts:
            artifact.uri = backend.place(artifact.uri)
    return outputs


def _run(
    name: str,
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    given: pb.ExecutorInput,
    attempt: int,
) -> None:
    """One try; its log is added to those of the tries before."""
    folder.mkdir(parents=True, exist_ok=True)
    script, log, pod = folder / _COMMAND, folder / _LOG, folder / "pod"
    ended = pod / TERMINATION_LOG
    ended.parent.mkdir(parents=True, exist_ok=True)
    ended.write_text("")
    words = [sys.executable, *command[1:]] if command[0] == "python" else command
    old = [given.outputs.output_file, *(each.artifacts[0].uri for each in given.outputs.artifacts.values())]
    lines = ["#!/bin/sh", "set -e", f"cd {shlex.quote(str(folder))}"]
    # Of a run of this script before; a platform leaves to a second try what the first one wrote.
    lines += [f'[ -n "${_RETRY}" ] || rm -rf {shlex.join(each for each in old if "://" not in each)}']
    lines += [f"export {shlex.join([f'{key}={value}'])}" for key, value in {POD_ROOT: str(pod), **environment}.items()]
    script.write_text("\n".join([*lines, f"exec {shlex.join(words)}", ""]), encoding="utf-8")
    with log.open("ab") as output:
        if attempt:
            output.write(f"\nretry {attempt}\n".encode())
            output.flush()
        # In its own folder: the code comes from where it is installed, as in the image, not from the checkout.
        process = subprocess.Popen(
            ["sh", str(script)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, _RETRY: str(attempt or "")},
        )
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code:
        raise _failure(name, code, TaskVerdict.from_text(ended.read_text()), folder)


def _failure(name: str, code: int, verdict: TaskVerdict | None, folder: Path) -> PipelineError:
    """Our own error, as the task told it; else one with the end of the log."""
    where = (
        f"  log of the task: {folder / _LOG}\n  run it alone once more: {shlex.join(['sh', str(folder / _COMMAND)])}"
    )
    if verdict is not None and verdict.foreseen and (error := verdict.error()) is not None:
        return type(error)(f"{error}\n{where}")
    log = (folder / _LOG).read_text(errors="replace")
    tail = "\n".join(f"    {line}" for line in log.splitlines()[-_TAIL_LINES:])
    return PipelineError(f"task {name} failed with exit code {code}; the end of its log:\n{tail}\n{where}")
