"""Kubeflow Pipelines' real compiler, driver and launcher, and the real ML Metadata, around our containers' commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from ml_metadata.metadata_store.metadata_store import MetadataStore
from ml_metadata.proto.metadata_store_pb2 import Execution

from mnist_tfx.components.datasets.prepared import PreparedDataset
from mnist_tfx.kubeflow.compile import compile_prepared, uploads
from mnist_tfx.kubeflow.entrypoint import local_copy
from mnist_tfx.kubeflow.ir import read_compiled
from mnist_tfx.kubeflow.local.tasks import order_of
from mnist_tfx.kubeflow.profiles import load_profile
from mnist_tfx.kubeflow.remote.kfp import KubeflowPlatform
from mnist_tfx.kubeflow.remote.platform import RunState, TaskPhase, TaskState, Told
from mnist_tfx.kubeflow.verdict import TaskVerdict
from mnist_tfx.pipeline.recipes import Recipe
from tests.fixtures.compiled import GOLDEN, GOLDEN_FILES
from tests.fixtures.kubeflow_server import kubeflow_server
from tests.fixtures.preemption import Preemption
from tests.fixtures.remote_jobs import kubeflow_profile
from tests.fixtures.tiny_run import RECIPE_TOML, tiny_recipe_of
from tests.real.kfp.metadata_server import metadata_server
from tests.real.kfp.program import asked, program
from tests.real.kfp.s3_store import s3_store

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="session")
def kfp() -> Path:
    return program()


def test_the_launcher_s_paths(kfp: Path) -> None:
    uris = ["gs://bucket/a/b", "s3://bucket/a", "minio://bucket/a/b/c"]
    assert asked(kfp, "paths", *uris) == [local_copy(uri) for uri in uris]


def test_kubeflow_s_compiler_takes_the_file(kfp: Path, tmp_path: Path) -> None:
    spec, platform = yaml.safe_load_all((GOLDEN / GOLDEN_FILES["kubeflow-gpu"]).read_text())
    (tmp_path / "job.json").write_text(json.dumps({"pipelineSpec": spec, "runtimeConfig": {}}))
    (tmp_path / "platform.json").write_text(json.dumps(platform))
    workflow = asked(kfp, "compile", tmp_path / "job.json", tmp_path / "platform.json")
    templates = {template["name"]: template for template in workflow["spec"]["templates"]}
    tasks = {task["name"] for task in templates["root"]["dag"]["tasks"] if not task["name"].endswith("-driver")}
    assert tasks == set(spec["root"]["dag"]["tasks"])
    mounts = {mount["mountPath"] for mount in templates["system-container-impl"]["container"]["volumeMounts"]}
    assert {"/gcs", "/s3", "/minio"} <= mounts
    assert "KFP_POD_NAME" in json.dumps(templates["system-container-impl"])
    backoff = ("duration", "factor", "max-duration")
    strategy = templates["retry-system-container-impl"]["retryStrategy"]
    assert strategy["limit"] == "{{inputs.parameters.retry-max-count}}"
    assert sorted(strategy["backoff"].values()) == [f"{{{{inputs.parameters.retry-backoff-{key}}}}}" for key in backoff]
    called = {task["name"]: task for task in templates["root"]["dag"]["tasks"]}
    given = {each["name"]: each.get("value") for each in called["Trainer"]["arguments"]["parameters"]}
    assert [given[f"retry-backoff-{key}"] for key in backoff] == ["60", "2", "604800"]
    assert given["retry-max-count"] == "3" and called["Trainer"]["template"] == "retry-system-container-executor"
    assert called["DataGate"]["template"] == "system-container-executor", "without a retryStrategy"
    told = {each["name"]: each["value"] for each in workflow["spec"]["arguments"]["parameters"]}
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for task in tasks:
        assert json.loads(told[f"kubernetes-{task}"]) == executors[f"{task}_executor"]


class Run:
    """Tasks of the tiny dataset's pipeline, with artifacts in S3."""

    def __init__(self, folder: Path, dataset: PreparedDataset) -> None:
        self.folder, self._dataset = folder, dataset
        self.compile("secrets={AWS_ACCESS_KEY_ID = 's3/user'}")

    def compile(self, *settings: str, recipe: Recipe | None = None) -> None:
        """With settings of the profile."""
        folder, dataset = self.folder, self._dataset
        profile = load_profile("kubeflow-cpu", settings)
        compile_prepared(dataset, recipe or tiny_recipe_of(), profile, folder / "pipeline.yaml")
        for upload in uploads(dataset, profile):
            target = folder / "data" / upload.destination.removeprefix(profile.data_root()).lstrip("/")
            if target.exists():
                continue
            target.parent.mkdir(parents=True)
            copy = shutil.copytree if upload.source.is_dir() else shutil.copyfile
            copy(upload.source, target)
        # What tasks read by themselves lies here; their artifacts are the launcher's affair.
        spec, platform = (folder / "pipeline.yaml").read_text().split("---\n")
        self.spec = yaml.safe_load(spec.replace(profile.data_root(), str(folder / "data")))
        self.platform = yaml.safe_load(platform)

    def run(self, kfp: Path, store: str, port: int, *tasks: str) -> subprocess.CompletedProcess[str]:
        job, platform, request = (self.folder / f"{name}.json" for name in ("job", "platform", "request"))
        job.write_text(json.dumps({"pipelineSpec": self.spec, "runtimeConfig": {}}))
        platform.write_text(json.dumps(self.platform))
        root = f"s3://bucket/root?endpoint={store}&region=eu-west-1&use_path_style=true"
        asked_for = {
            "Job": str(job),
            "Platform": str(platform),
            "Root": root,
            "Run": "run-1",
            "MetadataPort": str(port),
            "Tasks": list(tasks),
        }
        request.write_text(json.dumps({**asked_for, "Pods": str(self.folder / "pods")}))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        return subprocess.run([kfp, "run", request], env=environment, capture_output=True, text=True)


