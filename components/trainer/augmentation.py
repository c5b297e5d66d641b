"""Random changes of training images, a whole batch at a time: flip, shift, rotation, scale, shear, elastic.

They belong to the Trainer's reading of split train, never to `preprocessing_fn`, which would also change requests.
Everything is a function of the seed: the same seed gives the same images, on any number of threads.

All geometry is one map from a pixel of the new image to a place in the old one, and one bilinear interpolation there.
What lies outside the old image is 0, the background of the MNIST family. The elastic displacement follows Simard,
Steinkraus and Platt (2003); instead of smoothing one random vector per pixel it adds smooth bumps on a coarse grid with
random weights, which is one matrix product for the batch.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_tfx.components.settings import AugmentationSettings


def augment(images: tf.Tensor, settings: AugmentationSettings, seed: tf.Tensor) -> tf.Tensor:
    """Changes each image of a batch at random.

    In a graph, XLA compiles what moves pixels: a second for each size of batch, then a sixth of the time.

    Args:
        images: uint8 [N, height, width, channels].
        settings: what to change, and how far. Mixup is not done here: it needs the targets, too.
        seed: int32 [2].

    Returns:
        float32 [N, height, width, channels] of values in [0, 255].
    """
    count, (height, width, _) = tf.shape(images)[0], images.shape[1:]
    seeds = tf.random.split(seed, 3)
    if settings.flip:
        mirrored = tf.random.stateless_uniform([count, 1, 1, 1], seeds[0]) < 0.5
        images = tf.where(mirrored, tf.reverse(images, [2]), images)
    if not moves_pixels(settings):
        return tf.cast(images, tf.float32)
    # Drawn here, as XLA would draw other numbers from the same seed.
    affine = tf.random.stateless_uniform([6, count, 1], seeds[1], -1.0, 1.0)
    elastic = None
    if settings.elastic:
        bumps = _bumps(height, width, settings.elastic_smoothness)
        elastic = tf.random.stateless_normal([count * 2, len(bumps)], seeds[2]), bumps
    move = _move if tf.executing_eagerly() else tf.function(_move, autograph=False, jit_compile=True)
    return move(images, settings, affine, elastic)


def _move(
    images: tf.Tensor, settings: AugmentationSettings, affine: tf.Tensor, elastic: tuple[tf.Tensor, tf.Tensor] | None
) -> tf.Tensor:
    """Moves pixels by affine maps, drawn as [6, N, 1], and by weights, [2 N, bumps], of elastic bumps."""
    _, height, width, _ = images.shape
    places = _affine(height, width, settings, affine)
    if elastic is not None:
        weights, bumps = elastic
        places += settings.elastic * tf.reshape(weights @ bumps, [-1, 2, height * width])
    return interpolate(images, places)


def moves_pixels(settings: AugmentationSettings) -> bool:
    """Whether there is anything to do but flip and mixup."""
    return any((settings.shift, settings.rotation, settings.scale, settings.shear, settings.elastic))


def interpolate(images: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """The images' values at given places, between pixels bilinearly, 0 outside.

    Args:
        images: [N, height, width, channels], any number type.
        places: float32 [N, 2, height * width], y and x in pixels, from the centre of the image's first pixel.

    Returns:
        float32 [N, height, width, channels].
    """
    count, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    framed = tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]])  # so that every place has four neighbours
    framed_height, framed_width = height + 3, width + 3
    pixels = tf.reshape(tf.cast(framed, tf.float32), [-1, channels])
    y = tf.clip_by_value(places[:, 0] + 1.0, 0.0, height + 1.0)
    x = tf.clip_by_value(places[:, 1] + 1.0, 0.0, width + 1.0)
    top, left = tf.floor(y), tf.floor(x)
    down, right = (y - top)[..., tf.newaxis], (x - left)[..., tf.newaxis]
    first = tf.range(count)[:, tf.newaxis] * (framed_height * framed_width)
    corner = first + tf.cast(top, tf.int32) * framed_width + tf.cast(left, tf.int32)
    upper = tf.gather(pixels, corner) * (1.0 - right) + tf.gather(pixels, corner + 1) * right
    corner += framed_width
    lower = tf.gather(pixels, corner) * (1.0 - right) + tf.gather(pixels, corner + 1) * right
    return tf.reshape(upper * (1.0 - down) + lower * down, [count, height, width, channels])


def _affine(height: int, width: int, settings: AugmentationSettings, draws: tf.Tensor) -> tf.Tensor:
    """Places, float32 [N, 2, height * width], under affine maps around the image's centre; draws are [6, N, 1]."""
    angle, shear, scale_y, scale_x, shift_y, shift_x = tf.unstack(draws)
    angle *= math.radians(settings.rotation)
    slope = tf.tan(shear * math.radians(settings.shear))
    scale_y, scale_x = 1.0 + scale_y * settings.scale, 1.0 + scale_x * settings.scale
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    grid_y, grid_x = np.indices((height, width), np.float32).reshape(2, 1, -1)
    y, x = (grid_y - centre_y) * scale_y, (grid_x - centre_x) * scale_x
    x += slope * y
    turned_y = tf.cos(angle) * y + tf.sin(angle) * x + centre_y + shift_y * settings.shift
    turned_x = tf.cos(angle) * x - tf.sin(angle) * y + centre_x + shift_x * settings.shift
    return tf.stack([turned_y, turned_x], axis=1)


def _bumps(height: int, width: int, smoothness: float) -> npt.NDArray[np.float32]:
    """Gaussian bumps on a grid as fine as they are wide: [bumps, height * width], squares summing to 1 per pixel.

    Standard normal weights of them make displacements whose standard deviation is 1 pixel everywhere.
    """
    ys, xs = (np.arange(-smoothness, size + smoothness, smoothness) for size in (height, width))
    pixels_y, pixels_x = np.indices((height, width)).reshape(2, 1, -1)
    centres_y, centres_x = (grid.reshape(-1, 1) for grid in np.meshgrid(ys, xs, indexing="ij"))
    distance = (pixels_y - centres_y) ** 2 + (pixels_x - centres_x) ** 2
    bumps = np.exp(-distance / (2 * smoothness**2))
    normalized: npt.NDArray[np.float32] = (bumps / np.sqrt((bumps**2).sum(axis=0))).astype(np.float32)
    return normalized
