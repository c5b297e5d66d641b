"""Profiles: where a pipeline runs, one commented TOML file each, typed and validated. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from mnist_tfx.components.settings import BeamSettings, Section
from mnist_tfx.contract.errors import UsageError, unknown_name
from mnist_tfx.contract.names import TARGETS
from mnist_tfx.kubeflow.kubernetes import SecretKey, SecretName, VariableName, Volume, secret_variable
from mnist_tfx.kubeflow.machines import KubeflowMachine, VertexMachine
from mnist_tfx.kubeflow.retries import KubeflowRetries, VertexRetries
from mnist_tfx.pipeline.settings_files import SettingsReader, read_toml

_FOLDER = Path(__file__).resolve().parent
Target: TypeAlias = Literal["vertex", "kubeflow"]

# https://cloud.google.com/compute/docs/labeling-resources#requirements
_KEY_PATTERN = r"^(projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+)?$"
_OUR_LABELS = ("managed-by", "dataset", "recipe", "pipeline-digest")  # set by kubeflow.remote.vertex_access
_LABEL_KEY, _LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")


def _address(schemes: str, told: str) -> AfterValidator:
    def check(root: str) -> str:
        if not re.match(rf"({schemes})://[a-z0-9][a-z0-9._-]+", root):
            raise ValueError(f"{root!r} is not an address that {told}.")
        return root.rstrip("/")

    return AfterValidator(check)


Root = Annotated[str, _address("gs", "TFX's file layer reads in the image; write 'gs://BUCKET/FOLDER'")]
Store = Annotated[
    str, _address("gs|s3|minio", "Kubeflow's launcher copies from; write 'gs://BUCKET/FOLDER', s3:// or minio://")
]
Image = Annotated[str, Field(pattern=r"^[\w.:/@-]+$")]


class VertexMachines(Section):
    """The machine of each task: `default`, and that of the Trainer and the Tuner."""

    default: VertexMachine = VertexMachine()
    trainer: VertexMachine = VertexMachine()


class KubeflowMachines(Section):
    """What each task's container gets: `default`, and that of the Trainer and the Tuner."""

    default: KubeflowMachine = KubeflowMachine()
    trainer: KubeflowMachine = KubeflowMachine()


class VertexProfile(Section):
    """A run on Vertex AI Pipelines."""

    target: Literal["vertex"]
    project: Annotated[str, Field(pattern=r"^[a-z][a-z0-9:.-]*[a-z0-9]$")]
    region: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+\d+$")]
    root: Root  # everything the pipeline reads and writes lies under it
    image: Image
    service_account: str = ""  # e-mail address that the tasks run as; empty: Compute Engine's default
    network: str = ""  # projects/NUMBER/global/networks/NAME of a peered VPC network
    encryption_key: Annotated[str, Field(pattern=_KEY_PATTERN)] = ""  # of Cloud KMS, in the region; empty: Google's own
    labels: dict[str, str] = {}
    environment: dict[VariableName, str] = {}  # of every task's container
    cache: bool = True
    endpoint: str = ""  # host:port of the service instead of Google's, for tests and private connections
    ca_certificate: str = ""  # PEM file of the authority that signed the endpoint's certificate; empty: the public ones
    machines: VertexMachines = VertexMachines()
    retries: VertexRetries = VertexRetries()
    beam: BeamSettings = BeamSettings()

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
                raise ValueError(
                    f"{key} = {value!r} is not a label: lower case letters, digits, _ and -, 63 at most; "
                    "a key begins with a letter."
                )
            if key in _OUR_LABELS:
                raise ValueError(f"label {key} says what is run, and is set by mnist-tfx: leave it out.")
        return labels

    def data_root(self) -> str:
        """Where the tasks find data, schemas and served models by themselves."""
        return self.root

    def beam_settings(self) -> BeamSettings:
        """Section `beam`, with what Dataflow takes from the rest of the profile."""
        return _filled(self.beam, self.image, self.root, self.project, self.region, self.service_account)


