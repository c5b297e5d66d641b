"""Cache keys that hold what a component finds around it, which none of its inputs and parameters tells.

What is live changes between two runs without any input or parameter of the pipeline. TFX lets a driver add to a node's
parameters right before the cache is asked (tfx/orchestration/portable/launcher.py, steps 6 to 8). Orchestrators on
clusters run no drivers: there, such a component must not be cached (`kubeflow.compile`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from tfx.dsl.components.base import base_driver
from tfx.orchestration.portable import base_driver as portable_base_driver
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto.orchestration import driver_output_pb2

from mnist_tfx.components.step import Artifacts, singles


class SurroundingsDriver(base_driver.BaseDriver, portable_base_driver.BaseDriver):
    """Adds `surroundings` to the parameters; the executor looks for itself and does not read it."""

    def run(self, execution_info: ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """TFX calls it with the resolved inputs."""
        output = driver_output_pb2.DriverOutput()
        found = self.surroundings(singles(execution_info.input_dict), execution_info.exec_properties)
        output.exec_properties["surroundings"].string_value = found
        return output

    @abstractmethod
    def surroundings(self, inputs: Artifacts, parameters: Mapping[str, Any]) -> str:
        """What decides, beside inputs and parameters, how the component ends."""
