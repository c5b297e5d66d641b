"""Numbers, times and long names in words, as the pages show them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

UNKNOWN = "\N{EN DASH}"
MANY_CLASSES = 30  # beyond which a page has no room for a row, or a column, of each
_MINUS = "\N{MINUS SIGN}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share, such as 0.8978, as `89.78%`."""
    if share is None:
        return UNKNOWN
    return f"{100 * share:.{digits}f}%" if math.isfinite(share) else str(share)


def bound(share: float) -> str:
    """A bound, with no more decimals than it has: 0.65 as `65%`."""
    return f"{100 * share:.4f}".rstrip("0").rstrip(".") + "%"


def number(value: float | None, digits: int = 4) -> str:
    """A measured value with a fixed number of decimals."""
    return UNKNOWN if value is None else f"{value:.{digits}f}".replace("-", _MINUS)


def general(value: float | None) -> str:
    """A value of any magnitude, such as a learning rate, in four digits."""
    return UNKNOWN if value is None else f"{value:.4g}".replace("-", _MINUS)


def points(difference: float | None, digits: int = 2) -> str:
    """A difference of two shares, in percentage points, with its sign."""
    return change(None if difference is None else 100 * difference, digits)


def change(difference: float | None, digits: int = 4) -> str:
    """A difference of two measured values, with its sign."""
    if difference is None:
        return UNKNOWN
    rounded = round(difference, digits)
    return f"{rounded:+.{digits}f}".replace("-", _MINUS) if rounded else f"±{0:.{digits}f}"


def count(value: float | None) -> str:
    """A whole number, its thousands apart."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def shape(sizes: Sequence[int | None]) -> str:
    """Of a tensor; N is a size that varies."""
    return f"[{', '.join('N' if size is None else str(size) for size in sizes)}]"


def seconds(duration: float | None) -> str:
    """A duration, as precise as its length calls for."""
    if duration is None or not math.isfinite(duration):
        return UNKNOWN
    if duration < 0.0995:
        return f"{1000 * duration:.0f} ms"
    if duration < 120:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size(number_of_bytes: float) -> str:
    """Bytes in the largest decimal unit that leaves at least 1."""
    for unit in ("bytes", "kB", "MB"):
        if number_of_bytes < 1000:
            return f"{number_of_bytes:.0f} {unit}" if unit == "bytes" else f"{number_of_bytes:.1f} {unit}"
        number_of_bytes /= 1000
    return f"{number_of_bytes:.1f} GB"


def moment(time: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else UNKNOWN


def shorten(text: str, most: int) -> str:
    """At most `most` characters of a name, for where a chart has no more room: one line of what can be printed."""
    text = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def plain(text: str) -> str:
    """One line of Markdown that says this and nothing else (CommonMark 0.31, section 2.4)."""
    return re.sub(r"[\\`*_{}\[\]<>()#|&~]", r"\\\g<0>", " ".join(text.split()))


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each setting of a recipe as its dotted name and its value, as TOML and `--set` write them."""
    for key, value in settings.items():
        name = prefix + (key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False))
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        else:
            yield name, json.dumps(value, ensure_ascii=False, default=str)
