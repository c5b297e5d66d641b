"""Predict, Classify, Regress and MultiInference, from message to message; no gRPC and no HTTP in here.

Each is a generator that yields the futures it waits for, and so holds no thread while it waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

from tensorflow_serving.apis import inference_pb2, model_pb2, predict_pb2

from mnist_tfx.contract.names import SERVING_DEFAULT
from mnist_tfx.serving.server import inference, predict
from mnist_tfx.serving.server.batching import Outputs
from mnist_tfx.serving.server.errors import ServingError, as_serving_error, check_deadline, invalid
from mnist_tfx.serving.server.inference import Form
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.request_logs import RequestLogs
from mnist_tfx.serving.server.rows import Arrays
from mnist_tfx.serving.server.servable import Servable

T = TypeVar("T")
Steps: TypeAlias = Generator[Future[Any], Any, T]
Reply = Callable[[Any, ServingError | None], None]
"""Takes the answer, or the error."""


def drive(steps: Steps[Any], reply: Reply) -> None:
    """Carries out steps: the first in this thread, each other one in the thread that did what it waited for.

    `reply` is called once, perhaps before this returns.
    """

    def step(done: Future[Any] | None) -> None:
        answer, error = None, None
        try:
            if done is None:
                awaited = next(steps)
            elif (failure := done.exception()) is not None:
                awaited = steps.throw(failure)
            else:
                awaited = steps.send(done.result())
        except StopIteration as finished:
            answer = finished.value
        except Exception as raised:
            error = as_serving_error(raised).with_traceback(None)  # its frames hold the request
        else:
            awaited.add_done_callback(step)
            return
        reply(answer, error)

    step(None)


def future(steps: Steps[T]) -> Future[T]:
    """Where the steps' answer will be. Cancelled, it drops the answer."""
    found: Future[T] = Future()

    def reply(answer: Any, error: ServingError | None) -> None:
        if not found.set_running_or_notify_cancel():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(answer)

    drive(steps, reply)
    return found


class Calls:
    """The methods. A `deadline` is in `time.monotonic()` seconds; all steps raise ServingError."""

    def __init__(
        self,
        acquire: Callable[..., AbstractContextManager[Servable]],
        metrics: Metrics,
        *,
        logs: RequestLogs | None = None,
        as_content: bool = False,
    ) -> None:
        """`acquire`: `ModelManager.acquire`; `as_content`: write Predict's outputs as bytes."""
        self._acquire = acquire
        self._logs = logs
        self._as_content = as_content
        self.metrics = metrics

    def acquire(self, spec: model_pb2.ModelSpec, deadline: float | None = None) -> AbstractContextManager[Servable]:
        """The servable of a model_spec: by version, by label, or the latest. Raises ServingError."""
        check_deadline(deadline)
        choice = spec.WhichOneof("version_choice")
        if choice is None:
            return self._acquire(spec.name)
        if choice == "version":
            return self._acquire(spec.name, version=spec.version.value)
        return self._acquire(spec.name, label=spec.version_label)

    def run(
        self,
        api: str,
        servable: Servable,
        signature_name: str,
        inputs: Arrays,
        outputs: Sequence[str],
        deadline: float | None,
    ) -> Steps[Outputs]:
        """Computes outputs of a servable that is held. Where `api` is not empty, its time is counted."""
        start = time.perf_counter()
        arrays = yield servable.submit(signature_name, inputs, outputs, deadline)
        if api:
            self.metrics.runtime(servable.name, api, time.perf_counter() - start)
        return arrays

    def predict(
        self, request: predict_pb2.PredictRequest, deadline: float | None
    ) -> Steps[predict_pb2.PredictResponse]:
        """Any signature, with its tensors."""
        with self.acquire(spec_of(request), deadline) as servable:
            asked = predict.read(servable, request)
            arrays = yield from self.run("Predict", servable, *asked, deadline)
        answer = predict.response(servable, asked[0], arrays, self._as_content)
        self._log("predict_log", servable.name, lambda: (answer.model_spec, request, answer))
        return answer

    def log_arrays(
        self, spec: model_pb2.ModelSpec, servable: Servable, signature_name: str, inputs: Arrays, outputs: Outputs
    ) -> None:
        """Logs a prediction that was asked for in JSON, as the Predict that it stands for."""

        def call() -> tuple[model_pb2.ModelSpec, predict_pb2.PredictRequest, predict_pb2.PredictResponse]:
            answer = predict.response(servable, signature_name, outputs, self._as_content)
            return answer.model_spec, predict.request_of(spec, signature_name, inputs), answer

        self._log("predict_log", servable.name, call)

    def _log(self, kind: str, model: str, call: Callable[[], tuple[Any, Any, Any]]) -> None:
        if self._logs is not None and (log := self._logs.sampled(model)) is not None:
            log.add(kind, model, call)

    def infer(self, form: Form, request: Any, deadline: float | None) -> Steps[Any]:
        """Classify or Regress: a result for each example."""
        answer = form.answer()
        name = request.model_spec.signature_name or SERVING_DEFAULT
        with self.acquire(spec_of(request), deadline) as servable:
            outputs = form.outputs(servable, name)
            given = inference.examples(request.input)
            arrays = yield from self.run(form.api, servable, name, {inference.INPUT: given}, outputs, deadline)
        form.fill(answer.result, arrays, len(given))
        predict.fill_spec(answer.model_spec, servable, name)
        self.metrics.examples(servable.name, len(given))
        self._log(f"{form.api.lower()}_log", servable.name, lambda: (answer.model_spec, request, answer))
        return answer

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, deadline: float | None
    ) -> Steps[inference_pb2.MultiInferenceResponse]:
        """Several signatures of one model on the same examples, which are the input of each."""
        if not request.tasks:
            raise invalid("ModelSpec has no name specified.")
        answer = inference_pb2.MultiInferenceResponse()
        with self.acquire(spec_of(request.tasks[0]), deadline) as servable:
            forms = inference.forms(servable, request.tasks)
            given = inference.examples(request.input)
            for name, (form, outputs) in forms.items():
                arrays = yield from self.run("", servable, name, {inference.INPUT: given}, outputs, deadline)
                result = answer.results.add()
                predict.fill_spec(result.model_spec, servable, name)
                form.fill(getattr(result, form.result), arrays, len(given))
        self.metrics.examples(servable.name, len(given))
        self._log("multi_inference_log", servable.name, lambda: (answer.results[0].model_spec, request, answer))
        return answer


def spec_of(request: Any) -> model_pb2.ModelSpec:
    """The request's model_spec, which must name a model. Raises ServingError."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec: model_pb2.ModelSpec = request.model_spec
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    return spec
