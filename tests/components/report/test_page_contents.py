"""What the pages say is what the content holds, whatever is missing or odd in it."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from mnist_tfx.components.report import content as c
from mnist_tfx.components.report.page.render import render_card, render_comparison, render_report
from mnist_tfx.components.report.page.words import UNKNOWN
from mnist_tfx.components.report.verdict import Outcome
from tests.fixtures.pages import attributes, by_id, find, parse, table, text
from tests.fixtures.report_content import FASHION, content_of_classes, sample_content
from tests.fixtures.report_variants import data_rejected_content, empty_content, not_blessed_content


@pytest.fixture(scope="module")
def content():
    return sample_content()


@pytest.fixture(scope="module")
def root(content):
    return parse(render_report(content))


def section(root, key):
    return by_id(root, key)


def tiles(root):
    return {text(find(tile, "dt")[0]): [text(dd) for dd in find(tile, "dd")] for tile in find(root, "div", "tile")}


def test_verdict_says_everything_at_once(root, content):
    shown = tiles(root)
    assert text(find(root, "title")[0]).startswith("✓ fashion_mnist: Pushed")
    assert text(by_id(root, "verdict-heading")) == "Verdict: Pushed"
    assert content.verdict.headline in text(section(root, "verdict"))
    assert "recipe default" in text(find(root, "h1")[0])
    assert shown["accuracy"] == [f"{100 * content.verdict.accuracy:.2f}%", "required 88%"]
    assert shown["worst class"][0] == "Shirt"
    assert shown["against the baseline"][0] == "\N{MINUS SIGN}0.16 points"
    assert shown["data gate"][0] == shown["TFMA blessing"][0] == shown["infra blessing"][0] == "✓ passed"
    assert shown["pushed version"] == ["✓ 1795328279"]
    assert not find(root, "li", "what")


def test_verdict_says_what_failed_and_what_to_do():
    content = not_blessed_content()
    root = parse(render_report(content))
    [failure] = find(find(root, "ul", "problems")[0], "li")
    assert "required at least 0.7500" in text(find(failure, "p", "what")[0])
    assert "What to do: Train a better model" in text(find(failure, "p", "remedy")[0])
    shown = tiles(root)
    assert shown["TFMA blessing"][0] == "✗ failed" and shown["push"][0] == "not reached"
    wrong = [text(dd) for dd in find(root, "dd", "is-bad")]
    assert wrong == [f"{100 * content.verdict.accuracy:.2f}%", "Shirt", "✗ failed"]


def test_verdict_says_why_nothing_was_pushed_and_what_was_not_checked(content):
    *others, push = content.verdict.gates
    gates = (*others, replace(push, state="withheld", detail="a study recipe."))
    verdict = replace(content.verdict, pushed_version=None, gates=gates, cautions=("baseline=none: <b>",))
    root = parse(render_report(replace(content, verdict=verdict)))
    assert tiles(root)["push"] == ["not pushed", "a study recipe."]
    assert "⚠ baseline=none: <b>" in text(section(root, "verdict"))


def test_data_are_counted_by_split_and_class(root, content):
    head, all_classes, *rows = table(section(root, "data"))
    assert head == ["class", "train", "eval", "test"]
    assert all_classes == ["all", "55,000", "5,000", "10,000"]
    assert [row[0] for row in rows] == list(FASHION)
    assert rows[0][1] == f"{content.data.splits[0].class_counts[0]:,} 10.0%"
    samples = find(find(root, "ul", "samples")[0], "img")
    assert len(samples) == 25
    assert samples[1].get("alt") == "sample 2, labeled Trouser"


def test_model_is_summed_up_and_drawn(root, content):
    model = section(root, "model")
    rows = table(model)
    assert rows[0] == ["layer", "type", "output shape", "parameters"]
    assert rows[1:3] == [["flatten", "Flatten", "[N, 784]", "0"], ["dense_0", "Dense", "[N, 512]", "401,920"]]
    assert rows[-1] == ["total", "", "", f"{content.serving.parameters:,}"]
    [drawing] = find(model, "svg", "layers")
    assert [text(each) for each in find(drawing, "text")][:2] == ["Flatten", "[N, 784]"]
    assert (len(find(drawing, "rect")), len(find(drawing, "path"))) == (4, 3)


def test_weights_are_counted_in_full(root, content):
    figures = find(section(root, "model"), "figure", "card")
    named = dict(zip((text(find(each, "figcaption")[0]).split(" ")[0] for each in figures), figures, strict=True))
    assert [name.partition("[")[0] for name in named] == list(content.model.weights)
    for figure, values in zip(figures, content.model.weights.values(), strict=True):
        rows = table(find(figure, "details")[0])[1:]
        assert sum(int(row[2].replace(",", "")) for row in rows) == values.size
        assert float(rows[0][0].replace("\N{MINUS SIGN}", "-")) <= values.min() + 1e-3


def test_histograms_add_up_to_all_pixels(root):
    rows = table(find(by_id(root, "intensity-0"), "details")[0])[1:]
    assert len(rows) == 52 and rows[0][0] == "0" and rows[-1][0] == "251 to 255"
    assert sum(float(row[1].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.3)


def test_training_marks_the_epoch_that_was_kept(root, content):
    rows = table(find(by_id(root, "loss"), "details")[0])
    assert rows[0] == ["epoch", "train", "eval"]
    best = content.training.epochs[12]
    assert rows[13] == ["13", f"{best.loss:.4f}", f"{best.val_loss:.4f}"]
    assert "kept: epoch 13" in text(by_id(root, "accuracy"))
    times = table(find(by_id(root, "time"), "details")[0])
    assert times[1][0] == "1" and float(times[1][2]) == content.training.epochs[0].input_wait_seconds
    assert len(table(find(by_id(root, "learning-rate"), "details")[0])) == 19


def test_training_tells_what_was_found_and_learned_from(root, content):
    told = text(find(section(root, "training"), "dl", "facts")[0])
    assert "training.learning_rate = 0.0031" in told and "model.hidden_layers = [512, 256]" in told
    assert "2 teachers, accuracy on split eval: 90.21%, 89.86%" in told
    plain = replace(content.training, settings_found={}, teachers=())
    told = text(section(parse(render_report(replace(content, training=plain))), "training"))
    assert "settings found" not in told and "teacher" not in told


def test_confusion_matrix_sums_to_the_examples(root, content):
    [matrix] = find(root, "table", "matrix")
    counts = np.array([int(text(cell).replace(",", "")) for cell in find(matrix, "span", "count")]).reshape(10, 10)
    assert (counts == content.quality.confusion).all()
    assert counts.sum() == content.quality.examples
    shares = [float(text(cell).rstrip("%")) for cell in find(matrix, "span", "share")]
    examples_of_class = content.quality.confusion.sum(axis=1, keepdims=True)
    assert np.allclose(np.reshape(shares, (10, 10)), 100 * content.quality.confusion / examples_of_class, atol=0.051)
    assert len(find(matrix, "td", "diagonal")) == 10


def test_scores_are_drawn_with_their_bound(root, content):
    averages, *rows = table(find(by_id(root, "scores"), "details")[0])[1:]
    means = [
        100 * np.mean([getattr(a_class.scores, name) for a_class in content.quality.classes])
        for name in ("precision", "recall", "f1")
    ]
    assert averages == ["macro average", "10,000", *(f"{mean:.2f}%" for mean in means)]
    assert [float(row[3].rstrip("%")) for row in rows] == [
        round(100 * a_class.scores.recall, 2) for a_class in content.quality.classes
    ]
    figure = by_id(root, "scores")
    [limit] = find(find(figure, "g", "limit")[0], "path")
    [recalls] = [group for group in find(figure, "g") if group.get("class") == "scores recall"]
    worst = find(recalls, "use")[6]
    assert "recall ≥ 65%" in text(figure)
    assert float(limit.get("d").split()[1]) < float(worst.get("x"))


def test_reliability_counts_all_examples(root, content):
    rows = table(find(by_id(root, "reliability"), "details")[0])[1:]
    assert sum(int(row[1].replace(",", "")) for row in rows) == content.quality.examples
    assert rows[0][2:] == [UNKNOWN, UNKNOWN]  # an empty bin has no accuracy
    kept = table(find(by_id(root, "selective"), "details")[0])
    right = sum(b.examples * b.accuracy for b in content.quality.confidence)
    assert kept[1] == ["0.0%", "100.00%", f"{100 * right / content.quality.examples:.2f}%"]


def test_every_bound_is_beside_its_measure():
    content = sample_content()
    recipe = {"evaluation": {"min_balanced_accuracy": 0.8, "min_macro_f1": 0.75}}
    bounded = replace(content, lineage=replace(content.lineage, recipe=recipe))
    rows = {row[0]: row for row in table(section(parse(render_report(bounded)), "quality"))}
    told = {name: rows[name][4] for name in ("accuracy", "balanced accuracy", "macro F1", "top-2 accuracy")}
    assert list(told.values()) == ["≥ 88%, drop ≤ 0.5 points", "≥ 80%", "≥ 75%", ""]
    card = render_card(bounded).splitlines()
    for name, words in told.items():
        assert any(line.startswith(f"| {name} |") and line.endswith(f"| {words} |") for line in card), name


def test_examples_show_true_class_and_guess(root, content):
    shown = find(section(root, "look"), "li", "example")
    assert len(shown) == 48
    first, mistake = shown[0], content.look.mistakes[0]
    actual, predicted = FASHION[mistake.actual], FASHION[mistake.predicted]
    assert text(find(first, "span", "is-true")[0]) == f"true: {actual}"
    assert text(find(first, "span", "is-wrong")[0]) == f"✗ guess: {predicted} {100 * mistake.confidence:.1f}%"
    bars = table(first)
    assert bars[0][0] == f"✗ {predicted}" and any(row[0] == f"✓ {actual}" for row in bars)
    assert find(first, "rect", "is-wrong")[0].get("width") == f"{100 * mistake.confidence:.1f}"
    assert f"true class {actual}, guess {predicted}" in find(first, "img")[0].get("alt")
    assert len(find(find(root, "ul", "weights")[0], "img")) == 32


def test_examples_drawn_at_random_say_right_or_wrong(root, content):
    shown = find(find(root, "ul", "drawn")[0], "li")
    assert len(shown) == 30
    for item, drawn in zip(content.look.drawn, shown, strict=True):
        actual, guess = FASHION[item.actual], FASHION[item.predicted]
        told = f"✓ {guess}" if item.actual == item.predicted else f"✗ {guess}true: {actual}"
        assert text(drawn) == told


@pytest.mark.parametrize("number", [2, 10, 100, 1000])
def test_quality_is_readable_for_any_number_of_classes(number):
    content = content_of_classes(number)
    root = parse(render_report(content))
    quality, scores = content.quality, by_id(root, "scores")
    rows = table(find(scores, "details")[0])[2:]
    assert sorted(row[0] for row in rows) == sorted(a_class.name for a_class in quality.classes)
    many = number > 30
    recalls = [float(row[3].rstrip("%")) for row in rows]
    drawn = [text(label) for label in find(scores, "text") if text(label).startswith("class ")]
    assert drawn == [row[0] for row in rows[: 20 if many else number]]
    assert (recalls == sorted(recalls)) or not many
    assert (f"the table has {number - 20:,} more" in text(scores)) == many
    assert len(find(root, "table", "matrix")) == (not many) and len(find(root, "img", "matrix-image")) == many
    assert len(table(find(section(root, "data"), "details")[0] if many else section(root, "data"))) == number + 2


def test_pairs_most_often_confused_and_the_matrix_as_an_image():
    quality = content_of_classes(100).quality
    confusion = quality.confusion.copy()
    confusion[7, 93] = 40
    confused = replace(content_of_classes(100), quality=replace(quality, confusion=confusion))
    section_of_quality = section(parse(render_report(confused)), "quality")
    pairs = table(find(section_of_quality, "div", "beside")[0])
    share = 40 / quality.classes[7].examples
    assert pairs[1] == ["class 007", "class 093", "40", f"{100 * share:.1f}%"] and len(pairs) == 21
    uri = find(section_of_quality, "img", "matrix-image")[0].get("src")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(int)
    assert pixels.shape == (100, 100, 3)
    reddish = pixels[..., 0] - pixels[..., 2]
    assert np.unravel_index(reddish.argmax(), reddish.shape) == (7, 93)
    assert (np.diag(reddish) < 0).all()


def test_lineage_names_all_executions(root, content):
    rows = table(section(root, "lineage"))[1:]
    assert [row[0] for row in rows] == [execution.component for execution in content.lineage.executions]
    assert [row[4] for row in rows] == ["cached"] * 4 + ["run"] * 7
    assert rows[6][3] == "39.3 s"
    bars = find(find(root, "table", "gantt")[0], "rect")
    assert all(float(bar.get("x")) + float(bar.get("width")) <= 1000.1 for bar in bars)
    recipe = text(find(root, "pre")[0])
    assert 'data.splits.eval = "train[55000:]"' in recipe and "model.hidden_layers = [512, 256]" in recipe
    assert content.lineage.data_fingerprint in text(root)


def test_no_anomaly_is_told_only_where_somebody_looked_for_one():
    content = data_rejected_content()
    told = {}
    for outcome, findings in (("pushed", ()), ("failed", None), ("data rejected", ())):
        verdict = replace(content.verdict, outcome=outcome)
        shown = replace(content, verdict=verdict, data=replace(content.data, findings=findings))
        told[outcome] = text(section(parse(render_report(shown)), "data"))
    assert "✓ None" in told["pushed"]
    assert "✓ None" not in told["failed"] and "did not get to the ExampleValidator" in told["failed"]
    assert "✓ None" not in told["data rejected"] and "told under the verdict" in told["data rejected"]


def test_missing_sections_say_why():
    root = parse(render_report(data_rejected_content()))
    reasons = {key: text(find(section(root, key), "p", "missing")[0]) for key in ("training", "quality", "serving")}
    assert reasons["training"] == "This section is missing: the run ended at DataGate before a model was trained."
    assert reasons["quality"].endswith("before a model was evaluated.")
    assert find(section(root, "data"), "span", "is-bad")  # the drift beyond its bound
    empty = parse(render_report(empty_content()))
    assert len(find(empty, "p", "missing")) == 7
    assert "⚠ the statistics could not be read" in text(section(empty, "verdict"))


OUTCOMES = {
    "pushed": ("good", "✓", "Pushed"),
    "not pushed": ("open", "!", "Good enough, but not pushed"),
    "not blessed": ("bad", "✗", "Not good enough to push"),
    "data rejected": ("bad", "✗", "Data rejected"),
    "complete": ("open", "!", "Complete, without a push"),
    "failed": ("bad", "✗", "Failed"),
    "stopped": ("open", "!", "Stopped"),
    "killed": ("bad", "✗", "Killed"),
    "running": ("open", "!", "Still running"),
    "unknown": ("open", "!", "Not known yet"),
}


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_has_its_sign_and_its_words(outcome):
    content = empty_content()
    root = parse(render_report(replace(content, verdict=replace(content.verdict, outcome=outcome))))
    tone, sign, words = OUTCOMES[outcome]
    [box] = find(root, "div", "verdict")
    assert box.get("class") == f"verdict {tone}"
    assert text(by_id(root, "verdict-heading")) == f"Verdict: {words}"
    assert text(find(root, "title")[0]).startswith(f"{sign} mnist: {words} ")
    assert len(find(root, "p", "missing")) == 7


def test_older_and_odd_runs_are_drawn():
    content = sample_content()
    bare = [replace(epoch, learning_rate=None, input_wait_seconds=None) for epoch in content.training.epochs]
    diverged = [replace(bare[0], loss=float("nan"), val_loss=float("inf"))]
    perfect = np.diag([1000] * 9 + [0])
    perfect[9, 9] = 0
    unsure = replace(content.quality.classes[9], examples=0, baseline=None)
    odd = replace(
        content,
        data=replace(
            content.data,
            splits=tuple(replace(split, class_counts=(), intensity=None) for split in content.data.splits),
            samples=(c.Sample(np.full((32, 24, 3), 200, np.uint8), 0),),
            distances=(),
            compared_with_live=False,
        ),
        model=replace(content.model, layers=(), weights={"dense/kernel": np.array([np.nan, 1.0])}),
        training=replace(content.training, epochs=tuple(diverged), best_epoch=1, resumed_after_epoch=0, monitor=""),
        quality=replace(
            content.quality,
            baseline=None,
            baseline_version=None,
            classes=(*content.quality.classes[:9], unsure),
            confusion=perfect,
            confidence=(),
            min_accuracy=None,
            min_class_accuracy=None,
            max_accuracy_drop=None,
        ),
        look=replace(content.look, mistakes=(), filters=()),
        serving=replace(content.serving, blessed=None, checks=(), latencies_ms=(), warm_up=()),
        lineage=replace(
            content.lineage,
            executions=tuple(
                replace(execution, id=None, begun=None, seconds=None, state="")
                for execution in content.lineage.executions
            ),
            recipe={},
        ),
    )
    root = parse(render_report(odd))
    assert "nan" in text(by_id(root, "loss"))
    for words in (
        "No histograms",
        "did not record confidences",
        "made no mistake",
        "does not see pixels",
        "Trainer did not note them",
        "the infra validator did not run",
        "recipe of this run is not known",
        "no model was live whose data",
        "There was no baseline",
    ):
        assert words in text(root)
    assert not any(
        "nan" in value for _, name, value in attributes(root) if name in ("x", "y", "d", "transform", "width")
    )
    sample = find(find(root, "ul", "samples")[0], "img")[0]
    assert (sample.get("width"), sample.get("height")) == ("84", "112")


def test_no_epochs_no_curves():
    content = sample_content()
    root = parse(render_report(replace(content, training=replace(content.training, epochs=(), best_epoch=0))))
    assert "holds no epoch" in text(section(root, "training"))


def test_comparison_says_what_changed_and_what_came_of_it():
    a, b = sample_content(), not_blessed_content()
    root = parse(render_comparison(a, b))
    change = 100 * (b.verdict.accuracy - a.verdict.accuracy)
    assert text(by_id(root, "verdict-heading")).startswith(f"B is better by {change:.2f} points")
    recipe = table(by_id(root, "changes"))
    assert recipe[1:] == [["model.dropout", "0.3", "0.0"], ["seed", "0", "3"]]
    assert "Both runs have the same data." in text(by_id(root, "changes"))
    rows = table(find(by_id(root, "classes"), "details")[0])[1:]
    gains = [float(row[3].replace("\N{MINUS SIGN}", "-").replace("±", "")) for row in rows]
    assert gains == sorted(gains, reverse=True) and len(gains) == 10
    assert table(by_id(root, "time"))[1] == ["TfdsExampleGen", "30 ms (cached)", "30 ms (cached)"]


def test_comparison_of_many_has_a_column_for_each_run():
    runs = [sample_content(seed) for seed in range(3)]
    lineage = runs[1].lineage
    overall = replace(runs[1].quality.overall, loss=float("nan"))
    runs[1] = replace(
        runs[1],
        lineage=replace(lineage, recipe={**lineage.recipe, "seed": 7}),
        quality=replace(runs[1].quality, overall=overall),
    )
    root = parse(render_comparison(*runs))
    head, accuracy, *rows = table(section(root, "verdict"))
    assert head == ["measure", "A", "B", "C", "mean ± standard deviation"]
    measured = [run.verdict.accuracy for run in runs]
    spread = f"{100 * np.mean(measured):.2f}% ± {100 * np.std(measured, ddof=1):.2f}%"
    assert accuracy == ["accuracy", *(f"{100 * each:.2f}%" for each in measured), spread]
    assert ["loss (cross entropy, nats)", "0.5871", "nan", "0.5871", "nan ± nan"] in rows
    assert ["epochs", "18", "18", "18", "18 ± 0"] in rows
    assert table(section(root, "changes")) == [["name", "A", "B", "C"], ["seed", "0", "7", "0"]]
    assert "All runs have the same data." in text(section(root, "changes"))
    curves = table(find(by_id(root, "loss"), "details")[0])
    assert curves[0] == ["epoch", "A", "B", "C"] and len(curves) == 19
    assert "quality" not in {link.get("href", "").lstrip("#") for link in find(root, "a")}


def test_a_spread_too_small_to_see_has_one_sign():
    runs = [sample_content() for _ in range(6)]
    one = replace(runs[0].verdict, accuracy=runs[0].verdict.accuracy + 1e-4)
    words = text(by_id(parse(render_comparison(replace(runs[0], verdict=one), *runs)), "verdict-heading"))
    assert "% ± 0.00 points" in words


def test_comparison_warns_where_the_runs_are_not_alike():
    a, b = sample_content(), empty_content()
    words = text(parse(render_comparison(a, b)))
    assert "different datasets: fashion_mnist and mnist" in words
    assert "cannot be compared by accuracy" in words
    other = replace(a, lineage=replace(a.lineage, data_fingerprint="sha256:0"))
    assert "made of different data" in text(parse(render_comparison(a, other)))
