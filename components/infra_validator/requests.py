"""Requests made of real examples, for every signature; the same become the model's warm-up records."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tfx.utils import path_utils

from mnist_tfx.components.transform.preprocessing import decode_images
from mnist_tfx.contract.names import ENCODED_IMAGES, EXAMPLES, IMAGE, IMAGES, SERVING_DEFAULT


@dataclass(frozen=True)
class Request:
    """A batch for one signature."""

    signature: str
    key: str  # name of the input
    value: npt.NDArray[Any]


def read_requests(split_uri: str, count: int, image_shape: tuple[int, int, int]) -> list[Request]:
    """A request for each signature, with the first `count` examples of a split of Examples.

    Raises:
        ValueError: the split is empty.
    """
    files = sorted(tf.io.gfile.glob(os.path.join(split_uri, "*")))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").take(count)
    serialized = np.array(list(records.as_numpy_iterator()), dtype=object)
    if not serialized.size:
        raise ValueError(f"no examples in {split_uri} to send to the model")
    encoded = tf.io.parse_example(serialized, {IMAGE: tf.io.FixedLenFeature([], tf.string)})[IMAGE]
    return [
        Request(SERVING_DEFAULT, EXAMPLES, serialized),
        Request(IMAGES, IMAGES, decode_images(encoded, image_shape).numpy()),
        Request(ENCODED_IMAGES, ENCODED_IMAGES, encoded.numpy()),
    ]


def write_warmup(model_dir: str, model_name: str, requests: list[Request]) -> None:
    """Records each request, whole and with one example, where a model server looks for what to replay after loading.

    Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    path = path_utils.warmup_file_path(model_dir)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for request in requests:
            for value in (request.value[:1], request.value):
                predict = predict_pb2.PredictRequest()
                predict.model_spec.name = model_name
                predict.model_spec.signature_name = request.signature
                predict.inputs[request.key].CopyFrom(tf.make_tensor_proto(value))
                log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=predict))
                writer.write(log.SerializeToString())
