"""The dataset of a recipe: found where it lies prepared, or fetched, or made of the image files that it names."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import SPLITS
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from mnist_tfx.components.datasets.images.listing import ImageSource
    from mnist_tfx.components.datasets.images.prepare import Imported, Shape
    from mnist_tfx.components.datasets.prepared import PreparedDataset
    from mnist_tfx.components.settings import DataSettings
    from mnist_tfx.pipeline.recipes import Recipe


def find_dataset(recipe: Recipe, home: Home) -> PreparedDataset:
    """The recipe's dataset as it lies prepared: in the data_dir that it names, in the home, or in `TFDS_DATA_DIR`.

    Raises:
        NotPrepared: a PipelineError; it lies in none of them, or a span of it is damaged.
        UsageError: it is not one of labeled images, or data.classes does not fit it.
    """
    from mnist_tfx.components.datasets.prepared import find_prepared
    from mnist_tfx.components.datasets.sources import data_dirs

    settings = recipe.data
    places = [Path(settings.data_dir)] if settings.data_dir else data_dirs(home.datasets)
    remedy = None
    if settings.data_dir:  # `data prepare` and `run` write into the home alone
        remedy = "Prepare it there, or leave data.data_dir out."
    elif settings.images and settings.version:
        remedy = "Name another, or leave data.version out: `run` and `data prepare` take the images as they are now."
    return _as_recipe_has_it(find_prepared(settings.dataset, settings.version, places, remedy=remedy), settings)


def prepare_dataset(recipe: Recipe, home: Home) -> PreparedDataset:
    """The recipe's dataset with its spans, fetched or made if need be, with its progress on stderr.

    Raises:
        PipelineError: it cannot be had; the message says what was tried.
        UsageError: the version that is named is of images of another size.
        DataRejected: files of it are damaged, or too few.
    """
    from mnist_tfx.components.datasets.prepared import NotPrepared

    settings = recipe.data
    if settings.images and not settings.version:
        imported = import_images(settings, home, settings.image_shape)
        print(f"{settings.dataset}: {describe_import(imported)}", file=sys.stderr)
        return _as_recipe_has_it(imported.dataset, settings)
    try:
        dataset = find_dataset(recipe, home)
        if settings.images and dataset.image_shape != settings.image_shape:  # else images would be fitted twice
            raise UsageError(
                f"{dataset.name} {dataset.version} was made of images fitted to {dataset.image_shape}, and not to "
                f"{settings.image_shape}: set data.resize to that, or leave data.version out."
            )
        return dataset
    except NotPrepared:
        if settings.data_dir or settings.images:
            raise
    from mnist_tfx.components.datasets.prepare import prepare
    from mnist_tfx.pipeline.running.data_progress import shown_progress

    with shown_progress(settings.dataset, home) as progress:
        dataset = prepare(
            settings.dataset, home.datasets, version=settings.version, builder=settings.builder, progress=progress
        )
    return _as_recipe_has_it(dataset, settings)


def _as_recipe_has_it(dataset: PreparedDataset, settings: DataSettings) -> PreparedDataset:
    from mnist_tfx.components.datasets.spans import with_newest_spans

    return with_newest_spans(dataset, settings.spans).grouped(settings.classes)


def add_images(recipe: Recipe, home: Home, source: ImageSource, *, with_test: bool) -> tuple[int, Imported]:
    """Adds labelled images to the recipe's dataset as a new span: its number, and what became of the files.

    Raises:
        UsageError: the source holds no images by class, or a class that the dataset has not; or the dataset lies
            where `TFDS_DATA_DIR` says, and not in the home.
        DataRejected: too many files are damaged, or none of them is new. Nothing was written.
        PipelineError: the dataset cannot be had.
    """
    from mnist_tfx.components.datasets.images.listing import list_images
    from mnist_tfx.components.datasets.spans import spans_dir
    from mnist_tfx.pipeline.running.data_progress import shown_progress

    next(list_images(source))  # what is no source is told before the dataset is fetched
    # As it is in TFDS: its own classes, and no span chosen.
    as_prepared = recipe.data.model_copy(update={"classes": None, "spans": "all"})
    dataset = replace(prepare_dataset(recipe.model_copy(update={"data": as_prepared}), home), spans={})
    if not recipe.data.data_dir and dataset.data_dir.resolve() != home.datasets.resolve():
        spans, copied = spans_dir(dataset), f"{dataset.folder} to {home.datasets / dataset.name / dataset.version}"
        if spans.exists():
            copied += f" and {spans} to {home.datasets / spans.relative_to(dataset.data_dir)}"
        raise UsageError(
            f"{dataset.name} lies in {dataset.data_dir} (TFDS_DATA_DIR), where every other home would read what is "
            f"added. Copy {copied}, and add again; or, if they are to read it, name {dataset.data_dir} in "
            "data.data_dir."
        )
    with shown_progress(dataset.name, home) as progress:
        from mnist_tfx.components.datasets.images.add import add_span

        return add_span(
            dataset,
            source,
            recipe.data.image_shape,
            with_test=with_test,
            max_unreadable=recipe.data.max_unreadable,
            progress=progress,
        )


def import_images(settings: DataSettings, home: Home, image_shape: Shape) -> Imported:
    """Makes the dataset of the image files as they are now; None in `image_shape` is found by itself."""
    from mnist_tfx.pipeline.running.data_progress import shown_progress

    with shown_progress(settings.dataset, home) as progress:
        from mnist_tfx.components.datasets.images.listing import ImageSource
        from mnist_tfx.components.datasets.images.prepare import prepare_images

        labels = Path(settings.labels) if settings.labels else None
        return prepare_images(
            settings.dataset,
            ImageSource(Path(settings.images), labels),
            home.datasets,
            image_shape=image_shape,
            max_unreadable=settings.max_unreadable,
            progress=progress,
        )


def describe_import(imported: Imported) -> str:
    """In words: how many images of which classes, how they are divided, and what was left out."""
    decided, sizes = imported.decided, imported.dataset.split_sizes
    names = ", ".join(decided.classes[:8]) + (", ..." if len(decided.classes) > 8 else "")
    told = [
        f"{sum(sizes.values()):,} images of {decided.files:,} files, {len(decided.classes)} classes ({names})",
        "divided by content: " + ", ".join(f"{split} {sizes[split]:,}" for split in SPLITS),
        *(
            f"{count:,} {what}"
            for count, what in (
                (decided.unreadable, "unreadable left out"),
                (decided.known, "that the data have already left out"),
                (decided.contradictory, "of several classes left out"),
                (decided.duplicates, "duplicates left out"),
                (decided.duplicates_across_splits, "duplicates across splits left out"),
                (decided.near_duplicates, "look like one of another split"),
            )
            if count
        ),
        f"each file is listed in {imported.files}",
    ]
    return "; ".join(told) + "".join(f"\n  {file} {problem}" for file, problem in imported.problems)