@pytest.fixture
def run(tmp_path: Path, tiny: PreparedDataset) -> Run:
    return Run(tmp_path, tiny)


@pytest.fixture
def store() -> Iterator[tuple[dict[str, bytes], str]]:
    with s3_store() as made:
        yield made


@pytest.fixture
def metadata() -> Iterator[tuple[MetadataStore, int]]:
    with metadata_server() as made:
        yield made


def executions(metadata: MetadataStore) -> dict[str, Execution]:
    return {one.custom_properties["task_name"].string_value: one for one in metadata.get_executions()}


def told(metadata: MetadataStore, phase: TaskPhase, pods: Path) -> Mapping[str, Told]:
    """What `submit --wait` reads of the run, through what `ml-pipeline-ui` serves."""
    with kubeflow_server() as server:
        server.runs["run-1"] = {}
        server.executions = metadata.get_executions()
        for log in pods.glob("*/dev/termination-log"):
            server.messages[f"pod-of-{log.parent.parent.name}"] = log.read_text()
        tasks = {name: TaskState(phase) for name in executions(metadata) if name}
        return KubeflowPlatform(kubeflow_profile(server.address)).verdicts("run-1", RunState("succeeded", tasks))


def test_the_pipeline_runs_inside_driver_and_launcher_to_a_pushed_model(
    kfp: Path, run: Run, store: tuple[dict[str, bytes], str], metadata: tuple[MetadataStore, int]
) -> None:
    """Types that the driver left out, inputs that the launcher copied, verdicts that ML Metadata keeps."""
    tasks = order_of(read_compiled(run.folder / "pipeline.yaml"))
    ran = run.run(kfp, store[1], metadata[1], *tasks)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    [handed] = [line for line in ran.stdout.splitlines() if line.startswith("executor input of Report: ")]
    for artifacts in json.loads(handed.partition(": ")[2])["inputs"]["artifacts"].values():
        assert not any(artifact["type"].get("instanceSchema") for artifact in artifacts["artifacts"])
    paths = (key.split("/") for key in store[0])  # bucket, root, pipeline, run, task, a number, key, file
    keys = {"/".join([path[4], *path[6:]]) for path in paths}
    assert {"ImportSchemaGen/schema/schema.pbtxt", "StatisticsGen/statistics/Split-train/FeatureStats.pb"} <= keys
    assert {"Report/report", "DataGate/blessing/report.json"} <= keys and not [key for key in keys if key[-1] == "/"]
    known = executions(metadata[0])
    verdicts = {task: its.verdict for task, its in told(metadata[0], "done", run.folder / "pods").items()}
    assert {known[task].last_known_state for task in tasks} == {Execution.COMPLETE}
    [version] = [path.name for path in (run.folder / "data" / "serving" / "kmnist").iterdir()]
    assert set(verdicts) == set(tasks) and verdicts.pop("Pusher") == TaskVerdict(pushed_version=version)
    assert set(verdicts.values()) == {TaskVerdict()}


