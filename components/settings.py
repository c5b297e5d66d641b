"""The settings of a recipe, section by section: typed, immutable, validated where they enter. Imports no TensorFlow.

A component takes its own section and nothing else. Sections travel as JSON through TFX's execution parameters, so that
a changed setting is a cache miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """A section of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Splits(Section):
    """What each split of the pipeline reads, in TFDS's slicing notation (`train[:55000]`, `train[90%:]`, `test`)."""

    train: str = "train[:55000]"
    eval: str = "train[55000:]"
    test: str = "test"


class DataSettings(Section):
    """Which dataset, where it comes from, and how it is divided."""

    dataset: str  # its name in TFDS, or the one that images of one's own get
    # None: of `images`, as they are now; else the newest prepared one, or the one that this TFDS makes.
    version: str | None = None
    images: str = ""  # a folder of image files by class, of which the dataset is made; empty: TFDS makes it
    labels: str = ""  # a CSV file with columns file and label: the classes of the files in `images`
    max_unreadable: Fraction = 0.05  # the share of image files that may be damaged
    data_dir: str = ""  # a TFDS data_dir where it lies prepared; empty: the home's, or that of TFDS_DATA_DIR
    builder: str = ""  # a TFDS builder of one's own: package.module:Class, or file.py:Class
    splits: Splits = Splits()  # of the data that the dataset began with; what was added has splits of its own
    # all: these data and what `data add` and `feedback` added. N: the N newest of these spans; the data that the
    # dataset began with are the oldest, span 1. Where nothing was added, it is these alone.
    spans: Literal["all"] | Positive = "all"
    image_shape: tuple[Positive, Positive, Literal[1, 3]] = (28, 28, 1)  # height, width, channels
    resize: tuple[Positive, Positive] | None = None  # height and width that images of any size are fitted to
    classes: dict[str, tuple[str, ...]] | None = None  # classes that stand for several of the dataset's, by name
    shards: Positive = 2  # files per split: the unit of parallel work
    # Which model's data these must not have drifted from.
    drift_reference: Literal["live", "none"] = "live"

    @model_validator(mode="before")
    @classmethod
    def _shape_follows_resize(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(resize := given.get("resize"), list | tuple):
            return given
        shape = given.get("image_shape", cls.model_fields["image_shape"].default)
        return {**given, "image_shape": (*resize, *shape[2:])} if isinstance(shape, list | tuple) else given

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        for name in ("builder", "data_dir"):
            if self.images and getattr(self, name):
                raise ValueError(f"images and {name} exclude each other: give one of them.")
        if self.labels and not self.images:
            raise ValueError("labels without images: name the folder of the files that it lists, too.")
        return self


class TransformSettings(Section):
    """How pixels are normalized.

    `unit` is [0, 1]; `standardize` is zero mean and unit variance over split train; `none` leaves [0, 255].
    """

    normalization: Literal["unit", "standardize", "none"] = "unit"


# Those of Keras that work on one number at a time.
Activation: TypeAlias = Literal[
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
]


class ModelSettings(Section):
    """A dense classifier."""

    hidden_layers: tuple[Positive, ...] = (512, 512)  # units of each hidden layer; none: a linear classifier
    activation: Activation = "relu"
    batch_normalization: bool = False
    dropout: Share = 0.0  # after each hidden layer
    layer_dropout: tuple[Share, ...] = ()  # after each by itself, instead
    input_dropout: Share = 0.0  # of the pixels
    l2: NonNegative = 0.0  # factor on the squared kernel weights
    layer_l2: tuple[NonNegative, ...] = ()  # of each hidden layer by itself, instead
    # sigmoid: one unit for two classes, whose loss is binary cross entropy.
    output: Literal["softmax", "sigmoid"] = "softmax"
    form: Literal["sequential", "functional", "custom"] = "sequential"  # how `build_model` writes the same function
    mirrored_averaging: bool = False  # the exported model averages its answers to the image and to its mirror image

    @model_validator(mode="after")
    def _one_value_per_layer(self) -> Self:
        for name in ("dropout", "l2"):
            values = getattr(self, f"layer_{name}")
            if values and len(values) != len(self.hidden_layers):
                raise ValueError(
                    f"layer_{name} has {len(values)} values for {len(self.hidden_layers)} hidden layers: give one each."
                )
            if values and getattr(self, name):
                raise ValueError(f"{name} and layer_{name} exclude each other: give one of them.")
        return self


# Settings of one optimizer or another: who has them, and their value where a recipe names none.
OF_OPTIMIZERS: Mapping[str, tuple[tuple[str, ...], float]] = {
    "beta_1": (("adam", "adamw"), 0.9),
    "beta_2": (("adam", "adamw"), 0.999),
    "epsilon": (("adam", "adamw", "rmsprop"), 1e-7),
    "rho": (("rmsprop",), 0.9),
    "momentum": (("sgd",), 0.9),
    "weight_decay": (("adamw",), 0.004),
}


class TrainingSettings(Section):
    """How the classifier is trained. What has no effect under the chosen optimizer is None, and must not be given."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3  # at its highest
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: down to 0 at the last epoch's end
    warmup: Share = 0.0  # of all steps: the learning rate rises linearly from 0
    beta_1: Share | None = None  # Adam, AdamW: decay of the gradients' average
    beta_2: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None  # Adam, AdamW: decay of squared gradients' average
    epsilon: Annotated[float, Field(gt=0.0)] | None = None  # Adam, AdamW, RMSprop: added to the divisor
    rho: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None  # RMSprop: decay of squared gradients' average
    momentum: Share | None = None  # SGD
    weight_decay: NonNegative | None = None  # AdamW
    batch_size: Positive = 256
    epochs: Positive = 20
    patience: Annotated[int, Field(ge=0)] = 3  # epochs without improvement of `monitor` before training stops
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0  # what counts as an improvement
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = "val_accuracy"
    monitor_from: Share = 0.0  # of all epochs: those before are never the best, and do not count as patience
    label_smoothing: Share = 0.0
    class_weight: Literal["none", "balanced"] = "none"  # balanced: every class weighs the same in the loss
    # Momentum of the moving average of the trained weights, which is evaluated and kept; 0: none. Batch normalization's
    # statistics are not trained: they stay those of the last steps.
    weight_average: Share = 0.0
    # Of training; the exported model is float32. auto: mixed_bfloat16 where the hardware is faster with it.
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    # Two numbers fitted on split eval bring the exported model's probabilities to how often it is right.
    calibrate: bool = True
    # Training begins with the weights of the served model, the newest that was trained on other data than these.
    warm_start: bool = False
    # NumPy takes 32 bits; the teachers' seeds are up to 20,000 higher.
    seed: Annotated[int, Field(ge=0, lt=2**32 - 20_000)] = 0
    lr_find: bool = False  # training begins with a learning-rate range test, and takes the rate that it suggests

    @model_validator(mode="before")
    @classmethod
    def _of_the_optimizer(cls, given: Any) -> Any:
        """Fills in what the optimizer has. Raises ValueError for what it has not: it would change names, not models."""
        if not isinstance(given, dict):
            return given
        optimizer = given.get("optimizer", cls.model_fields["optimizer"].default)
        filled = dict(given)
        for name, (optimizers, default) in OF_OPTIMIZERS.items():
            if optimizer in optimizers:
                filled[name] = default if given.get(name) is None else given[name]
            elif given.get(name) is not None:
                raise ValueError(
                    f"{name} has no effect with optimizer {optimizer!r}, only with {' and '.join(optimizers)}: "
                    f"leave it out (--set training.{name}=null)"
                )
        return filled


class AugmentationSettings(Section):
    """Random changes of the images of split train, another one in each epoch. Zeros change nothing."""

    flip: bool = False  # half of the images are mirrored
    shift: NonNegative = 0.0  # pixels; uniform in [-shift, shift], for both axes
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0  # degrees; uniform
    scale: Share = 0.0  # fraction; uniform, for each axis by itself
    shear: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0  # degrees; uniform
    elastic: NonNegative = 0.0  # pixels; standard deviation of a smooth random displacement of each pixel
    elastic_smoothness: Annotated[float, Field(ge=1.0)] = 5.0  # pixels; the width of the displacement's bumps
    mixup: NonNegative = 0.0  # alpha of the Beta distribution from which two images' shares are drawn; 0: none

    @model_validator(mode="after")
    def _has_bends_to_smooth(self) -> Self:
        if "elastic_smoothness" in self.model_fields_set and "elastic" not in self.model_fields_set:
            raise ValueError(
                "elastic_smoothness without elastic: say how far pixels move, too (elastic = 0.0 if they are not to, "
                "however smoothly)."
            )
        return self


class DistillationSettings(Section):
    """A model that learns from an ensemble: models of the same recipe and other seeds, trained before it.

    They may be convolutional; what is exported stays dense.
    """

    teachers: Annotated[int, Field(ge=0, le=20)] = 0  # 0: no distillation
    weight: Fraction = 0.7  # of the teachers' mean probabilities in the targets, the rest are the labels
    teacher_epochs: Annotated[int, Field(ge=0)] = 0  # of each; 0: as many as `training.epochs`
    # Of convolutional teachers: of the first convolution, then of those of each stage; none: as the recipe's model.
    teacher_channels: tuple[Positive, ...] = ()

    @model_validator(mode="after")
    def _has_teachers(self) -> Self:
        lonely = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        if lonely and "teachers" not in self.model_fields_set:
            raise ValueError(
                f"{', '.join(lonely)} without teachers: say how many are trained, too (teachers = 0 if none are to be, "
                "whatever else is said)."
            )
        return self


class EvaluationSettings(Section):
    """What a model must reach on split test to be pushed."""

    min_accuracy: Fraction
    min_balanced_accuracy: Fraction = 0.0  # mean of the classes' accuracies
    min_macro_f1: Fraction = 0.0  # mean of the classes' F1
    min_class_accuracy: Fraction = 0.0  # for every class by itself
    max_accuracy_drop: Fraction = 0.005  # against the model now being served
    # Where data were added: the accuracy on each span of split test by itself, and the drop on what was there first.
    min_span_accuracy: Fraction = 0.0
    max_first_span_accuracy_drop: Fraction | None = None  # None: as max_accuracy_drop
    baseline: Literal["served", "none"] = "served"


class PushSettings(Section):
    """Whether a model that is good enough goes live."""

    enabled: bool = True
    reason: str = "a study recipe"  # what is said of a model that is not pushed because it is not to be


class InfraSettings(Section):
    """Which model server must load and answer the model before it is pushed, and within what limits."""

    engine: Literal["auto", "python", "tensorflow_model_server"] = "auto"  # auto: TF Serving where it is on the PATH
    endpoint: str = ""  # host:port of a staging server's gRPC, which is used instead
    # A reload replaces the whole list of what a server serves, so one of the next two must be given.
    endpoint_config: str = ""  # the ModelServerConfig file that lists it: the candidate is added, and taken off again
    endpoint_for_candidates_only: bool = False  # it serves nothing else
    endpoint_tls: bool = False  # use TLS; any of the next four does, too
    endpoint_ca: str = ""  # PEM file of the certificates to trust, instead of the well-known ones
    endpoint_cert: str = ""  # PEM file of the client's certificate, for mutual TLS
    endpoint_key: str = ""  # PEM file of its key
    endpoint_server_name: str = ""  # the name in the server's certificate, if not the host's
    examples: Annotated[int, Field(ge=1, le=500)] = 32  # of split test, sent to every signature; also the warm-up
    max_load_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    max_latency_ms: Annotated[float, Field(gt=0.0)] = 250.0  # one image, 99th percentile of 100
    max_memory_mib: Annotated[float, Field(gt=0.0)] = 3000.0  # resident, of the server's process; not of a staging one

    @model_validator(mode="after")
    def _endpoint_is_whole(self) -> Self:
        if not self.endpoint:
            if lonely := [name for name, value in self if name.startswith("endpoint_") and value]:
                raise ValueError(f"{', '.join(lonely)} without endpoint: give the server's HOST:PORT, too.")
        elif bool(self.endpoint_config) == self.endpoint_for_candidates_only:
            raise ValueError(
                "with endpoint goes either endpoint_config, the ModelServerConfig file that lists what the server "
                "serves, or endpoint_for_candidates_only=true if it serves nothing: what is not listed is unloaded."
            )
        if bool(self.endpoint_cert) != bool(self.endpoint_key):
            raise ValueError("endpoint_cert and endpoint_key go together: give both, or neither.")
        return self


class MonitoringSettings(Section):
    """When what is served counts as other than what the model was trained on; `components.monitoring`.

    Of each check the larger of two bounds holds: what chance explains at the sample's size, and what matters to you.
    """

    logs: str = ""  # the request logs' prefix, such as gs://bucket/requests/log; empty: HOME/requests/MODEL/requests
    hours: Annotated[float, Field(gt=0.0)] = 24.0  # how far back
    min_images: Annotated[int, Field(ge=20)] = 50  # fewer are too few to say anything of a version, or of an hour
    max_images: Annotated[int, Field(ge=50)] = 10_000  # of a version: what is looked at, drawn at random
    chance: Annotated[float, Field(gt=0.0, lt=0.5)] = 1e-4  # the share of reports that may see drift by chance alone
    max_distance: Fraction = 0.1  # Jensen-Shannon distance of any distribution
    low_confidence: Fraction = 0.5  # an answer below is one
    max_more_low_confidence: Fraction = 0.02  # by how much their share may exceed that on split test
    max_unreadable: Fraction = 0.01  # the share of logged images that cannot be decoded
    max_other_size: Fraction = 0.05  # the share of images of another size, where data.resize asks for none

    @model_validator(mode="after")
    def _looks_at_enough(self) -> Self:
        if self.min_images > self.max_images:
            raise ValueError(
                f"min_images is {self.min_images} and max_images {self.max_images}: of each version fewer would be "
                "looked at than a check needs, so that none would ever be made. Lower the one or raise the other."
            )
        return self


class BeamSettings(Section):
    """Where Beam runs; `components.beam_arguments` turns it into Beam's own arguments."""

    runner: Literal["direct", "dataflow", "flink", "spark"] = "direct"
    components: tuple[str, ...] = ()  # those that use `runner`, the others run directly; none named: all use it
    workers: Positive = 1  # direct: processes; Dataflow: the most machines; Flink: parallelism
    image: str = ""  # of the workers' container, with our code and Beam's boot program
    setup_file: str = ""  # instead of an image: our setup.py, from which each worker installs the code
    job_endpoint: str = ""  # Flink, Spark: host:port of Beam's job server
    worker_pool: str = ""  # Flink, Spark: host:port of a Beam worker pool beside each worker, instead of an image
    project: str = ""  # Dataflow
    region: str = ""  # Dataflow
    temp_location: str = ""  # Dataflow: a folder in a bucket
    machine_type: str = ""  # Dataflow
    service_account: str = ""  # Dataflow: its e-mail address
    subnetwork: str = ""  # Dataflow; the workers then have no public addresses
    args: tuple[str, ...] = ()  # more of Beam's own arguments; they come last and win
