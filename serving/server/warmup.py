"""Replays recorded requests on a model before it becomes available, so that no client meets a cold one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from mnist_tfx.serving.server.calls import Calls, Steps, future
from mnist_tfx.serving.server.errors import ServingError, invalid
from mnist_tfx.serving.server.inference import CLASSIFY, REGRESS
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.servable import Servable

logger = logging.getLogger(__name__)

WARMUP_PATH = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
"""TF Serving's limit."""


def warm_up(servable: Servable, path: str, iterations: int = 1, metrics: Metrics | None = None) -> int:
    """Replays each warm-up record of the SavedModel at `path`, so often; returns how many there are (0: no file).

    Raises:
        ServingError: a record is damaged or fails, or there are more than `MAX_RECORDS`.
    """
    file = os.path.join(path, WARMUP_PATH)
    if not tf.io.gfile.exists(file):
        return 0
    with (metrics or Metrics()).warmup(path):
        count = 0
        for count, record in enumerate(_records(file), 1):
            if count > MAX_RECORDS:
                raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
            try:
                log = PredictionLog.FromString(record)
                for _ in range(iterations):
                    _replay(servable, log)
            except DecodeError as error:
                raise invalid(f"Failed to parse warmup record {count} from {file}: {error}") from error
            except ServingError as error:
                raise ServingError(error.code, f"warm-up record {count} of {file} failed: {error.message}") from error
    logger.info("version %d of model %s: %d warm-up requests replayed", servable.version, servable.name, count)
    return count


def _records(file: str) -> Iterator[bytes]:
    try:
        yield from tf.compat.v1.io.tf_record_iterator(file)
    except tf.errors.OpError as error:
        raise ServingError(grpc.StatusCode.DATA_LOSS, f"{file} is damaged: {error.message}") from error


def _replay(servable: Servable, log: PredictionLog) -> None:
    """Whatever the record names, it gets the version that is being loaded."""
    calls = Calls(lambda *_, **__: nullcontext(servable), Metrics())
    kinds: dict[str | None, Callable[..., Steps[Any]]] = {
        "predict_log": calls.predict,
        "classify_log": partial(calls.infer, CLASSIFY),
        "regress_log": partial(calls.infer, REGRESS),
        "multi_inference_log": calls.multi_inference,
    }
    kind = log.WhichOneof("log_type")
    if kind not in kinds:
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    request = getattr(log, kind).request
    for one in request.tasks if kind == "multi_inference_log" else [request]:
        one.model_spec.name = servable.name
    future(kinds[kind](request, None)).result()
