"""`DataGate`: stops the pipeline before training where the data have any anomaly.

TFX's ExampleValidator only writes anomalies down. This component fails on them, compares splits with each other and
with the data of the live model, and decodes every image, which TFDV's statistics do not do.
"""

from __future__ import annotations

from typing import Literal

from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.types.artifact import Artifact
from tfx.types.channel import BaseChannel, OutputChannel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics, Schema

from mnist_tfx.components.data_gate.executor import Driver, Executor


class DataBlessing(Artifact):
    """Says that data passed the gate; holds `report.json` (see `executor.REPORT`)."""

    # Of the form that Vertex AI asks of a type's name. There, `kubeflow.artifact_types` leads to this class.
    TYPE_NAME = "mnist_tfx.DataBlessing"


class DataGateSpec(ComponentSpec):
    """Parameters, inputs and output of `DataGate`."""

    PARAMETERS = {
        "dataset": ExecutionParameter(type=str),
        "image_shape": ExecutionParameter(type=str),  # JSON: [height, width, channels]
        "serving_dir": ExecutionParameter(type=str),
        "drift_reference": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=Examples),
        "statistics": ChannelParameter(type=ExampleStatistics),
        "schema": ChannelParameter(type=Schema),
        "anomalies": ChannelParameter(type=ExampleAnomalies),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=DataBlessing)}


class DataGate(BaseBeamComponent):
    """Fails with `DataRejected` on any anomaly; otherwise its output `blessing` says that the data passed."""

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        *,
        examples: BaseChannel,
        statistics: BaseChannel,
        schema: BaseChannel,
        anomalies: BaseChannel,
        dataset: str,
        image_shape: tuple[int, int, int],
        serving_dir: str,
        drift_reference: Literal["live", "none"],
    ) -> None:
        """Judges `examples` by the artifacts made of them.

        Args:
            examples: the Examples; every image in them is decoded.
            statistics: their statistics, of all splits.
            schema: the curated schema, whose comparators bound drift and skew.
            anomalies: what ExampleValidator found.
            dataset: name of the dataset, for messages.
            image_shape: height, width, channels that every image must have.
            serving_dir: base path of the served model; the live version has the statistics of its data in it.
            drift_reference: `none` accepts any drift from them.
        """
        super().__init__(
            spec=DataGateSpec(
                examples=examples,
                statistics=statistics,
                schema=schema,
                anomalies=anomalies,
                dataset=dataset,
                image_shape=str(list(image_shape)),
                serving_dir=serving_dir,
                drift_reference=drift_reference,
                blessing=OutputChannel(DataBlessing, self, "blessing"),
            )
        )
