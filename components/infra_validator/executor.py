"""Executor of `InfraValidator`."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import tensorflow as tf
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from mnist_tfx.components.infra_validator import checks
from mnist_tfx.components.infra_validator.checks import Check
from mnist_tfx.components.infra_validator.local_server import local_server
from mnist_tfx.components.infra_validator.model_server import ModelServer, ServerFailed
from mnist_tfx.components.infra_validator.report import write_report
from mnist_tfx.components.infra_validator.requests import Request, read_requests, write_warmup
from mnist_tfx.components.infra_validator.staging_server import staging_server
from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.components.step import Artifacts, Step
from mnist_tfx.contract.names import IMAGES, TEST
from mnist_tfx.serving.client import ServingClientError

_LATENCY_REQUESTS = 100
# What TFX's Pusher looks for in an InfraBlessing (tfx/components/infra_validator/executor.py).
_BLESSED, _HAS_MODEL = "blessed", "has_model"
_BLESSED_FILES = {True: "INFRA_BLESSED", False: "INFRA_NOT_BLESSED"}


class Executor(Step):
    """Serves the candidate, asks it, and judges what it says."""

    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Writes the blessing, with the model to push (warm-up records included) and the report inside.

        Raises:
            PipelineError: there is no server to load the model, or it may not be used; that says nothing of the model.
        """
        settings = InfraSettings.model_validate_json(parameters["settings"])
        model_name = parameters["model_name"]
        candidate, blessing = inputs["model"], outputs["blessing"]
        model_dir = path_utils.serving_model_path(candidate.uri, path_utils.is_old_model_artifact(candidate))
        stamped = path_utils.stamped_model_path(blessing.uri)
        with self._server(settings, model_name) as server:  # which starts while the requests are made
            model = tf.saved_model.load(model_dir)
            image_shape = tuple(model.signatures[IMAGES].structured_input_signature[1][IMAGES].shape[1:])
            examples_uri = artifact_utils.get_split_uri([inputs["examples"]], TEST)
            requests = read_requests(examples_uri, settings.examples, image_shape)
            io_utils.copy_dir(model_dir, stamped)
            write_warmup(stamped, model_name, requests)
            found, latencies = validate(server, settings, model, stamped, requests)

        blessed = all(check.passed for check in found)
        write_report(blessing.uri, found, latencies)
        io_utils.write_string_file(os.path.join(blessing.uri, _BLESSED_FILES[blessed]), "")
        blessing.set_int_custom_property(_BLESSED, int(blessed))
        blessing.set_int_custom_property(_HAS_MODEL, 1)

    def _server(self, settings: InfraSettings, model_name: str) -> AbstractContextManager[ModelServer]:
        if not settings.endpoint:
            return local_server(settings, model_name)
        # Under the pipeline's root, which the staging server must be able to read.
        return staging_server(settings, model_name, os.path.join(self._get_tmp_dir(), f"infra-{uuid.uuid4().hex}"))


def validate(
    server: ModelServer, settings: InfraSettings, model: Any, model_dir: str, requests: list[Request]
) -> tuple[list[Check], list[float]]:
    """Has a server load the model, asks it, and compares. Whatever goes wrong with the server is a failed check.

    Args:
        server: is to load it.
        settings: the limits.
        model: the SavedModel loaded in this process, the measure of the answers.
        model_dir: the SavedModel with the warm-up records.
        requests: what to ask.

    Returns:
        The checks, as far as they could be made, and the seconds of each request of one image.

    Raises:
        PipelineError: the server failed for a reason that says nothing of the model.
    """
    found: list[Check] = []
    latencies: list[float] = []

    @contextmanager
    def failing(what: str) -> Iterator[None]:
        try:
            yield
        except (ServerFailed, ServingClientError) as error:
            found.append(checks.error_check(what, server.explain(error)))

    with failing("loading the model"):
        found.append(checks.load_check(settings, *server.load(model_dir, settings.max_load_seconds)))
    if not all(check.passed for check in found):
        return found, []
    for request in requests:
        outputs = model.signatures[request.signature](**{request.key: tf.constant(request.value)})
        expected = {name: value.numpy() for name, value in outputs.items()}
        with failing(f"signature {request.signature!r}"):
            served = server.client.run({request.key: request.value}, signature=request.signature)
            found += checks.answer_checks(request.signature, served, expected, server.max_difference)
    if not all(check.passed for check in found):
        return found, []
    with failing("requests of one image"):
        latencies += _latencies(server, next(request for request in requests if request.signature == IMAGES))
        found.append(checks.latency_check(settings, latencies))
        resident = server.resident_bytes()
        if resident is not None:
            found.append(checks.memory_check(settings, resident))
    return found, latencies


def _latencies(server: ModelServer, request: Request) -> list[float]:
    seconds = []
    for number in range(_LATENCY_REQUESTS):
        at = number % len(request.value)
        started = time.perf_counter()
        server.client.run({request.key: request.value[at : at + 1]}, signature=request.signature)
        seconds.append(time.perf_counter() - started)
    return seconds
