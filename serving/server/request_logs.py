"""The request log: each model's `logging_config`, and the files of its log collector.

TF Serving leaves the collectors to who builds it (core/log_collector.h); here there is one, of type `tfrecord`. What is
sampled, and that models with the same files share a collector, follows core/server_request_logger.cc and
core/request_logger.cc.
"""

from __future__ import annotations

from collections.abc import Iterable

from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from mnist_tfx.serving.client.pixels import Pixels
from mnist_tfx.serving.client.record_files import RecordFiles
from mnist_tfx.serving.client.request_log import SampledLog
from mnist_tfx.serving.server.metrics import Metrics


class RequestLogs:
    """The logs of the models in the list. All methods may be called from many threads at once."""

    def __init__(self, metrics: Metrics, *, max_bytes: int, keep_days: float, pixels: Pixels) -> None:
        """As a client's `RequestLog`; `max_bytes` are those of all files of one prefix."""
        self._metrics = metrics
        self._pixels = pixels
        self._max_bytes, self._keep_seconds = max_bytes, keep_days * 86400
        self._files: dict[str, RecordFiles] = {}
        self._logs: dict[str, SampledLog] = {}

    def update(self, models: Iterable[ModelConfig]) -> None:
        """Logs as these checked configs say from now on; the caller lets no other thread do the same."""
        files: dict[str, RecordFiles] = {}
        logs: dict[str, SampledLog] = {}
        for model in models:
            if model.HasField("logging_config"):
                config = model.logging_config
                prefix = config.log_collector_config.filename_prefix
                files[prefix] = self._files.get(prefix) or files.get(prefix) or self._open(prefix)
                logs[model.name] = SampledLog(files[prefix], config.sampling_config.sampling_rate, self._pixels)
        before, self._files, self._logs = self._files, files, logs
        for prefix in before.keys() - files.keys():
            before[prefix].close(timeout=0)

    def sampled(self, model: str) -> SampledLog | None:
        """Where a call of a model is to be logged; None where it is not."""
        log = self._logs.get(model)
        return log if log is not None and log.is_sampled() else None

    def close(self, timeout: float) -> None:
        """Writes what is in the queues, in so many seconds."""
        for files in self._files.values():
            files.close(timeout)

    def _open(self, prefix: str) -> RecordFiles:
        return RecordFiles(
            prefix, max_bytes=self._max_bytes, keep_seconds=self._keep_seconds, count=self._metrics.request_logged
        )
