"""`Pusher`: publishes what has both blessings as a new version, whole or not at all.

TFX's own takes no statistics along, copies into the version's folder (a killed run leaves a half version there), and is
answered from the cache whatever is live. Its executor's way of judging blessings is kept.
"""

from __future__ import annotations

from typing import Literal

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Examples, ExampleStatistics, InfraBlessing, ModelBlessing, PushedModel

from mnist_tfx.components.pusher.executor import Driver, Executor


class PusherSpec(ComponentSpec):
    """Parameters, inputs and output of `Pusher`."""

    PARAMETERS = {
        "serving_dir": ExecutionParameter(type=str),
        "withheld": ExecutionParameter(type=str),
        "baseline": ExecutionParameter(type=str),
        "drift_reference": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model_blessing": ChannelParameter(type=ModelBlessing),
        "infra_blessing": ChannelParameter(type=InfraBlessing),
        "statistics": ChannelParameter(type=ExampleStatistics),
        "examples": ChannelParameter(type=Examples, optional=True),
    }
    OUTPUTS = {"pushed_model": ChannelParameter(type=PushedModel)}


class Pusher(BaseComponent):
    """Output `pushed_model`: TFX's `PushedModel`.

    Where nothing was pushed, its custom property `not_pushed` says why, unless a blessing is wanting. Of what was,
    `baseline` and `drift_reference` are the parameters; or `baseline` is `other`, the live model not being comparable.
    """

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        *,
        model_blessing: BaseChannel,
        infra_blessing: BaseChannel,
        statistics: BaseChannel,
        serving_dir: str,
        withheld: str,
        baseline: Literal["served", "none"],
        drift_reference: Literal["live", "none"],
        examples: BaseChannel | None = None,
    ) -> None:
        """Pushes the model that lies in the infra blessing: the Trainer's, with warm-up records.

        Args:
            model_blessing: of the Evaluator.
            infra_blessing: of our InfraValidator.
            statistics: of the Examples; they go live with the model, as what later data are compared with.
            serving_dir: base path of the served model.
            withheld: why the model is not to be pushed whatever its blessings; empty: it is.
            baseline: whether the model was compared with the live one; it is kept in the version, and told.
            drift_reference: whether its data were compared with those of the live one; likewise.
            examples: what the model answers to their split test goes live with it, as what is served is compared with.
        """
        super().__init__(
            spec=PusherSpec(
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                statistics=statistics,
                examples=examples,
                serving_dir=serving_dir,
                withheld=withheld,
                baseline=baseline,
                drift_reference=drift_reference,
                pushed_model=OutputChannel(PushedModel, self, "pushed_model"),
            )
        )
