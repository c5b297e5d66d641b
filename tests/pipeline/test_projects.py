"""From a folder of images, or a TFDS builder or dataset of one's own, to a pushed model, without writing code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.metrics import average_precision_score, roc_auc_score
from tfx.components.schema_gen.import_schema_gen.executor import Executor as ImportSchemaGen

from mnist_tfx.components.datasets.images.index import splits_before
from mnist_tfx.components.datasets.images.prepare import FILES
from mnist_tfx.components.datasets.prepared import NotPrepared, PreparedDataset
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import ENCODED_IMAGES, LABELS
from mnist_tfx.pipeline.data import prepare_dataset
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.projects import is_project, project_in
from mnist_tfx.pipeline.recipes import Recipe, load_recipe
from mnist_tfx.pipeline.run_recipe import run_until
from mnist_tfx.pipeline.runs.store import load_run
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.image_folder import COLOURS, picture, spoil, write_images
from tests.fixtures.tiny_run import decode, read_split

_QUICK = ("--set", "epochs=2", "--set", "hidden_layers=[16]", "--set", "min_accuracy=0.0", "--set", "dropout=0.0")

BUILDER = '''
import numpy as np
import tensorflow_datasets as tfds

class Stripes(tfds.core.GeneratorBasedBuilder):
    """Images of differing sizes whose stripes lie or stand."""
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({
                "picture": tfds.features.Image(shape=(None, None, 1)),
                "lie": tfds.features.ClassLabel(names=["lying", "standing"]),
            }),
            supervised_keys=("picture", "lie"),
        )

    def _split_generators(self, dl_manager):
        bounds = {"train": (0, 200), "validation": (200, 240), "test": (240, 300)}
        return {split: self._generate_examples(*each) for split, each in bounds.items()}

    def _generate_examples(self, first, stop):
        for number in range(first, stop):
            image = np.zeros((20 + number % 7, 24, 1), np.uint8)
            image[(slice(None), slice(number % 3, None, 8)) if number % 2 else (slice(number % 3, None, 8),)] = 255
            yield number, {"picture": image, "lie": number % 2}
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of 120 good files and some spoilt ones, just made."""
    folder = tmp_path_factory.mktemp("own")
    write_images(folder / "images", 40)
    spoil(folder / "images")
    command = ("init", folder / "colours", "--images", folder / "images", "--size", "16", "16")
    answer = mnist_tfx(*command)
    assert answer.code == 3 and "raise it in the recipe (init: --max-unreadable)" in answer.err
    answer = mnist_tfx(*command, "--max-unreadable", "0.1")
    assert answer.code == 0, answer.err
    assert "120 images of 127 files, 3 classes (blue, été, 緑); divided by content: train" in answer.out
    assert "7 unreadable left out" in answer.out and "blue/cut.jpg is truncated or damaged" in answer.out
    assert f"wrote {folder / 'colours' / 'recipe.toml'}" in answer.out
    return folder / "colours"


@pytest.fixture(scope="module")
def ran(project: Path) -> Answer:
    answer = mnist_tfx("run", "--project", project, "--json", *_QUICK)
    assert answer.code == 0, answer.err
    return answer


def test_the_recipe_and_the_schema_say_what_was_found(project: Path) -> None:
    recipe = load_recipe(project_in(project), "default")
    assert recipe.data.image_shape == (16, 16, 3) and recipe.data.resize == (16, 16)
    assert recipe.data.images == str(project.parent / "images") or Path(recipe.data.images).samefile(
        project.parent / "images"
    )
    assert 0.33 < recipe.evaluation.min_accuracy < 0.5
    schema = (project / "schema.pbtxt").read_text(encoding="utf-8")
    assert 'tag: "緑"' in schema and "unique_constraints { min: 3 max: 3 }" in schema


def assert_files_answered_as_measured(project: Path, images: Path, ran: Answer) -> None:
    """The pushed model's answers to the original files of split test are right as often as the Evaluator says."""
    [version] = (project / "var" / "serving" / project.name).iterdir()
    assert ran.outcome["pushed_version"] == version.name
    classify = tf.saved_model.load(str(version)).signatures[ENCODED_IMAGES]
    prepared = project / "var" / "datasets" / project.name / "1.0.0"
    rows = [line.split(",") for line in (prepared / FILES).read_text(encoding="utf-8").splitlines()[1:]]
    tested = [(file, name) for file, name, split, *_ in rows if split == "test"]
    contents = [(images / file).read_bytes() for file, _ in tested]
    labels = classify(**{ENCODED_IMAGES: tf.constant(contents)})[LABELS].numpy()
    right = np.mean([label.decode() == name for label, (_, name) in zip(labels, tested, strict=True)])
    assert right == pytest.approx(ran.outcome["accuracy"], abs=1e-6)


