"""A compiled file, run on this machine: each task's own command as a process, from the data to a pushed model."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mnist_tfx.components.code_version import SOURCE
from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.contract.errors import PipelineError, UsageError
from mnist_tfx.contract.names import METADATA_PATH
from mnist_tfx.kubeflow.compile import uploads
from mnist_tfx.kubeflow.ir import parse_compiled, read_content
from mnist_tfx.kubeflow.local.backends import Kubeflow, Vertex
from mnist_tfx.kubeflow.local.bucket import Bucket as BucketFolder
from mnist_tfx.kubeflow.local.run import _put
from mnist_tfx.kubeflow.local.tasks import Places, order_of, run_tasks
from mnist_tfx.kubeflow.profiles import load_profile
from mnist_tfx.kubeflow.verdict import TaskVerdict
from mnist_tfx.pipeline.projects import shipped
from tests.fixtures.beam_cluster import beam_cluster
from tests.fixtures.command import Answer, mnist_tfx
from tests.fixtures.compiled import GOLDEN, GOLDEN_FILES
from tests.fixtures.object_store import object_store
from tests.fixtures.preemption import Preemption

# No image has this size. Of the tasks up to the gate, it alone is told of it: the others' answers are known.
WRONG_SHAPE = ("--set", "data.image_shape=[32, 32, 1]")


class Bucket:
    """A folder in the place of the profile's root, and what was compiled for it."""

    def __init__(self, folder: Path, dataset: PreparedDataset, recipe_file: Path) -> None:
        self.folder, self._home, self._recipe_file = folder, dataset.data_dir.parent, recipe_file

    def run(self, target: str, *options: str | Path) -> Answer:
        """`mnist-tfx compile --target TARGET ... --run-local DIR`."""
        output = self.folder.parent / f"pipeline{'.yaml' if target == 'kubeflow' else '.json'}"
        arguments = ("--target", target, "--dataset", "kmnist", "--recipe", self._recipe_file)
        given = (*arguments, "--profile", f"{target}-gpu", "-o", output, "--home", self._home, "--json")
        return mnist_tfx("compile", *given, "--run-local", self.folder, *options)

    def versions(self) -> list[str]:
        """The pushed versions."""
        serving = self.folder / "serving" / "kmnist"
        return sorted(path.name for path in serving.iterdir()) if serving.exists() else []


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, tiny: PreparedDataset, tiny_recipe_file: Path) -> Bucket:
    return Bucket(tmp_path_factory.mktemp("cluster") / "bucket", tiny, tiny_recipe_file)


@pytest.fixture(scope="module")
def first(bucket: Bucket) -> Answer:
    """A run of the Kubeflow file in an empty bucket."""
    return bucket.run("kubeflow")


def tasks(answer: Answer) -> list[str]:
    return [component["id"] for component in answer.outcome["components"]]


