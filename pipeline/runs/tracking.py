"""Finished runs recorded in MLflow, for those who compare experiments there. Needs the extra `mlflow`.

Only MLflow's client is used (package mlflow-skinny). It speaks to a tracking server, or writes an SQLite file itself.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_tfx.components.report.run import Run
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.log_capture import output_to

if TYPE_CHECKING:
    from mlflow.entities import Metric

_LOGGER = logging.getLogger(__name__)
_INSTALL = "uv pip install 'mlflow-skinny>=3.12' sqlalchemy alembic"
_LOG = "mlflow.log"
_PER_EPOCH = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


class Tracking:
    """Records runs: each dataset is an experiment."""

    def __init__(self, uri: str, home: Home) -> None:
        """Connects, so that what is wrong is known before anything is trained.

        Args:
            uri: of a tracking server or a database; empty: MLflow's own `MLFLOW_TRACKING_URI`, else HOME/mlflow.db.
            home: where the runs are.

        Raises:
            UsageError: the extra is not installed, or nothing can be recorded there.
        """
        self._uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.root / 'mlflow.db'}"
        self._home = home
        try:
            with output_to(home.root / _LOG):
                from mlflow import MlflowClient

                self._client = MlflowClient(self._uri, registry_uri="file:")  # unused; the default is the URI
                self._client.search_experiments(max_results=1)
        except ImportError as error:
            raise UsageError(
                f"--mlflow needs packages that are not installed ({error.name}): {_INSTALL}. See docs/mlflow.md."
            ) from error
        except Exception as error:  # MLflow's own, SQLAlchemy's, those of HTTP
            where = self._uri.rpartition("@")[2]  # without a password
            reason = " ".join(str(error).replace(self._uri, where).split())[:300]
            raise UsageError(f"--mlflow: nothing can be recorded at {where}: {reason}") from error

    def leave(self, run: Run) -> None:
        """`record` at the end of a run, which no failure here may fail: the log, and a line on stderr, say why."""
        with output_to(self._home.root / _LOG):
            try:
                told = f"recorded in MLflow as {self.record(run)}"
            except Exception as error:
                _LOGGER.exception("run %s was not recorded", run.run_id)
                told = f"not recorded in MLflow ({type(error).__name__}): {self._home.root / _LOG} says why"
        print(f"{run.run_id}: {told}", file=sys.stderr)

    def record(self, run: Run) -> str:
        """Writes down parameters, metrics, report and card of a run; returns MLflow's id of it.

        Parameters are the recipe, `section.key`; metrics are those of each epoch, and `test_*` as the Evaluator
        measured them; tags are dataset, run, verdict and pushed version.
        """
        from mlflow.entities import Param, RunTag

        verdict = run.verdict()
        tags = {
            "dataset": run.dataset,
            "run": run.run_id,
            "recipe": run.plan.recipe_name,
            "verdict": str(verdict),
            "pushed_version": verdict.pushed_version or "",
        }
        started = int((run.started.timestamp() if run.started else time.time()) * 1000)
        made = self._client.create_run(self._experiment(run.dataset), start_time=started, run_name=run.run_id)
        run_id = str(made.info.run_id)
        state = "FAILED"  # also of what cannot be recorded whole: it would be RUNNING for ever
        try:
            params = [Param(key, value) for key, value in _flat(run.plan.recipe)]
            self._client.log_batch(run_id, _metrics(run, started), params, [RunTag(*tag) for tag in tags.items()])
            card = self._home.card(run.dataset, run.run_id)
            for path in filter(Path.is_file, (*([Path(run.report)] if run.report else ()), card)):
                self._client.log_artifact(run_id, str(path))
            if verdict.exit_code == 0:
                state = "FINISHED"
        finally:
            self._client.set_terminated(run_id, state, started + int((run.seconds or 0) * 1000))
        return run_id

    def _experiment(self, dataset: str) -> str:
        if found := self._client.get_experiment_by_name(dataset):
            return str(found.experiment_id)
        # Without a place, MLflow writes files to the folder where one stands.
        place = (self._home.root / "mlflow").as_uri() if self._uri.startswith("sqlite:") else None
        return str(self._client.create_experiment(dataset, artifact_location=place))


def _flat(recipe: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in recipe.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value and key != "data.classes":  # whose names MLflow may refuse in a key
            yield from _flat(value, f"{key}.")
        elif value is not None:
            yield key, str(value)


def _metrics(run: Run, started: int) -> list[Metric]:
    from mlflow.entities import Metric

    from mnist_tfx.components.report.model import collect_training, read_training_log

    found = []
    if model := run.artifact("Trainer", "model"):
        for epoch in collect_training(read_training_log(model.uri), run.plan.recipe).epochs:
            values = {key: getattr(epoch, key) for key in _PER_EPOCH}
            found += [Metric(key, value, started, epoch.epoch) for key, value in values.items() if value is not None]
    if run.quality:
        whole = asdict(run.quality.overall) | {"worst_class_accuracy": run.quality.worst_class[1]}
        found += [Metric(f"test_{key}", value, started, 0) for key, value in whole.items() if value is not None]
    return found