def test_a_pushed_model_says_of_the_files_what_the_evaluator_measured(project: Path, ran: Answer) -> None:
    assert_files_answered_as_measured(project, project.parent / "images", ran)


def test_new_images_come_in_with_the_next_run_and_split_test_stays(project: Path, ran: Answer, tmp_path: Path) -> None:
    copy = tmp_path / "colours"
    shutil.copytree(project, copy)
    shutil.copytree(
        project.parent / "images", tmp_path / "images", ignore=shutil.ignore_patterns("pipe.png", "lost.png")
    )
    write_images(tmp_path / "images", 5, first=40)
    answer = mnist_tfx("data", "prepare", "--project", copy, "--json")
    assert answer.code == 0, answer.err  # 5 of 140
    (tmp_path / "colours" / "recipe.toml").write_text(
        (copy / "recipe.toml").read_text(encoding="utf-8").replace("max_unreadable = 0.1", "max_unreadable = 0.01")
    )
    answer = mnist_tfx("data", "prepare", "--project", copy, "--json")
    assert answer.code == 3 and "more than data.max_unreadable = 0.01 allows" in answer.err
    for file in ("empty.png", "cut.jpg", "notes.txt", "huge.png", "new.webp"):
        (tmp_path / "images" / "blue" / file).unlink()
    answer = mnist_tfx("data", "prepare", "--project", copy, "--json")
    assert answer.code == 0, answer.err
    [prepared] = json.loads(answer.out)
    assert prepared["version"] == "1.0.2" and sum(prepared["splits"].values()) == 135
    assert not prepared["already_prepared"]
    again = mnist_tfx("data", "prepare", "--project", copy)
    assert f"already prepared in {prepared['folder']}\n" in again.out
    datasets = copy / "var" / "datasets" / "colours"
    before, after = (dict(splits_before(datasets / version / FILES)) for version in ("1.0.0", "1.0.2"))
    assert before.items() <= after.items()


def test_a_version_of_image_files_is_taken_as_it_lies_prepared(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 20)
    home = Home(tmp_path / "home")
    home.prepare()

    def prepared(**settings: Any) -> PreparedDataset:
        data = {"dataset": "colours", "images": str(tmp_path / "images"), "image_shape": (16, 16, 3)} | settings
        return prepare_dataset(Recipe.model_validate({"data": data, "evaluation": {"min_accuracy": 0.0}}), home)

    first = prepared()
    write_images(tmp_path / "images", 1, first=20)
    assert prepared().version == "1.0.1"
    assert prepared(version="1.0.0") == first
    with pytest.raises(NotPrepared, match=r"colours:1\.0\.2 is not prepared in .*, or leave data\.version out"):
        prepared(version="1.0.2")
    with pytest.raises(UsageError, match=r"fitted to \(16, 16, 3\), and not to \(8, 8, 3\): set data\.resize"):
        prepared(version="1.0.0", image_shape=(8, 8, 3))


def test_a_schema_is_changed_only_if_asked(project: Path, tmp_path: Path) -> None:
    file = project / "schema.pbtxt"
    own = file.read_text(encoding="utf-8")
    try:
        file.write_text(own.replace("max_image_byte_size: ", "max_image_byte_size: 9"), encoding="utf-8")
        edited = file.read_text(encoding="utf-8")
        answer = mnist_tfx("schema", "diff", "--project", project)
        assert answer.code == 0 and file.read_text(encoding="utf-8") == edited
        assert "image.image_domain.max_image_byte_size: 9" in answer.out and "nothing was changed" in answer.out
        answer = mnist_tfx("schema", "update", "--project", project)
        assert answer.code == 0 and file.read_text(encoding="utf-8") == own
        assert (project / "schema.pbtxt.before").read_text(encoding="utf-8") == edited
        assert "says what the data say" in mnist_tfx("schema", "diff", "--project", project).out
    finally:
        file.write_text(own, encoding="utf-8")


