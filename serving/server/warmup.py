"""Replays recorded requests on a model before it becomes available, so that no client meets a cold one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from mnist_tfx.serving.server import inference, predict, replies
from mnist_tfx.serving.server.errors import ServingError
from mnist_tfx.serving.server.servable import Servable

WARMUP_PATH = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
"""TF Serving's limit."""


class _Candidate:
    """Whatever a recorded request names, it gets the version that is being loaded."""

    def __init__(self, servable: Servable) -> None:
        self._servable = servable

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> AbstractContextManager[Servable]:
        return nullcontext(self._servable)


def warm_up(servable: Servable, path: str, iterations: int = 1) -> int:
    """Replays each warm-up record of the SavedModel at `path`, so often; returns how many there are (0: no file).

    Raises:
        ServingError: a record is damaged or fails, or there are more than `MAX_RECORDS`.
    """
    file = os.path.join(path, WARMUP_PATH)
    if not tf.io.gfile.exists(file):
        return 0
    count = 0
    for record in _records(file):
        count += 1
        if count > MAX_RECORDS:
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}",
            )
        try:
            log = PredictionLog.FromString(record)
            for _ in range(iterations):
                _replay(servable, log)
        except DecodeError as error:
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT, f"Failed to parse warmup record {count} from {file}: {error}"
            ) from error
        except ServingError as error:
            raise ServingError(error.code, f"warm-up record {count} of {file} failed: {error.message}") from error
    return count


def _records(file: str) -> Iterator[bytes]:
    try:
        yield from tf.compat.v1.io.tf_record_iterator(file)
    except tf.errors.OpError as error:
        raise ServingError(grpc.StatusCode.DATA_LOSS, f"{file} is damaged: {error.message}") from error


def _replay(servable: Servable, log: PredictionLog) -> None:
    candidate = _Candidate(servable)
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        log.predict_log.request.model_spec.name = servable.name
        request = log.predict_log.request
        replies.future(lambda reply: predict.submit_request(candidate, request, None, reply)).result()
    elif kind == "classify_log":
        log.classify_log.request.model_spec.name = servable.name
        inference.classify(candidate, log.classify_log.request, None)
    elif kind == "regress_log":
        log.regress_log.request.model_spec.name = servable.name
        inference.regress(candidate, log.regress_log.request, None)
    elif kind == "multi_inference_log":
        for task in log.multi_inference_log.request.tasks:
            task.model_spec.name = servable.name
        inference.multi_inference(candidate, log.multi_inference_log.request, None)
    else:
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
