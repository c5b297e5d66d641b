"""What people call a recipe, found by its settings: they alone decide what runs."""

from __future__ import annotations

import json

from mnist_tfx.pipeline.recipes import Recipe, flatten, load_recipe

_MOST_CHANGES = 6  # beyond these it is another recipe


def recipe_name(recipe: Recipe) -> str:
    """The nearest of its project's recipes, with what was changed: `default with training.epochs=3`.

    Empty where none is near. Where Beam runs is not counted: it changes nothing of what comes out.
    """
    settings = _settings(recipe)
    changes = {}
    for name in recipe.project.recipes:
        known = _settings(load_recipe(recipe.project, name))
        changes[name] = [f"{key}={value}" for key, value in settings.items() if value != known[key]]
    nearest = min(changes, key=lambda name: (len(changes[name]), name != "default", name), default=None)
    if nearest is None or len(changes[nearest]) > _MOST_CHANGES:
        return ""
    return f"{nearest} with {', '.join(changes[nearest])}" if changes[nearest] else nearest


def _settings(recipe: Recipe) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in flatten(recipe).items() if not key.startswith("beam.")}
