"""The methods of the interface over one manager, as each port calls them, counted and timed as TF Serving does."""

from __future__ import annotations

import time
from typing import Any

from mnist_tfx.serving.server import inference, predict
from mnist_tfx.serving.server.errors import ServingError, as_serving_error, check_deadline
from mnist_tfx.serving.server.manager import ModelManager
from mnist_tfx.serving.server.metrics import Metrics
from mnist_tfx.serving.server.replies import Reply


class Calls:
    """Predict, Classify, Regress and MultiInference."""

    def __init__(self, manager: ModelManager, metrics: Metrics, *, as_content: bool) -> None:
        self.manager = manager
        self.metrics = metrics
        self._as_content = as_content

    def predict(self, request: Any, deadline: float | None, reply: Reply) -> None:
        """Answers gRPC's PredictRequest, without waiting."""
        start = time.perf_counter()
        model = request.model_spec.name

        def computed(predicted: predict.Predicted | None, error: ServingError | None) -> None:
            answer = None
            if predicted is not None:
                self.metrics.runtime(model, "Predict", predicted.seconds)
                try:
                    answer = predict.response(predicted, self._as_content)
                except Exception as raised:
                    error = as_serving_error(raised)
            self.count("Predict", "GRPC", model, start, error)
            reply(answer, error)

        predict.submit_request(self.manager, request, deadline, computed)

    def infer(self, api: str, request: Any, deadline: float | None) -> Any:
        """The answer of "Classify", "Regress" or "MultiInference"; waits for it. Raises ServingError."""
        function = {
            "Classify": inference.classify,
            "Regress": inference.regress,
            "MultiInference": inference.multi_inference,
        }[api]
        start = time.perf_counter()
        check_deadline(deadline)
        answer = function(self.manager, request, deadline)
        model = (request.tasks[0] if api == "MultiInference" else request).model_spec.name
        self.metrics.examples(model, inference.count_examples(request.input))
        if api != "MultiInference":
            self.metrics.runtime(model, api, time.perf_counter() - start)
        return answer

    def count(self, api: str, entrypoint: str, model: str, start: float, error: ServingError | None) -> None:
        """A request was answered that had come at `start` (`time.perf_counter()`)."""
        if error is not None:
            try:
                self.manager.statuses(model)
            except ServingError:  # a name that a client made up gets no series of its own
                model = ""
        seconds = None if error is not None else time.perf_counter() - start
        self.metrics.request(model, api, entrypoint, "OK" if error is None else error.code.name, seconds)
