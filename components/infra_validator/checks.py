"""What a served model is checked for: each check a measured value and the most it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_tfx.components.settings import InfraSettings
from mnist_tfx.contract.names import CLASSES, LABELS, PROBABILITIES

Outputs = dict[str, npt.NDArray[Any]]

# A server on this machine computes as this process does, maybe in batches of another size: float32 rounding.
MAX_DIFFERENCE = 1e-5
# A server elsewhere may have a GPU, where TensorFlow multiplies in TF32: 10 bits after the point in place of 23.
# With weights rounded so, the default models' probabilities change by up to 0.0011 on split test, and no class does.
MAX_DIFFERENCE_ELSEWHERE = 1e-2
MAX_SUM_ERROR = 1e-4


@dataclass(frozen=True)
class Check:
    """One measured value and its limit; `detail` has the server's words where it said something."""

    name: str
    measured: float
    limit: float
    unit: str = ""
    detail: str = ""

    @property
    def passed(self) -> bool:
        """NaN is not within a limit."""
        return self.measured <= self.limit

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        words = f" ({self.detail})" if self.detail else ""
        return f"{self.name}: {self.measured:.4g}{unit}, allowed at most {self.limit:.4g}{unit}{words}"


def answer_checks(
    signature: str, served: Outputs, expected: Outputs, max_difference: float = MAX_DIFFERENCE
) -> list[Check]:
    """What must hold of a signature's answer, beside that of the Trainer's model to the same input.

    Args:
        signature: its name, for the checks' names.
        served: the model server's outputs.
        expected: those of the SavedModel in this process.
        max_difference: by which a probability may differ.
    """
    named = f"signature {signature!r}"
    wrong = sorted(
        name
        for name in {*served, *expected, PROBABILITIES, CLASSES, LABELS}
        if name not in served
        or name not in expected
        or (served[name].shape, served[name].dtype) != (expected[name].shape, expected[name].dtype)
    )
    shapes = Check(
        f"{named}: outputs that are missing, extra or of another shape or type", len(wrong), 0, "", ", ".join(wrong)
    )
    if not shapes.passed:
        return [shapes]
    probabilities = served[PROBABILITIES].astype(np.float64)
    not_finite = int(np.count_nonzero(~np.isfinite(probabilities)))
    checks = [shapes, Check(f"{named}: probabilities that are not finite", not_finite, 0)]
    if not_finite:
        return checks
    difference = np.abs(probabilities - expected[PROBABILITIES]).max(initial=0.0)
    sum_error = np.abs(probabilities.sum(axis=-1) - 1.0).max(initial=0.0)
    # A class must be its own probabilities' likeliest; between two equal ones, rounding may choose the other.
    classes = served[CLASSES][..., np.newaxis]
    exists = (classes >= 0) & (classes < probabilities.shape[-1])
    chosen = np.take_along_axis(probabilities, np.where(exists, classes, 0), axis=-1)
    wrong_class = ~exists | (chosen < probabilities.max(axis=-1, keepdims=True))
    same = served[CLASSES] == expected[CLASSES]
    mislabeled = int(np.count_nonzero(served[LABELS][same] != expected[LABELS][same]))
    return [
        *checks,
        Check(f"{named}: largest difference from the Trainer's model", float(difference), max_difference),
        Check(f"{named}: largest error of the probabilities' sum", float(sum_error), MAX_SUM_ERROR),
        Check(f"{named}: classes that are not the likeliest", int(np.count_nonzero(wrong_class)), 0),
        Check(f"{named}: labels that do not name the class", mislabeled, 0),
    ]


def load_check(settings: InfraSettings, seconds: float, words: str = "") -> Check:
    """That the model became AVAILABLE in time; `words` is the last that was seen of it where it did not."""
    return Check("time until the model is AVAILABLE", seconds, settings.max_load_seconds, "s", words)


def error_check(what: str, words: str) -> Check:
    """That something failed which must not fail at all."""
    return Check(f"{what}: errors", 1, 0, "", words)


def latency_check(settings: InfraSettings, seconds: list[float]) -> Check:
    """The 99th percentile of requests of one image, one after the other."""
    return Check(
        "latency of one image, 99th percentile", float(np.percentile(seconds, 99)) * 1e3, settings.max_latency_ms, "ms"
    )


def memory_check(settings: InfraSettings, resident_bytes: int) -> Check:
    """The server's resident memory after it answered."""
    return Check("memory of the model server", resident_bytes / 2**20, settings.max_memory_mib, "MiB")
