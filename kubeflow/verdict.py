"""How a task ended, in the few words that a platform keeps of it: the output parameter `verdict` of every task.

Kubeflow Pipelines keeps no outputs of a task that failed. There it stands in the pod's termination message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from mnist_tfx.contract.errors import DataRejected, ModelRejected, PipelineError, UsageError

PARAMETER = "verdict"
_LONGEST = 3000  # bytes: Kubernetes keeps 4,096 of a termination message
_ERRORS = {kind.exit_code: kind for kind in (PipelineError, UsageError, DataRejected, ModelRejected)}


@dataclass(frozen=True)
class TaskVerdict:
    """How one task ended."""

    exit_code: int = 0  # that it gives its run
    says: str = ""  # why
    pushed_version: str = ""
    foreseen: bool = True  # False: it failed with an error that is none of ours, and `says` has no remedy

    def to_text(self) -> str:
        """One line of JSON, short enough for every place that keeps it."""
        says = self.says
        while len((text := json.dumps({**asdict(self), "says": says})).encode()) > _LONGEST:
            says = says[: len(says) * 9 // 10] + "..."
        return text

    @staticmethod
    def from_text(text: str) -> TaskVerdict | None:
        """None where the text is none of ours."""
        try:
            return TaskVerdict(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def error(self) -> PipelineError | None:
        """The error that ends a run with this exit code; None: the task did what it should."""
        return _ERRORS.get(self.exit_code, PipelineError)(self.says) if self.exit_code else None


def verdict_of_error(error: BaseException) -> TaskVerdict:
    """Of a task that failed with this error."""
    if isinstance(error, PipelineError):
        return TaskVerdict(error.exit_code, str(error))
    return TaskVerdict(PipelineError.exit_code, f"{type(error).__name__}: {error}", foreseen=False)


def verdict_of_outputs(outputs: Mapping[str, pb.RuntimeArtifact]) -> TaskVerdict:
    """Of a task that ran to its end, by the properties of what it made.

    Args:
        outputs: by name; of each, the metadata as its executor left them.
    """
    blessing, pushed = outputs.get("blessing"), outputs.get("pushed_model")
    if blessing is not None and "blessed" in blessing.metadata and not int(blessing.metadata["blessed"]):
        return TaskVerdict(ModelRejected.exit_code, "; ".join(_reasons(outputs)))
    if pushed is not None:
        properties = dict(pushed.metadata.items())
        if int(properties.get("pushed", 0)):
            return TaskVerdict(pushed_version=str(properties.get("pushed_version", "")))
        return TaskVerdict(says=str(properties.get("not_pushed", "")) or "a blessing is wanting")
    return TaskVerdict()


def _reasons(outputs: Mapping[str, pb.RuntimeArtifact]) -> tuple[str, ...]:
    """Why a model was not blessed. Classes go by their numbers: a task is not told their names."""
    if "evaluation" in outputs:
        from mnist_tfx.components.evaluator.result import broken_bounds

        return tuple(broken_bounds(outputs["evaluation"].uri, [str(number) for number in range(1000)]))
    from mnist_tfx.components.infra_validator.report import failed_checks

    return failed_checks(outputs["blessing"].uri)
