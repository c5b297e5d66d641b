"""A project: a dataset, its recipes and its curated schema. Two and more are shipped, others are folders of users' own.

A folder is a project if it has `recipe.toml`, its recipe `default`; other `.toml` files beside it are more recipes.
What a shipped one has of the same kind lies in `pipeline/recipes/DATASET/` and `schemas/DATASET/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mnist_tfx.contract.errors import UsageError, unknown_name
from mnist_tfx.contract.names import model_name
from mnist_tfx.pipeline.settings_files import read_toml
from mnist_tfx.pipeline.text_files import replace_text

RECIPE, SCHEMA, HOME = "recipe.toml", "schema.pbtxt", "var"
KEPT = ".before"  # what a schema's name gets when another takes its place
MAIN_DATASETS = ("fashion_mnist", "mnist")  # what `--dataset all` runs
_RECIPES = Path(__file__).resolve().parent / "recipes"
_SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"


@dataclass(frozen=True)
class Project:
    """What is done with a dataset.

    Attributes:
        dataset: the dataset's name.
        recipes: the recipes' files, by name.
        schema_file: the curated schema; it need not be there before a run.
        home: where its state lies if nobody says otherwise; None: where that of the shipped ones lies.
    """

    dataset: str
    recipes: Mapping[str, Path] = field(hash=False)
    schema_file: Path
    home: Path | None = None

    @property
    def model(self) -> str:
        """The name of its model."""
        return model_name(self.dataset)

    def recipe_file(self, name: str) -> Path:
        """The file of a recipe, by its name; a name that ends in `.toml` is a file's.

        Raises:
            UsageError: there is no such recipe.
        """
        if name.endswith(".toml"):
            return Path(name)
        if name not in self.recipes:
            raise unknown_name(f"recipe of {self.dataset}", name, self.recipes)
        return self.recipes[name]

    def schema_digest(self) -> str:
        """Names the content of the curated schema: the first 12 hex digits of its SHA-256.

        ImportSchemaGen's only parameter is the path: with that of the original, an edited schema would be a cache hit.

        Raises:
            UsageError: there is no curated schema, or it is no UTF-8.
        """
        return hashlib.sha256(self.curated_schema().encode()).hexdigest()[:12]

    def snapshot_schema(self, folder: Path) -> Path:
        """Copies the curated schema to a path in `folder` that is named by its content.

        Raises:
            UsageError: there is no curated schema, or it is no UTF-8.
        """
        target = folder / self.dataset / self.schema_digest() / SCHEMA
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_text(target, self.curated_schema())
        return target

    def curated_schema(self) -> str:
        """The curated schema's text.

        Raises:
            UsageError: there is none, or it is no UTF-8.
        """
        try:
            return self.schema_file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.schema_file} is no UTF-8: {error}.") from error
        except OSError as error:
            raise UsageError(
                f"dataset {self.dataset!r} has no schema: cannot read {self.schema_file} ({error.strerror}). "
                "`mnist-tfx init NAME --tfds DATASET` makes a project with one."
            ) from error


def shipped_datasets() -> list[str]:
    """The datasets of the shipped projects."""
    return sorted(folder.name for folder in _RECIPES.iterdir() if list(folder.glob("*.toml")))


def shipped(dataset: str) -> Project:
    """The shipped project of a dataset.

    Raises:
        UsageError: there is none.
    """
    if dataset not in shipped_datasets():
        raise unknown_name("dataset", dataset, shipped_datasets())
    recipes = {path.stem: path for path in sorted((_RECIPES / dataset).glob("*.toml"))}
    return Project(dataset, recipes, _SCHEMAS / dataset / SCHEMA)


def is_project(folder: Path) -> bool:
    """Whether a folder is a user's project."""
    return (folder / RECIPE).is_file()


def project_in(folder: Path) -> Project:
    """The project in a folder.

    Raises:
        UsageError: it has no recipe, or its recipe names no dataset.
    """
    folder = folder.expanduser().resolve()
    if not is_project(folder):
        raise UsageError(f"{folder} is no project: it has no {RECIPE}. `mnist-tfx init NAME --images DIR` makes one.")
    recipes = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    recipes["default"] = recipes.pop("recipe")
    data = read_toml(recipes["default"], "recipe").get("data")
    if not isinstance(data, dict) or not isinstance(data.get("dataset"), str):
        raise UsageError(f"{recipes['default']} must name the dataset: [data], dataset = NAME.")
    return Project(data["dataset"], recipes, folder / SCHEMA, folder / HOME)
