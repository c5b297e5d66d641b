"""Fills a report from a run's artifacts, section by section: what one section lacks does not keep the others away.

A local run makes its report twice: in the pipeline, and when all times and verdicts are known. What takes long (pixels
counted, the model's answers) is a function of artifacts, which never change, and is kept for the second time.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import tensorflow as tf
from tfx.utils import path_utils

from components.features import TEST
from components.report.content import Lineage, LookAtIt, Quality, ReportContent
from components.report.data import collect_data, example_files
from components.report.look import disagreement, look_at
from components.report.model import collect_serving, collect_training
from components.report.quality import collect_quality, disagreements
from components.report.sources import Sources
from components.report.verdict import collect_verdict

_LOGGER = logging.getLogger(__name__)
_Section = TypeVar("_Section")


def collect(sources: Sources) -> ReportContent:
    """Everything that the report shows; a section that cannot be made is left out, and a warning says why."""
    return _Collector(sources).content()


@functools.lru_cache(maxsize=1)
def _load(model_dir: str) -> Any:
    return tf.saved_model.load(model_dir)


class _Collector:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._warnings: list[str] = []

    def content(self) -> ReportContent:
        sources = self._sources
        model = sources.artifact("Trainer", "model")
        data = self._section("Data", lambda: collect_data(sources))
        training = self._section("Training", lambda: collect_training(model.uri, sources.recipe) if model else None)
        quality = self._section("Quality", self._quality)
        model_dir = path_utils.serving_model_dir(model.uri) if model else None
        loaded = self._section("Serving", lambda: _load(model_dir) if model_dir else None)
        look = self._section("Look at it", lambda: self._look(loaded, quality)) if loaded else None
        serving = self._section("Serving", lambda: collect_serving(loaded, str(model_dir), sources)) if loaded else None
        return ReportContent(
            dataset=sources.dataset,
            run_id=sources.run_id,
            started=sources.started,
            seconds=sources.seconds,
            made=datetime.now(UTC),
            verdict=collect_verdict(sources, quality, serving, self._warnings),
            data=data,
            training=training,
            quality=quality,
            look=look,
            serving=serving,
            lineage=Lineage(
                executions=sources.executions,
                data_fingerprint=sources.data_fingerprint,
                recipe=sources.recipe,
                versions=sources.versions,
                code_version=sources.code_version,
            ),
        )

    def _section(self, name: str, make: Callable[[], _Section]) -> _Section | None:
        try:
            return make()
        except Exception as error:
            _LOGGER.exception("section %r of the report could not be made", name)
            self._warnings.append(f"Section “{name}” is missing or incomplete: {type(error).__name__}: {error}")
            return None

    def _quality(self) -> Quality | None:
        evaluation = self._sources.artifact("Evaluator", "evaluation")
        if evaluation is None:
            return None
        baseline = self._sources.artifact("Baseline", "baseline")
        version = str(baseline.properties.get("version", "")) if baseline else None
        quality = collect_quality(evaluation.uri, self._sources.class_names, version)
        self._warnings += disagreements(quality)
        return quality

    def _look(self, model: Any, quality: Quality | None) -> LookAtIt | None:
        examples = self._sources.artifact("TfdsExampleGen", "examples")
        if examples is None:
            return None
        files = example_files(examples.uri, TEST)
        found = look_at(model, tuple(files), tuple(self._sources.class_names), tuple(self._sources.image_shape))
        differs = disagreement(found, quality.confusion) if quality else None
        if differs:
            self._warnings.append(differs)
        return found.look
