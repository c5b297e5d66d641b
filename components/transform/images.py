"""From an image file as people have them to the pixels that the classifier sees: one graph for data and requests.

ExampleGen makes the Examples with it and the exported model answers signature `encoded_images` with it, so that a file
means the same pixels in training and in serving.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

MAX_PIXEL = 255.0
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG and Pillow weigh red, green and blue
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_EXIF = tuple(b"Exif\0\0")
_EXIF_REACH = 1 << 16  # bytes; the segment that holds Exif comes first or second, and is no longer than this
_ORIENTATION_TAG = 0x0112


def fit_images(encoded: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Decodes PNG, JPEG, BMP or GIF images (the first frame) of any size and fits them to one.

    A JPEG is turned upright as its Exif data say, what is transparent becomes white (black in a GIF), 16 bits become 8,
    colour becomes grey or grey colour, and the whole is resized with an area filter, whatever its proportions. An image
    that has `image_shape` already stays as it is. Of a BMP with a palette, the colours' numbers are taken for grey.

    Args:
        encoded: string [N].
        image_shape: height, width, channels (1: grey, 3: red, green, blue).

    Returns:
        uint8 [N, height, width, channels].

    Raises:
        tf.errors.InvalidArgumentError: when run, if one cannot be decoded.
    """
    return tf.map_fn(
        lambda one: fit_image(one, image_shape),
        encoded,
        fn_output_signature=tf.TensorSpec(image_shape, tf.uint8),
    )


def fit_image(encoded: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """`fit_images` for one image: a string to uint8 [height, width, channels]."""
    height, width, channels = image_shape
    decoded = tf.io.decode_image(encoded, channels=0, expand_animations=False)
    upright = _upright(_opaque(decoded, encoded), _orientation(encoded))
    # Colours last: the image is small by then.
    resized = _with_channels(tf.image.resize(upright, [height, width], method="area"), channels)
    return tf.ensure_shape(tf.saturate_cast(tf.round(resized), tf.uint8), image_shape)


def image_fitter(image_shape: tuple[int, int, int]) -> Callable[[tf.Tensor], tf.Tensor]:
    """`fit_image` to one size as a graph, for images that come one at a time."""
    return tf.function(lambda one: fit_image(one, image_shape), [tf.TensorSpec([], tf.string)], autograph=False)


def content_digest(pixels: npt.NDArray[np.uint8]) -> str:
    """Names an image, uint8 [height, width, channels], by what it shows: its SHA-256 in hex, whatever its file was."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _begins_with(encoded: tf.Tensor, mark: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(mark)), mark)


def _opaque(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """uint8 [h, w, 1 to 4] to [h, w, 1 or 3], on white. A BMP's fourth byte is mostly unused, and left out."""
    depth = tf.shape(pixels)[2]
    colours = pixels[:, :, : tf.where(depth >= 3, 3, 1)]

    def on_white() -> tf.Tensor:
        alpha = tf.cast(pixels[:, :, depth - 1 :], tf.float32) / MAX_PIXEL
        return tf.cast(tf.round(tf.cast(colours, tf.float32) * alpha + MAX_PIXEL * (1.0 - alpha)), tf.uint8)

    return tf.cond((depth % 2 == 0) & _begins_with(encoded, _PNG), on_white, lambda: colours)


def _with_channels(colours: tf.Tensor, channels: int) -> tf.Tensor:
    """float32 [h, w, 1 or 3] to [h, w, channels]."""
    if channels == 3:
        return tf.broadcast_to(colours, tf.concat([tf.shape(colours)[:2], [3]], 0))
    is_grey = tf.equal(tf.shape(colours)[2], 1)
    return tf.cond(is_grey, lambda: colours, lambda: tf.reduce_sum(colours * _LUMA, axis=2, keepdims=True))


def _upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes what the camera was turned by (Exif 2.3, section 4.6.4, tag Orientation; 1 is upright)."""

    def turned() -> tf.Tensor:
        image = _where(pixels, orientation >= 5, lambda image: tf.transpose(image, [1, 0, 2]))
        image = _where(image, _is_one_of(orientation, 2, 3, 6, 7), lambda image: tf.reverse(image, [1]))
        return _where(image, _is_one_of(orientation, 3, 4, 7, 8), lambda image: tf.reverse(image, [0]))

    return tf.cond(tf.equal(orientation, 1), lambda: pixels, turned)


def _where(image: tf.Tensor, condition: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    return tf.cond(condition, lambda: change(image), lambda: image)


def _is_one_of(value: tf.Tensor, *values: int) -> tf.Tensor:
    return tf.reduce_any(tf.equal(value, values))


def _orientation(encoded: tf.Tensor) -> tf.Tensor:
    """What an image file says of it, 1 to 8, int32; 1 where it says nothing, or nothing that can be."""
    return tf.cond(_begins_with(encoded, _JPEG), lambda: _exif_orientation(encoded), lambda: 1)


def _exif_orientation(jpeg: tf.Tensor) -> tf.Tensor:
    """Looks the tag up in the first directory (IFD0) of the TIFF structure after `Exif` (TIFF 6.0, section 2)."""
    content = tf.cast(tf.io.decode_raw(tf.strings.substr(jpeg, 0, _EXIF_REACH), tf.uint8), tf.int32)
    starts = tf.maximum(tf.size(content) - len(_EXIF) + 1, 0)
    found = tf.where(tf.reduce_all([tf.equal(content[i : starts + i], byte) for i, byte in enumerate(_EXIF)], axis=0))

    def look_up() -> tf.Tensor:
        # Numbers past the end are read as 0, which is no tag.
        tiff = tf.pad(content[tf.cast(found[0, 0], tf.int32) + len(_EXIF) :], [[0, 12]])
        is_little = tf.equal(tiff[0], ord("I"))

        def number(at: tf.Tensor, size: int) -> tf.Tensor:
            places = at[..., tf.newaxis] + tf.range(size)
            read = tf.gather(tiff, tf.clip_by_value(places, 0, tf.size(tiff) - 1))
            digits = tf.where(is_little, read, tf.reverse(read, [-1]))
            return tf.reduce_sum(digits * [256**i for i in range(size)], axis=-1)

        # The high half of the offset is 0 in any directory within reach.
        directory = number(tf.where(is_little, 4, 6), 2)
        entries = directory + 2 + 12 * tf.range(number(directory, 2))
        entries = tf.boolean_mask(entries, entries + 12 <= tf.size(tiff))
        entries = tf.boolean_mask(entries, tf.equal(number(entries, 2), _ORIENTATION_TAG))
        value = tf.reduce_sum(number(entries[:1] + 8, 2))
        return tf.where((value >= 1) & (value <= 8), value, 1)

    return tf.cond(tf.size(found) > 0, look_up, lambda: 1)
