"""Which image files there are, and of which class and split they are said to be."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import EVAL, TEST, TRAIN

# What people call the splits' folders.
_SPLITS = {"train": TRAIN, "training": TRAIN, "test": TEST} | dict.fromkeys(
    ("val", "valid", "validation", "eval"), EVAL
)
_LEFT_BY_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx"}
_COLUMNS = ("file", "label")
# Unicode's categories Cc, Zl and Zp, and what turns the text behind it round, wherever the name is shown.
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class ImageSource:
    """Where the files are: `folder`, and the CSV file with columns file, label and perhaps split, if there is one."""

    folder: Path
    labels: Path | None = None


@dataclass(frozen=True)
class ListedImage:
    """A file, by its path from the source's folder; `split` is empty where nothing says which."""

    file: str
    class_name: str
    split: str


def list_images(source: ImageSource) -> Iterator[ListedImage]:
    """All files but the hidden ones, and those that file managers leave, in order of class and name.

    Raises:
        UsageError: there are no folders by class, or the CSV file is none or names no files.
    """
    if not source.folder.is_dir():
        raise UsageError(f"there is no folder {source.folder}.")
    images = _of_csv(source.labels) if source.labels else _of_folders(source.folder)
    first = next(images, None)
    if first is None:
        raise UsageError(
            f"{source.labels} names no files: it has no rows."
            if source.labels
            else f"{source.folder} holds no folders with files: it must have one folder for each class, named like the "
            "class, with its images inside; or folders train, val and test with such folders. Or name a CSV file with "
            "columns file and label: --csv FILE."
        )
    yield first
    yield from images


def listing_digest(source: ImageSource) -> str:
    """Changes where a file comes, goes or changes: SHA-256, in hex, over names, classes, sizes and times."""
    digest = hashlib.sha256()
    for image in list_images(source):
        try:
            stat = (source.folder / image.file).stat()
            seen = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            seen = (0, 0)
        digest.update(repr((image, seen)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _of_folders(place: Path) -> Iterator[ListedImage]:
    folders = _folders(place)
    splits = {folder: _SPLITS[folder.name.lower()] for folder in folders if folder.name.lower() in _SPLITS}
    if TRAIN not in splits.values() or len(splits) < len(folders):
        splits = {place: ""}
    for folder, split in splits.items():
        for class_folder in _folders(folder):
            name = _class_name(class_folder.name, str(class_folder))
            for path in _files(class_folder):
                yield ListedImage(str(path.relative_to(place)), name, split)


def _of_csv(path: Path) -> Iterator[ListedImage]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv_rows(file)
            if not set(_COLUMNS) <= set(rows.fieldnames or ()):
                raise UsageError(
                    f"{path} has the columns {', '.join(rows.fieldnames or ()) or '(none)'}; it must have file and "
                    "label, and may have split (train, val, test)."
                )
            for row in rows:
                at = f"{path}, line {rows.line_num}"
                name, label, given = ((row.get(column) or "").strip() for column in (*_COLUMNS, "split"))
                if given and given.lower() not in _SPLITS:
                    raise UsageError(f"{at}: split {given.lower()!r} is none of train, val and test.")
                if not name or not label:
                    raise UsageError(f"{at}: file or label is empty.")
                yield ListedImage(name, _class_name(label, at), _SPLITS.get(given.lower(), ""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path} as CSV in UTF-8: {error}.") from error


def csv_rows(file: TextIO) -> csv.DictReader[str]:
    """The rows of a CSV file that has just been opened; many spreadsheets write semicolons instead of commas."""
    first = file.readline()
    file.seek(0)
    return csv.DictReader(file, delimiter=";" if first.count(";") > first.count(",") else ",")


def _class_name(name: str, at: str) -> str:
    """Composed (NFC), as one and the same name comes decomposed from some file systems; without spaces around it.

    TFDS keeps the names as lines of a file, of which it takes off such spaces, and leaves out the empty ones.
    """
    kinds = {unicodedata.category(character) for character in name}
    if "Cs" in kinds:
        raise UsageError(f"{at!r}: a class cannot have a name that is not UTF-8.")
    if _NOT_IN_NAMES.search(name) or kinds <= {"Zs", "Cf"}:
        raise UsageError(
            f"{at!r}: a class cannot have a name with line breaks, control characters or signs that turn text round, "
            "or no text."
        )
    return unicodedata.normalize("NFC", name.strip())


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_listed(path.name))


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if is_listed(name))
        yield from (Path(root, name) for name in sorted(names) if is_listed(name))


def is_listed(name: str) -> bool:
    """Whether a file or folder of this name is data: not hidden, and not left by a file manager."""
    return not name.startswith(".") and name.lower() not in _LEFT_BY_SYSTEMS
