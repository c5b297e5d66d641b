"""The command of every task's container: `python -m mnist_tfx.kubeflow.entrypoint`.

It runs a component's executor by TFX's own entry point, and does around it what that leaves to the platform:

- Kubeflow Pipelines hands input artifacts on without their types (`toRuntimeArtifact`, backend/src/v2/metadata/
  converter.go): they are taken from the pipeline's own `--json_serialized_inputs_spec_args`.
- There, the launcher has copied the inputs into the pod, and copies the outputs from the pod when the task has ended
  (`LocalPathForURI`, `downloadArtifacts` and `uploadOutputArtifacts`, backend/src/v2/component/launcher_v2.go): these
  copies are read and written, whatever object store they come from. On Vertex AI, the bucket is.
- Where a pod's files go with it, the Trainer's backup lies elsewhere, in a place that follows from the addresses of its
  outputs: each try of the task has the same ones.
- A task runs only the code that the pipeline was compiled with.
- How the task ended is told as its output parameter `verdict`; if it failed, as the pod's termination message and as
  the container's exit code. Its log ends with it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from absl import app
from absl.flags import argparse_flags
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb
from tfx.orchestration.kubeflow.v2 import compiler_utils
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

from mnist_tfx.components.beam_arguments import workers_elsewhere
from mnist_tfx.components.code_version import SOURCE, source_told
from mnist_tfx.contract.errors import PipelineError
from mnist_tfx.kubeflow.artifact_types import ONE_FILE_TYPES, OUR_TYPES
from mnist_tfx.kubeflow.retries import BACKUPS
from mnist_tfx.kubeflow.verdict import PARAMETER, TaskVerdict, verdict_of_error, verdict_of_outputs

POD_ROOT = "MNIST_TFX_POD_ROOT"  # the folder that stands for a pod's `/`, where there is no pod
_IN_KUBEFLOW = "KFP_POD_NAME"  # in every container that its launcher runs (argocompiler/common.go)
COPIES = {"gs://": "gcs", "s3://": "s3", "minio://": "minio"}  # by scheme, as `LocalPathForURI` has them
TERMINATION_LOG = "dev/termination-log"  # made by Kubernetes; what is written into it is the termination message


def register_types() -> None:
    """Tells TFX the classes of our own artifact types."""
    compiler_utils.TITLE_TO_CLASS_PATH.update(OUR_TYPES)


def local_copy(uri: str) -> str:
    """Where Kubeflow's launcher has its copy of an artifact; the address itself where it makes none."""
    for scheme, folder in COPIES.items():
        if uri.startswith(scheme):
            return os.path.join(os.environ.get(POD_ROOT, "/"), folder, uri.removeprefix(scheme))
    return uri


def run_task(
    executor: str, given: pb.ExecutorInput, declared: pb.ComponentInputsSpec, flags: Sequence[str]
) -> TaskVerdict:
    """Runs an executor, and writes the `ExecutorOutput` to where the platform looks for it.

    Args:
        executor: path of its class.
        given: what the platform handed over.
        declared: the component's inputs, as the pipeline has them.
        flags: of Beam, or of the executor.

    Raises:
        Exception: what the executor raised.
    """
    register_types()
    in_kubeflow = _IN_KUBEFLOW in os.environ
    copied = in_kubeflow and not workers_elsewhere(flags)
    local, work = pb.ExecutorInput(), given.outputs.output_file
    local.CopyFrom(given)
    local.outputs.ClearField("parameters")  # TFX would look for an artifact of each
    for key, artifact in _each(local.inputs.artifacts):
        artifact.type.CopyFrom(declared.artifacts[key].artifact_type)
    for _, artifact in (*_each(local.inputs.artifacts), *_each(local.outputs.artifacts)):
        if copied:
            artifact.uri = artifact.custom_path or local_copy(artifact.uri)
        if "://" not in artifact.uri and artifact.type.schema_title not in ONE_FILE_TYPES:
            os.makedirs(artifact.uri, exist_ok=True)  # of an input without files there is no copy
    if copied and BACKUPS in os.environ:
        _keep_backup(local, os.environ[BACKUPS], given.outputs.artifacts["model_run"].artifacts[0].uri)
    if in_kubeflow and not copied:  # the workers cannot read the pod's files: TFX makes `.temp` beside the output file
        work = os.path.join(os.path.dirname(next(_each(local.outputs.artifacts))[1].uri), "executor_output.json")
        local.outputs.output_file = work
    if tf.io.gfile.exists(work):  # of a try before this one; TFX would take it for a driver's
        tf.io.gfile.remove(work)
    arguments = argparse.Namespace(
        executor_class_path=executor,
        json_serialized_invocation_args=json_format.MessageToJson(local),
        json_serialized_inputs_spec_args=json_format.MessageToJson(declared),
    )
    kubeflow_v2_run_executor.main((arguments, list(flags)))
    with tf.io.gfile.GFile(work) as file:
        made = json_format.Parse(file.read(), pb.ExecutorOutput())
    verdict = verdict_of_outputs(dict(_each(made.artifacts)))
    for key, artifact in _each(made.artifacts):
        artifact.uri = given.outputs.artifacts[key].artifacts[0].uri
        if verdict != TaskVerdict():
            artifact.metadata[PARAMETER] = verdict.to_text()
        if in_kubeflow and not copied:
            _remove_markers(artifact.uri)
    if PARAMETER in given.outputs.parameters:
        made.parameter_values[PARAMETER].string_value = verdict.to_text()
    tf.io.gfile.makedirs(os.path.dirname(given.outputs.output_file))
    with tf.io.gfile.GFile(given.outputs.output_file, "w") as file:
        file.write(json_format.MessageToJson(made))
    return verdict