def ran(answer: Answer) -> list[str]:
    return [component["id"] for component in answer.outcome["components"] if not component["cached"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_kubeflow_file_runs_to_a_pushed_model(first: Answer, bucket: Bucket) -> None:
    """As driver and launcher have it: no types, everything copied, a pod of its own for each task."""
    assert_pushed(first, bucket)
    run = bucket.folder / "runs" / "kmnist" / first.outcome["run"]
    assert (run / "Report" / "report").is_file(), "what shows it takes its address for a file's"
    assert not list(run.glob("*/pod")), "a pod is gone when its task has ended"
    for task in tasks(first):
        script = (run / task / "command.sh").read_text()
        assert "gs://my-bucket/mnist-tfx/runs/kmnist/" in script and "export KFP_POD_NAME=" in script
        assert (run / task / "task.log").read_text().splitlines()[-1].startswith("verdict: {")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_vertex_file_runs_to_a_pushed_model(tmp_path: Path, tiny: PreparedDataset, tiny_recipe_file: Path) -> None:
    bucket = Bucket(tmp_path / "bucket", tiny, tiny_recipe_file)
    answer = bucket.run("vertex")
    assert_pushed(answer, bucket)
    run = bucket.folder / "runs" / "kmnist" / answer.outcome["run"]
    assert (run / "Trainer" / "model").is_dir(), "its tasks write into the bucket themselves"
    task = run / "ImportSchemaGen"
    (task / "executor_output.json").unlink()
    subprocess.run(["sh", str(task / "command.sh")], check=True, capture_output=True)
    output = json.loads((task / "executor_output.json").read_text())
    assert output["artifacts"]["schema"]["artifacts"][0]["uri"] == str(task / "schema")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_artifacts_in_s3(tmp_path: Path, tiny: PreparedDataset, tiny_recipe_file: Path) -> None:
    """Nothing in the image reads s3://: only the launcher does."""
    bucket = Bucket(tmp_path / "bucket", tiny, tiny_recipe_file)
    roots = ("root=s3://artifacts/mnist", "shared=gs://data/mnist")
    assert_pushed(bucket.run("kubeflow", *(word for root in roots for word in ("--profile-set", root))), bucket)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_trainer_that_is_pre_empted_goes_on_from_its_backup(
    target: str, tmp_path: Path, tiny: PreparedDataset, tiny_recipe_file: Path
) -> None:
    """Killed once, without a word, as by a machine that goes; the pod's own files go with it."""
    bucket, epochs = Bucket(tmp_path / "bucket", tiny, tiny_recipe_file), 200  # 16 s or more: time to come in between
    with Preemption(bucket.folder) as preemption:
        answer = bucket.run(target, "--set", f"training.epochs={epochs}", "--set", f"training.patience={epochs}")
    assert_pushed(answer, bucket)
    task = bucket.folder / "runs" / "kmnist" / answer.outcome["run"] / "Trainer"
    first, second = (task / "task.log").read_text().split("\nretry 1\n")
    epoch = preemption.killed_after
    assert f"going on after epoch {epoch} of an interrupted training" in second and "verdict: " not in first
    assert f"epoch {epoch + 1}/{epochs}" in second and f"epoch {epoch}/{epochs}" not in second


def assert_pushed(answer: Answer, bucket: Bucket) -> None:
    """Every task ran, and the model is there whole."""
    assert answer.code == 0, answer.err
    assert ran(answer) == tasks(answer) and {"TfdsExampleGen", "Trainer", "Pusher"} <= set(ran(answer))
    assert bucket.versions() == [answer.outcome["pushed_version"]]
    version = bucket.folder / "serving" / "kmnist" / answer.outcome["pushed_version"]
    assert (version / "saved_model.pb").is_file()
    assert (version / "assets.extra" / "tf_serving_warmup_requests").is_file()
    assert answer.outcome["accuracy"] > 0.3
    assert "examples: 480 train, 120 eval, 200 test" in answer.err and "best epoch" in answer.err


@pytest.mark.slow
def test_the_file_itself_still_names_the_bucket(first: Answer, bucket: Bucket) -> None:
    text = (bucket.folder.parent / "pipeline.yaml").read_text()
    assert str(bucket.folder) not in text and "gs://my-bucket/mnist-tfx" in text
    assert not Path("gs:").exists() and not list(bucket.folder.rglob("gs:"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_evaluator_keeps_a_bad_model_from_being_pushed(first: Answer, bucket: Bucket) -> None:
    before = bucket.versions()
    answer = bucket.run("kubeflow", "--set", "min_accuracy=1.0", "--set", "evaluation.baseline=none")
    assert answer.code == 4
    begun = tasks(answer)
    assert set(ran(answer)) == {"DataGate", "Evaluator", *begun[begun.index("Pusher") :]}
    assert "required at least 1.0000" in answer.err and answer.outcome["pushed_version"] is None
    assert bucket.versions() == before
    log = bucket.folder / "runs" / "kmnist" / answer.outcome["run"] / "Evaluator" / "task.log"
    told = TaskVerdict.from_text(log.read_text().splitlines()[-1].removeprefix("verdict: "))
    assert told is not None and told.exit_code == 4 and "required at least 1.0000" in told.says


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_again_looks_at_what_is_served_and_pushes_nothing_twice(first: Answer, bucket: Bucket) -> None:
    before = bucket.versions()
    again = bucket.run("kubeflow")
    assert again.code == 0, again.err
    assert {"Baseline", "Pusher"} <= set(ran(again)) and "Trainer" not in ran(again)
    assert again.outcome["pushed_version"] == first.outcome["pushed_version"] and bucket.versions() == before
    other = bucket.folder / "serving" / "kmnist" / str(int(before[0]) + 1)
    shutil.copytree(bucket.folder / "serving" / "kmnist" / before[0], other)
    metadata = other / METADATA_PATH
    metadata.write_text(metadata.read_text().replace('"dataset": "kmnist"', '"dataset": "another"'))
    after = bucket.run("kubeflow")
    assert after.outcome["baseline_version"] == other.name
    assert int(after.outcome["pushed_version"]) > int(other.name), "the newest is another one: it is pushed once more"


@pytest.mark.timeout(600)
def test_the_data_gate_stops_the_run(bucket: Bucket) -> None:
    before = bucket.versions()
    answer = bucket.run("kubeflow", *WRONG_SHAPE)
    assert answer.code == 3, answer.err
    assert "the data gate rejected kmnist" in answer.err and "are not 32 x 32 x 1" in answer.err
    assert "run it alone once more: sh " in answer.err and "Traceback" not in answer.err
    run = bucket.folder / "runs" / "kmnist" / answer.outcome["run"]
    assert "DataRejected" in (run / "DataGate" / "task.log").read_text()
    assert SOURCE not in (run / "DataGate" / "command.sh").read_text(), "it is run again once the code is mended"
    assert not (run / "Transform").exists() and bucket.versions() == before
    assert list((run / "DataGate" / "pod" / "gcs").rglob("*.gz")), "what it was given is there to be looked at"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_kubeflow_file_runs_to_a_pushed_model_with_all_of_beam_on_workers_elsewhere(
    tmp_path: Path, tiny: PreparedDataset, tiny_recipe_file: Path
) -> None:
    """From nothing, as the other target's; Beam's steps by the protocol of Flink and Spark, in processes of a pool."""
    bucket = Bucket(tmp_path / "bucket", tiny, tiny_recipe_file)
    with beam_cluster(tmp_path / "beam") as beam:
        settings = {"runner": "flink", "job_endpoint": beam.job_endpoint, "worker_pool": beam.worker_pool}
        options = [word for key, value in settings.items() for word in ("--profile-set", f"beam.{key}={value}")]
        refused = bucket.run("kubeflow", *options)
        assert refused.code == 2 and "run it --as vertex" in refused.err
        answer = bucket.run("kubeflow", *options, "--as", "vertex")
    assert answer.code == 0, answer.err
    assert ran(answer) == tasks(answer) and bucket.versions() == [answer.outcome["pushed_version"]]
    for task in ("TfdsExampleGen", "StatisticsGen", "DataGate", "Transform", "Evaluator"):
        log = bucket.folder / "runs" / "kmnist" / answer.outcome["run"] / task / "task.log"
        assert "Job state changed to DONE" in log.read_text(), task


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_file_runs_in_a_bucket_to_a_pushed_model(
    tmp_path: Path, tiny: PreparedDataset, tiny_recipe_file: Path
) -> None:
    """Nothing is mapped: TensorFlow, Beam and TFX read and write gs://my-bucket, with the service's real clients."""
    profile, local = "gs://my-bucket/mnist-tfx", tmp_path / "local"
    output, home = tmp_path / "pipeline.json", tiny.data_dir.parent
    command = [
        sys.executable,
        "-c",
        "import sys; from mnist_tfx.pipeline.cli import main; sys.exit(main(sys.argv[1:]))",
        "compile",
    ]
    command += ["--target", "vertex", "--dataset", "kmnist", "--recipe", str(tiny_recipe_file), "--home", str(home)]
    command += ["--profile", "vertex-gpu", "-o", str(output), "--json"]
    with object_store(tmp_path / "store") as (store, environment):
        for upload in uploads(tiny, shipped("kmnist"), load_profile("vertex-gpu")):
            store.upload(upload.source, upload.destination)
        # A process of its own: TensorFlow looks at this environment once.
        finished = subprocess.run(
            [*command, "--run-local", str(local), "--in-bucket"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr
        [outcome] = json.loads(finished.stdout)
        pushed = store.names(f"{profile}/serving/kmnist")
        made = store.names(f"{profile}/runs/kmnist")
    assert {name.partition("/")[0] for name in pushed} == {outcome["pushed_version"]}
    assert f"{outcome['pushed_version']}/saved_model.pb" in pushed
    assert {name.split("/")[1] for name in made} == {component["id"] for component in outcome["components"]}
    assert store.refused == []
    assert {path.suffix for path in local.rglob("*") if path.is_file()} == {".log", ".sh", ""}  # "": the cache
    assert "best epoch" in finished.stderr


KUBEFLOW: dict[str, Any] = dict(read_content(GOLDEN / GOLDEN_FILES["kubeflow-gpu"]))


def test_the_order_comes_from_the_file_alone() -> None:
    order = order_of(parse_compiled(KUBEFLOW, Path("p.yaml")))
    assert order[:2] == ["ImportSchemaGen", "TfdsExampleGen"] and order.index("Pusher") > order.index("Evaluator")
    turned = copy.deepcopy(KUBEFLOW)
    turned["root"]["dag"]["tasks"]["ImportSchemaGen"]["dependentTasks"] = ["TfdsExampleGen"]
    assert order_of(parse_compiled(turned, Path("p.yaml")))[:2] == ["TfdsExampleGen", "ImportSchemaGen"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--as", "vertex"), "--as goes with --run-local"),
        (("--run-local", "d", "--in-bucket"), "--in-bucket goes with --as vertex"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], words: str) -> None:
    answer = mnist_tfx(
        *("compile", "--target", "kubeflow", "--dataset", "kmnist", "--profile", "kubeflow-cpu", "-o", "p.yaml"),
        *options,
    )
    assert answer.code == 2 and words in answer.err


class Watching:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda node, *more: self.told.append(f"{node} {name} {more[0] if name == 'progress' else ''}".strip())


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
@pytest.mark.parametrize(("works_at", "tries"), [(2, 2), (9, 3)])
def test_a_task_is_tried_as_often_as_the_file_says(target: str, works_at: int, tries: int, tmp_path: Path) -> None:
    script = f'echo x >> "$PLACE"; test "$(wc -l < "$PLACE")" -ge {works_at} && echo "{{}}" > "$0" || exit 3'
    container = {
        "command": ["sh", "-c", script, str(tmp_path / "output.json")],
        "env": [{"name": "PLACE", "value": "gs://b/count"}],
    }
    spec = {
        "pipelineInfo": {"name": "p"},
        "root": {"dag": {"tasks": {"A": {"componentRef": {"name": "A"}, "retryPolicy": {"maxRetryCount": 2}}}}},
        "components": {"A": {"executorLabel": "A"}},
        "deploymentSpec": {"executors": {"A": {"container": container}}},
    }
    (tmp_path / "here").mkdir()
    places = Places(tmp_path / "the logs", tmp_path / "cache", ["gs://b"], str(tmp_path / "here"))
    backend = Vertex(str(tmp_path / "outputs"))
    if target == "kubeflow":
        backend = Kubeflow("gs://b/runs/1", places.logs, BucketFolder("gs://b", tmp_path / "here"))
    backend.output_file = lambda task: str(tmp_path / "output.json")  # type: ignore[method-assign]
    watching = Watching()
    again = re.escape(f"run it alone once more: sh '{places.logs}/A/command.sh'")
    with nullcontext() if works_at < 9 else pytest.raises(PipelineError, match=f"(?s)failed with exit code 3.*{again}"):
        run_tasks(parse_compiled(spec, Path("p.yaml")), backend, places, watching, dict)
    assert (tmp_path / "here" / "count").read_text().count("x") == tries
    retries = [f"A progress it failed; retry {number} of 2" for number in range(1, tries)]
    assert watching.told == ["A started", *retries, "A finished" if works_at < 9 else "A failed"]
    assert (places.logs / "A" / "task.log").read_text().count("\nretry ") == tries - 1


WRITES = """
import json, os, pathlib, sys
uri = json.loads(sys.argv[1])["outputs"]["artifacts"]["made"]["artifacts"][0]["uri"]
path = pathlib.Path(os.environ["MNIST_TFX_POD_ROOT"], "gcs", uri.removeprefix("gs://"))
path.mkdir(parents=True)
(path / "file").touch()
"""


def test_what_is_remembered_is_whole_and_of_the_same_root(tmp_path: Path) -> None:
    made = {"artifacts": {"made": {"artifactType": {"schemaTitle": "tfx.Model"}}}}
    spec = {
        "pipelineInfo": {"name": "p"},
        "root": {"dag": {"tasks": {"A": {"componentRef": {"name": "A"}, "cachingOptions": {"enableCache": True}}}}},
        "components": {"A": {"executorLabel": "A", "outputDefinitions": made}},
        "deploymentSpec": {"executors": {"A": {"container": {"command": ["python", "-c", WRITES, "{{$}}"]}}}},
    }

    def ran(root: str, run: str) -> bool:
        places = Places(tmp_path / run, tmp_path / "cache", [root], str(tmp_path / "here"))
        backend = Kubeflow(f"{root}/{run}", places.logs, BucketFolder(root, tmp_path / "here"))
        pipeline = parse_compiled({**spec, "defaultPipelineRoot": root}, Path("p.yaml"))
        [task] = run_tasks(pipeline, backend, places, Watching(), dict)
        return not task.cached

    assert ran("gs://a", "1") and not ran("gs://a", "2")
    assert ran("gs://b", "3") and not ran("gs://b", "4")
    for known in (tmp_path / "cache").iterdir():
        known.write_text(known.read_text()[:20])
    assert ran("gs://a", "5") and not ran("gs://a", "6")
    shutil.rmtree(tmp_path / "here")
    assert ran("gs://a", "7"), "its outputs are gone"


@pytest.mark.parametrize("roots", [("gs://data", "gs://data/mnist"), ("gs://data/mnist", "gs://data")])
def test_a_root_may_lie_in_another(roots: tuple[str, str]) -> None:
    """As the folder that takes their place is filled: what lies under each, under the folder."""
    places = Places(Path("logs"), Path("cache"), roots, "/here")
    assert (
        places.here('{"a": "gs://data/mnist/datasets", "b": "gs://data/runs"}')
        == '{"a": "/here/datasets", "b": "/here/runs"}'
    )


def test_what_was_copied_in_part_is_not_taken_for_the_data(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "bucket" / "data"
    source.mkdir()
    (source / "shard").write_text("examples")
    (source / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(shutil.Error):
        _put(source, target)
    assert not target.exists()
    (source / "lost").unlink()
    _put(source, target)
    assert [path.read_text() for path in target.iterdir()] == ["examples"] and len(list(target.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("task", "executor", "words"),
    [
        ({"triggerPolicy": {"condition": "true"}}, {}, "has a condition, which cannot be judged here"),
        ({}, {"importer": {}}, "has no container, and cannot be run here"),
    ],
)
def test_what_only_a_cluster_can_run_is_refused(task: dict[str, Any], executor: dict[str, Any], words: str) -> None:
    spec = copy.deepcopy(KUBEFLOW)
    spec["root"]["dag"]["tasks"]["Pusher"].update(task)
    if executor:
        spec["deploymentSpec"]["executors"]["Pusher_executor"] = executor
    with pytest.raises(UsageError, match=f"task Pusher {words}"):
        order_of(parse_compiled(spec, Path("p.yaml")))
