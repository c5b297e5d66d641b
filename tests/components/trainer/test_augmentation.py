"""Augmentation, measured on images whose pixels tell where they came from, and compared with NumPy and SciPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from scipy import ndimage

from mnist_tfx.components.settings import AugmentationSettings
from mnist_tfx.components.trainer.augmentation import augment, interpolate

Floats = npt.NDArray[np.floating[Any]]

HEIGHT, WIDTH = 21, 31
CENTRE = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])
SEED = np.array([3, 4], np.int64)
ALL_ON = AugmentationSettings(flip=True, shift=3.0, rotation=20.0, scale=0.2, shear=15.0, elastic=2.0)


def random_images(count: int = 50, channels: int = 1) -> npt.NDArray[np.uint8]:
    """uint8 [count, 21, 31, channels]: not square, so that height and width cannot be mixed up."""
    return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, channels), dtype=np.uint8)


def augmented(images: npt.NDArray[np.uint8], seed: npt.NDArray[np.int64] = SEED, **settings: Any) -> Floats:
    """The images after `settings`."""
    return np.asarray(augment(tf.constant(images), AugmentationSettings(**settings), tf.constant(seed)))


def places(count: int, height: int = HEIGHT, width: int = WIDTH, **settings: Any) -> tuple[Floats, npt.NDArray[Any]]:
    """Where each pixel of the new images came from in the old ones.

    Seen on images that show the coordinates themselves, which bilinear interpolation does not change.

    Returns:
        places float64 [count, height, width, 2] (y, x), and whether they lie within the old image.
    """
    y, x = np.indices((height, width))
    image = np.stack([y, x, np.full_like(y, 255)], axis=-1).astype(np.uint8)
    found = augmented(np.repeat(image[np.newaxis], count, axis=0), **settings).astype(np.float64)
    return found[..., :2], found[..., 2] > 254.99


def affine_maps(count: int, **settings: Any) -> tuple[Floats, Floats]:
    """The affine maps, from a new image's pixel to a place in the old one: matrix [count, 2, 2], offset [count, 2].

    The offset is that of the centre.
    """
    found, within = places(count, **settings)
    pixels = np.moveaxis(np.indices((HEIGHT, WIDTH)), 0, -1) - CENTRE
    matrices, offsets = [], []
    for one, inside in zip(found, within, strict=True):
        known = np.column_stack([pixels[inside], np.ones(inside.sum())])
        solution, *_ = np.linalg.lstsq(known, one[inside] - CENTRE, rcond=None)
        np.testing.assert_allclose(known @ solution, one[inside] - CENTRE, atol=1e-3)  # it is affine
        matrices.append(solution[:2].T)
        offsets.append(solution[2])
    return np.stack(matrices), np.stack(offsets)


def assert_uniform(values: Floats, low: float, high: float) -> None:
    """As far as the extremes, the mean and the deviation of a sample tell."""
    assert low - 1e-3 <= values.min() and values.max() <= high + 1e-3
    span = high - low
    assert values.min() < low + 0.05 * span and values.max() > high - 0.05 * span
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.1 * span)
    assert values.std() == pytest.approx(span / math.sqrt(12), rel=0.15)


def test_with_everything_off_the_pixels_stay_as_they_are() -> None:
    images = random_images(channels=3)
    changed = augmented(images)
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(changed, images)


def test_flips_mirror_half_of_the_images_exactly() -> None:
    images = random_images(1000)
    changed = augmented(images, flip=True)
    mirrored = (changed == images[:, :, ::-1]).all(axis=(1, 2, 3))
    as_it_was = (changed == images).all(axis=(1, 2, 3))
    assert (mirrored ^ as_it_was).all()
    assert 0.45 < mirrored.mean() < 0.55


def test_interpolation_is_bilinear_and_0_outside() -> None:
    images = random_images(4, channels=2)
    rng = np.random.default_rng(1)
    at = rng.uniform([-6, -6], [HEIGHT + 5, WIDTH + 5], (4, HEIGHT * WIDTH, 2)).astype(np.float32)
    at[:, :HEIGHT] = np.round(at[:, :HEIGHT])  # some on pixels
    expected = np.zeros((4, HEIGHT * WIDTH, 2))
    for image, points, values in zip(images, at, expected, strict=True):
        for index, (y, x) in enumerate(points):
            for row in (math.floor(y), math.floor(y) + 1):
                for column in (math.floor(x), math.floor(x) + 1):
                    if 0 <= row < HEIGHT and 0 <= column < WIDTH:
                        values[index] += (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column]
    outside = (at < -1).any(axis=2) | (at[..., 0] > HEIGHT) | (at[..., 1] > WIDTH)
    assert 0.1 < outside.mean() < 0.9 and (expected[outside] == 0).all()
    answer = interpolate(tf.constant(images), tf.constant(np.moveaxis(at, 2, 1)))
    np.testing.assert_allclose(answer, expected.reshape(4, HEIGHT, WIDTH, 2), atol=2e-3)


def test_a_shift_moves_both_axes_as_far_as_it_says() -> None:
    matrices, offsets = affine_maps(300, shift=3.0)
    np.testing.assert_allclose(matrices, np.repeat(np.eye(2)[np.newaxis], 300, axis=0), atol=1e-4)
    assert_uniform(offsets[:, 0], -3, 3)
    assert_uniform(offsets[:, 1], -3, 3)
    assert abs(np.corrcoef(offsets[:, 0], offsets[:, 1])[0, 1]) < 0.15


def test_a_shifted_point_keeps_its_brightness() -> None:
    images = np.zeros((50, HEIGHT, WIDTH, 1), np.uint8)
    images[:, 10, 15] = 200
    changed = augmented(images, shift=3.0)
    np.testing.assert_allclose(changed.sum(axis=(1, 2, 3)), 200, rtol=1e-4)


def test_a_rotation_turns_around_the_centre() -> None:
    matrices, offsets = affine_maps(300, rotation=30.0)
    np.testing.assert_allclose(offsets, 0, atol=1e-3)
    np.testing.assert_allclose(matrices @ np.swapaxes(matrices, 1, 2), np.eye(2) + 0 * matrices, atol=1e-3)
    assert (np.linalg.det(matrices) > 0).all()  # nothing is mirrored
    assert_uniform(np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0])), -30, 30)


def test_a_scale_stretches_each_axis_by_itself() -> None:
    matrices, offsets = affine_maps(300, scale=0.2)
    np.testing.assert_allclose(offsets, 0, atol=1e-3)
    np.testing.assert_allclose(matrices[:, [0, 1], [1, 0]], 0, atol=1e-4)
    assert_uniform(matrices[:, 0, 0], 0.8, 1.2)
    assert_uniform(matrices[:, 1, 1], 0.8, 1.2)
    assert abs(np.corrcoef(matrices[:, 0, 0], matrices[:, 1, 1])[0, 1]) < 0.15


def test_a_shear_slants_the_columns() -> None:
    matrices, offsets = affine_maps(300, shear=25.0)
    np.testing.assert_allclose(offsets, 0, atol=1e-3)
    np.testing.assert_allclose(matrices[:, [0, 1, 0], [0, 1, 1]], [[1, 1, 0]] * 300, atol=1e-4)
    assert_uniform(np.degrees(np.arctan(matrices[:, 1, 0])), -25, 25)


def test_affine_maps_do_to_an_image_what_scipy_does() -> None:
    settings: dict[str, Any] = {"shift": 2.0, "rotation": 20.0, "scale": 0.1, "shear": 10.0}
    images = random_images(20)
    matrices, offsets = affine_maps(20, **settings)  # the same seed gives the same maps
    for image, changed, matrix, offset in zip(images, augmented(images, **settings), matrices, offsets, strict=True):
        expected = ndimage.affine_transform(
            image[..., 0].astype(np.float64),
            matrix,
            CENTRE + offset - matrix @ CENTRE,
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(changed[..., 0], expected, atol=0.5)


def test_elastic_displacements_are_smooth_and_as_large_as_asked() -> None:
    size, margin, smoothness = 48, 8, 4.0
    found, within = places(250, size, size, elastic=1.5, elastic_smoothness=smoothness)
    displaced = found - np.moveaxis(np.indices((size, size)), 0, -1)
    inner = displaced[:, margin:-margin, margin:-margin]
    assert within[:, margin:-margin, margin:-margin].all()
    assert inner.mean() == pytest.approx(0, abs=0.1)
    assert inner.std() == pytest.approx(1.5, rel=0.05)
    np.testing.assert_allclose(inner.std(axis=0), 1.5, rtol=0.25)  # everywhere

    def correlation(first: Floats, second: Floats) -> float:
        return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])

    # What a bump of deviation s leaves of the correlation at distance d is exp(-d^2 / 4 s^2).
    for distance in (1, 4, 8, 16):
        expected = math.exp(-(distance**2) / (4 * smoothness**2))
        assert correlation(inner[:, distance:], inner[:, :-distance]) == pytest.approx(expected, abs=0.08)
        assert correlation(inner[:, :, distance:], inner[:, :, :-distance]) == pytest.approx(expected, abs=0.08)
    assert abs(correlation(inner[..., 0], inner[..., 1])) < 0.1
    assert abs(correlation(inner[:-1], inner[1:])) < 0.1  # from image to image


def test_elastic_displacements_have_their_size_at_the_edges_too() -> None:
    # Seen on one pixel in the corner, whose displacement inward leaves it within the image.
    found, within = places(2000, 12, 12, elastic=0.5, elastic_smoothness=5.0)
    corner = found[:, 0, 0][within[:, 0, 0]]
    assert 400 < len(corner) < 600  # both axes inward: a quarter
    assert np.sqrt((corner**2).mean()) == pytest.approx(0.5, rel=0.1)


def test_the_seed_decides() -> None:
    images = random_images()
    settings = ALL_ON.model_dump()
    first = augmented(images, **settings)
    np.testing.assert_array_equal(first, augmented(images, **settings))
    for other in ([4, 4], [3, 5]):
        assert not np.allclose(first, augmented(images, seed=np.array(other, np.int64), **settings))


def test_images_are_the_same_eagerly_and_in_tf_data_with_several_threads() -> None:
    images = random_images(200)

    def batch(number: tf.Tensor) -> tf.Tensor:
        chosen = tf.gather(images, tf.range(number * 20, (number + 1) * 20))
        return augment(
            tf.ensure_shape(chosen, (None, HEIGHT, WIDTH, 1)), ALL_ON, tf.stack([tf.constant(7, tf.int64), number])
        )

    data = tf.data.Dataset.range(10).map(batch, num_parallel_calls=4)
    first, second = (np.concatenate(list(data.as_numpy_iterator())) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    eager = np.concatenate([batch(tf.constant(number, tf.int64)) for number in range(10)])
    np.testing.assert_allclose(first, eager, atol=0.05)


def test_values_stay_between_black_and_white() -> None:
    images = np.concatenate([random_images(200), np.full((50, HEIGHT, WIDTH, 1), 255, np.uint8)])
    changed = augmented(images, **ALL_ON.model_dump())
    assert np.isfinite(changed).all()
    assert changed.min() >= 0 and changed.max() <= 255.001
    assert changed[200:].max() > 254 and changed[200:].min() == 0  # what comes in from outside is background


def test_each_image_of_a_batch_is_changed_in_its_own_way() -> None:
    one = np.repeat(random_images(1), 30, axis=0)
    changed = augmented(one, **ALL_ON.model_dump())
    assert len({image.tobytes() for image in changed}) == 30


def test_no_images_become_no_images() -> None:
    assert augmented(random_images(0), **ALL_ON.model_dump()).shape == (0, HEIGHT, WIDTH, 1)
