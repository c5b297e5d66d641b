"""How a local run makes the Beam pipelines of TFX's components and of ours."""

from __future__ import annotations

from collections.abc import Callable

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, PipelineOptionsT
from tfx.orchestration.portable.beam_executor_operator import BeamExecutorOperator
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto.orchestration import execution_result_pb2

from mnist_tfx.components.beam_arguments import workers_elsewhere


class ParsedOnce(PipelineOptions):
    """Beam's options, each view of which is made once.

    `PipelineOptions.view_as` makes an argument parser and parses the command line. Beam calls it for each transform
    and each comparison of types, thousands of times in a run.
    """

    def view_as(self, cls: type[PipelineOptionsT]) -> PipelineOptionsT:
        """A view of these options as another class of options; all views share their values."""
        views: dict[type, PipelineOptions] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


class BeamOperator(BeamExecutorOperator):
    """TFX's launcher of components that use Beam; where that runs on this machine, its options are `ParsedOnce`."""

    def run_executor(
        self, execution_info: ExecutionInfo, make_beam_pipeline_fn: Callable[[], beam.Pipeline] | None = None
    ) -> execution_result_pb2.ExecutorOutput:
        """Runs a component, as the launcher asks."""
        if not workers_elsewhere([argument.value.string_value for argument in self.beam_pipeline_args]):
            make_beam_pipeline_fn = self._here
        return super().run_executor(execution_info, make_beam_pipeline_fn)

    def _here(self) -> beam.Pipeline:
        return beam.Pipeline(options=ParsedOnce(self.beam_pipeline_args))