class KubeflowProfile(Section):
    """A run on Kubeflow Pipelines, version 2."""

    target: Literal["kubeflow"]
    endpoint: Annotated[str, Field(pattern=r"^https?://\S+$")] = "http://localhost:8080"  # of Kubeflow Pipelines' API
    ca_certificate: str = ""  # PEM file of the authority that signed the endpoint's certificate; empty: the public ones
    token_file: str = ""  # holds the bearer token to log in with; empty: none, or what the kfp client finds by itself
    cron_timezone: str = "UTC"  # in which the installation reads schedules: CRON_SCHEDULE_TIMEZONE of its controller
    namespace: str = ""  # of the user's profile; empty: a single-user installation
    experiment: str = "mnist-tfx"
    root: Store  # artifacts lie under it, and all else unless `shared` or `volume` says where
    shared: Root | Literal[""] = ""  # data, schemas and served models, which the tasks find by themselves
    volume: Volume | None = None  # instead of `shared`: where they lie, mounted into every task
    image: Image
    service_account: str = ""  # Kubernetes service account that the tasks run as; empty: the installation's own
    image_pull_secrets: tuple[SecretName, ...] = ()
    environment: dict[VariableName, str] = {}  # of every task's container
    secrets: dict[VariableName, SecretKey] = {}  # the same, from Secrets: AWS_ACCESS_KEY_ID = "SECRET/KEY"
    cache: bool = True
    machines: KubeflowMachines = KubeflowMachines()
    retries: KubeflowRetries = KubeflowRetries()
    beam: BeamSettings = BeamSettings()

    @model_validator(mode="after")
    def _check(self) -> KubeflowProfile:
        if self.shared and self.volume:
            raise ValueError("`shared` and `volume` both say where data and models lie: leave one of them out.")
        if both := sorted(self.environment.keys() & self.secrets.keys()):
            raise ValueError(f"{', '.join(both)}: in `environment` and in `secrets`; leave it out of one of them.")
        return self

    def data_root(self) -> str:
        """Where the tasks find data, schemas and served models by themselves: the launcher copies artifacts only."""
        return self.volume.mount_path if self.volume else self.shared or self.root

    def executor_config(self, machine: KubeflowMachine) -> dict[str, Any]:
        """The `KubernetesExecutorConfig` of a task on this machine; empty where nothing is asked for.

        Secrets and claims stand in the message's older fields: a backend refuses fields that it does not know, and all
        of version 2 know these.
        """
        minutes, selector, tolerations = machine.timeout_minutes, machine.node_selector, machine.tolerations
        config: dict[str, Any] = {
            "nodeSelector": {"labels": dict(selector)} if selector else None,
            "tolerations": [
                each.model_dump(exclude_defaults=True) | {"operator": each.operator} for each in tolerations
            ],
            "activeDeadlineSeconds": str(60 * minutes) if minutes else None,
            "secretAsEnv": [secret_variable(variable, secret) for variable, secret in sorted(self.secrets.items())],
            "imagePullSecret": [{"secretName": name} for name in self.image_pull_secrets],
            "pvcMount": [self.volume.mount()] if self.volume else None,
        }
        return {key: value for key, value in config.items() if value}

    def beam_settings(self) -> BeamSettings:
        """Section `beam`, with what Dataflow takes from the rest of the profile."""
        return _filled(self.beam, self.image, self.data_root())


Profile: TypeAlias = VertexProfile | KubeflowProfile

_VERTEX = SettingsReader(
    VertexProfile,
    "profile",
    "--profile-set",
    "region=europe-west4",
    see="kubeflow/profiles/vertex-gpu.toml shows them.",
)
_KUBEFLOW = SettingsReader(
    KubeflowProfile,
    "profile",
    "--profile-set",
    "experiment=nightly",
    see="kubeflow/profiles/kubeflow-gpu.toml shows them.",
)


def profile_files() -> dict[str, Path]:
    """The shipped examples, by name; a name begins with its target."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def load_profile(name_or_path: str, overrides: Iterable[str] = ()) -> Profile:
    """Reads a shipped profile by name, or a file whose name ends in `.toml`, and applies `KEY=VALUE` overrides.

    Raises:
        UsageError: an unknown profile or setting (with the nearest match), or a value that does not fit.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
    else:
        files = profile_files()
        if name_or_path not in files:
            raise unknown_name("profile", name_or_path, files)
        path = files[name_or_path]
    content = read_toml(path, "profile")
    target = content.get("target")
    if target is None:
        raise UsageError(f'profile {path}: target is missing; write target = "vertex" or target = "kubeflow".')
    if target == "vertex":
        return _VERTEX.make(path, content, overrides)
    if target == "kubeflow":
        return _KUBEFLOW.make(path, content, overrides)
    raise unknown_name(f"target in profile {path},", str(target), TARGETS)


def _filled(
    beam: BeamSettings, image: str, root: str, project: str = "", region: str = "", service_account: str = ""
) -> BeamSettings:
    if beam.runner == "direct":
        return beam
    values = {
        "image": beam.image or ("" if beam.setup_file else image),
        "temp_location": beam.temp_location or f"{root}/beam",
        "project": beam.project or project,
        "region": beam.region or region,
        "service_account": beam.service_account or service_account,
    }
    return beam.model_copy(update=values)
