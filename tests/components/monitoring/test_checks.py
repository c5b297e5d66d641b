"""Every detector on small data, and that chance passes a bound no more often than it says."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
import scipy.stats

from mnist_tfx.components.monitoring import distances
from mnist_tfx.components.monitoring.checks import Check
from mnist_tfx.components.monitoring.distances import distance, largest_difference_bound, share_bound
from mnist_tfx.components.monitoring.distributions import CONFIDENCE, MEASURES, Histogram, measure
from mnist_tfx.components.monitoring.reference import Reference, mix
from tests.fixtures.monitoring import CLASS_NAMES, answers_to, images_of, judged, reference

Images = npt.NDArray[np.uint8]


@pytest.mark.parametrize(("bins", "reference_size", "size"), [(10, 10_000, 50), (10, 200, 2000), (20, 10_000, 500)])
def test_chance_passes_the_bound_of_the_distance_as_often_as_it_says(bins: int, reference_size: int, size: int) -> None:
    rng = np.random.default_rng(0)
    shares = np.full(bins, 1 / bins)
    passed, draws, chance = 0, 2000, 0.01
    for _ in range(draws):
        found, bound = distance(rng.multinomial(reference_size, shares), rng.multinomial(size, shares), chance)
        passed += found > bound
    assert 0.2 * chance < passed / draws < 3 * chance


def test_bins_where_few_are_expected_are_joined() -> None:
    many = np.array([5000, 3, 4000, 2, 995])
    assert distance(many, np.array([50, 1, 40, 0, 9]), 1e-4)[0] < 0.1
    only_rare = distance(many, np.array([0, 100, 0, 0, 0]), 1e-4)
    assert only_rare[0] > only_rare[1]  # what hardly ever came before, and nothing else now
    assert distance(np.array([1000, 0]), np.array([100, 0]), 1e-4) == (0.0, 0.0)  # one bin tells nothing


def test_the_bound_of_a_share_is_fishers_exact_test() -> None:
    for low in range(20):
        bound = share_bound((20, 10_000), (low, 100), 1e-3)
        p = scipy.stats.fisher_exact([[low, 100 - low], [20, 9980]], alternative="greater")[1]
        assert (low / 100 > bound) == (p <= 1e-3), low


@pytest.mark.parametrize(("reference_size", "size"), [(10_000, 50), (200, 1000)])
def test_the_bound_of_the_largest_difference(reference_size: int, size: int) -> None:
    rng = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    bound = largest_difference_bound(np.full(10, reference_size // 10), size, 0.01)
    before = rng.multinomial(reference_size, shares, 4000) / reference_size
    off = np.abs(before - rng.multinomial(size, shares, 4000) / size).max(axis=1)
    assert 0.001 < (off > bound).mean() < 0.02


@pytest.mark.parametrize("size", [50, 200, 1000])
def test_traffic_like_split_test_is_in_order(size: int) -> None:
    against = reference()
    for seed in range(20):
        checks = judged(images_of(size, 100 + seed), answers_to(size, 100 + seed), against)
        assert not [check for check in checks.values() if check.drifts]


def filtered(images: Images, change: Callable[..., npt.NDArray[np.float64]], *arguments: object) -> Images:
    return np.stack([change(image[..., 0], *arguments) for image in images])[..., np.newaxis].astype(np.uint8)


CHANGES: dict[str, tuple[Callable[[Images], Images], str]] = {
    "inverted": (lambda images: 255 - images, "layout"),
    "shifted": (lambda images: np.pad(images, ((0, 0), (0, 0), (8, 0), (0, 0)))[:, :, :28], "layout"),
    "brighter": (lambda images: np.minimum(images, 215) + np.uint8(40), "brightness"),
    "flat": (lambda images: (images // 4 + 90).astype(np.uint8), "contrast"),
    "noisy": (lambda images: images ^ np.random.default_rng(3).integers(0, 64, images.shape, np.uint8), "sharpness"),
    "blurred": (lambda images: filtered(images, scipy.ndimage.uniform_filter, 5), "sharpness"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_done_to_the_images_is_seen(name: str) -> None:
    """With the answers as before, so that nothing else tells."""
    change, by = CHANGES[name]
    checks = judged(change(images_of(100, 2)), answers_to(100, 2), reference())
    assert checks[by].drifts and not checks[CONFIDENCE].drifts


def test_mirrored_images_are_seen_by_which_way_their_edges_run() -> None:
    """Strokes that lean to one side, as those of handwriting do."""
    y, x = np.mgrid[:28, :28]
    slopes = np.random.default_rng(0).uniform(0.5, 2, (400, 1, 1))
    images = (127 + 120 * np.sin((y + slopes * x) / 3)).astype(np.uint8)[..., np.newaxis]
    answers = answers_to(400, 1)
    against = Reference.of(images, answers, CLASS_NAMES)
    mirrored = images[:, :, ::-1]
    assert judged(mirrored, answers, against)["direction"].drifts
    assert not judged(images, answers, against)["direction"].drifts
    for some, sign in ((images, 1), (mirrored, -1), (images.swapaxes(1, 2), 1)):
        directions = sign * measure(some, answers, against.layout)["direction"]
        assert directions.min() > 0.5 and directions.max() <= 1


def test_what_the_model_answers_otherwise_is_seen() -> None:
    images, against = images_of(100, 2), reference()
    usual = answers_to(100, 2)
    one_class = judged(images, usual[:1].repeat(100, axis=0), against)
    assert one_class["classes"].drifts and one_class["classes"].value > 0.5
    tired = usual**0.2 / (usual**0.2).sum(axis=1, keepdims=True)
    unsure = judged(images, tired, against)
    assert {name for name, check in unsure.items() if check.drifts} >= {"confidence", "entropy", "low confidence"}
    assert not unsure["classes"].drifts and not unsure["layout"].drifts


def test_confidence_where_most_answers_are_certain() -> None:
    """The last digits of floats, which differ by hardware and batch, are nobody's drift."""
    rng = np.random.default_rng(1)
    certain = 1 - rng.exponential(1e-7, 1000)
    certain[:50] = rng.uniform(0.4, 0.9, 50)
    histogram = Histogram.of(certain, CONFIDENCE)
    elsewhere = certain - rng.uniform(0, 1e-6, 1000)
    assert np.array_equal(histogram.count(elsewhere), histogram.counts)


