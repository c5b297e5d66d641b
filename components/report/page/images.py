"""Images in data URIs, a few hundred bytes for 28 x 28 pixels, and which classes are told beside one."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from mnist_tfx.components.report.content import Image, LookedAt

_LARGE = 2048  # bytes
_TOLD = 4  # most probable classes told of an example; its own class comes on top if it is not among them
_MIDDLE = 128  # the value of a filter's image that stands for weight 0
# Negative, zero, positive: vermilion and blue of Okabe & Ito, apart for colour-blind readers, too.
_NEGATIVE, _ZERO, _POSITIVE = (np.array(colour, float) for colour in ((213, 94, 0), (247, 247, 245), (0, 114, 178)))


def data_uri(image: Image, *, exact: bool = False) -> str:
    """An image [height, width, 1 or 3] as the address of an <img>.

    What is large as PNG, as photographs are, is WebP with losses that are hardly seen, unless it must be `exact`.
    """
    pixels = np.asarray(image, np.uint8)
    picture = PillowImage.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    kind, content = "png", _encoded(picture, "PNG", optimize=True)
    if len(content) > _LARGE and not exact:
        kind, content = "webp", _encoded(picture, "WEBP", quality=70)
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def _encoded(picture: PillowImage.Image, kind: str, **options: bool | int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def told_classes(item: LookedAt) -> list[int]:
    """The numbers of an example's most probable classes and of its own class, the most probable first."""
    order = sorted(range(len(item.probabilities)), key=lambda number: -item.probabilities[number])
    return order[:_TOLD] + [number for number in order[_TOLD:] if number == item.actual]


def weights_uri(image: Image) -> str:
    """A filter's image: negative weights in vermilion, positive ones in blue. A colour image stays as it is."""
    return data_uri(_diverging(image[:, :, 0]) if image.shape[2] == 1 else image)


def weights_scale_uri() -> str:
    """The colours of `weights_uri` from the most negative to the most positive weight, as a strip."""
    return data_uri(_diverging(np.arange(1, 256, 2).astype(np.uint8)[None, :]))


def matrix_uri(shares: npt.NDArray[np.float64]) -> str:
    """A confusion matrix, a pixel per pair: blue where right, vermilion where wrong, by the share of the true class."""
    right = np.eye(len(shares), dtype=bool)
    wrong = np.sqrt(shares / max(shares[~right].max(), 1e-9))  # single mistakes are seen, too
    signed = np.where(right, shares, -wrong)
    return data_uri(_diverging((_MIDDLE + (_MIDDLE - 1) * signed).round().astype(np.uint8)), exact=True)


def _diverging(values: npt.NDArray[np.uint8]) -> Image:
    signed = np.clip((values.astype(float) - _MIDDLE) / (_MIDDLE - 1), -1, 1)[:, :, None]
    ends = np.where(signed < 0, _NEGATIVE, _POSITIVE)
    return (_ZERO + np.abs(signed) * (ends - _ZERO)).round().astype(np.uint8)
