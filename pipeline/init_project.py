"""Makes a project: data prepared, a recipe to begin from, and a schema that the data keep; both are to be edited."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.components.datasets.images.listing import is_listed
from mnist_tfx.components.settings import DataSettings
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import EVAL, TEST, TRAIN
from mnist_tfx.pipeline.data import describe_import, import_images
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.projects import HOME, KEPT, RECIPE, SCHEMA, Project, is_project
from mnist_tfx.pipeline.recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.prepared import PreparedDataset

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SIZE = (64, 64)  # that images of differing sizes are fitted to: a dense layer's weights grow with it

_TEMPLATE = """\
# {name}: two hidden layers of 512 with batch normalization, a recipe to begin from.
#
# mnist-tfx run --project {project}
# `mnist-tfx recipes --project {project}` lists every setting.

[data]
{data}

[transform]
normalization = "standardize"

[model]
hidden_layers = [512, 512]
batch_normalization = true
dropout = 0.3

[training]
optimizer = "adam"
learning_rate = 0.001
schedule = "cosine"
batch_size = {batch_size}
epochs = 40
patience = 10
label_smoothing = 0.05

[augmentation]
shift = {shift}
rotation = 10.0
scale = 0.1

# What a model must reach on split test to be pushed: raise these once you know what can be had.
[evaluation]
min_accuracy = {min_accuracy}  # more than the share of the commonest class
min_class_accuracy = 0.0  # of each class by itself
max_accuracy_drop = 0.02  # against the model that is served
"""


@dataclass(frozen=True)
class DataSource:
    """Where the data of a new project come from: image files, or TFDS.

    Attributes:
        images: a folder of image files; None: TFDS.
        labels: a CSV file with their classes; None: the folders' names are the classes.
        max_unreadable: the share of them that may be damaged.
        tfds: name of a TFDS dataset, perhaps with `:VERSION`; or `package.module:Class` or `file.py:Class`.
        data_dir: where it lies prepared already; None: in the project's home, or in `TFDS_DATA_DIR`.
    """

    images: Path | None = None
    labels: Path | None = None
    max_unreadable: float = 0.0
    tfds: str = ""
    data_dir: Path | None = None


def init_project(
    folder: Path, source: DataSource, *, size: tuple[int, int] | None = None
) -> tuple[PreparedDataset, str]:
    """Prepares the data and writes `recipe.toml` and `schema.pbtxt`.

    Args:
        folder: the project's; its name is the dataset's and the model's where the data are image files.
        source: where the data come from.
        size: height and width that every image is fitted to; None: the images' own, or 64 x 64 where they differ.

    Returns:
        The dataset, and what it was made of, in words.

    Raises:
        UsageError: the folder is a project already, or lies among its images, or the name or the source is none.
        DataRejected: the data are too few, or damaged.
        PipelineError: the home cannot be written to or is in use, the data cannot be had, or a component failed.
    """
    if is_project(folder):
        raise UsageError(f"{folder} is a project already: edit {folder / RECIPE}, or name another folder.")
    name = folder.resolve().name
    if source.images and not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a dataset and its model: small letters, digits and _, a letter first."
        )
    home = Home.resolve(os.environ.get("MNIST_TFX_HOME") or str(folder / HOME))
    if source.images and source.labels is None:
        _check_beside(source.images.expanduser().resolve(), folder.resolve(), home.root)
    home.prepare()
    data, dataset, told = (
        _of_images(folder, source, size, home) if source.images else _of_tfds(folder, source, size, home)
    )
    from mnist_tfx.components.schema.proposal import LEAST_SCHEMA

    folder.mkdir(parents=True, exist_ok=True)  # it is not there yet where the home is elsewhere
    # By these names the folder is no project yet: the first recipe and schema let any model and all data pass.
    recipe_file, schema_file = folder / f"{RECIPE}.partial", folder / f"{SCHEMA}.partial"
    try:
        recipe_file.write_text(_recipe_text(folder, data, dataset, min_accuracy=0.0), encoding="utf-8")
        schema_file.write_text(LEAST_SCHEMA)
        project = Project(dataset.name, {"default": recipe_file}, schema_file, folder / HOME)
        schema, commonest = propose_for(load_recipe(project, "default"), home)
        schema_file.write_text(schema, encoding="utf-8")
        bound = min(0.99, math.ceil(20 * commonest + 1) / 20)
        recipe_file.write_text(_recipe_text(folder, data, dataset, min_accuracy=bound), encoding="utf-8")
        if (folder / SCHEMA).exists():  # curated, with a recipe that was removed to be made anew
            (folder / SCHEMA).replace(folder / (SCHEMA + KEPT))
            told += f"; the {SCHEMA} that was there is {SCHEMA}{KEPT}"
        schema_file.replace(folder / SCHEMA)
        recipe_file.replace(folder / RECIPE)
    finally:
        recipe_file.unlink(missing_ok=True)
        schema_file.unlink(missing_ok=True)
    return dataset, told


def propose_for(recipe: Recipe, home: Home) -> tuple[str, float]:
    """The text of a schema that the recipe's data keep as they are now, and the share of the commonest class.

    Runs the pipeline up to StatisticsGen, as a run of its own.
    """
    from mnist_tfx.pipeline.run_recipe import run_until

    with home.lock():
        made = run_until("StatisticsGen", recipe, home)
    from mnist_tfx.components.data_gate.executor import read_statistics
    from mnist_tfx.components.schema.proposal import class_shares, propose_schema

    [artifact] = made.outputs["StatisticsGen"]["statistics"]
    statistics = read_statistics(artifact.uri, [TRAIN, EVAL, TEST])
    return (
        propose_schema(made.config.dataset, statistics, made.config.class_names, made.config.image_shape),
        max(class_shares(statistics[TRAIN])),
    )


def _check_beside(images: Path, *places: Path) -> None:
    """Raises a UsageError for a place that would be taken for a class of the images, whose classes are folders."""
    for place in places:
        if place.is_relative_to(images) and all(map(is_listed, place.relative_to(images).parts)):
            raise UsageError(f"{place} lies inside {images}, whose folders are the classes: name a folder beside it.")


def _of_images(
    folder: Path, source: DataSource, size: tuple[int, int] | None, home: Home
) -> tuple[dict[str, object], PreparedDataset, str]:
    assert source.images is not None
    name = folder.resolve().name
    images, labels = source.images.expanduser().resolve(), source.labels
    where = {"images": str(images), "labels": str(labels.expanduser().resolve()) if labels else ""}
    settings = DataSettings.model_validate({"dataset": name, **where, "max_unreadable": source.max_unreadable})
    imported = import_images(settings, home, (*(size or (None, None)), None))
    dataset = imported.dataset
    data: dict[str, object] = {"dataset": name}
    data |= {key: os.path.relpath(path, folder.resolve()) for key, path in where.items() if path}
    data["image_shape"] = list(dataset.image_shape)
    data["resize"] = list(dataset.image_shape[:2])
    data["splits"] = {TRAIN: TRAIN, EVAL: EVAL, TEST: TEST}
    data["max_unreadable"] = source.max_unreadable
    return data, dataset, describe_import(imported)


def _of_tfds(
    folder: Path, source: DataSource, size: tuple[int, int] | None, home: Home
) -> tuple[dict[str, object], PreparedDataset, str]:
    from mnist_tfx.components.datasets.builders import import_builder
    from mnist_tfx.pipeline.data import prepare_dataset

    data: dict[str, object] = {}
    name, _, version = source.tfds.partition(":")
    if version and not version[0].isdigit():  # a class of the user's own
        place = str(Path(name).expanduser().resolve()) if name.endswith(".py") else name
        data["builder"] = f"{place}:{version}"
        name, version = import_builder(f"{place}:{version}").name, ""
    data["dataset"] = name
    if version:
        data["version"] = version
    if source.data_dir:
        data["data_dir"] = str(source.data_dir.expanduser().resolve())
    recipe = Recipe.model_validate({"data": data, "evaluation": {"min_accuracy": 0.0}})
    dataset = prepare_dataset(recipe, home)
    height, width, channels = dataset.image_shape
    if size or height is None or width is None:
        data["resize"] = list(size or _SIZE)
        height, width = size or _SIZE
    data["image_shape"] = [height, width, channels or 3]
    data["splits"] = _splits(dataset.split_sizes)
    sizes = ", ".join(f"{split} {count:,}" for split, count in dataset.split_sizes.items())
    return data, dataset, f"{dataset.name} {dataset.version}: {sizes} examples, {len(dataset.class_names)} classes"


def _splits(sizes: Mapping[str, int]) -> dict[str, str]:
    """What the pipeline's splits read of those that the dataset has."""
    if TRAIN not in sizes:
        raise UsageError(f"the dataset has no split train, only {', '.join(sizes)}: write data.splits by hand.")
    evaluation = next((name for name in ("validation", EVAL, "valid", "val") if name in sizes), None)
    if TEST in sizes and evaluation:
        return {TRAIN: TRAIN, EVAL: evaluation, TEST: TEST}
    if TEST in sizes:
        return {TRAIN: "train[:90%]", EVAL: "train[90%:]", TEST: TEST}
    if evaluation:
        return {TRAIN: "train[:90%]", EVAL: "train[90%:]", TEST: evaluation}
    return {TRAIN: "train[:80%]", EVAL: "train[80%:90%]", TEST: "train[90%:]"}


def _recipe_text(folder: Path, data: Mapping[str, object], dataset: PreparedDataset, min_accuracy: float) -> str:
    examples = sum(dataset.split_sizes.values())
    return _TEMPLATE.format(
        name=dataset.name,
        project=os.path.relpath(folder),
        data="\n".join(f"{key} = {_toml(value)}" for key, value in data.items()),
        batch_size=32 if examples < 5_000 else 256,
        shift=max(1.0, data["image_shape"][0] / 16),  # type: ignore[index]
        min_accuracy=min_accuracy,
    )


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
