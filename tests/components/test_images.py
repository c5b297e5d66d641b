"""One function makes pixels of files, for training and for requests: held against Pillow's reading of them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mnist_tfx.components.transform.images import fit_image, fit_images

_HEIGHT, _WIDTH = 20, 30
_NOISE = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH, 4), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fitted(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """In a graph, as serving and ExampleGen run it."""
    function = tf.function(lambda one: fit_image(one, shape), autograph=False)
    return np.asarray(function(tf.constant(content)))


def photograph() -> Image.Image:
    """Smooth, so that JPEG's losses are small; different along both axes and in each colour."""
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    return Image.fromarray(np.stack([x * 8, y * 12, (x + y) * 5], axis=2).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_a_photograph_is_turned_upright_as_its_exif_data_say(orientation: int, byte_order: str) -> None:
    exif = Image.Exif()
    exif.endian = byte_order
    exif[0x010F] = "a maker whose name comes before the tag"
    exif[0x0112] = orientation
    content = encode(photograph(), "JPEG", quality=95, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    shape = (*upright.shape[:2], 3)
    assert (upright.shape[0] == _WIDTH) == (orientation >= 5)
    assert np.abs(fitted(content, shape).astype(int) - upright).max() <= 8  # two decoders of JPEG


def with_exif(spoil: Callable[[bytes], bytes]) -> bytes:
    """A photograph that lies on its side, as Exif data say that are spoilt."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(photograph(), "JPEG", exif=spoil(exif.tobytes()))


# They end with the orientation, in two bytes of four, and with four bytes that tell of no further directory.
@pytest.mark.parametrize(
    "spoil", [lambda exif: exif[:-7], lambda exif: exif[:14], lambda exif: exif[:10] + b"\xff" * (len(exif) - 10)]
)
def test_damaged_exif_data_turn_nothing(spoil: Callable[[bytes], bytes]) -> None:
    shape = (_HEIGHT, _WIDTH, 3)
    assert (fitted(with_exif(spoil), shape) == fitted(encode(photograph(), "JPEG"), shape)).all()


def test_exif_data_that_are_cut_after_the_orientation_turn_the_image() -> None:
    turned = fitted(with_exif(lambda exif: exif[:-1]), (_WIDTH, _HEIGHT, 3))
    assert (turned == np.rot90(fitted(encode(photograph(), "JPEG"), (_HEIGHT, _WIDTH, 3)), -1)).all()


def test_what_is_transparent_becomes_white() -> None:
    image = Image.fromarray(_NOISE, "RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert np.abs(fitted(encode(image), (_HEIGHT, _WIDTH, 3)).astype(int) - np.asarray(expected)).max() <= 1
    clear = image.copy()
    clear.putalpha(0)
    assert (fitted(encode(clear.convert("LA")), (_HEIGHT, _WIDTH, 1)) == 255).all()
    palette = Image.fromarray(_NOISE[..., 0], "L").convert("P")
    assert (fitted(encode(palette, transparency=bytes(256)), (_HEIGHT, _WIDTH, 3)) == 255).all()


def test_the_fourth_byte_of_a_bmp_is_not_its_opacity() -> None:
    image = Image.fromarray(np.dstack([_NOISE[..., :3], np.zeros((_HEIGHT, _WIDTH), np.uint8)]), "RGBA")
    assert (fitted(encode(image, "BMP"), (_HEIGHT, _WIDTH, 3)) == _NOISE[..., :3]).all()


def test_grey_colour_and_depth() -> None:
    colour = Image.fromarray(_NOISE[..., :3])
    grey = fitted(encode(colour), (_HEIGHT, _WIDTH, 1))[..., 0]
    assert np.abs(grey.astype(int) - np.asarray(colour.convert("L"))).max() <= 1
    one = Image.fromarray(_NOISE[..., 0])
    assert (fitted(encode(one), (_HEIGHT, _WIDTH, 3)) == _NOISE[..., :1]).all()
    deep = (_NOISE[..., 0].astype(np.uint16) << 8) + _NOISE[..., 1]
    assert (fitted(encode(Image.fromarray(deep)), (_HEIGHT, _WIDTH, 1))[..., 0] == _NOISE[..., 0]).all()


def test_an_image_of_the_right_shape_stays_as_it_is() -> None:
    assert (fitted(encode(Image.fromarray(_NOISE[..., :3])), (_HEIGHT, _WIDTH, 3)) == _NOISE[..., :3]).all()


def test_a_larger_image_is_averaged() -> None:
    content = encode(Image.fromarray(_NOISE[..., 0]))
    means = _NOISE[..., 0].reshape(10, 2, 10, 3).mean(axis=(1, 3))
    assert np.abs(fitted(content, (10, 10, 1))[..., 0] - means).max() <= 0.51


def test_batches_mix_kinds_and_sizes() -> None:
    contents = [encode(photograph(), kind) for kind in ("PNG", "JPEG", "BMP", "GIF")]
    contents.append(encode(photograph().resize((7, 5)).convert("LA")))
    batch = np.asarray(fit_images(tf.constant(contents), (8, 9, 3)))
    assert batch.shape == (5, 8, 9, 3)
    for content, image in zip(contents, batch, strict=True):
        assert (fitted(content, (8, 9, 3)) == image).all()


@pytest.mark.parametrize("content", [b"", b"no image", encode(photograph())[:-20], encode(photograph(), "JPEG")[:-200]])
def test_what_is_no_whole_image_is_refused(content: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        fitted(content, (8, 8, 3))