def test_the_current_folder_is_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    listed = json.loads(mnist_tfx("recipes", "--json").out)
    assert [recipe["dataset"] for recipe in listed] == ["colours"]
    answer = mnist_tfx("recipes", "--project", project, "--dataset", "mnist")
    assert answer.code == 2 and "holds dataset 'colours', not 'mnist'" in answer.err


def test_a_builder_of_ones_own_by_file(tmp_path: Path) -> None:
    """As far as its data are others than TFDS's; `test_digits_even_and_odd...` trains and pushes on such a project."""
    (tmp_path / "stripes_builder.py").write_text(BUILDER)
    folder = tmp_path / "mine"
    answer = mnist_tfx("init", folder, "--tfds", f"{tmp_path / 'stripes_builder.py'}:Stripes", "--size", "16", "16")
    assert answer.code == 0, answer.err
    recipe = load_recipe(project_in(folder), "default")
    assert (recipe.data.dataset, recipe.data.image_shape) == ("stripes", (16, 16, 1))
    assert recipe.data.splits.eval == "validation"
    home = Home(folder / "var")
    with home.lock():
        [examples] = run_until("DataGate", recipe, home).outputs["TfdsExampleGen"]["examples"]
    read = read_split(Path(examples.uri), "eval")
    assert len(read) == 40
    for image, label in read:
        pixels = decode([image])[0, ..., 0]
        assert label == (pixels.std(axis=1).mean() > pixels.std(axis=0).mean()), "1 says that the stripes stand"


def prepared_elsewhere(folder: Path) -> None:
    from mnist_tfx.components.datasets.prepare import prepare

    (folder / "stripes_builder.py").write_text(BUILDER)
    prepare("stripes", folder / "tfds", builder=f"{folder / 'stripes_builder.py'}:Stripes")
    (folder / "stripes_builder.py").unlink()


