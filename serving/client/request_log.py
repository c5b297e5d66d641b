"""Requests with their answers as TF Serving's `PredictionLog`, a sample of them, in files."""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from mnist_tfx.serving.client.errors import InvalidOption
from mnist_tfx.serving.client.messages import build_pool, message_class
from mnist_tfx.serving.client.pixels import Pixels, parse_pixels, reduced
from mnist_tfx.serving.client.record_files import RecordFiles

DEFAULT_MAX_BYTES = 2**30
DEFAULT_KEEP_DAYS = 30.0

logger = logging.getLogger(__name__)

_PACKAGE = "tensorflow.serving"
# tensorflow_serving/apis/prediction_log.proto and logging.proto. What is written as it is, is declared as its bytes:
# on the wire they are the same.
_POOL = build_pool(
    {
        f"{_PACKAGE}.SamplingConfig": ("double sampling_rate = 1",),
        f"{_PACKAGE}.LogMetadata": (
            "bytes model_spec = 1",
            f"{_PACKAGE}.SamplingConfig sampling_config = 2",
            "int64 timestamp_secs = 4",
        ),
        f"{_PACKAGE}.Log": ("bytes request = 1", "bytes response = 2"),
        f"{_PACKAGE}.PredictionLog": (
            f"{_PACKAGE}.LogMetadata log_metadata = 1",
            f"log_type: {_PACKAGE}.Log classify_log = 2",
            f"log_type: {_PACKAGE}.Log regress_log = 3",
            f"log_type: {_PACKAGE}.Log multi_inference_log = 4",
            f"log_type: {_PACKAGE}.Log predict_log = 6",
        ),
        # PredictResponse, ClassificationResponse and RegressionResponse, as far as what they say of the model.
        f"{_PACKAGE}.Answer": ("bytes model_spec = 2",),
        f"{_PACKAGE}.MultiInferenceResponse": (f"repeated {_PACKAGE}.InferenceResult results = 1",),
        f"{_PACKAGE}.InferenceResult": ("bytes model_spec = 1",),
    },
    {},
    (_PACKAGE,),
)
_PredictionLog = message_class(f"{_PACKAGE}.PredictionLog", _POOL)
_Answer = message_class(f"{_PACKAGE}.Answer", _POOL)
_MultiAnswer = message_class(f"{_PACKAGE}.MultiInferenceResponse", _POOL)


def resolved_spec(kind: str, response: bytes) -> bytes:
    """The serialized model_spec of a serialized response: which version answered."""
    if kind == "multi_inference_log":
        return bytes(_MultiAnswer.FromString(response).results[0].model_spec)
    return bytes(_Answer.FromString(response).model_spec)


def _serialized(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


class SampledLog:
    """Writes a share of the calls to files, each call by chance."""

    def __init__(self, files: RecordFiles, sampling: float, pixels: Pixels = "full") -> None:
        self._files = files
        self._sampling = sampling
        self._pixels = pixels

    def is_sampled(self) -> bool:
        """Whether the next call is to be added."""
        return random.random() < self._sampling

    def add(self, kind: str, model: str, call: Callable[[], tuple[Any, Any, Any]]) -> None:
        """Adds a call; never raises.

        Args:
            kind: the field of a PredictionLog: "predict_log", "classify_log", ...
            model: the model's name.
            call: gives the resolved model_spec, the request and the response, as messages or serialized.
        """
        try:
            spec, request, response = call()
            log = _PredictionLog()
            log.log_metadata.model_spec = _serialized(spec)
            log.log_metadata.sampling_config.sampling_rate = self._sampling
            log.log_metadata.timestamp_secs = int(time.time())
            logged = getattr(log, kind)
            logged.request = reduced(kind, _serialized(request), self._pixels)
            logged.response = _serialized(response)
            self._files.add(model, log.SerializeToString())
        except Exception:  # such as a message of more than 2 GiB, or a thread that cannot be had
            self._files.count(model, "INTERNAL", 1)
            logger.debug("a call was not logged", exc_info=True)

    def drop(self, model: str) -> None:
        """Counts a sampled call that is not added, for want of memory."""
        self._files.count(model, "RESOURCE_EXHAUSTED", 1)


class RequestLog(SampledLog):
    """A client's log: what was asked and answered, in `FOLDER/requests-*.tfrecord.gz`, one PredictionLog a record.

    Records are written within about a second, in a thread of its own; where it cannot keep up, or the disk takes no
    more, they are dropped and the calls go on. What is in the queue is written at `close` and when Python ends.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        sampling: float = 1.0,
        max_bytes: int = DEFAULT_MAX_BYTES,
        keep_days: float = DEFAULT_KEEP_DAYS,
        pixels: Pixels = "full",
    ) -> None:
        """Needs google-crc32c. May be used by several clients.

        Args:
            folder: is made at the first record; the files are readable to their owner only.
            sampling: the share of calls that are logged, 0 to 1.
            max_bytes: of all files in the folder; the oldest are removed.
            keep_days: older files are removed.
            pixels: `hash` keeps a SHA-256 of each image instead, N its N x N averages (`pixels.reduced`).

        Raises:
            InvalidOption: an option that cannot be used.
        """
        if not 0 <= sampling <= 1:
            raise InvalidOption(f"sampling is a share from 0 to 1, got {sampling}.")
        if max_bytes < 1 or keep_days <= 0:
            raise InvalidOption(f"max_bytes ({max_bytes}) and keep_days ({keep_days}) must be above 0.")
        self._counting = threading.Lock()
        self._counts: Counter[str] = Counter()
        files = RecordFiles(
            os.path.join(folder, "requests"),
            max_bytes=max_bytes,
            keep_seconds=keep_days * 86400,
            count=self._on_counted,
        )
        super().__init__(files, sampling, parse_pixels(pixels))
        atexit.register(self.close)

    @property
    def written(self) -> int:
        """Records in the files."""
        return self._counts["OK"]

    @property
    def dropped(self) -> int:
        """Sampled calls that were not written."""
        return self._counts.total() - self.written

    def close(self) -> None:
        """Writes what is in the queue; calls made later are dropped."""
        self._files.close()
        atexit.unregister(self.close)

    def _on_counted(self, _model: str, code: str, count: int) -> None:
        with self._counting:
            self._counts[code] += count
