"""How far counts are apart, and how far chance alone brings them, at the sizes of the samples at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom, chi2, hypergeom

LEAST_EXPECTED = 10
"""Images that must be expected in a bin; below, the next bin joins it. With 5 the bound on the Jensen-Shannon distance
is passed by chance six times as often as it says, with 10 less than three times (tests/components/monitoring)."""

_MIX_STEPS = 200

Counts = npt.NDArray[np.int64]


def distance(reference: Counts, sample: Counts, chance: float) -> tuple[float, float]:
    """Jensen-Shannon distance of two sets of counts in the same bins, and its bound.

    The distance is the square root of the divergence with base 2 (Endres and Schindelin, "A new metric for probability
    distributions", 2003): 0 where they are the same, 1 where they share no bin. Where both are drawn from one
    distribution, the divergence in nats is about (1/n + 1/N)/8 times a chi-squared variable with one degree of freedom
    less than there are bins (Menéndez, Pardo, Pardo and Pardo, "The Jensen-Shannon divergence", 1997).

    Args:
        reference: N in all.
        sample: n in all.
        chance: the share of samples of the same distribution that may pass the bound.
    """
    a, b = _joined(reference, sample)
    if len(a) < 2:
        return 0.0, 0.0
    scale = (1 / a.sum() + 1 / b.sum()) / 8
    bound = np.sqrt(scale * chi2.isf(chance, len(a) - 1) / np.log(2))
    return float(jensenshannon(a, b, base=2)), float(min(bound, 1.0))


def closest_mix(parts: Sequence[Counts], sample: Counts) -> Counts:
    """Counts of the mix of several distributions of which a sample is likeliest drawn.

    The shares of the mix are found by expectation maximization (Dempster, Laird and Rubin, 1977; the parts stay as they
    are). The size is the one whose chance variation is that of the mix.

    Args:
        parts: counts of each in the same bins.
        sample: in these bins.
    """
    given = np.array(parts, np.float64)
    sizes = np.maximum(given.sum(axis=1), 1)
    shares = (given + 0.5) / (sizes + 0.5 * given.shape[1])[:, np.newaxis]  # no bin is impossible
    weights = np.full(len(given), 1 / len(given))
    for _ in range(_MIX_STEPS):
        mixed = weights[:, np.newaxis] * shares
        weights = (mixed / mixed.sum(axis=0) * sample).sum(axis=1) / max(sample.sum(), 1)
    size = 1 / (np.square(weights) / sizes).sum() if sample.sum() else sizes.sum()
    return np.round(weights @ (given / sizes[:, np.newaxis]) * size).astype(np.int64)


def share_bound(reference: tuple[int, int], sample: tuple[int, int], chance: float) -> float:
    """The largest share of the sample that chance explains: Fisher's exact test, one-sided.

    Args:
        reference: how many of how many.
        sample: the same of the sample.
        chance: the share of samples of the same kind that may have a larger one.
    """
    (found, size), (found_here, size_here) = reference, sample
    return float(hypergeom.isf(chance, size + size_here, found + found_here, size_here)) / size_here


def largest_difference_bound(reference: Counts, sample_size: int, chance: float) -> float:
    """How much more than before the share of any class may be by chance (TFDV's L-infinity): binomial, by class."""
    size = int(reference.sum())
    shares = (reference + 1) / (size + len(reference))
    most = binom.isf(chance / len(reference), sample_size, shares) / sample_size - shares
    return float(most.max() * np.sqrt(1 + sample_size / size))  # the reference is a sample, too


def _joined(reference: Counts, sample: Counts) -> tuple[Counts, Counts]:
    """Neighbouring bins as one until enough images of the sample are expected in each."""
    expected = reference * sample.sum() / max(reference.sum(), 1)
    groups: list[list[int]] = [[]]
    for index in range(len(expected)):
        groups[-1].append(index)
        if expected[groups[-1]].sum() >= LEAST_EXPECTED:
            groups.append([])
    rest = groups.pop()
    if groups:
        groups[-1] += rest
    else:
        groups.append(rest)
    return tuple(np.array([counts[group].sum() for group in groups]) for counts in (reference, sample))  # type: ignore[return-value]
