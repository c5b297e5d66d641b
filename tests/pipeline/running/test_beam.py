"""How a local run makes Beam's pipelines, against Beam and TFX themselves."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, TypeOptions
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.portable.beam_executor_operator import BeamExecutorOperator
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2, placeholder_pb2

from mnist_tfx.components.beam_arguments import beam_arguments, direct_arguments
from mnist_tfx.components.settings import BeamSettings
from mnist_tfx.components.tfds_example_gen.executor import Executor
from mnist_tfx.pipeline.running.beam import BeamOperator, ParsedOnce


def test_a_view_is_made_once_and_all_share_their_values() -> None:
    options = ParsedOnce(["--runtime_type_check", "--unknown=1"])
    types = options.view_as(TypeOptions)
    assert options.view_as(TypeOptions) is types and types.runtime_type_check
    types.runtime_type_check = False
    options.view_as(SetupOptions).save_main_session = True
    assert not options.view_as(TypeOptions).runtime_type_check
    assert types.view_as(SetupOptions).save_main_session
    assert options.get_all_options() == types.get_all_options()


def test_a_copy_has_views_of_its_own() -> None:
    options = ParsedOnce([])
    options.view_as(TypeOptions).runtime_type_check = True
    other = copy.deepcopy(options)
    assert other.view_as(TypeOptions).runtime_type_check
    other.view_as(TypeOptions).runtime_type_check = False
    assert options.view_as(TypeOptions).runtime_type_check


def test_the_command_line_is_parsed_as_often_for_many_transforms_as_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, parsed = argparse.ArgumentParser.parse_known_args, []

    def counted(*arguments: Any, **named: Any) -> Any:
        parsed.append(arguments)
        return parse(*arguments, **named)

    def times(options: type[PipelineOptions], transforms: int) -> int:
        parsed.clear()
        with beam.Pipeline(options=options(direct_arguments(1))) as pipeline:
            numbers = pipeline | beam.Create([1, 2, 3])
            for number in range(transforms):
                numbers |= str(number) >> beam.Map(lambda each: each + 1).with_output_types(int)
        return len(parsed)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", counted)
    assert times(ParsedOnce, 30) == times(ParsedOnce, 3) < times(PipelineOptions, 3) < times(PipelineOptions, 30)


@pytest.mark.parametrize(
    ("beam_settings", "expected"),
    [({"workers": 2}, ParsedOnce), ({"runner": "flink", "job_endpoint": "localhost:8099", "image": "i:1"}, None)],
)
def test_tfx_makes_the_pipelines_of_other_runners(
    beam_settings: dict[str, Any], expected: type | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Callable[[], beam.Pipeline] | None] = []
    monkeypatch.setattr(BeamExecutorOperator, "run_executor", lambda self, info, make=None: made.append(make))
    arguments = beam_arguments(BeamSettings(**beam_settings))
    spec = executable_spec_pb2.BeamExecutableSpec(
        python_executor_spec=executable_spec_pb2.PythonClassExecutableSpec(
            class_path=f"{Executor.__module__}.{Executor.__name__}"
        ),
        beam_pipeline_args_placeholders=[
            placeholder_pb2.PlaceholderExpression(value=metadata_store_pb2.Value(string_value=argument))
            for argument in arguments
        ],
    )
    operator = BeamOperator(spec)
    operator.run_executor(ExecutionInfo(pipeline_node=pipeline_pb2.PipelineNode(), tmp_dir=str(tmp_path)))
    operator.beam_pipeline_args = arguments  # resolved by then
    assert [make and type(make()._options) for make in made] == [expected]
