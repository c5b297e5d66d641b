"""What the executors of our components have in common: every input and output is one artifact, given by its name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import Artifact

Artifacts = Mapping[str, Artifact]
"""By the names of the component's inputs or outputs; one that is optional may be missing."""


class Step(BaseExecutor):
    """Base of our executors; those that use Beam, or another executor of TFX, have that as a second base."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """What TFX calls."""
        self._log_startup(input_dict, output_dict, exec_properties)
        self.work(singles(input_dict), singles(output_dict), exec_properties)

    @abstractmethod
    def work(self, inputs: Artifacts, outputs: Artifacts, parameters: Mapping[str, Any]) -> None:
        """Writes the outputs' files and properties. What it raises fails the run."""


def singles(artifacts: Mapping[str, Sequence[Artifact]]) -> Artifacts:
    """The one artifact of each name. Raises ValueError where there are several."""
    several = [name for name, given in artifacts.items() if len(given) > 1]
    if several:
        raise ValueError(f"expected one artifact each: {', '.join(several)}")
    return {name: given[0] for name, given in artifacts.items() if given}
