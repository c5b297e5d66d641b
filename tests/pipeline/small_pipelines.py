"""Pipelines of real TFX components that take no time, for the tests of the runner, the table and the history.

No `from __future__ import annotations` here: TFX reads the annotations of component functions as objects.
"""

import io
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, PushedModel

from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.pipeline.running.live_view import PlainLines
from mnist_tfx.pipeline.running.local_runner import RunResult, run_pipeline
from mnist_tfx.pipeline.runs.ids import claim_run_id

PROGRESS = logging.getLogger("mnist_tfx.progress")


@component
def ExampleGen(examples: OutputArtifact[Examples], fingerprint: Parameter[str]) -> None:
    Path(examples.uri, "data").write_text(fingerprint)


@component
def DataGate(examples: InputArtifact[Examples], accepted: OutputArtifact[Examples], limit: Parameter[int]) -> None:
    """Refuses data longer than `limit` characters."""
    text = Path(examples.uri, "data").read_text()
    if len(text) > limit:
        raise DataRejected(f"{len(text)} characters, {limit} are allowed")
    Path(accepted.uri, "data").write_text(text)


@component
def Trainer(examples: InputArtifact[Examples], model: OutputArtifact[Model], behavior: Parameter[str]) -> None:
    """`behavior`: `train`, or `fail`, or `exit`, or `wait:PATH` to sleep for as long as PATH exists."""
    print("printed by the trainer")
    os.write(2, b"written to descriptor 2\n")
    PROGRESS.info("epoch 1/2  accuracy 0.9")
    Path(model.uri, "partial").write_text("half a model")
    if behavior == "fail":
        logging.getLogger("trainer").warning("the loss is not finite")
        raise ValueError("NaN in the weights")
    if behavior == "exit":
        raise SystemExit("no more")
    kind, _, flag = behavior.partition(":")
    if kind == "wait":
        Path(flag + ".reached").touch()
        while Path(flag).exists():
            time.sleep(0.05)
    PROGRESS.info("epoch 2/2  accuracy 0.95")
    Path(model.uri, "partial").rename(Path(model.uri, "saved_model.pb"))


@component
def Evaluator(model: InputArtifact[Model], blessing: OutputArtifact[ModelBlessing], blessed: Parameter[int]) -> None:
    blessing.set_int_custom_property("blessed", blessed)


@component
def Pusher(
    model: InputArtifact[Model], blessing: InputArtifact[ModelBlessing], pushed_model: OutputArtifact[PushedModel]
) -> None:
    pushed = int(blessing.get_int_custom_property("blessed"))
    pushed_model.set_int_custom_property("pushed", pushed)
    if pushed:
        pushed_model.set_string_custom_property("pushed_version", "7")


def small_pipeline(
    home: Path,
    run_id: str,
    *,
    name: str = "mnist",
    behavior: str = "train",
    fingerprint: str = "abc",
    limit: int = 10,
    blessed: int = 1,
) -> Pipeline:
    """Five nodes, with the ids that the product's pipeline has."""
    example_gen = ExampleGen(fingerprint=fingerprint).with_id("TfdsExampleGen")
    gate = DataGate(examples=example_gen.outputs["examples"], limit=limit)
    trainer = Trainer(examples=gate.outputs["accepted"], behavior=behavior)
    evaluator = Evaluator(model=trainer.outputs["model"], blessed=blessed)
    pusher = Pusher(model=trainer.outputs["model"], blessing=evaluator.outputs["blessing"])
    return Pipeline(
        pipeline_name=name,
        pipeline_root=str(home / "runs" / name / run_id),
        components=[example_gen, gate, trainer, evaluator, pusher],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(home / "metadata.db")),
    )


def run_small_pipeline(home: Path, after: Mapping[str, Callable[[], None]] | None = None, **options: Any) -> RunResult:
    """Runs `small_pipeline(home, ..., **options)` under a fresh run id; nobody watches."""
    run_id = claim_run_id(home / "runs" / "mnist", "mnist")
    with PlainLines("mnist", NODE_IDS, describe, io.StringIO()) as observer:
        return run_pipeline(
            small_pipeline(home, run_id, **options),
            run_id=run_id,
            log_file=log_file(home, run_id),
            observer=observer,
            after=after or {},
        )


def log_file(home: Path, run_id: str) -> Path:
    """Where `run_small_pipeline` logs."""
    return home / "runs" / "mnist" / run_id / "run.log"


NODE_IDS = ("TfdsExampleGen", "DataGate", "Trainer", "Evaluator", "Pusher")


def describe(node_id: str, outputs: object) -> str:
    """What the observers show for a finished node."""
    return f"made by {node_id}"
