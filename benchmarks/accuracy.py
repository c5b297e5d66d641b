"""Retrains every recipe over seeds and writes the table of benchmarks/accuracy.md and the recipes' headers.

.venv/bin/python -m benchmarks.accuracy [--dataset D] [--recipe R] [--seeds N] [--home DIR] [--again]

Each figure is a run of the whole pipeline in a scratch home, judged by its Evaluator on split test. What was measured
is kept in benchmarks/accuracy.json, seed by seed, with a digest of the settings: a recipe that has not changed since is
not trained again unless `--again` asks for it, and an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.our_pipeline import COMMAND
from mnist_tfx.contract.cpus import cpu_count
from mnist_tfx.pipeline.home import Home
from mnist_tfx.pipeline.projects import MAIN_DATASETS, shipped
from mnist_tfx.pipeline.recipes import Recipe, load_recipe

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).with_suffix(".md")
NOT_MEASURED = ("benchmark",)  # measured by benchmarks/pipeline.py; not meant to be good
_TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
_HEADER = re.compile(r"^# Test accuracy .*$", re.MULTILINE)
_TRAINING_SECTIONS = {"data", "transform", "model", "training", "augmentation", "distillation"}


@dataclass(frozen=True)
class Result:
    """One training: accuracy on split test, by the Evaluator; seconds of training, on `cores`."""

    dataset: str
    recipe: str
    seed: int
    settings: str
    accuracy: float
    seconds: float
    epochs: int
    best_epoch: int
    cores: int


@dataclass(frozen=True)
class Row:
    """A recipe's results, summed up."""

    dataset: str
    recipe: str
    seeds: int
    mean: float
    deviation: float  # of the sample
    seconds: float  # of the quickest: another program on the machine only ever adds
    epochs: str
    best_epochs: str
    cores: int

    def header(self) -> str:
        """The line of the recipe's header that states it."""
        spread = f"mean of {self.seeds} seeds, deviation {self.deviation:.4f}" if self.seeds > 1 else "one seed only"
        return f"# Test accuracy {self.mean:.4f} ({spread}); {self.seconds:.0f} s of training on {self.cores} cores."


def measured_recipes() -> list[tuple[str, str]]:
    """Dataset and name of every recipe that the table has."""
    return [
        (dataset, name) for dataset in MAIN_DATASETS for name in shipped(dataset).recipes if name not in NOT_MEASURED
    ]


def settings_digest(recipe: Recipe) -> str:
    """Names what decides about a trained model but the seed: every setting, so that a changed default is seen, too."""
    settings = recipe.model_dump(mode="json", include=_TRAINING_SECTIONS)
    del settings["training"]["seed"]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def read_results() -> list[Result]:
    """All that was measured."""
    return [Result(**each) for each in json.loads(RESULTS.read_text())] if RESULTS.exists() else []


def rows(results: list[Result]) -> Iterator[Row]:
    """The table: recipes in order, those without results left out."""
    for dataset, name in measured_recipes():
        of_recipe = [each for each in results if (each.dataset, each.recipe) == (dataset, name)]
        if of_recipe:
            accuracies = [each.accuracy for each in of_recipe]
            yield Row(
                dataset,
                name,
                len(of_recipe),
                statistics.mean(accuracies),
                statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
                min(each.seconds for each in of_recipe),
                _span(each.epochs for each in of_recipe),
                _span(each.best_epoch for each in of_recipe),
                of_recipe[0].cores,
            )


def table(results: list[Result]) -> str:
    """In Markdown."""
    lines = ["| dataset | recipe | test accuracy | deviation | seeds | seconds | epochs run | best epoch |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    lines += [
        f"| {row.dataset} | {row.recipe} | {row.mean:.4f} | {f'{row.deviation:.4f}' if row.seeds > 1 else ''} "
        f"| {row.seeds} | {row.seconds:.0f} | {row.epochs} | {row.best_epochs} |"
        for row in rows(results)
    ]
    return "\n".join(lines) + "\n"


def train(dataset: str, name: str, seed: int, home: Home) -> Result:
    """Runs the pipeline on a recipe with a seed."""
    recipe = load_recipe(dataset, name)
    command = [str(COMMAND), "run", "--dataset", dataset, "--recipe", name, "--home", str(home.root), "--json"]
    command.append("--no-push")
    # Neither a served model nor a bound has a say: every figure counts, the bad ones, too.
    for setting in (f"training.seed={seed}", "evaluation.baseline=none", "min_accuracy=0", "min_class_accuracy=0"):
        command += ["--set", setting]
    [outcome] = json.loads(measure.stdout_of(command, log=home.root / f"{dataset}-{name}-{seed}.log"))
    (log_file,) = (home.runs(dataset) / outcome["run"]).glob("Trainer/model/*/training.json")
    log: dict[str, Any] = json.loads(log_file.read_text())
    return Result(
        dataset,
        name,
        seed,
        settings_digest(recipe),
        outcome["accuracy"],
        round(log["seconds"], 1),
        len(log["history"]),
        log["best_epoch"],
        cpu_count(),
    )


def write(results: list[Result]) -> None:
    """Results, table and headers."""
    ordered = sorted(results, key=lambda each: (each.dataset, each.recipe, each.seed))
    RESULTS.write_text("[\n" + ",\n".join(f"  {json.dumps(asdict(each))}" for each in ordered) + "\n]\n")
    PAGE.write_text(_TABLE.sub(lambda _: table(ordered), PAGE.read_text()))
    for row in rows(ordered):
        path = shipped(row.dataset).recipes[row.recipe]
        path.write_text(_HEADER.sub(row.header(), path.read_text(), count=1))


def _span(numbers: Iterable[int]) -> str:
    ordered = sorted(numbers)
    return str(ordered[0]) if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def main() -> int:
    """Trains what is missing, and writes after each training."""
    parser = argparse.ArgumentParser(description="Retrain recipes over seeds; write the table and the headers.")
    parser.add_argument("--dataset", choices=MAIN_DATASETS, help="this one only")
    parser.add_argument("--recipe", help="this one only")
    parser.add_argument("--seeds", type=int, default=3, help="train with seeds 0, 1, ... (default 3)")
    parser.add_argument("--home", metavar="DIR", help="a home with prepared datasets")
    parser.add_argument("--again", action="store_true", help="train also what was measured with these settings")
    args = parser.parse_args()
    chosen = [
        (dataset, name)
        for dataset, name in measured_recipes()
        if args.dataset in (None, dataset) and args.recipe in (None, name)
    ]
    if not chosen:
        sys.exit(f"no recipe {args.recipe!r}: `mnist-tfx recipes` lists them.")
    digests = {key: settings_digest(load_recipe(*key)) for key in measured_recipes()}
    results = [each for each in read_results() if digests.get((each.dataset, each.recipe)) == each.settings]
    if args.again:
        results = [each for each in results if (each.dataset, each.recipe) not in chosen]
    with tempfile.TemporaryDirectory(prefix="mnist-tfx-accuracy-") as scratch:
        home = Home(Path(scratch))
        home.datasets.symlink_to(Home.resolve(args.home).datasets, target_is_directory=True)
        for dataset, name in chosen:
            done = {each.seed for each in results if (each.dataset, each.recipe) == (dataset, name)}
            for seed in sorted(set(range(args.seeds)) - done):
                print(f"{dataset} {name}, seed {seed} ...", file=sys.stderr)
                results.append(train(dataset, name, seed, home))
                print(f"  {results[-1].accuracy:.4f} in {results[-1].seconds:.0f} s", file=sys.stderr)
                write(results)
    write(results)
    print(table(results), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
