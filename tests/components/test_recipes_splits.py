"""What is trained on and chosen by is never split test, in no recipe."""

from __future__ import annotations

import itertools

import pytest
import tensorflow_datasets as tfds

from mnist_tfx.pipeline.projects import MAIN_DATASETS, shipped, shipped_datasets
from mnist_tfx.pipeline.recipes import load_recipe

RECIPES = [(dataset, name) for dataset in shipped_datasets() for name in shipped(dataset).recipes]
EXAMPLES = {"train": 60_000, "test": 10_000}  # of MNIST, and of the datasets that take its place


def positions(slices: str) -> set[tuple[str, int]]:
    """Each example that TFDS reads for a slicing notation, as its split and its place there."""
    sizes = {name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0) for name, size in EXAMPLES.items()}
    instructions = tfds.core.ReadInstruction.from_spec(slices).to_absolute(sizes)
    return {
        (part.splitname, place)
        for part in instructions
        for place in range(part.from_ or 0, EXAMPLES[part.splitname] if part.to is None else part.to)
    }


def test_the_slices_are_understood() -> None:
    assert positions("train[:2]+test[9999:]") == {("train", 0), ("train", 1), ("test", 9999)}
    assert len(positions("train[90%:]")) == 6000


@pytest.mark.parametrize(("dataset", "name"), RECIPES, ids=[f"{dataset}/{name}" for dataset, name in RECIPES])
def test_no_recipe_trains_on_or_chooses_by_examples_of_tfds_test(dataset: str, name: str) -> None:
    splits = load_recipe(dataset, name).data.splits
    read = {split: positions(slices) for split, slices in splits.model_dump().items()}
    assert {tfds_split for tfds_split, _ in read["train"] | read["eval"]} == {"train"}
    for one, other in itertools.combinations(read.values(), 2):
        assert not one & other
    if dataset in MAIN_DATASETS:
        assert read["test"] == {("test", place) for place in range(EXAMPLES["test"])}  # all of it, and nothing else
