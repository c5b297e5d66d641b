"""A gRPC client of TensorFlow Serving for image classifiers; needs grpcio, protobuf and NumPy, and no TensorFlow."""

from mnist_tfx.serving.client.async_client import AsyncClient
from mnist_tfx.serving.client.channel import Retry, Tls
from mnist_tfx.serving.client.client import Client
from mnist_tfx.serving.client.errors import (
    DeadlineExceeded,
    InvalidInput,
    InvalidOption,
    MalformedAnswer,
    ModelNotFound,
    ResourceExhausted,
    ServingClientError,
    SignatureNotFound,
    Unavailable,
)
from mnist_tfx.serving.client.request_log import RequestLog
from mnist_tfx.serving.client.results import (
    Classification,
    ClassScore,
    ModelMetadata,
    Predictions,
    Signature,
    TensorSpec,
    VersionStatus,
)

__all__ = [
    "AsyncClient",
    "ClassScore",
    "Classification",
    "Client",
    "DeadlineExceeded",
    "InvalidInput",
    "InvalidOption",
    "MalformedAnswer",
    "ModelMetadata",
    "ModelNotFound",
    "Predictions",
    "RequestLog",
    "ResourceExhausted",
    "Retry",
    "ServingClientError",
    "Signature",
    "SignatureNotFound",
    "TensorSpec",
    "Tls",
    "Unavailable",
    "VersionStatus",
]