def test_what_lies_prepared_elsewhere_is_found_without_its_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared_elsewhere(tmp_path)
    answer = mnist_tfx("init", tmp_path / "own", "--tfds", "stripes:1.0.0", "--data-dir", tmp_path / "tfds")
    assert answer.code == 0, answer.err
    assert "stripes 1.0.0: train 200, validation 40, test 60 examples, 2 classes" in answer.out
    (tmp_path / "tfds" / "stripes" / "thin").mkdir()
    (tmp_path / "tfds" / "stripes" / "1.0.0").rename(tmp_path / "tfds" / "stripes" / "thin" / "1.0.0")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    folder = tmp_path / "thin"
    answer = mnist_tfx("init", folder, "--tfds", "stripes/thin:1.0.0", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["model"] == "stripes_thin", "a server looks for no model in a folder of a folder"
    [listed] = json.loads(mnist_tfx("runs", "--project", folder, "--json").out)
    run = load_run(folder / "var" / "metadata.db", listed["run_id"])
    assert listed["dataset"] == "stripes_thin" and run.log and run.log.is_file() and run.plan.recipe_name


def test_a_dataset_that_nobody_knows_is_told_how_to_name_it(tmp_path: Path) -> None:
    answer = mnist_tfx("init", tmp_path / "own", "--tfds", "tricolor")
    assert answer.code == 2 and "TFDS_DATA_DIR" in answer.err and "data.builder=package.module:Class" in answer.err
    assert not (tmp_path / "own" / "recipe.toml").exists()


def test_the_files_of_a_csv_file_alone_are_named_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 20)
    files = sorted(path.relative_to(tmp_path / "images") for path in (tmp_path / "images").glob("*/*"))
    rows = "".join(f"{file.as_posix()},{file.parent}\n" for file in files)
    (tmp_path / "images" / "all.csv").write_text(f"file,label\n{rows}", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "images")
    answer = mnist_tfx("init", tmp_path / "my place" / "colours", "--csv", "all.csv")
    assert answer.code == 0, answer.err
    assert "60 images of 60 files, 3 classes" in answer.out
    assert answer.out.endswith(f"next: mnist-tfx run --project '{tmp_path / 'my place' / 'colours'}'\n")
    data = load_recipe(project_in(tmp_path / "my place" / "colours"), "default").data
    assert Path(data.images).samefile(tmp_path / "images")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("flowers",), "init needs --images DIR or --tfds NAME"),
        (("flowers", "--images", "a", "--tfds", "b"), "init needs --images DIR or --tfds NAME"),
        (("flowers", "--tfds", "b", "--csv", "c"), "--csv goes with --images"),
        (("flowers", "--images", "a", "--data-dir", "c"), "--data-dir goes with --tfds"),
        (("My Flowers", "--images", "."), "cannot be the name of a dataset"),
        (("flowers", "--images", "no/such/folder"), "there is no folder"),
        (("flowers", "--tfds", "no_such_module:Builder"), "cannot import the builder"),
        (("flowers", "--tfds", "mine.py:Mine"), "mine.py:Mine': KeyError: 'DATA'. Write package.module:Class"),
    ],
)
def test_what_init_refuses(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("{}['DATA']")
    answer = mnist_tfx("init", *arguments)
    assert answer.code == 2 and words in answer.err
    assert not list(tmp_path.rglob("*.toml"))


@pytest.mark.parametrize(("project", "home"), [("own", ""), ("own/flowers", ""), ("flowers", "own/home")])
def test_what_would_be_a_class_of_its_own_images_is_refused_before_it_is_made(
    project: str, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own" / "blue").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setenv("MNIST_TFX_HOME", home and str(tmp_path / home))
    answer = mnist_tfx("init", f"../{project}", "--images", ".")
    assert answer.code == 2 and f"{tmp_path / (home or project)} lies inside {tmp_path / 'own'}, whose" in answer.err
    assert [path.name for path in tmp_path.rglob("*")] == ["own", "blue"]


def test_a_project_is_not_made_twice(project: Path) -> None:
    answer = mnist_tfx("init", project, "--images", project.parent / "images")
    assert answer.code == 2 and "is a project already" in answer.err


def test_a_class_that_is_too_small_leaves_no_project_behind(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    (tmp_path / "images" / "rare").mkdir()
    picture(COLOURS["blue"], 99).save(tmp_path / "images" / "rare" / "one.png")
    answer = mnist_tfx("init", tmp_path / "colours", "--images", tmp_path / "images")
    assert answer.code == 3 and "'rare' (1)" in answer.err
    assert not (tmp_path / "colours" / "recipe.toml").exists()


def test_a_folder_is_no_project_before_its_recipe_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed init leaves what it had by then: no recipe that lets any model pass, and the curated schema."""
    write_images(tmp_path / "images", 20)
    folder = tmp_path / "colours"
    folder.mkdir()
    (folder / "schema.pbtxt").write_text("# curated")

    def propose(recipe: Recipe, home: Home) -> tuple[str, float]:
        assert recipe.evaluation.min_accuracy == 0.0 and recipe.project.curated_schema()
        assert not is_project(folder) and (folder / "schema.pbtxt").read_text() == "# curated"
        return "# proposed", 0.5

    monkeypatch.setattr("mnist_tfx.pipeline.init_project.propose_for", propose)
    answer = mnist_tfx("init", folder, "--images", tmp_path / "images")
    assert answer.code == 0 and "the schema.pbtxt that was there is schema.pbtxt.before" in answer.out, answer.err
    assert load_recipe(project_in(folder), "default").evaluation.min_accuracy == 0.55
    assert (folder / "schema.pbtxt").read_text() == "# proposed"
    assert (folder / "schema.pbtxt.before").read_text() == "# curated"
    assert {path.name for path in folder.iterdir()} == {"recipe.toml", "schema.pbtxt", "schema.pbtxt.before", "var"}


def test_a_project_is_made_where_its_home_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "images", 20)
    monkeypatch.setenv("MNIST_TFX_HOME", str(tmp_path / "images" / ".home"))  # hidden, it is no class of theirs
    monkeypatch.setattr("mnist_tfx.pipeline.init_project.propose_for", lambda *_: ("# proposed", 0.5))
    answer = mnist_tfx("init", tmp_path / "mine" / "colours", "--images", tmp_path / "images")
    assert answer.code == 0, answer.err
    assert {path.name for path in (tmp_path / "mine" / "colours").iterdir()} == {"recipe.toml", "schema.pbtxt"}


def test_an_init_that_is_stopped_leaves_no_project_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "colours"

    def stopped(*_: Any) -> None:
        """As Ctrl-C does while the data are counted for the schema."""
        assert (folder / "recipe.toml.partial").exists() and (folder / "schema.pbtxt.partial").exists()
        raise KeyboardInterrupt

    write_images(tmp_path / "images", 20)
    monkeypatch.setattr(ImportSchemaGen, "Do", stopped)
    answer = mnist_tfx("init", folder, "--images", tmp_path / "images", "--size", "16", "16")
    assert answer.code == 130, answer.err
    assert [path.name for path in folder.iterdir()] == ["var"]


@pytest.mark.slow
def test_digits_even_and_odd_with_one_sigmoid_unit(tmp_path: Path) -> None:
    """Classes that stand for several, from the recipe alone: the schema follows, and so do the model's labels."""
    folder = tmp_path / "parity"
    answer = mnist_tfx("init", folder, "--tfds", "mnist_tfx.components.datasets.digits:Digits")
    assert answer.code == 0, answer.err
    recipe = folder / "recipe.toml"
    groups = 'classes = { even = ["0", "2", "4", "6", "8"], odd = ["1", "3", "5", "7", "9"] }\n'
    text = recipe.read_text().replace("[data]\n", f"[data]\n{groups}")
    recipe.write_text(text.replace("[model]\n", '[model]\noutput = "sigmoid"\n'))
    answer = mnist_tfx("schema", "update", "--project", folder)
    assert "label.int_domain.max: 9 -> 1" in answer.out, answer.err
    answer = mnist_tfx("run", "--project", folder, "--json", "--set", "epochs=10")
    assert answer.code == 0, answer.err
    assert answer.outcome["accuracy"] > 0.9
    home = Home(folder / "var")
    run = load_run(home.metadata_db, "latest")
    examples, saved = run.artifact("TfdsExampleGen", "examples"), run.artifact("Trainer", "model")
    assert examples and saved
    images, labels = zip(*read_split(Path(examples.uri), "test"), strict=True)
    judged = tf.saved_model.load(f"{saved.uri}/Format-Serving").signatures[ENCODED_IMAGES]
    odd = judged(**{ENCODED_IMAGES: tf.constant(images)})["probabilities"].numpy()[:, 1]
    expected = {"auc": roc_auc_score(labels, odd), "pr_auc": average_precision_score(labels, odd)}
    assert {name: answer.outcome[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    page = Path(answer.outcome["report"]).read_text()
    # TFMA's own figure: it interpolates, and may round to another last digit.
    assert "PR AUC" in page and f"{answer.outcome['auc']:.4f}" in page
    model = tf.saved_model.load(str(folder / "var" / "serving" / "digits" / answer.outcome["pushed_version"]))
    classify = model.signatures[ENCODED_IMAGES]
    [image] = [tf.io.encode_png(np.zeros((8, 8, 1), np.uint8))]
    answered = classify(**{ENCODED_IMAGES: tf.stack([image])})
    assert answered[LABELS].numpy()[0] in (b"even", b"odd") and answered["probabilities"].shape == (1, 2)


@pytest.mark.slow
def test_a_hundred_classes_of_photographs(tmp_path: Path) -> None:
    """Cells of scikit-learn's two photographs, each a class: to a pushed model whose answers are the Evaluator's."""
    random = np.random.default_rng(0)
    photographs = load_sample_images().images
    for number in range(100):
        image, (y, x) = photographs[number % 2], (number // 20 * 70, number // 2 % 10 * 55)
        place = tmp_path / "images" / f"{number:03d}"
        place.mkdir(parents=True)
        for copy in range(30):
            dy, dx, size = *random.integers(0, 20, 2), int(random.integers(48, 64))
            cut = image[y + dy : y + dy + size, x + dx : x + dx + size]
            Image.fromarray(cut).save(place / f"{copy}.jpg", quality=90)
    folder = tmp_path / "cells"
    answer = mnist_tfx("init", folder, "--images", tmp_path / "images", "--size", "24", "24")
    assert answer.code == 0, answer.err
    assert "images of 3,000 files, 100 classes" in answer.out  # a few cuts are equal by chance
    answer = mnist_tfx("run", "--project", folder, "--json", "--set", "epochs=15", "--set", "batch_size=64")
    assert answer.code == 0, answer.err
    assert answer.outcome["pushed_version"] and answer.outcome["accuracy"] > 0.5
    assert Path(answer.outcome["report"]).stat().st_size < 2**20
    assert_files_answered_as_measured(folder, tmp_path / "images", answer)
