"""Executor and driver of `Monitor`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from absl import logging
from tfx.utils import io_utils

from mnist_tfx.components.live.driver import SurroundingsDriver
from mnist_tfx.components.monitoring.watch import watch
from mnist_tfx.components.report.artifact import html_file
from mnist_tfx.components.report.page.monitoring import render_monitoring
from mnist_tfx.components.settings import MonitoringSettings
from mnist_tfx.components.step import Artifacts, Step
from mnist_tfx.components.whole_files import write_whole
from mnist_tfx.contract.errors import DataRejected


class Executor(Step):
    """Writes the page, and fails on drift."""

    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Looks at the logs.

        Raises:
            DataRejected: there is drift.
            PipelineError: there are no logs, or nothing to compare them with.
        """
        settings = MonitoringSettings.model_validate_json(parameters["settings"])
        report = watch(
            parameters["model"],
            parameters["serving_dir"],
            io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(inputs["schema"].uri)),
            settings,
            since=datetime.now(UTC) - timedelta(hours=settings.hours),
            any_size=bool(parameters["any_size"]),
        )
        page = render_monitoring(report).encode()
        newest = f"{settings.logs}.html"
        for path in (html_file(outputs["report"].uri), newest):
            write_whole(path, page)
        logging.info("%s", report.sentence())
        if report.drifts:
            raise DataRejected(f"{report.sentence()}. See {newest}")


class Driver(SurroundingsDriver):
    """What is logged changes at any time: nothing is answered from the cache."""

    def surroundings(self, inputs: Artifacts, parameters: Mapping[str, Any]) -> str:
        return str(time.time_ns())