def test_the_reference_comes_back_from_its_file() -> None:
    made = reference(300)
    text = json.dumps(made.as_json())
    read = Reference.from_json(json.loads(text))
    assert read.class_names == CLASS_NAMES and read.images == 300 and read.image_shape == (28, 28, 1)
    assert made.less_confident(0.5) == read.less_confident(0.5) == int((answers_to(300, 1).max(axis=1) < 0.5).sum())
    images, probabilities = images_of(80, 4), answers_to(80, 4)
    assert judged(images, probabilities, read) == judged(images, probabilities, made)
    assert set(read.histograms) == set(MEASURES) and len(text) < 10_000


@pytest.mark.parametrize("turned", [0, 100, 400])
def test_any_mix_of_what_split_test_has_is_in_order_and_nothing_else(turned: int) -> None:
    """Where data were added, requests bring old and new images in other shares than split test has them."""
    old, new = images_of(3000, 1), 255 - images_of(300, 2)
    answers = answers_to(3300, 1)
    whole = Reference.of(np.concatenate([old, new]), answers, CLASS_NAMES)
    parts = [
        whole.of_others(measure(images, answered, whole.layout), answered.argmax(axis=1))
        for images, answered in ((old, answers[:3000]), (new, answers[3000:]))
    ]

    def checked(images: Images) -> dict[str, Check]:
        probabilities = answers_to(len(images), 5)
        mixed = mix(parts, measure(images, probabilities, whole.layout), probabilities.argmax(axis=1))
        return judged(images, probabilities, mixed)

    asked = np.concatenate([images_of(400, 3)[turned:], 255 - images_of(400, 4)[:turned]])
    assert not any(check.drifts for check in checked(asked).values())
    noise = np.random.default_rng(0).integers(0, 256, (400, 28, 28, 1), np.uint8)
    assert {name for name, check in checked(noise).items() if check.drifts} >= {"contrast", "sharpness"}


def test_colour_images_of_another_size_are_measured() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 5, 37, 3), np.uint8)
    against = Reference.of(images, answers_to(60, 0), CLASS_NAMES)
    assert not any(check.drifts for check in judged(images, answers_to(60, 0), against).values())
    dark = {name for name, check in judged(images // 4, answers_to(60, 0), against).items() if check.drifts}
    assert dark >= {"brightness", "contrast"} and CONFIDENCE not in dark
    assert distances.LEAST_EXPECTED == 10