def _each(artifacts: dict[str, pb.ArtifactList]) -> Iterator[tuple[str, pb.RuntimeArtifact]]:
    yield from ((key, artifact) for key, given in artifacts.items() for artifact in given.artifacts)


def _keep_backup(given: pb.ExecutorInput, backups: str, output: str) -> None:
    """Tells the Trainer where its backup lies: under `backups`, in a folder of the run and task of its `output`."""
    config = given.inputs.parameter_values["custom_config"]
    folder = os.path.join(backups, output.partition("://")[2])
    config.string_value = json.dumps({**json.loads(config.string_value), "backup_dir": folder})


def _remove_markers(uri: str) -> None:
    """Removes the objects that TensorFlow makes for folders: Kubeflow's launcher would copy them as empty files.

    `DownloadBlob` (backend/src/v2/objectstore/object_store.go) then fails where a file is in the way of a folder.
    """
    for folder, _, _ in tf.io.gfile.walk(uri):
        try:
            tf.io.gfile.remove(folder.rstrip("/") + "/")
        except tf.errors.NotFoundError:
            continue


def main(parsed: tuple[argparse.Namespace, list[str]]) -> int:
    """Runs the task of a container's command line; returns its exit code."""
    arguments, flags = parsed
    try:
        given = json_format.Parse(
            arguments.json_serialized_invocation_args, pb.ExecutorInput(), ignore_unknown_fields=True
        )
        declared = json_format.Parse(arguments.json_serialized_inputs_spec_args, pb.ComponentInputsSpec())
        _check_source()
        verdict = run_task(arguments.executor_class_path, given, declared, flags)
        code = 0
    except Exception as error:
        logging.exception("the task failed")
        verdict = verdict_of_error(error)
        code = verdict.exit_code
        log = Path(os.environ.get(POD_ROOT, "/"), TERMINATION_LOG)
        if log.exists():
            log.write_text(verdict.to_text())
    print(f"{PARAMETER}: {verdict.to_text()}", flush=True)
    return code


def _check_source() -> None:
    """Raises a PipelineError where the cache, and whoever looks, would take what this code makes for another's."""
    if SOURCE not in os.environ:  # the pipeline was compiled before this was told
        return
    expected, *modules = os.environ[SOURCE].split()
    found = source_told(*modules).split()[0]
    if found != expected:
        raise PipelineError(
            f"this image holds other code of {', '.join(modules)} than the pipeline was compiled with ({found}, "
            f"expected {expected}). Build and push an image of that code under a new tag (Kubernetes' nodes go on with "
            "what they have of a known one), name it in the profile, and compile, submit or schedule the pipeline anew."
        )


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse_flags.ArgumentParser(description=__doc__)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True)
    parser.add_argument("--json_serialized_inputs_spec_args", required=True)
    known, flags = parser.parse_known_args(argv[1:])
    return known, flags


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
