"""Beam's own arguments for the settings of section `beam`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from mnist_tfx.components.settings import BeamSettings
from mnist_tfx.contract.errors import UsageError


def beam_arguments(beam: BeamSettings, component: str = "") -> list[str]:
    """The arguments with which a component runs its Beam pipelines.

    Args:
        beam: the settings.
        component: the component's id; `beam.components` may say that it runs directly.

    Raises:
        UsageError: a setting that the runner needs is missing.
    """
    if beam.runner == "direct":
        return [*direct_arguments(beam.workers), *beam.args]
    if beam.components and component and component not in beam.components:
        return direct_arguments(1)  # another runner's own arguments would mean nothing to it, or the wrong thing
    return [*(_dataflow(beam) if beam.runner == "dataflow" else _portable(beam)), *beam.args]


def workers_elsewhere(arguments: Sequence[str]) -> bool:
    """Whether the workers of these arguments are no processes of this machine, and read other files than it does."""
    runners = [argument for argument in arguments if argument.startswith("--runner=")]
    return bool(runners) and not runners[-1].endswith(("FnApiRunner", "DirectRunner"))


def direct_arguments(workers: int, *, threads: bool = False) -> list[str]:
    """Those of a pipeline on this machine alone, in so many processes, or threads of this one."""
    # Beam 2.77 starts its processes through a shell, by a path that it does not quote, and waits for them for ever
    # (`run_pipeline` in runners/portability/fn_api_runner/fn_runner.py): a path with a space has threads instead.
    started_by_shell = shlex.quote(sys.executable) == sys.executable
    several = "multi_processing" if started_by_shell and not threads else "multi_threading"
    return [
        # What `--runner=DirectRunner` runs in this process. By that name, Beam 2.77 first tries to download Prism.
        "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
        f"--direct_running_mode={'in_memory' if workers == 1 else several}",
        f"--direct_num_workers={workers}",
        # Not used on one machine. Without it, TFX packs itself into an archive for the workers before every component.
        "--sdk_container_image=unused",
    ]


def _dataflow(beam: BeamSettings) -> list[str]:
    """Source: https://cloud.google.com/dataflow/docs/reference/pipeline-options"""
    _require(beam, "project", "region", "temp_location")
    arguments = [
        "--runner=DataflowRunner",
        f"--project={beam.project}",
        f"--region={beam.region}",
        f"--temp_location={beam.temp_location}",
        f"--max_num_workers={beam.workers}",
        *_code(beam),
    ]
    if beam.machine_type:
        arguments.append(f"--worker_machine_type={beam.machine_type}")
    if beam.service_account:
        arguments.append(f"--service_account_email={beam.service_account}")
    if beam.subnetwork:
        arguments += [f"--subnetwork={beam.subnetwork}", "--no_use_public_ips"]
    return arguments


def _portable(beam: BeamSettings) -> list[str]:
    """Flink and Spark, through a job server that already runs: the image holds no Java to start one with.

    Source: https://beam.apache.org/documentation/runtime/sdk-harness-config/
    """
    _require(beam, "job_endpoint")
    arguments = [
        f"--runner={beam.runner.capitalize()}Runner",
        f"--job_endpoint={beam.job_endpoint}",
    ]
    if beam.worker_pool:  # the pool's processes have the code: nothing is packed, nothing is started
        arguments += ["--environment_type=EXTERNAL", f"--environment_config={beam.worker_pool}"]
        arguments.append("--sdk_container_image=unused")
        # The list of packages that are installed here: each worker would ask for it, and try for seconds where the job
        # server's disk is another one (`Materialize`, sdks/go/pkg/beam/artifact of Beam).
        arguments.append("--experiments=disable_logging_submission_environment")
    else:
        arguments += ["--environment_type=DOCKER", *_code(beam)]
        if beam.image:
            arguments.append(f"--environment_config={beam.image}")
    if beam.runner == "flink":  # to Spark, parallelism is a matter of its own configuration
        arguments.append(f"--parallelism={beam.workers}")
    return arguments


def _code(beam: BeamSettings) -> list[str]:
    """How the workers get our code."""
    if not (beam.image or beam.setup_file):
        raise UsageError(
            f"beam.runner = {beam.runner!r} needs beam.image (a container image with this code), or beam.setup_file "
            "(our setup.py, from which each worker installs the code)."
        )
    arguments = []
    if beam.image:
        arguments.append(f"--sdk_container_image={beam.image}")
    if beam.setup_file:
        arguments.append(f"--setup_file={beam.setup_file}")
    return arguments


def _require(beam: BeamSettings, *names: str) -> None:
    missing = [f"beam.{name}" for name in names if not getattr(beam, name)]
    if missing:
        raise UsageError(f"beam.runner = {beam.runner!r} needs {' and '.join(missing)}.")
