"""Image files become a dataset: every file is accounted for, and what is in split test stays there."""

from __future__ import annotations

import csv
import os
import shutil
import threading
import unicodedata
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_sample_image

from mnist_tfx.components.datasets.images.add import add_span
from mnist_tfx.components.datasets.images.index import splits_before
from mnist_tfx.components.datasets.images.inspect import inspect_file
from mnist_tfx.components.datasets.images.listing import ImageSource, list_images
from mnist_tfx.components.datasets.images.prepare import Imported, prepare_images
from mnist_tfx.components.datasets.incoming import incoming_folder
from mnist_tfx.components.datasets.progress import silent
from mnist_tfx.components.transform.images import fit_image
from mnist_tfx.contract.errors import DataRejected, UsageError
from mnist_tfx.contract.names import SPLITS
from tests.fixtures.image_folder import COLOURS, picture, spoil, write_images

SHAPE = (16, 16, 3)


def imported(folder: Path, data_dir: Path, **options: object) -> Imported:
    return prepare_images("colours", ImageSource(folder), data_dir, image_shape=SHAPE, **options)  # type: ignore[arg-type]


def rows(made: Imported) -> dict[str, Mapping[str, str]]:
    with open(made.files, encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_images(folder, 20)
    return folder


@pytest.fixture(scope="module")
def first(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    return imported(source, tmp_path_factory.mktemp("data"))


def test_tfds_reads_what_was_made(first: Imported, source: Path) -> None:
    dataset = first.dataset
    assert dataset.class_names == tuple(sorted(COLOURS)) and dataset.image_shape == SHAPE
    assert sum(dataset.split_sizes.values()) == 60 and min(dataset.split_sizes[split] for split in SPLITS) >= 3
    builder = tfds.builder_from_directory(str(first.files.parent))
    seen = set()
    for split in SPLITS:
        for example in builder.as_dataset(split=split).as_numpy_iterator():
            file = example["file"].decode()
            assert dataset.class_names[example["label"]] == Path(file).parent.name
            fitted = fit_image(tf.constant((source / file).read_bytes()), SHAPE)
            assert (np.asarray(fitted) == example["image"]).all()
            seen.add(file)
    assert seen == {image.file for image in list_images(ImageSource(source))}


def test_every_class_is_in_every_split(first: Imported) -> None:
    for name in COLOURS:
        assert {row["split"] for row in rows(first).values() if row["class"] == name} == set(SPLITS)


def test_nothing_is_done_twice_and_a_change_is_another_version(first: Imported, source: Path, tmp_path: Path) -> None:
    folder, data_dir = copies(source, first, tmp_path)
    again = imported(folder, data_dir)
    assert again.dataset.version == "1.0.0" and again.dataset.fingerprint == first.dataset.fingerprint
    write_images(folder, 20, first=20)
    more = imported(folder, data_dir)
    assert more.dataset.version == "1.0.1" and sum(more.dataset.split_sizes.values()) == 120
    before, after = rows(first), rows(more)
    assert {file: after[file]["split"] for file in before} == {file: row["split"] for file, row in before.items()}


def test_what_another_process_made_while_this_one_waited_is_not_made_again(
    first: Imported, source: Path, tmp_path: Path
) -> None:
    waits = threading.Event()

    def progress(stage: str, *_: object) -> None:
        if stage.startswith("waiting for another process"):
            waits.set()

    with ThreadPoolExecutor() as pool, incoming_folder(tmp_path, silent):
        second = pool.submit(imported, source, tmp_path, progress=progress)
        assert waits.wait(60)
        shutil.copytree(first.dataset.data_dir / "colours", tmp_path / "colours")
    assert second.result().dataset == replace(first.dataset, data_dir=tmp_path)
    assert [each.name for each in tmp_path.glob("colours/*")] == ["1.0.0"]


def copies(source: Path, first: Imported, place: Path) -> tuple[Path, Path]:
    """Of the images and of what was made of them, to be changed."""
    return shutil.copytree(source, place / "source"), shutil.copytree(first.dataset.data_dir, place / "data")


def test_files_with_other_times_are_looked_at_once_more_and_are_the_same_version(
    first: Imported, source: Path, tmp_path: Path
) -> None:
    folder, data_dir = copies(source, first, tmp_path)
    for image in list_images(ImageSource(folder)):
        os.utime(folder / image.file, (0, 0))
    stages: list[list[str]] = [[], []]
    for told in stages:
        made = imported(folder, data_dir, progress=lambda stage, *_, told=told: told.append(stage))
        assert made.dataset == replace(first.dataset, data_dir=data_dir)
    assert stages[0][0] == "listing the files" and len(stages[0]) > 1 and stages[1] == ["listing the files"]
    assert [each.name for each in data_dir.glob("colours/*")] == ["1.0.0"]


def test_an_image_of_split_test_stays_there_under_another_name(first: Imported, source: Path, tmp_path: Path) -> None:
    folder, data_dir = copies(source, first, tmp_path)
    tested = [file for file, row in rows(first).items() if row["split"] == "test"]
    for file in tested:
        (folder / file).rename((folder / file).with_stem("renamed_" + Path(file).stem))
    made = rows(imported(folder, data_dir))
    assert {row["digest"] for row in made.values() if row["split"] == "test"} == {
        rows(first)[file]["digest"] for file in tested
    }


def test_what_a_span_has_is_left_out_where_its_files_are_copied_into_the_folder(
    first: Imported, source: Path, tmp_path: Path
) -> None:
    folder, data_dir = copies(source, first, tmp_path)
    base = replace(first.dataset, data_dir=data_dir)
    new = ImageSource(tmp_path / "new")
    write_images(new.folder, 4, first=20)
    add_span(base, new, (8, 12, 1))  # the recipe's size of that time
    assert imported(folder, data_dir).dataset == base
    shutil.copytree(new.folder, folder, dirs_exist_ok=True)
    Image.open(folder / "blue" / "020.bmp").save(folder / "blue" / "020_again.png")
    made = imported(folder, data_dir)
    known = {image.file for image in list_images(new)} | {"blue/020_again.png"}
    left_out = {file: row["problem"] for file, row in rows(made).items() if not row["split"]}
    assert left_out == dict.fromkeys(known, "the data have this image already")
    assert made.decided.known == 13 and made.dataset.split_sizes == base.split_sizes
    assert imported(folder, data_dir).dataset.version == made.dataset.version == "1.0.1"
    shutil.rmtree(data_dir / "spans" / "colours" / "span_2")
    assert sum(imported(folder, data_dir).dataset.split_sizes.values()) == 73, "what was taken back is no span's"


def test_spoilt_files_are_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    write_images(folder, 5)
    expected = spoil(folder)
    made = imported(folder, tmp_path / "data")
    assert {file: row["problem"] for file, row in rows(made).items() if row["problem"]} == expected
    assert dict(made.problems) == expected and made.decided.unreadable == len(expected)
    assert sum(made.dataset.split_sizes.values()) == 15


def test_a_name_that_is_no_utf_8_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    write_images(folder, 3)
    os.rename(folder / "blue" / "001.png", os.fsencode(folder / "blue") + b"/caf\xe9.png")
    made = imported(folder, tmp_path / "data")
    assert made.problems == (("blue/caf\\udce9.png", "has a name that is not UTF-8: rename it"),)
    assert (made.decided.unreadable, sum(made.dataset.split_sizes.values())) == (1, 8)
    assert rows(made)["blue/caf\\udce9.png"]["split"] == ""
    assert imported(folder, tmp_path / "data").dataset.version == "1.0.0"


def test_a_bmp_with_a_palette_is_told_for_tensorflow_does_not_look_its_colours_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    image.save(tmp_path / "grey.bmp")
    assert inspect_file(1, tmp_path / "grey.bmp").problem == ""
    image.convert("1").save(tmp_path / "two.bmp")
    coloured = image.convert("P")
    coloured.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    coloured.save(tmp_path / "palette.bmp")
    for name in ("two", "palette"):
        found = inspect_file(1, tmp_path / f"{name}.bmp")
        assert found.problem == "is a BMP image with a palette: convert it to PNG or JPEG"
    coloured.save(tmp_path / "palette.png")
    assert inspect_file(1, tmp_path / "palette.png").problem == ""


@pytest.mark.parametrize("orientation", range(9))
def test_a_small_jpeg_that_lies_on_its_side_has_the_size_that_it_is_fitted_to(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (12, 20), "teal").save(tmp_path / "small.jpg", exif=exif)
    found = inspect_file(1, tmp_path / "small.jpg")
    assert (found.height, found.width) == ((12, 20) if orientation >= 5 else (20, 12))


def test_after_a_damaged_version_comes_the_next_and_split_test_stays(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 10)):
        write_images(tmp_path / "source" / split, 4, first=first)
    made = imported(tmp_path / "source", tmp_path / "data")
    [shard] = made.dataset.folder.glob("*-train.tfrecord-*")
    shard.write_bytes(shard.read_bytes()[:-1])
    for place in (tmp_path / "source" / "test").iterdir():
        for file in place.iterdir():
            file.rename(tmp_path / "source" / "train" / place.name / file.name)
    shutil.copytree(made.dataset.folder, made.dataset.folder.with_name("1.0.0.bak"))  # which is no version
    again = imported(tmp_path / "source", tmp_path / "data")
    assert again.dataset.version == "1.0.1"
    before, after = (dict(splits_before(each.files)) for each in (made, again))
    assert {digest for digest, split in before.items() if split == "test"} == {
        digest for digest, split in after.items() if split == "test" and before[digest] == "test"
    }
    assert imported(tmp_path / "source", tmp_path / "data").dataset.version == "1.0.1"


def test_too_many_spoilt_files_are_rejected_and_nothing_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    write_images(folder, 5)
    spoil(folder)
    with pytest.raises(DataRejected, match=r"7 of 22 image files cannot be read.*data\.max_unreadable = 0\.1.*\n.*cut"):
        imported(folder, tmp_path / "data", max_unreadable=0.1)
    assert not (tmp_path / "data" / "colours").exists()
    imported(folder, tmp_path / "data", max_unreadable=0.5)
    with pytest.raises(DataRejected, match="7 of 22"):  # known from the last time
        imported(folder, tmp_path / "data", max_unreadable=0.1)


def test_duplicates_are_not_told_as_unreadable(tmp_path: Path) -> None:
    write_images(tmp_path / "source", 3)
    for number in range(12):
        shutil.copy(tmp_path / "source" / "blue" / "000.jpg", tmp_path / "source" / "blue" / f"again{number}.jpg")
    (tmp_path / "source" / "緑" / "empty.png").touch()
    imported(tmp_path / "source", tmp_path / "data")
    with pytest.raises(DataRejected, match=r"1 of 22 image files cannot be read.*\n  緑/empty\.png is empty$"):
        imported(tmp_path / "source", tmp_path / "data", max_unreadable=0.0)


def test_duplicates_and_contradictions_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    for split in ("train", "test"):
        write_images(folder / split, 6, first=0 if split == "train" else 10)
    shutil.copy(folder / "test" / "blue" / "010.png", folder / "train" / "blue" / "twin.png")
    shutil.copy(folder / "train" / "blue" / "003.jpg", folder / "train" / "blue" / "again.jpg")
    shutil.copy(folder / "train" / "été" / "003.jpg", folder / "train" / "緑" / "other.jpg")
    made = imported(folder, tmp_path / "data")
    decided, found = made.decided, rows(made)
    assert (decided.duplicates, decided.duplicates_across_splits, decided.contradictory) == (1, 1, 2)
    assert found["test/blue/010.png"]["split"] == "test"
    assert found["train/blue/twin.png"]["problem"] == "the same image as test/blue/010.png"
    assert found["train/blue/again.jpg"]["split"] == "" or found["train/blue/003.jpg"]["split"] == ""
    for file in ("train/été/003.jpg", "train/緑/other.jpg"):
        assert found[file]["problem"] == "the same image has other classes, too"
    given = {file: row["split"] for file, row in found.items() if row["split"]}
    assert all(split == "test" for file, split in given.items() if file.startswith("test/"))
    assert {split for file, split in given.items() if file.startswith("train/")} == {"train", "eval"}


def test_near_duplicates_are_counted_and_stay(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    for split in ("train", "test"):
        write_images(folder / split, 6, first=0 if split == "train" else 10)
    photograph = Image.fromarray(load_sample_image("flower.jpg")).resize((200, 160))
    photograph.save(folder / "train" / "blue" / "one.jpg", quality=95)
    photograph.resize((100, 80)).save(folder / "test" / "blue" / "two.jpg", quality=80)
    made = imported(folder, tmp_path / "data")
    found = rows(made)
    one, two = found["train/blue/one.jpg"], found["test/blue/two.jpg"]
    assert made.decided.near_duplicates == 2
    assert two["split"] == "test" and one["split"] in ("train", "eval")


def test_a_class_of_one_image_is_an_error_with_its_name(tmp_path: Path) -> None:
    write_images(tmp_path / "source", 3)
    (tmp_path / "source" / "rare").mkdir()
    picture((1, 2, 3), 0).save(tmp_path / "source" / "rare" / "only.png")
    with pytest.raises(DataRejected, match=r"two different images.*'rare' \(1\)"):
        imported(tmp_path / "source", tmp_path / "data")


def test_a_class_without_an_image_to_learn_from_is_an_error_with_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    for split, first in (("train", 0), ("test", 10)):
        write_images(folder / split, 3, first=first)
    shutil.rmtree(folder / "train" / "blue")
    with pytest.raises(DataRejected, match=r"no image to learn from has class 'blue'\. Add some to split train\."):
        imported(folder, tmp_path / "data")
    assert not (tmp_path / "data" / "colours").exists()


def test_a_csv_file_names_classes_and_splits(tmp_path: Path) -> None:
    write_images(tmp_path / "all", 4)
    files = sorted(path for path in (tmp_path / "all").rglob("*.*") if path.is_file())
    table = tmp_path / "labels.csv"
    lines = [
        f"{path.relative_to(tmp_path / 'all')};{path.parent.name};{'val' if path.stem == '003' else ''}"
        for path in files
    ]
    table.write_text("\ufefffile;label;split\n" + "\n".join(lines) + "\ngone.png;blue;\n", encoding="utf-8")
    made = prepare_images("colours", ImageSource(tmp_path / "all", table), tmp_path / "data", image_shape=SHAPE)
    found = rows(made)
    assert made.dataset.class_names == tuple(sorted(COLOURS))
    assert found["gone.png"]["problem"] == "cannot be read: No such file or directory"
    assert {row["split"] for file, row in found.items() if "003" in file} == {"eval"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\na.png,b\n", "has the columns name, label; it must have file and label"),
        ("file,label\na.png,\n", "line 2: file or label is empty"),
        ("file,label,split\na.png,b,holdout\n", "line 2: split 'holdout' is none of train, val and test"),
        ("", "has the columns (none)"),
        ("file,label\na.png,  \n", "line 2: file or label is empty"),
        ("file,label\n", "labels.csv names no files"),
    ],
)
def test_what_is_wrong_in_a_csv_file_is_told(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UsageError) as error:
        list(list_images(ImageSource(tmp_path, tmp_path / "labels.csv")))
    assert words in str(error.value)


def test_a_folder_without_classes_is_told_what_is_missing(tmp_path: Path) -> None:
    picture((1, 2, 3), 0).save(tmp_path / "only.png")
    with pytest.raises(UsageError, match="one folder for each class"):
        list(list_images(ImageSource(tmp_path)))
    with pytest.raises(UsageError, match="there is no folder"):
        list(list_images(ImageSource(tmp_path / "none")))


@pytest.mark.parametrize("names", [{"train", "blue"}, {"test", "valid"}])
def test_a_class_may_be_called_as_a_split_is(tmp_path: Path, names: set[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        picture((1, 2, 3), 0).save(tmp_path / name / "0.png")
    assert {(image.class_name, image.split) for image in list_images(ImageSource(tmp_path))} == {
        (name, "") for name in names
    }


def test_spaces_around_a_class_s_name_are_none_of_it(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    (tmp_path / "blue").rename(tmp_path / "blue ")
    assert {image.class_name for image in list_images(ImageSource(tmp_path))} == set(COLOURS)
    (tmp_path / "blue ").rename(tmp_path / " ")
    with pytest.raises(UsageError, match=r"a class cannot have a name .* or no text"):
        list(list_images(ImageSource(tmp_path)))


@pytest.mark.parametrize("name", ["vin\xa0rouge", "\u0645\u06cc\u200c\u062e\u0648", "\U0001f468\u200d\U0001f373"])
def test_a_class_may_have_whatever_name_people_write(name: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"file,label\na.png,{name}\n", encoding="utf-8")
    [image] = list_images(ImageSource(tmp_path, tmp_path / "labels.csv"))
    assert image.class_name == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"one\ntwo", "with line breaks"),
        (b"\x1b[31mred", "with line breaks, control characters"),
        ("a\u2028b".encode(), "with line breaks"),
        ("invoice\u202egpj.exe".encode(), "signs that turn text round"),
        ("\u2067isolated".encode(), "signs that turn text round"),
        ("\xa0\u200b".encode(), "or no text"),
        (b"caf\xe9", "a name that is not UTF-8"),
    ],
)
def test_names_that_cannot_be_told_or_would_hide_something_are_none(name: bytes, words: str, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    folder.mkdir()
    (folder / "a.png").touch()
    with pytest.raises(UsageError) as error:
        list(list_images(ImageSource(tmp_path)))
    assert words in str(error.value)


def test_one_name_in_two_forms_of_unicode_is_one_class(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        folder = tmp_path / unicodedata.normalize(form, "été")
        folder.mkdir()
        picture(COLOURS["été"], len(form)).save(folder / f"{form}.png")
    assert {image.class_name for image in list_images(ImageSource(tmp_path))} == {"été"}


def test_the_size_is_the_images_own_where_it_is_one(tmp_path: Path) -> None:
    for name, level in (("dark", 10), ("light", 200)):
        (tmp_path / "grey" / name).mkdir(parents=True)
        for number in range(3):
            picture((level, level, level), number).convert("L").resize((20, 10)).save(
                tmp_path / "grey" / name / f"{number}.png"
            )
    write_images(tmp_path / "colours", 3)
    data_dir = tmp_path / "data"
    assert prepare_images("grey", ImageSource(tmp_path / "grey"), data_dir).dataset.image_shape == (10, 20, 1)
    assert prepare_images("colours", ImageSource(tmp_path / "colours"), data_dir).dataset.image_shape == (64, 64, 3)
