"""What is read of artifacts, on this machine and on clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tfx.types.artifact import Artifact
from tfx.types.standard_artifacts import ExampleAnomalies, InfraBlessing, ModelBlessing, PushedModel

from mnist_tfx.components.report.run import Run, made_by
from tests.fixtures.report_content import content_of_classes


def made(kind: type[Artifact], properties: Mapping[str, Any], *, as_json: bool) -> Artifact:
    """An artifact with custom properties; as JSON is how Kubeflow Pipelines and Vertex AI hand over all of them."""
    artifact = kind()
    artifact.uri = "/made"
    for key, value in properties.items():
        if as_json:
            artifact.set_json_value_custom_property(key, float(value) if isinstance(value, int) else value)
        elif isinstance(value, int):
            artifact.set_int_custom_property(key, value)
        else:
            artifact.set_string_custom_property(key, value)
    return artifact


@pytest.mark.parametrize("as_json", [False, True], ids=["here", "on a cluster"])
@pytest.mark.parametrize(
    ("blessed", "pushed", "words"),
    [
        (1, {"pushed": 1, "pushed_version": "7"}, "pushed version 7"),
        (1, {"pushed": 0, "not_pushed": "a study recipe"}, "not pushed: a study recipe"),
        (0, {"pushed": 0}, "not blessed"),
    ],
)
def test_the_verdict_is_the_same_on_a_cluster(
    as_json: bool, blessed: int, pushed: Mapping[str, Any], words: str
) -> None:
    executions = (
        made_by("Evaluator", {"blessing": [made(ModelBlessing, {"blessed": blessed}, as_json=as_json)]}),
        made_by("InfraValidator", {"blessing": [made(InfraBlessing, {"blessed": 1}, as_json=as_json)]}),
        made_by("Pusher", {"pushed_model": [made(PushedModel, pushed, as_json=as_json)]}),
    )
    assert str(Run("a-run", "mnist", executions).verdict()) == words


def test_of_many_classes_that_are_not_good_enough_the_first_are_told() -> None:
    quality = content_of_classes(100).quality
    assert quality is not None
    broken = tuple(f"accuracy class {each.name!r}: 0.1, required at least 0.5" for each in quality.classes)
    evaluator = made_by("Evaluator", {"blessing": [made(ModelBlessing, {"blessed": 0}, as_json=False)]})
    run = Run("a-run", "mnist", (evaluator,), quality=replace(quality, broken_bounds=broken))
    [failure] = run.verdict().failures
    assert failure.message.splitlines() == [*broken[:20], "and 80 more"]
    assert run.verdict().gates[1].detail.endswith("; and 80 more")


@pytest.mark.parametrize("bound", [None, 0.0, 0.1])
def test_classes_that_are_never_recognized_are_told_where_no_bound_would_have_caught_them(bound: float | None) -> None:
    quality = content_of_classes(10).quality
    assert quality is not None
    classes = list(quality.classes)
    for number in range(7):
        classes[number] = replace(classes[number], scores=replace(classes[number].scores, recall=0.0))
    classes[0] = replace(classes[0], examples=0)  # nothing is known of it
    run = Run("a-run", "mnist", quality=replace(quality, classes=tuple(classes), min_class_accuracy=bound))
    told = [caution.partition(" is recognized (accuracy 0)")[0] for caution in run.verdict().cautions]
    names = "class 001, class 002, class 003, class 004, class 005 and 1 more"
    assert told == ([] if bound else [f"no image of {names}"])


def test_what_is_no_single_value_and_what_tfx_keeps_for_itself_is_left_out() -> None:
    anomalies = made(ExampleAnomalies, {"checked": "all", "tfx_version": "1.21.0"}, as_json=False)
    anomalies.set_json_value_custom_property("blessed", {"train": True})
    [artifact] = made_by("ExampleValidator", {"anomalies": [anomalies]}).outputs
    assert (artifact.name, artifact.type, artifact.uri) == ("anomalies", "ExampleAnomalies", "/made")
    assert artifact.properties == {"checked": "all"}