def test_a_task_that_fails_inside_the_launcher(
    kfp: Path, run: Run, store: tuple[dict[str, bytes], str], metadata: tuple[MetadataStore, int]
) -> None:
    """Of its outputs nothing is kept: the pod's termination message says why."""
    parameters = run.spec["root"]["dag"]["tasks"]["TfdsExampleGen"]["inputs"]["parameters"]
    parameters["fingerprint"]["runtimeValue"]["constant"] = "another"
    ran = run.run(kfp, store[1], metadata[1], "TfdsExampleGen")
    assert ran.returncode == 1 and "exit status 3" in ran.stderr
    failed = executions(metadata[0])["TfdsExampleGen"]
    assert failed.last_known_state == Execution.FAILED and "outputs" not in failed.custom_properties
    its = told(metadata[0], "failed", run.folder / "pods")["TfdsExampleGen"].verdict
    assert its is not None and its.exit_code == 3 and "has changed since this pipeline was made" in its.says
    assert not store[0]


SPOT = (
    "volume={claim = 'mnist-tfx', mount_path = '/mnt/mnist-tfx'}",
    "image_pull_secrets=['registry']",
    'environment={OURS = "1"}',
    "secrets={AWS_ACCESS_KEY_ID = 's3/user'}",
    "machines.trainer.node_selector={'cloud.google.com/gke-spot' = 'true'}",
    "machines.trainer.tolerations=[{key = 'spot', operator = 'Exists', effect = 'NoSchedule'}]",
    "machines.trainer.timeout_minutes=240",
)


def test_a_trainer_that_is_pre_empted_goes_on_in_a_new_pod(
    kfp: Path, run: Run, store: tuple[dict[str, bytes], str], metadata: tuple[MetadataStore, int]
) -> None:
    """Its process is killed once; the driver's patch of its pod has all that the profile asks for."""
    run.compile(
        *SPOT, recipe=tiny_recipe_of(RECIPE_TOML.replace("epochs = 2\npatience = 2", "epochs = 60\npatience = 60"))
    )
    tasks = order_of(read_compiled(run.folder / "pipeline.yaml"))
    with Preemption(run.folder / "data" / "backups") as preemption:
        ran = run.run(kfp, store[1], metadata[1], *tasks[: tasks.index("Trainer") + 1])
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    output = ran.stdout + ran.stderr
    assert preemption.killed_after >= 2
    assert f"going on after epoch {preemption.killed_after} of an interrupted training" in output
    assert "try 1 of Trainer" in output and "try 1 of DataGate" not in output
    assert executions(metadata[0])["Trainer"].last_known_state == Execution.COMPLETE
    patches = dict(re.findall(r"^pod spec patch of (\w+): (.*)$", output, re.MULTILINE))
    trainer, gate = (json.loads(patches[task]) for task in ("Trainer", "DataGate"))
    assert trainer["nodeSelector"] == {"cloud.google.com/gke-spot": "true"} and "nodeSelector" not in gate
    assert trainer["tolerations"] == [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]
    assert trainer["activeDeadlineSeconds"] == 240 * 60 and "activeDeadlineSeconds" not in gate
    for pod in (trainer, gate):
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["volumes"] == [{"name": "mnist-tfx", "persistentVolumeClaim": {"claimName": "mnist-tfx"}}]
        [container] = pod["containers"]
        assert container["volumeMounts"] == [{"name": "mnist-tfx", "mountPath": "/mnt/mnist-tfx"}]
        variables = {each.pop("name"): each for each in container["env"]}
        assert variables["OURS"] == {"value": "1"}
        secret = {"name": "s3", "key": "user"}
        assert variables["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"] == secret
