"""Fills a report from a run's artifacts, section by section: what one section lacks does not keep the others away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import tensorflow as tf
from tfx.utils import path_utils

from mnist_tfx.components.evaluator.quality import Quality, disagreements
from mnist_tfx.components.evaluator.result import read_quality
from mnist_tfx.components.infra_validator.checks import Check
from mnist_tfx.components.infra_validator.report import read_checks
from mnist_tfx.components.report.content import Lineage, LookAtIt, ReportContent
from mnist_tfx.components.report.data import collect_data, example_files
from mnist_tfx.components.report.look import disagreement, look_at
from mnist_tfx.components.report.model import collect_model, collect_serving, collect_training, read_training_log
from mnist_tfx.components.report.run import Run
from mnist_tfx.contract.names import TEST

_LOGGER = logging.getLogger(__name__)
_Section = TypeVar("_Section")


def collect(run: Run) -> ReportContent:
    """Everything that the report shows; a section that cannot be made is left out, and a warning says why."""
    warnings: list[str] = []

    def section(name: str, make: Callable[[], _Section]) -> _Section | None:
        try:
            return make()
        except Exception as error:
            _LOGGER.exception("section %r of the report could not be made", name)
            warnings.append(f"Section “{name}” is missing or incomplete: {type(error).__name__}: {error}")
            return None

    def look() -> LookAtIt | None:
        examples = run.artifact("TfdsExampleGen", "examples")
        if examples is None:
            return None
        files, plan = example_files(examples.uri, TEST), run.plan
        found = look_at(loaded, files, plan.class_names, plan.image_shape, seed=plan.data_fingerprint)
        if quality and (differs := disagreement(found, quality.confusion)):
            warnings.append(differs)
        return found.look

    model = run.artifact("Trainer", "model")
    data = section("Data", lambda: collect_data(run))
    log = section("Training", lambda: read_training_log(model.uri) if model else None)
    training = section("Training", lambda: collect_training(log, run.plan.recipe)) if log else None
    quality = section("Quality", lambda: run.quality or _quality(run))
    warnings += disagreements(quality) if quality else []
    checks = section("Serving", lambda: run.checks or _checks(run)) or ()
    judged = replace(run, quality=quality, checks=checks)
    model_dir = path_utils.serving_model_dir(model.uri) if model else None
    loaded: Any = section("Serving", lambda: tf.saved_model.load(model_dir) if model_dir else None)
    layers = section("Model", lambda: collect_model(log, loaded)) if log and loaded else None
    shown = section("Look at it", look) if loaded else None
    serving = section("Serving", lambda: collect_serving(loaded, str(model_dir), judged)) if loaded else None
    return replace(framed(judged, warnings), data=data, model=layers, training=training, look=shown, serving=serving)


def framed(run: Run, warnings: Sequence[str] = ()) -> ReportContent:
    """What is known of a `measured` run without its other artifacts: verdict, quality and lineage.

    Args:
        run: the run.
        warnings: what the report warns of.
    """
    return ReportContent(
        dataset=run.dataset,
        run_id=run.run_id,
        started=run.started,
        seconds=run.seconds,
        made=datetime.now(UTC),
        verdict=replace(run.verdict(), warnings=tuple(warnings)),
        quality=run.quality,
        lineage=Lineage(**vars(run.plan), executions=run.executions),
    )


def measured(run: Run) -> Run:
    """The run with what was measured of its model, as far as it got: its verdict then has the figures and the reasons.

    Raises:
        ValueError: the Evaluation cannot be read.
    """
    return replace(run, quality=_quality(run), checks=_checks(run))


def _quality(run: Run) -> Quality | None:
    evaluation = run.artifact("Evaluator", "evaluation")
    if evaluation is None:
        return None
    baseline = run.artifact("Baseline", "baseline")
    version = str(baseline.properties.get("version", "")) if baseline else None
    quality = read_quality(evaluation.uri, run.plan.class_names, version)
    if baseline and baseline.properties.get("not_compared"):  # nor is the candidate, in its stead, the first model
        return replace(quality, baseline_version=None)
    return quality


def _checks(run: Run) -> tuple[Check, ...]:
    blessing = run.artifact("InfraValidator", "blessing")
    return read_checks(blessing.uri) if blessing else ()
