"""`mnist-tfx lr-find`: suggests a learning rate by a range test."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_tfx.components.range_test import MAX_RATE, MIN_RATE, STEPS
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.pipeline.commands.options.project import project_of
from mnist_tfx.pipeline.commands.options.recipe import add_plot_argument, add_recipe_arguments, check_plot_argument
from mnist_tfx.pipeline.home import Home

if TYPE_CHECKING:
    from mnist_tfx.components.range_test.curve import Curve
    from mnist_tfx.pipeline.run_recipe import PartialRun

SUMMARY = "find a learning rate: train briefly while it rises, and see where the loss is lowest"
EXAMPLE = "mnist-tfx lr-find --dataset fashion_mnist --set model.hidden_layers=[100,50] -o rates.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--min-rate", type=float, default=MIN_RATE, metavar="RATE", help="where the range begins (default: %(default)g)"
    )
    parser.add_argument(
        "--max-rate", type=float, default=MAX_RATE, metavar="RATE", help="where the range ends (default: %(default)g)"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, metavar="N", help="steps through the range (default: %(default)s)"
    )
    add_plot_argument(parser, "lr-find.png")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Makes the data as the pipeline would, does the test, draws the curve, and suggests or refuses to."""
    from mnist_tfx.pipeline.recipes import load_recipe
    from mnist_tfx.pipeline.run_recipe import run_until

    if not 0.0 < args.min_rate < args.max_rate < math.inf:
        raise UsageError(
            f"the range goes from {args.min_rate:g} to {args.max_rate:g}: it must begin above 0, and rise to a number."
        )
    if args.steps < 50:
        raise UsageError(f"--steps {args.steps}: at least 50 are needed, else noise hides the curve.")
    check_plot_argument(args.output)
    recipe = load_recipe(project_of(args), args.recipe, args.set)
    home = Home.resolve(args.home)
    home.prepare()
    with home.lock():
        made = run_until("Transform", recipe, home)
        print(f"range test: learning rates {args.min_rate:g} to {args.max_rate:g}", file=sys.stderr)
        curve = _measure(made, args.min_rate, args.max_rate, args.steps)
    return _report(args, curve, Path(args.output) if args.output else made.folder / "lr-find.png")


def _measure(made: PartialRun, min_rate: float, max_rate: float, steps: int) -> Curve:
    import tempfile

    from mnist_tfx.pipeline.log_capture import output_to

    with output_to(made.log_file), tempfile.TemporaryDirectory(prefix="decoded-") as cache_dir:
        import tensorflow_transform as tft
        from tfx.types import artifact_utils
        from tfx.utils import io_utils

        from mnist_tfx.components.range_test.run import measure_curve
        from mnist_tfx.components.trainer.training_data import decode_examples
        from mnist_tfx.components.transform.preprocessing import Normalization
        from mnist_tfx.contract.names import TRAIN

        [graph] = made.outputs["Transform"]["transform_graph"]
        shape = made.config.image_shape
        uris = artifact_utils.get_split_uris(list(made.outputs["TfdsExampleGen"]["examples"]), TRAIN)
        examples = decode_examples([io_utils.all_files_pattern(uri) for uri in uris], shape, cache_dir)
        normalization = Normalization.of_graph(tft.TFTransformOutput(graph.uri), shape)
        return measure_curve(made.config, normalization, examples, min_rate, max_rate, steps)


def _report(args: argparse.Namespace, curve: Curve, plot: Path) -> int:
    """Prints what the curve suggests; the plot is drawn in any case, to see why it suggests nothing."""
    from mnist_tfx.components.range_test.curve import RULE, suggest
    from mnist_tfx.pipeline.commands.plots import plot_range_test

    error = suggestion = None
    try:
        suggestion = suggest(curve, args.min_rate, args.max_rate)
    except PipelineError as refusal:
        error = refusal
    plot_range_test(curve, suggestion, f"range test: {args.dataset}, {Path(args.recipe).stem}", plot)
    if args.json:
        answer = suggestion.to_json() if suggestion else {"learning_rate": None}
        points = [[float(rate), float(loss)] for rate, loss in zip(curve.rates, curve.smoothed, strict=True)]
        error_text = str(error) if error else None
        print(json.dumps({**answer, "error": error_text, "plot": str(plot), "curve": points}, indent=2))
    elif suggestion:
        print(f"suggested learning rate: {suggestion.learning_rate:g}")
        print(
            f"  why: {RULE} (it is lowest at {suggestion.lowest:.2g}, and falls fastest at {suggestion.steepest:.2g})"
        )
        print(f"  use it: --set training.learning_rate={suggestion.learning_rate:g}")
    print(f"plot: {plot}", file=sys.stderr)
    if error:
        raise error
    return 0
