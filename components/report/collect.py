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
    return _Collector(run).content()


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
    return read_quality(evaluation.uri, run.plan.class_names, version)


def _checks(run: Run) -> tuple[Check, ...]:
    blessing = run.artifact("InfraValidator", "blessing")
    return read_checks(blessing.uri) if blessing else ()


class _Collector:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._warnings: list[str] = []

    def content(self) -> ReportContent:
        run = self._run
        model = run.artifact("Trainer", "model")
        data = self._section("Data", lambda: collect_data(run))
        log = self._section("Training", lambda: read_training_log(model.uri) if model else None)
        training = self._section("Training", lambda: collect_training(log, run.plan.recipe)) if log else None
        quality = self._section("Quality", lambda: run.quality or _quality(run))
        self._warnings += disagreements(quality) if quality else []
        checks = self._section("Serving", lambda: run.checks or _checks(run)) or ()
        judged = replace(run, quality=quality, checks=checks)
        model_dir = path_utils.serving_model_dir(model.uri) if model else None
        loaded = self._section("Serving", lambda: tf.saved_model.load(model_dir) if model_dir else None)
        layers = self._section("Model", lambda: collect_model(log, loaded)) if log and loaded else None
        look = self._section("Look at it", lambda: self._look(loaded, quality)) if loaded else None
        serving = self._section("Serving", lambda: collect_serving(loaded, str(model_dir), judged)) if loaded else None
        return replace(
            framed(judged, self._warnings), data=data, model=layers, training=training, look=look, serving=serving
        )

    def _section(self, name: str, make: Callable[[], _Section]) -> _Section | None:
        try:
            return make()
        except Exception as error:
            _LOGGER.exception("section %r of the report could not be made", name)
            self._warnings.append(f"Section “{name}” is missing or incomplete: {type(error).__name__}: {error}")
            return None

    def _look(self, model: Any, quality: Quality | None) -> LookAtIt | None:
        examples = self._run.artifact("TfdsExampleGen", "examples")
        if examples is None:
            return None
        files = example_files(examples.uri, TEST)
        plan = self._run.plan
        found = look_at(model, files, plan.class_names, plan.image_shape, seed=plan.data_fingerprint)
        differs = disagreement(found, quality.confusion) if quality else None
        if differs:
            self._warnings.append(differs)
        return found.look
