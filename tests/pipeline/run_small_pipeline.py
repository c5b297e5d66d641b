"""`python -m tests.pipeline.run_small_pipeline HOME KEY=VALUE ...`: a process for tests that send signals."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.pipeline.log_capture import output_to
from mnist_tfx.pipeline.running.live_view import make_observer
from mnist_tfx.pipeline.runs.ids import claim_run_id


def main(home: Path, options: dict[str, str]) -> int:
    """Runs a slow pipeline where `step=` names one, else the small one, as the command line would."""
    runs = home / "runs" / "mnist"
    run_id = claim_run_id(runs, "mnist")
    log_file = runs / run_id / "run.log"
    with output_to(log_file):
        from mnist_tfx.pipeline.running.local_runner import run_pipeline
        from tests.pipeline.slow_pipelines import slow_pipeline
        from tests.pipeline.small_pipelines import describe, small_pipeline
    if "step" in options:
        pipeline = slow_pipeline(home, run_id, step=options["step"], flag=options["flag"])
    else:
        pipeline = small_pipeline(home, run_id, behavior=options.get("behavior", "train"))
    try:
        with make_observer("mnist", [node.id for node in pipeline.components], describe) as observer:
            result = run_pipeline(pipeline, run_id=run_id, log_file=log_file, observer=observer)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(*(f"{node.node_id} {'cached' if node.cached else 'run'}" for node in result.nodes), sep="\n")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run as a job in the background
    sys.exit(main(Path(sys.argv[1]), dict(option.split("=", 1) for option in sys.argv[2:])))
