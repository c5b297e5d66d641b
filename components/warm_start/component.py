"""`WarmStart`: hands a served model to the Trainer, as its `base_model`.

An ordinary component rather than a Resolver node, as `Baseline` is.
"""

from __future__ import annotations

from pathlib import Path

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.channel import OutputChannel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Model

from mnist_tfx.components.warm_start.executor import Driver, Executor


class WarmStartSpec(ComponentSpec):
    """Parameters and output of `WarmStart`."""

    PARAMETERS = {
        "serving_dir": ExecutionParameter(type=str),
        "data_fingerprint": ExecutionParameter(type=str),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"base_model": ChannelParameter(type=Model)}


class WarmStart(BaseComponent):
    """Output `base_model`: a copy of the served model, or nothing where none saw other data.

    Its custom property `version` names the version, or is empty.
    """

    SPEC_CLASS = WarmStartSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, *, serving_dir: str | Path, data_fingerprint: str) -> None:
        """Looks for the version when it runs.

        Args:
            serving_dir: base path of the served model.
            data_fingerprint: of the data to be trained on; a model that was trained on these is passed over.
        """
        super().__init__(
            spec=WarmStartSpec(
                serving_dir=str(serving_dir),
                data_fingerprint=data_fingerprint,
                base_model=OutputChannel(Model, self, "base_model"),
            )
        )
