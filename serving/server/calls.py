"""What every request goes through, whichever way it came: its deadline, its metrics, its error as a status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import grpc

from serving.server import inference, predict
from serving.server.errors import ServingError
from serving.server.manager import ModelManager
from serving.server.metrics import Metrics

logger = logging.getLogger(__name__)

Reply = Callable[[Any, ServingError | None], None]
"""Takes the answer, or the error; called once."""


class Calls:
    """The methods of the interface over one manager, each counted and timed."""

    def __init__(self, manager: ModelManager, metrics: Metrics, *, as_content: bool) -> None:
        self.manager = manager
        self.metrics = metrics
        self._as_content = as_content

    def predict(self, request: Any, deadline: float | None, entrypoint: str) -> Any:
        """A PredictResponse. Raises ServingError, as the methods below do."""

        def answer() -> Any:
            return predict.predict(self.manager, request, deadline, as_content=self._as_content)

        return self.counted("Predict", entrypoint, request.model_spec.name, answer)

    def classify(self, request: Any, deadline: float | None, entrypoint: str) -> Any:
        """A ClassificationResponse."""
        return self._inference("Classify", inference.classify, request, deadline, entrypoint)

    def regress(self, request: Any, deadline: float | None, entrypoint: str) -> Any:
        """A RegressionResponse."""
        return self._inference("Regress", inference.regress, request, deadline, entrypoint)

    def multi_inference(self, request: Any, deadline: float | None, entrypoint: str) -> Any:
        """A MultiInferenceResponse."""
        return self._inference("MultiInference", inference.multi_inference, request, deadline, entrypoint)

    def submit_predict(self, request: Any, deadline: float | None, reply: Reply) -> None:
        """Computes a PredictRequest of gRPC without waiting; `reply` may be called before this returns."""
        start = time.perf_counter()
        model = request.model_spec.name

        def finish(answer: Any, error: ServingError | None) -> None:
            self._count("Predict", "GRPC", model, start, error)
            reply(answer, error)

        try:
            check_deadline(deadline)
            prediction = predict.Prediction(self.manager, request)
        except Exception as error:
            finish(None, as_serving_error(error))
            return

        def computed(future: Any) -> None:
            answer, failure = None, None
            try:
                arrays = future.result()
                self.metrics.runtime(model, "Predict", time.perf_counter() - start)
                answer = prediction.response(arrays, self._as_content)
            except Exception as error:
                failure = as_serving_error(error)
            prediction.release()
            finish(answer, failure)

        try:
            future = prediction.servable.submit(
                prediction.signature_name, prediction.inputs, prediction.outputs, deadline
            )
        except Exception as error:
            prediction.release()
            finish(None, as_serving_error(error))
            return
        future.add_done_callback(computed)

    def _inference(
        self,
        api: str,
        function: Callable[[ModelManager, Any, float | None], Any],
        request: Any,
        deadline: float | None,
        entrypoint: str,
    ) -> Any:
        spec = request.model_spec if api != "MultiInference" else (request.tasks and request.tasks[0].model_spec)
        model = spec.name if spec else ""

        def answer() -> Any:
            answered = function(self.manager, request, deadline)
            self.metrics.examples(model, inference.count_examples(request.input))
            return answered

        return self.counted(api, entrypoint, model, answer)

    def counted(self, api: str, entrypoint: str, model: str, answer: Callable[[], Any]) -> Any:
        """Returns what `answer` returns, and counts and times the request."""
        start = time.perf_counter()
        error: ServingError | None = None
        try:
            return answer()
        except Exception as raised:
            error = as_serving_error(raised)
            raise error from raised
        finally:
            if error is None:
                self.metrics.runtime(model, api, time.perf_counter() - start)
            self._count(api, entrypoint, model, start, error)

    def _count(self, api: str, entrypoint: str, model: str, start: float, error: ServingError | None) -> None:
        if error is not None:
            try:
                self.manager.statuses(model)
            except ServingError:  # a name that a client made up gets no series of its own
                model = ""
        code = "OK" if error is None else error.code.name
        self.metrics.request(model, api, entrypoint, code, time.perf_counter() - start)


def check_deadline(deadline: float | None) -> None:
    """Raises ServingError where the deadline has passed: nobody waits for the answer any more."""
    if deadline is not None and deadline <= time.monotonic():
        raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def as_serving_error(error: Exception) -> ServingError:
    """What a client hears of any error; one that nobody foresaw is logged."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, MemoryError):
        return ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "not enough memory for this request")
    logger.exception("a request failed in an unforeseen way")
    return ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
