from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx.types import standard_artifacts

from mnist_tfx.components.data_gate.component import DataBlessing
from mnist_tfx.components.evaluator.quality import disagreements
from mnist_tfx.components.evaluator.result import read_quality
from mnist_tfx.components.report import data
from mnist_tfx.components.report.artifact import HTML, html_file
from mnist_tfx.components.report.collect import collect, framed, measured
from mnist_tfx.components.report.content import ReportContent
from mnist_tfx.components.report.executor import Executor
from mnist_tfx.components.report.look import ModelPass, disagreement
from mnist_tfx.components.report.model import collect_training, read_training_log
from mnist_tfx.components.report.page.render import render_card, render_report
from mnist_tfx.components.report.run import Run
from mnist_tfx.pipeline.runs.store import load_run
from tests.fixtures.executors import artifact, context
from tests.fixtures.tiny_run import SPLIT_SIZES, TinyRun, decode, read_split

HOSTILE = "</title><script>alert('kuzushiji')</script>"


@pytest.fixture(scope="module")
def run(tiny_run: TinyRun) -> Run:
    return load_run(tiny_run.home.metadata_db, tiny_run.run_id)


@pytest.fixture(scope="module")
def content(run: Run) -> ReportContent:
    return collect(run)


@pytest.fixture(scope="module")
def answers(tiny_run: TinyRun) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and probabilities of split test, by another signature than the report's, decoded by Pillow."""
    encoded, labels = zip(*read_split(tiny_run.examples, "test"), strict=True)
    images = decode(list(encoded))
    answer = tf.saved_model.load(str(tiny_run.model)).signatures["images"](images=tf.constant(images))
    return images, np.array(labels), answer["probabilities"].numpy()


def test_the_verdict_is_that_of_the_run(content: ReportContent, tiny_run: TinyRun) -> None:
    verdict, outcome = content.verdict, tiny_run.answer.outcome
    assert verdict.outcome == "pushed" and verdict.pushed_version == outcome["pushed_version"]
    assert verdict.accuracy == outcome["accuracy"]
    assert (verdict.worst_class, verdict.worst_class_accuracy) == (
        outcome["worst_class"],
        outcome["worst_class_accuracy"],
    )
    assert (verdict.baseline_version, verdict.baseline_accuracy) == ("", None)
    assert [gate.state for gate in verdict.gates] == ["passed"] * 4
    assert verdict.failures == () and verdict.warnings == ()


def test_the_data_are_those_of_the_examples(content: ReportContent, tiny_run: TinyRun) -> None:
    assert content.data is not None
    assert {split.name: split.examples for split in content.data.splits} == SPLIT_SIZES
    for split in content.data.splits:
        encoded, labels = zip(*read_split(tiny_run.examples, split.name), strict=True)
        assert list(split.class_counts) == np.bincount(labels, minlength=10).tolist()
        assert split.intensity is not None and split.intensity_images == len(labels)
        assert split.intensity.tolist() == np.bincount(decode(list(encoded)).ravel(), minlength=256).tolist()
    assert content.data.findings == () and content.data.compared_with_live is False
    assert {distance.between for distance in content.data.distances} == {"train against eval", "train against test"}
    assert all(distance.within_bound and distance.value > 0 for distance in content.data.distances)


