"""`Baseline`: hands the model now being served to the Evaluator.

An ordinary component rather than a Resolver node, which Kubeflow Pipelines v2 does not accept.
"""

from __future__ import annotations

from pathlib import Path

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Model

from mnist_tfx.components.baseline.executor import Driver, Executor


class BaselineSpec(ComponentSpec):
    """Parameters, input and output of `Baseline`."""

    PARAMETERS = {
        "serving_dir": ExecutionParameter(type=str),
    }
    INPUTS = {"model": ChannelParameter(type=Model)}
    OUTPUTS = {"baseline": ChannelParameter(type=Model)}


class Baseline(BaseComponent):
    """Output `baseline`: a copy of the served model, or of the candidate where there is none to compare with.

    Its custom property `version` names the version, or is empty where the candidate is its own baseline. Where that is
    since the served model has other classes or another image shape, `not_compared` says so.
    """

    SPEC_CLASS = BaselineSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, *, model: BaseChannel, serving_dir: str | Path) -> None:
        """Looks for the version when it runs.

        Args:
            model: the candidate.
            serving_dir: base path of the served model.
        """
        super().__init__(
            spec=BaselineSpec(
                model=model,
                serving_dir=str(serving_dir),
                baseline=OutputChannel(Model, self, "baseline"),
            )
        )
