"""`InfraValidator`: proves that a model server loads the candidate and answers as the Trainer's model does.

TFX's own needs Docker or Kubernetes, and Kubeflow Pipelines v2 refuses it. This one starts a server as a process, or
uses a staging server, and writes the standard `InfraBlessing`.
"""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model

from mnist_tfx.components.infra_validator.executor import Executor
from mnist_tfx.components.settings import InfraSettings


class InfraValidatorSpec(ComponentSpec):
    """Parameters, inputs and output of `InfraValidator`."""

    PARAMETERS = {
        "settings": ExecutionParameter(type=str),  # JSON of `InfraSettings`
        "model_name": ExecutionParameter(type=str),
        "model_server": ExecutionParameter(type=str),  # only for the cache key
    }
    INPUTS = {"model": ChannelParameter(type=Model), "examples": ChannelParameter(type=Examples)}
    OUTPUTS = {"blessing": ChannelParameter(type=InfraBlessing)}


class InfraValidator(BaseComponent):
    """Output `blessing` says whether the model serves, and holds the model to push, with warm-up records."""

    SPEC_CLASS = InfraValidatorSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        *,
        model: BaseChannel,
        examples: BaseChannel,
        settings: InfraSettings,
        model_name: str,
        model_server: str = "",
    ) -> None:
        """Asks with examples of split test.

        Args:
            model: the candidate.
            examples: the Examples.
            settings: the server and the limits.
            model_name: the name it is served by.
            model_server: the program that will load it, where that is known and not ours: see `foreign_server`.
        """
        super().__init__(
            spec=InfraValidatorSpec(
                model=model,
                examples=examples,
                settings=settings.model_dump_json(),
                model_name=model_name,
                model_server=model_server,
                blessing=OutputChannel(InfraBlessing, self, "blessing"),
            )
        )