def test_of_many_images_the_pixels_of_some_are_counted_from_the_whole_split(
    run: Run, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_COUNTED", 60)
    found = data.collect_data(run)
    assert found is not None
    for split in found.splits:
        every = {"train": 8, "eval": 2, "test": 3}[split.name]
        encoded = [image for image, _ in read_split(tiny_run.examples, split.name)][::every]
        assert split.intensity is not None and split.intensity_images == len(encoded)
        assert split.intensity.tolist() == np.bincount(decode(encoded).ravel(), minlength=256).tolist()


def test_the_samples_show_every_class_and_bear_their_labels(content: ReportContent, tiny_run: TinyRun) -> None:
    assert content.data is not None and len(content.data.samples) == 25
    encoded, labels = zip(*read_split(tiny_run.examples, "train"), strict=True)
    labeled = {(image.tobytes(), label) for image, label in zip(decode(list(encoded)), labels, strict=True)}
    assert {(sample.image.tobytes(), sample.label) for sample in content.data.samples} <= labeled
    assert {sample.label for sample in content.data.samples} == set(range(10))


def test_the_training_is_what_the_trainer_wrote_down(content: ReportContent, tiny_run: TinyRun) -> None:
    log = json.loads((tiny_run.model.parent / "training.json").read_text())
    assert content.training is not None
    assert [epoch.val_loss for epoch in content.training.epochs] == [row["val_loss"] for row in log["history"]]
    assert [epoch.learning_rate for epoch in content.training.epochs] == [
        row.get("learning_rate") for row in log["history"]
    ]
    assert content.training.best_epoch == log["best_epoch"] and content.training.monitor == "val_accuracy"
    assert (content.training.settings_found, content.training.teachers) == ({}, ())


def test_the_training_tells_what_was_found_and_the_teachers(tiny_run: TinyRun, tmp_path: Path) -> None:
    log = json.loads((tiny_run.model.parent / "training.json").read_text())
    teachers = [{"best_epoch": 2, "val_accuracy": accuracy, "seconds": 1.0} for accuracy in (0.91, 0.92)]
    found = {"training.learning_rate": 0.0031}
    (tmp_path / "training.json").write_text(json.dumps(log | {"teachers": teachers, "settings_found": found}))
    training = collect_training(read_training_log(str(tmp_path)), {})
    assert (training.settings_found, training.teachers) == (found, (0.91, 0.92))


def test_the_calibration_is_what_the_trainer_wrote_down_with_and_without_a_bend(tiny_run: TinyRun) -> None:
    log = read_training_log(str(tiny_run.model.parent))
    told = collect_training(log, {}).calibration
    assert told is not None and asdict(told) == log["calibration"]
    del log["calibration"]["bend"]  # as before there were any
    assert collect_training(log, {}).calibration == replace(told, bend=0.0)


def test_the_quality_is_what_tfma_measured(
    content: ReportContent, tiny_run: TinyRun, answers: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    quality = content.quality
    assert quality is not None and disagreements(quality) == []
    evaluation = tiny_run.artifact("Evaluator", "evaluation")
    measured = read_quality(str(evaluation), [each.name for each in quality.classes])
    assert quality.overall.accuracy == measured.accuracy
    assert {each.name: each.scores.recall for each in quality.classes} == pytest.approx(measured.class_accuracy)
    assert quality.confusion.sum() == quality.examples == SPLIT_SIZES["test"]
    _, labels, probabilities = answers
    for actual in range(10):
        expected = np.bincount(probabilities.argmax(axis=1)[labels == actual], minlength=10)
        assert quality.confusion[actual].tolist() == expected.tolist()
    assert (quality.min_accuracy, quality.max_accuracy_drop) == (0.3, 1.0)
    loaded = tfma.load_eval_result(str(evaluation), model_name="candidate").get_metrics_for_slice()
    assert quality.overall.loss == loaded["loss"]["doubleValue"]


def test_the_reliability_adds_up_to_the_calibration_error(
    content: ReportContent, answers: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    quality = content.quality
    assert quality is not None
    bins = quality.confidence
    assert sum(each.examples for each in bins) == quality.examples
    assert sum(each.examples * each.accuracy for each in bins) / quality.examples == pytest.approx(
        quality.overall.accuracy
    )
    gaps = sum(each.examples * abs(each.accuracy - each.mean_confidence) for each in bins)
    assert gaps / quality.examples == pytest.approx(quality.overall.expected_calibration_error)
    confidence = answers[2].max(axis=1)
    for each in bins:
        assert each.examples == np.count_nonzero(
            (confidence >= each.lower) & ((confidence < each.upper) | (each.upper == 1.0))
        )


def test_the_examples_looked_at_are_the_surest_mistakes_and_the_least_sure(
    content: ReportContent, answers: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    images, labels, probabilities = answers
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    assert content.look is not None
    mistakes, uncertain = content.look.mistakes, content.look.uncertain
    expected = np.sort(confidence[predicted != labels])[::-1][:24]
    assert len(mistakes) == len(expected) > 0 and len(uncertain) == 24
    assert [each.confidence for each in mistakes] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [each.confidence for each in uncertain] == pytest.approx(np.sort(confidence)[:24].tolist(), abs=1e-5)
    assert all(each.predicted != each.actual for each in mistakes)
    for each in (*mistakes, *uncertain):
        assert each.actual == labels[each.position] and each.predicted == predicted[each.position]
        assert np.array_equal(each.image, images[each.position])


def test_examples_drawn_at_random_are_the_same_for_the_same_data(run: Run, content: ReportContent) -> None:
    assert content.look is not None and len({each.position for each in content.look.drawn}) == 30
    positions = [each.position for each in content.look.drawn]
    for fingerprint, same in ((run.plan.data_fingerprint, True), ("sha256:0", False)):
        again = collect(replace(run, plan=replace(run.plan, data_fingerprint=fingerprint))).look
        assert again is not None and ([each.position for each in again.drawn] == positions) is same


def test_the_model_is_what_keras_trained(content: ReportContent, tiny_run: TinyRun) -> None:
    assert content.model is not None and content.serving is not None
    layers = content.model.layers
    assert [(layer.type, layer.output_shape) for layer in layers] == [
        ("Flatten", (None, 784)),
        ("Dense", (None, 16)),
        ("Activation", (None, 16)),
        ("Dense", (None, 10)),
    ]
    assert sum(layer.parameters for layer in layers) == content.serving.parameters
    sizes: dict[str, int] = {}
    for name, values in content.model.weights.items():
        layer, _, weight = name.partition("/")
        assert weight in ("kernel", "bias")
        sizes[layer] = sizes.get(layer, 0) + values.size
    assert sizes == {layer.name: layer.parameters for layer in layers if layer.parameters}


def test_the_filters_are_the_first_layer(content: ReportContent, tiny_run: TinyRun) -> None:
    look = content.look
    assert look is not None and look.units == len(look.filters) == 16
    kernel = next(
        each.numpy() for each in tf.saved_model.load(str(tiny_run.model))._weights if each.shape == [28 * 28, 16]
    )
    for shown in look.filters:
        weights = (shown.image.astype(float).ravel() - 128) / 127 * look.filter_scale
        assert np.abs(weights - kernel[:, shown.unit]).max() <= look.filter_scale / 127


def test_serving_tells_of_the_exported_model(content: ReportContent, tiny_run: TinyRun) -> None:
    serving = content.serving
    assert serving is not None and serving.blessed is True
    assert [signature.name for signature in serving.signatures] == ["encoded_images", "images", "serving_default"]
    assert serving.signatures[1].inputs[0].shape == (None, 28, 28, 1)
    assert serving.parameters == 28 * 28 * 16 + 16 + 16 * 10 + 10
    assert serving.model_bytes == sum(path.stat().st_size for path in tiny_run.model.rglob("*") if path.is_file())
    assert all(check.passed for check in serving.checks) and len(serving.latencies_ms) == 100
    assert {name for name, _ in serving.warm_up} == {"encoded_images", "images", "serving_default"}
    assert Path(serving.pushed_to or "").name == tiny_run.answer.outcome["pushed_version"]


def test_the_lineage_is_that_of_ml_metadata(content: ReportContent, tiny_run: TinyRun) -> None:
    assert content.lineage is not None
    rows = content.lineage.executions
    assert [row.component for row in rows] == [each["id"] for each in tiny_run.answer.outcome["components"]]
    assert {row.state for row in rows} == {"COMPLETE"} and all(row.seconds is not None for row in rows)
    begun = [row.begun for row in rows if row.begun is not None]
    assert len(begun) == len(rows) and begun == sorted(begun)
    trainer = next(row for row in rows if row.component == "Trainer")
    [model] = [made for made in trainer.outputs if made.name == "model"]
    assert model.uri == str(tiny_run.artifact("Trainer", "model"))
    assert content.lineage.recipe["training"]["epochs"] == 2 and content.lineage.versions["tensorflow"]


def test_what_disagrees_is_said(content: ReportContent) -> None:
    quality, look = content.quality, content.look
    assert quality is not None and look is not None
    moved = quality.confusion.copy()
    moved[0, 0] -= 1
    moved[0, 1] += 1
    assert disagreement(ModelPass(look, quality.confusion), quality.confusion) is None
    assert "answers other than when TFMA judged it" in (disagreement(ModelPass(look, moved), quality.confusion) or "")
    assert "on the diagonal" in disagreements(replace(quality, confusion=moved))[0]
    assert "TFMA counted 201" in disagreements(replace(quality, examples=201))[0]


def test_another_model_than_the_evaluated_one_is_noticed(run: Run, tiny_run: TinyRun, tmp_path: Path) -> None:
    found = collect(_elsewhere(run, "TfdsExampleGen", "examples", _swapped_splits(tiny_run, tmp_path)))
    assert any("answers other than when TFMA judged it" in warning for warning in found.verdict.warnings)


def test_a_section_that_cannot_be_made_keeps_no_other_away(run: Run, tmp_path: Path) -> None:
    found = collect(_elsewhere(run, "Trainer", "model", str(tmp_path / "gone")))
    assert (found.training, found.serving, found.look) == (None, None, None)
    assert found.quality is not None and found.data is not None and found.verdict.outcome == "pushed"
    assert [warning.split("”")[0] for warning in found.verdict.warnings] == [
        "Section “Training",
        "Section “Serving",
    ]


def test_no_anomaly_is_known_where_nobody_looked_for_one(run: Run) -> None:
    found = collect(replace(run, executions=tuple(e for e in run.executions if e.component == "TfdsExampleGen")))
    assert found.data is not None and found.data.findings is None
    assert "Nobody looked for any" in render_report(found) and "Nobody looked for anomalies" in render_card(found)


def test_how_a_run_ended_is_not_taken_for_good_where_it_is_not_known(run: Run) -> None:
    gates = {gate.name: gate.state for gate in replace(run, executions=(), end=None).verdict().gates}
    assert set(gates.values()) == {"not reached"}
    assert replace(run, executions=(), end=None).verdict().outcome == "unknown"


def test_what_is_kept_from_going_live_is_told_with_the_reason(run: Run) -> None:
    study = {"pushed": 0, "not_pushed": "a study recipe", "baseline": "none"}
    verdict = _with_properties(run, "Pusher", "pushed_model", study).verdict()
    assert (verdict.outcome, verdict.pushed_version, verdict.cautions) == ("not pushed", None, ())
    assert (verdict.gates[-1].state, verdict.gates[-1].detail) == ("withheld", "a study recipe.")


def test_what_went_live_past_a_check_is_told(run: Run) -> None:
    pushed = {"pushed": 1, "pushed_version": "7", "baseline": "none", "drift_reference": "none"}
    verdict = _with_properties(run, "Pusher", "pushed_model", pushed).verdict()
    assert [caution.partition(":")[0] for caution in verdict.cautions] == ["baseline=none", "data.drift_reference=none"]


def test_a_first_model_and_one_that_could_not_be_compared_are_told_apart(run: Run, content: ReportContent) -> None:
    first, none = "No other model was served", "There was no baseline to compare with"
    page = render_report(content)
    assert first in page and none not in page
    said = {"version": "", "not_compared": "version 7 has other classes"}
    other = measured(_with_properties(run, "Baseline", "baseline", said))
    assert other.quality is not None and other.quality.baseline_accuracy is None
    page = render_report(framed(other))
    assert first not in page and none in page and "first model" not in page
    pushed = {"pushed": 1, "pushed_version": "8", "baseline": "other", "drift_reference": "live"}
    [caution] = _with_properties(other, "Pusher", "pushed_model", pushed).verdict().cautions
    assert caution.startswith("no baseline: ")


def test_the_component_shows_what_the_command_shows(
    content: ReportContent, run: Run, tiny_run: TinyRun, tmp_path: Path
) -> None:
    page = _component_page(run, tmp_path)
    assert f"{content.verdict.accuracy:.4f}" in page or f"{100 * (content.verdict.accuracy or 0):.2f}" in page
    assert "TfdsExampleGen" in page and "could not be made" not in page
    made = tiny_run.artifact("Report", "report")
    assert "could not be made" not in (made / "report.html").read_text()


def test_hostile_class_names_come_through_escaped(run: Run, tmp_path: Path) -> None:
    hostile = replace(run, plan=replace(run.plan, class_names=(HOSTILE, *run.plan.class_names[1:])))
    for page in (render_report(collect(hostile)), _component_page(hostile, tmp_path)):
        assert HOSTILE not in page and "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


def test_a_report_that_cannot_be_made_fails_nothing_and_says_why(run: Run, tmp_path: Path) -> None:
    page = _component_page(run, tmp_path, recipe="{}")
    assert "could not be made" in page and "KeyError" in page


def test_a_report_that_cannot_be_written_fails_nothing(run: Run, tmp_path: Path) -> None:
    report = artifact(HTML, tmp_path / "report")
    (tmp_path / "report" / "report.html").mkdir()
    _run_component(run, tmp_path, report)
    assert (tmp_path / "report" / "report.html").is_dir()
    report.uri = "nowhere://bucket/report"
    _run_component(run, tmp_path, report)


def _elsewhere(run: Run, component: str, name: str, uri: str) -> Run:
    """The same run with one artifact at another place."""
    return _with(run, component, name, uri=uri)


def _with_properties(run: Run, component: str, name: str, properties: dict[str, Any]) -> Run:
    """The same run with one artifact that says something else of itself."""
    return _with(run, component, name, properties=properties)


def _with(run: Run, component: str, name: str, **fields: Any) -> Run:
    return replace(
        run,
        executions=tuple(
            replace(
                row,
                outputs=tuple(
                    replace(made, **fields) if (row.component, made.name) == (component, name) else made
                    for made in row.outputs
                ),
            )
            for row in run.executions
        ),
    )


def _swapped_splits(tiny_run: TinyRun, tmp_path: Path) -> str:
    """The run's Examples, with split train in place of split test."""
    for split, content in (("train", "train"), ("eval", "eval"), ("test", "train")):
        (tmp_path / f"Split-{split}").symlink_to(tiny_run.examples / f"Split-{content}")
    return str(tmp_path)


_KINDS = {
    "examples": (standard_artifacts.Examples, "TfdsExampleGen", "examples"),
    "schema": (standard_artifacts.Schema, "ImportSchemaGen", "schema"),
    "statistics": (standard_artifacts.ExampleStatistics, "StatisticsGen", "statistics"),
    "anomalies": (standard_artifacts.ExampleAnomalies, "ExampleValidator", "anomalies"),
    "data_blessing": (DataBlessing, "DataGate", "blessing"),
    "model": (standard_artifacts.Model, "Trainer", "model"),
    "evaluation": (standard_artifacts.ModelEvaluation, "Evaluator", "evaluation"),
    "model_blessing": (standard_artifacts.ModelBlessing, "Evaluator", "blessing"),
    "infra_blessing": (standard_artifacts.InfraBlessing, "InfraValidator", "blessing"),
    "pushed_model": (standard_artifacts.PushedModel, "Pusher", "pushed_model"),
}


def _component_page(run: Run, tmp_path: Path, **properties: str) -> str:
    """What the component writes for the artifacts of a run."""
    report = artifact(HTML, tmp_path / "report")
    _run_component(run, tmp_path, report, **properties)
    return Path(html_file(report.uri)).read_text()


def _run_component(run: Run, tmp_path: Path, report: HTML, **properties: str) -> None:
    inputs = {}
    for key, (kind, component, name) in _KINDS.items():
        known = run.artifact(component, name)
        assert known is not None
        given = kind()
        given.uri = known.uri
        for label, value in known.properties.items():
            if isinstance(value, int):
                given.set_int_custom_property(label, value)
            elif label not in kind.PROPERTIES if kind.PROPERTIES else True:
                given.set_string_custom_property(label, str(value))
        inputs[key] = [given]
    Executor(context(tmp_path)).Do(
        inputs,
        {"report": [report]},
        {
            "dataset": run.dataset,
            "class_names": json.dumps(run.plan.class_names),
            "data_fingerprint": run.plan.data_fingerprint,
            "recipe_name": run.plan.recipe_name,
            "recipe": json.dumps(dict(run.plan.recipe)),
            **properties,
        },
    )
