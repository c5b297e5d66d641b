"""Profiles: typed, closed to unknown keys, with machines and accelerators in each target's words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mnist_tfx.components.beam_arguments import beam_arguments
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.kubeflow.profiles import KubeflowProfile, VertexProfile, load_profile, profile_files


@pytest.mark.parametrize("name", profile_files())
def test_every_shipped_profile_loads_and_begins_with_what_it_is(name: str) -> None:
    profile = load_profile(name)
    assert name.startswith(profile.target + "-")
    assert profile_files()[name].read_text().startswith("# ")


def test_there_is_one_with_and_one_without_a_gpu_for_each_target() -> None:
    assert set(profile_files()) == {"vertex-cpu", "vertex-gpu", "kubeflow-cpu", "kubeflow-gpu"}
    for name in profile_files():
        machines = load_profile(name).machines
        assert bool(machines.trainer.accelerator_count) == name.endswith("gpu")
        assert not machines.default.accelerator_count


@pytest.mark.parametrize(
    ("machine", "accelerator", "count", "size"),
    [
        ("e2-standard-4", "", 0, (4, 16)),
        ("n1-highmem-2", "", 0, (2, 13)),
        ("n1-standard-8", "NVIDIA_TESLA_T4", 2, (8, 30)),
        ("g2-standard-24", "NVIDIA_L4", 2, (24, 96)),
        ("a2-highgpu-1g", "NVIDIA_TESLA_A100", 1, (12, 85)),
        ("a3-highgpu-8g", "NVIDIA_H100_80GB", 8, (208, 1872)),
    ],
)
def test_a_machine_of_googles_becomes_its_processors_and_memory(
    machine: str, accelerator: str, count: int, size: tuple[float, float]
) -> None:
    trainer = load_profile("vertex-cpu", _trainer(machine, accelerator, count)).machines.trainer
    assert (trainer.size, trainer.accelerator, trainer.accelerator_count) == (size, accelerator, count)


@pytest.mark.parametrize(
    ("machine", "accelerator", "count", "message"),
    [
        ("n1-standrd-8", "", 0, "machine type 'n1-standrd-8' is not known here"),
        ("n1-standard-8", "nvidia.com/gpu", 1, "is a Kubernetes name; Vertex AI wants "),
        ("n1-standard-8", "NVIDIA_L4", 1, "NVIDIA_L4 comes with the machine types g2-standard-4"),
        ("n1-standard-8", "NVIDIA_T4", 1, "accelerator 'NVIDIA_T4' is not known here"),
        ("n1-standard-8", "NVIDIA_TESLA_T4", 3, "an n1 machine takes 1, 2, 4 of NVIDIA_TESLA_T4, not 3"),
        ("e2-standard-8", "NVIDIA_TESLA_T4", 1, "can be attached to n1 machines only, not to e2-standard-8"),
        ("g2-standard-8", "", 0, "a g2-standard-8 has 1 x NVIDIA_L4"),
        ("n1-standard-8", "NVIDIA_TESLA_T4", 0, "accelerator and accelerator_count go together"),
    ],
)
def test_what_google_does_not_have_is_refused_with_what_it_has(
    machine: str, accelerator: str, count: int, message: str
) -> None:
    with pytest.raises(UsageError, match=r"machines\.trainer") as caught:
        load_profile("vertex-cpu", _trainer(machine, accelerator, count))
    assert message in str(caught.value)


def _trainer(machine: str, accelerator: str, count: int) -> list[str]:
    trainer = {"machine_type": machine, "accelerator": accelerator, "accelerator_count": count}
    return [f"machines.trainer.{key}={value!r}" for key, value in trainer.items()]


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("vertex-cpu", "regoin=x", "unknown setting 'regoin'. Did you mean 'region'?"),
        ("vertex-cpu", "experiment=x", "unknown setting 'experiment'"),
        ("kubeflow-cpu", "network=x", "unknown setting 'network'"),
        ("vertex-cpu", "region=Europe", "region: string should match pattern"),
        ("vertex-cpu", "root=minio://mlpipeline", "is not an address that TFX's file layer reads"),
        ("kubeflow-cpu", "root=/mnt/data", "write 'gs://BUCKET/FOLDER'"),
        ("vertex-cpu", 'labels={App = "x"}', "App = 'x' is not a label"),
        ("vertex-cpu", 'labels={recipe = "x"}', "label recipe says what is run, and is set by mnist-tfx"),
        ("kubeflow-gpu", "machines.trainer.accelerator=NVIDIA_L4", "write 'nvidia.com/gpu'"),
        ("kubeflow-gpu", "machines.trainer.cpus=0", "machines.trainer.cpus: "),
        (
            "kubeflow-cpu",
            "volume={claim = 'data', mount_path = 'data'}",
            "write an absolute path of two folders or more",
        ),
        ("kubeflow-cpu", "volume={claim = 'data', mount_path = '/gcs/data'}", "none of the launcher's own"),
        ("kubeflow-cpu", "volume={claim = 'My data', mount_path = '/mnt/data'}", "volume.claim: string should match"),
        ("kubeflow-cpu", "secrets={KEY = 'minio'}", "'minio' names no value of a Secret; write 'SECRET/KEY'"),
        ("kubeflow-cpu", "environment={'MY-KEY' = '1'}", "string should match pattern"),
        ("kubeflow-cpu", "image_pull_secrets=['My registry']", "image_pull_secrets"),
        (
            "kubeflow-cpu",
            "machines.default.tolerations=[{key = 'a', operator = 'Exists', value = 'b'}]",
            "leave `value`",
        ),
        ("kubeflow-cpu", "machines.default.tolerations=[{value = 'b'}]", "needs operator = 'Exists'"),
        ("kubeflow-cpu", "machines.default.timeout_minutes=-1", "machines.default.timeout_minutes"),
        ("vertex-cpu", "machines.default.timeout_minutes=1", "unknown setting 'machines.default.timeout_minutes'"),
        ("kubeflow-cpu", "retries.backoff_factor=1.5", "retries.backoff_factor"),
        ("vertex-cpu", "retries.backoff_max_seconds=7200", "retries.backoff_max_seconds"),
        ("vertex-cpu", "retries.trainer=11", "retries.trainer"),
        ("vertex-cpu", "encryption_key=my-key", "encryption_key: string should match pattern"),
        ("vertex-cpu", "region", "--profile-set 'region': write KEY=VALUE"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(name: str, override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_profile(name, [override])
    assert message in str(caught.value)


def test_what_contradicts_itself_is_refused() -> None:
    volume = "volume={claim = 'data', mount_path = '/mnt/data'}"
    with pytest.raises(UsageError, match=r"`shared` and `volume` both say .* leave one of them out"):
        load_profile("kubeflow-cpu", [volume, "shared=gs://data"])
    with pytest.raises(UsageError, match="KEY: in `environment` and in `secrets`"):
        load_profile("kubeflow-cpu", ["environment={KEY = 'a'}", "secrets={KEY = 's3/key'}"])


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown profile 'vertexgpu'\. Did you mean 'vertex-gpu'\?"):
        load_profile("vertexgpu")
    path = tmp_path / "mine.toml"
    for text, message in (
        ('target = "vertx"', "Did you mean 'vertex'?"),
        ('region = "x"', "target is missing"),
        ('target = "kubeflow"', "root is missing; image is missing"),
        ("target", "is not valid TOML"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            load_profile(str(path))
        assert message in str(caught.value)


def test_a_profile_cannot_be_changed() -> None:
    profile = load_profile("vertex-gpu")
    with pytest.raises(ValidationError, match="frozen"):
        profile.root = "gs://other"


def test_dataflow_takes_the_rest_from_the_profile() -> None:
    profile = load_profile("vertex-cpu", ["beam.runner=dataflow", "beam.workers=8"])
    assert isinstance(profile, VertexProfile)
    assert beam_arguments(profile.beam_settings()) == [
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=europe-west4",
        "--temp_location=gs://my-bucket/mnist-tfx/beam",
        "--max_num_workers=8",
        f"--sdk_container_image={profile.image}",
        "--service_account_email=mnist-tfx@my-project.iam.gserviceaccount.com",
    ]


def test_a_setup_file_is_used_instead_of_the_image() -> None:
    profile = load_profile("vertex-cpu", ["beam.runner=dataflow", "beam.setup_file=/app/setup.py"])
    arguments = beam_arguments(profile.beam_settings())
    assert "--setup_file=/app/setup.py" in arguments
    assert not any(argument.startswith("--sdk_container_image") for argument in arguments)


def test_flink_on_kubeflow_runs_in_the_profiles_image() -> None:
    profile = load_profile("kubeflow-cpu", ["beam.runner=flink", "beam.job_endpoint=jobs:8099"])
    assert isinstance(profile, KubeflowProfile)
    arguments = beam_arguments(profile.beam_settings())
    assert {"--runner=FlinkRunner", "--job_endpoint=jobs:8099", "--environment_type=DOCKER"} < set(arguments)
    assert f"--environment_config={profile.image}" in arguments
