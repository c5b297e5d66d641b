"""What the client answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature."""

    dtype: np.dtype[Any] | None
    """NumPy's dtype; `object` for strings (bytes); None for a type that NumPy does not have."""
    type_name: str
    """The type's name, such as `float32` or `string`."""
    shape: tuple[int | None, ...] | None
    """None for a dimension of any size; None alone for an unknown rank."""

    def __str__(self) -> str:
        shape = "of any rank" if self.shape is None else str(["?" if size is None else size for size in self.shape])
        return f"{self.type_name} {shape}".replace("'", "")


@dataclass(frozen=True, slots=True)
class Signature:
    """A way to call the model."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str
    optional: frozenset[str] = frozenset()
    """The inputs that have a default and may be left out."""


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What one version of a model can be asked."""

    name: str
    version: int
    signatures: Mapping[str, Signature]


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The state of one version of a model on the server that answered."""

    version: int
    state: str
    """START, LOADING, AVAILABLE, UNLOADING, END or UNKNOWN."""
    error_code: str
    """`OK`, or why the version is not there, such as `NOT_FOUND`."""
    error_message: str

    @property
    def available(self) -> bool:
        """Whether the version answers requests."""
        return self.state == "AVAILABLE"

    def __str__(self) -> str:
        error = "" if self.error_code == "OK" else f" ({self.error_code}: {self.error_message})"
        return f"version {self.version} is {self.state}{error}"


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class and how likely the model finds it."""

    index: int
    probability: float
    label: str | None
    """The class's name; None where nobody told it: the model names only the likeliest class of each image."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one image."""

    label: str
    probability: float
    index: int
    """The number of the likeliest class."""
    top: tuple[ClassScore, ...]
    """The likeliest classes, the likeliest first."""
    version: int
    """The version of the model that answered."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions(Sequence[Classification]):
    """The answers for N images; as a sequence, one Classification an image, with all its classes in `top`."""

    probabilities: npt.NDArray[np.float32]
    """float32 [N, classes]."""
    classes: npt.NDArray[np.int64]
    """int64 [N], the likeliest class."""
    labels: tuple[str, ...]
    """[N], its name."""
    versions: tuple[int, ...]
    """[N], the version that answered; a large input may meet a rollover."""
    class_names: tuple[str, ...] | None = None
    """The names of all classes, where the client was given them."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Predictions(
                self.probabilities[index],
                self.classes[index],
                self.labels[index],
                self.versions[index],
                self.class_names,
            )
        return self.classification(index)

    def classification(self, index: int, top: int | None = None) -> Classification:
        """The answer for one image, with its `top` likeliest classes (default: all)."""
        scores = self.probabilities[index]
        best, label = int(self.classes[index]), self.labels[index]
        order = np.argsort(-scores, kind="stable")[:top]
        return Classification(
            label=label,
            probability=float(scores[best]),
            index=best,
            top=tuple(ClassScore(int(i), float(scores[i]), self._name(int(i), best, label)) for i in order),
            version=self.versions[index],
        )

    def _name(self, index: int, best: int, label: str) -> str | None:
        if index == best:
            return label
        if self.class_names is not None and index < len(self.class_names):
            return self.class_names[index]
        return None

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """One Predictions of at least one."""
        return cls(
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.classes for part in parts]),
            tuple(label for part in parts for label in part.labels),
            tuple(version for part in parts for version in part.versions),
            parts[0].class_names,
        )
