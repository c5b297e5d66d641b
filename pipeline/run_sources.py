"""What a report of a local run is made from: ML Metadata, and what was planned. No TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mnist_tfx.components.report.content import ArtifactRow, ExecutionRow, Failure, Outcome
from mnist_tfx.components.report.sources import Sources
from mnist_tfx.contract import remedies
from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.pipeline import run_record
from mnist_tfx.pipeline.history import ArtifactRecord, ExecutionRecord, RunDetail
from mnist_tfx.pipeline.run_plan import RunPlan, read_plan
from mnist_tfx.pipeline.running.home import Home


def sources_of(detail: RunDetail, home: Home) -> Sources:
    """Everything that is known of a run of `home`."""
    run = detail.summary
    plan = read_plan(home.runs(run.dataset) / run.run_id) or _remembered(detail)
    log = home.log(run.dataset, run.run_id)
    return Sources(
        dataset=run.dataset,
        class_names=plan.class_names,
        image_shape=plan.image_shape,
        executions=tuple(_execution(execution) for execution in detail.executions),
        run_id=run.run_id,
        started=run.started,
        seconds=run.seconds,
        outcome=_outcome(run.verdict),
        failures=tuple(_failures(detail.executions, f" Log: {log}")),
        recipe_name=plan.recipe_name,
        recipe=plan.recipe,
        data_fingerprint=plan.data_fingerprint,
        versions=plan.versions,
        code_version=plan.code_version,
    )


def _outcome(verdict: str) -> Outcome | None:
    """That of a run which did not get to its end; of others, the artifacts tell."""
    match verdict.partition(":")[0]:
        case "running" | "killed" | "stopped" | "failed" | "data rejected" as outcome:
            return outcome
    return None


def _failures(executions: Iterable[ExecutionRecord], log: str) -> Iterable[Failure]:
    for execution in executions:
        if execution.state == "CANCELED":
            yield Failure(execution.component, "it was stopped", remedies.BROKEN_OFF)
        elif execution.error_type == run_record.KILLED:
            yield Failure(execution.component, execution.error or "", remedies.BROKEN_OFF + log)
        elif execution.state == "FAILED":
            rejected = execution.exit_code == DataRejected.exit_code
            remedy = remedies.REJECTED_DATA if rejected else remedies.FAILED
            yield Failure(execution.component, execution.error or "no reason was noted", remedy + log)


def _execution(record: ExecutionRecord) -> ExecutionRow:
    return ExecutionRow(
        id=record.id,
        component=record.component,
        state=record.state,
        begun=record.begun,
        seconds=record.seconds,
        inputs=tuple(map(_artifact, record.inputs)),
        outputs=tuple(map(_artifact, record.outputs)),
    )


def _artifact(record: ArtifactRecord) -> ArtifactRow:
    return ArtifactRow(record.id, record.type, record.name, record.uri, record.properties)


def _remembered(detail: RunDetail) -> RunPlan:
    """What ML Metadata has of the plan of a run that left none: as far as it is in what the Trainer was told."""
    trainers = [
        each for each in detail.executions if each.component == "Trainer" and "custom_config" in each.parameters
    ]
    config = json.loads(str(trainers[0].parameters["custom_config"])) if trainers else {}
    return RunPlan(
        class_names=tuple(config.get("class_names", ())),
        image_shape=tuple(config.get("image_shape", (28, 28, 1))),
        data_fingerprint=config.get("data_fingerprint", ""),
        recipe_name="",
        recipe={key: config[key] for key in ("model", "training") if key in config},
        versions={},
        code_version=config.get("code_version", ""),
    )
