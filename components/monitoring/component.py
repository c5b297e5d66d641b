"""`Monitor`: fails where what a model is asked is not like what it was trained on; for a pipeline on a schedule."""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Schema

from mnist_tfx.components.monitoring.executor import Driver, Executor
from mnist_tfx.components.report.artifact import HTML
from mnist_tfx.components.settings import MonitoringSettings


class MonitorSpec(ComponentSpec):
    """Parameters, input and output of `Monitor`."""

    PARAMETERS = {
        "model": ExecutionParameter(type=str),
        "serving_dir": ExecutionParameter(type=str),
        "settings": ExecutionParameter(type=str),  # JSON
        "any_size": ExecutionParameter(type=int),
    }
    INPUTS = {"schema": ChannelParameter(type=Schema)}
    OUTPUTS = {"report": ChannelParameter(type=HTML)}


class Monitor(BaseComponent):
    """Output `report`: the page of `mnist-tfx monitor`, where nothing drifts.

    On drift it fails with `DataRejected`. As platforms keep no outputs of a task that failed, the newest page lies
    beside the logs, too.
    """

    SPEC_CLASS = MonitorSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self, *, schema: BaseChannel, model: str, serving_dir: str, settings: MonitoringSettings, any_size: bool
    ) -> None:
        """Looks at the last `settings.hours` of the logs.

        Args:
            schema: of the model's data.
            model: its name in the logs.
            serving_dir: base path of the served model.
            settings: bounds, and where the logs are.
            any_size: images of other sizes than the model's are nothing unusual.
        """
        super().__init__(
            spec=MonitorSpec(
                schema=schema,
                model=model,
                serving_dir=serving_dir,
                settings=settings.model_dump_json(),
                any_size=int(any_size),
                report=OutputChannel(HTML, self, "report"),
            )
        )
