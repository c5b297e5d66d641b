"""What becomes of each image file, decided in SQLite on the disk: memory does not grow with the number of files."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_tfx.components.datasets.images.listing import ListedImage
from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.contract.names import EVAL, TEST, TRAIN

# Of all images, where the source does not say which are in it.
TEST_SHARE = EVAL_SHARE = 0.1
# How many images of a class there must be before one of them goes into a split for which no content has been drawn.
_ENOUGH_FOR = {TEST: 2, EVAL: 3}
_HIGHEST = 0xFFFFFFFF  # of a digest's first eight hexadecimal digits, by which the split is drawn
# Of 64 bits of a perceptual hash. Hashes that differ in no more have one of four quarters in common.
_NEAR_BITS = 3
_COUNT_PROBLEMS = "SELECT COUNT(*) FROM images WHERE problem != ''"
_COLUMNS = ("file", "class", "split", "problem", "digest", "looks")


@dataclass(frozen=True)
class Finding:
    """What is seen of one file: its content's SHA-256 and perceptual hash, its size, and what is wrong with it."""

    number: int
    digest: str = ""
    looks: str = ""
    height: int = 0
    width: int = 0
    grey: bool = True
    problem: str = ""
    fitted: str = "[]"  # JSON: digests of its pixels, fitted to each size that a span has


@dataclass(frozen=True)
class Decided:
    """What became of the files: how many there were, how many are in each split, and how many are not, and why."""

    files: int
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    unreadable: int
    contradictory: int  # the same content under several classes
    duplicates: int  # the same content within one split
    duplicates_across_splits: int
    near_duplicates: int  # images that look like one of another split (see `_NEAR_BITS`); they are left in
    known: int = 0  # of a span: the data have them already; of the data: a span has them


class Index:
    """The files by number, from 1 on. It belongs to one process; others may read it."""

    def __init__(self, path: Path) -> None:
        """`path` is the SQLite file."""
        self.path = path

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            yield connection

    def fill(self, images: Iterable[ListedImage]) -> int:
        """Begins with these files; returns how many they are."""
        with self._open() as base:
            base.execute(
                "CREATE TABLE images (number INTEGER PRIMARY KEY, file TEXT, class TEXT, given TEXT, digest TEXT, "
                "looks TEXT, height INTEGER, width INTEGER, grey INTEGER, problem TEXT DEFAULT '', "
                "split TEXT DEFAULT '', twin INTEGER DEFAULT 0, fitted TEXT DEFAULT '[]')"
            )
            insert = "INSERT INTO images (file, class, given, problem) VALUES (?, ?, ?, ?)"
            return base.executemany(insert, map(_row, images)).rowcount

    def files(self, first: int, stop: int) -> list[tuple[int, str]]:
        """Numbers and files from `first` to before `stop`, of which nothing is wrong yet."""
        with self._open() as base:
            return base.execute(
                "SELECT number, file FROM images WHERE number >= ? AND number < ? AND problem = '' ORDER BY number",
                (first, stop),
            ).fetchall()

    def take(self, findings: Iterable[Finding]) -> None:
        """Notes what was seen."""
        with self._open() as base:
            base.executemany(
                "UPDATE images SET digest = :digest, looks = :looks, height = :height, width = :width, grey = :grey, "
                "problem = :problem, fitted = :fitted WHERE number = :number",
                (vars(finding) for finding in findings),
            )

    def decide(
        self,
        before: Iterable[tuple[str, str]] = (),
        *,
        known: Iterable[str] = (),
        alone: bool = True,
        with_test: bool = True,
    ) -> Decided:
        """Gives each good image its split, by content, so that it keeps it when others come.

        Args:
            before: digest and split of each content that had one in an earlier version of the data; it stays there.
            known: the digests of images that other spans have: they are left out.
            alone: whether the data can be trained on by themselves. Of what is added to others, a class may have few
                images or none.
            with_test: whether images are drawn for split test; those that the source puts there are there anyway.

        Raises:
            DataRejected: a class has too few images.
        """
        with self._open() as base:
            [files] = base.execute("SELECT COUNT(*) FROM images").fetchone()
            [unreadable] = base.execute(_COUNT_PROBLEMS).fetchone()
            contradictory = self._leave_out_contradictions(base)
            base.execute("CREATE INDEX content ON images (digest)")
            already = self._leave_out_known(base, known)
            self._draw(base, before, with_test)
            within, across = self._leave_out_duplicates(base)
            if alone:
                self._give_every_class_its_share(base)
            base.execute("CREATE INDEX place ON images (split, digest)")
            sizes = dict(base.execute("SELECT split, COUNT(*) FROM images WHERE split != '' GROUP BY split"))
            classes = [row[0] for row in base.execute("SELECT DISTINCT class FROM images WHERE split != ''")]
            near = self._count_near_duplicates(base)
        return Decided(files, tuple(sorted(classes)), sizes, unreadable, contradictory, within, across, near, already)

    @staticmethod
    def _leave_out_contradictions(base: sqlite3.Connection) -> int:
        return base.execute(
            "UPDATE images SET problem = 'the same image has other classes, too' WHERE problem = '' AND digest IN "
            "(SELECT digest FROM images WHERE problem = '' GROUP BY digest HAVING COUNT(DISTINCT class) > 1)"
        ).rowcount

    @staticmethod
    def _leave_out_known(base: sqlite3.Connection, known: Iterable[str]) -> int:
        base.execute("CREATE TEMP TABLE known (digest TEXT PRIMARY KEY)")
        base.executemany("INSERT OR IGNORE INTO known VALUES (?)", zip(known))
        return base.execute(
            "UPDATE images SET problem = 'the data have this image already' WHERE problem = '' AND "
            "(digest IN known OR EXISTS (SELECT 1 FROM json_each(fitted) WHERE value IN known))"
        ).rowcount

    @staticmethod
    def _draw(base: sqlite3.Connection, before: Iterable[tuple[str, str]], with_test: bool) -> None:
        base.execute("CREATE TEMP TABLE before (digest TEXT PRIMARY KEY, split TEXT) WITHOUT ROWID")
        base.executemany("INSERT OR REPLACE INTO before VALUES (?, ?)", before)
        given = {row[0] for row in base.execute("SELECT DISTINCT given FROM images WHERE problem = ''")}
        test_below = 0 if TEST in given or not with_test else TEST_SHARE * _HIGHEST
        eval_below = 0 if EVAL in given else (TEST_SHARE + EVAL_SHARE) * _HIGHEST

        def split(digest: str, said: str) -> str:
            drawn = int(digest[:8], 16)
            if said in (EVAL, TEST):
                return said
            return TEST if drawn < test_below else EVAL if TEST_SHARE * _HIGHEST <= drawn < eval_below else TRAIN

        base.create_function("drawn_split", 2, split, deterministic=True)
        base.execute(
            "UPDATE images SET split = COALESCE((SELECT split FROM before WHERE before.digest = images.digest), "
            "drawn_split(digest, given)) WHERE problem = ''"
        )

    @staticmethod
    def _leave_out_duplicates(base: sqlite3.Connection) -> tuple[int, int]:
        """Of equal images one stays: in split test if one is there, else in eval. How many go, within and across."""
        base.execute(
            "UPDATE images SET twin = (SELECT other.number FROM images AS other WHERE other.digest = images.digest "
            "AND other.split != '' ORDER BY other.split != ?, other.split != ?, other.number LIMIT 1) "
            "WHERE split != ''",
            (TEST, EVAL),
        )
        counts = dict(
            base.execute(
                "SELECT one.split != other.split, COUNT(*) FROM images AS one JOIN images AS other "
                "ON one.twin = other.number WHERE one.number != one.twin GROUP BY 1"
            )
        )
        base.execute(
            "UPDATE images SET split = '', problem = 'the same image as ' || "
            "(SELECT file FROM images AS other WHERE other.number = images.twin) WHERE twin NOT IN (0, number)"
        )
        return counts.get(0, 0), counts.get(1, 0)

    @staticmethod
    def _count_near_duplicates(base: sqlite3.Connection) -> int:
        base.create_function("bits", 2, lambda one, other: (int(one, 16) ^ int(other, 16)).bit_count())
        # Distinct ones: images of one colour are many, and have one hash.
        base.execute("CREATE TEMP TABLE hashes AS SELECT DISTINCT looks, split FROM images WHERE split != ''")
        base.execute("CREATE TEMP TABLE near (looks TEXT, split TEXT, UNIQUE (looks, split))")
        for first in range(1, 17, 4):
            quarter = f"substr(looks, {first}, 4)"
            base.execute(f"CREATE INDEX temp.quarter{first} ON hashes ({quarter})")
            base.execute(
                "INSERT OR IGNORE INTO near SELECT one.looks, one.split FROM hashes AS one JOIN hashes AS other "
                f"ON substr(one.looks, {first}, 4) = substr(other.looks, {first}, 4) AND one.split != other.split "
                f"WHERE bits(one.looks, other.looks) <= {_NEAR_BITS}"
            )
        [count] = base.execute("SELECT COUNT(*) FROM images JOIN near USING (looks, split)").fetchone()
        return int(count)

    @staticmethod
    def _give_every_class_its_share(base: sqlite3.Connection) -> None:
        """At least one image in train, in test, and in eval if there are three; the drawing alone would miss some."""
        given = {row[0] for row in base.execute("SELECT DISTINCT given FROM images WHERE split != ''")}
        sizes: dict[str, dict[str, int]] = {}
        for name, split, count in base.execute("SELECT class, split, COUNT(*) FROM images GROUP BY class, split"):
            sizes.setdefault(name, dict.fromkeys((TRAIN, EVAL, TEST), 0))[split] = count

        def move(name: str, source: str, target: str, order: str) -> None:
            base.execute(
                "UPDATE images SET split = ? WHERE number = (SELECT number FROM images WHERE class = ? AND split = ? "
                f"ORDER BY digest {order} LIMIT 1)",
                (target, name, source),
            )
            sizes[name][source] -= 1
            sizes[name][target] += 1

        few, untrained = [], []
        for name, of_class in sizes.items():
            of_class.pop("", None)  # left out
            total = sum(of_class.values())
            if total < 2:
                few.append(f"{name!r} ({total})")
                continue
            if not of_class[TRAIN]:
                if not given <= {"", TRAIN}:
                    untrained.append(repr(name))
                    continue
                move(name, max(of_class, key=of_class.__getitem__), TRAIN, "DESC")
            for split, enough in _ENOUGH_FOR.items():
                if not of_class[split] and split not in given and total >= enough and of_class[TRAIN] > 1:
                    move(name, TRAIN, split, "ASC")
        if few:
            raise DataRejected(
                f"a class needs two different images that can be read and that no span has, one to learn from and one "
                f"to be judged on; too few has {', '.join(few)}. Add images, or remove the class."
            )
        if untrained:
            raise DataRejected(f"no image to learn from has class {', '.join(untrained)}. Add some to split train.")

    def natural_shape(self) -> tuple[int, int, int]:
        """The size that all good images have, if it is one and small, else 64 x 64; grey only where all are."""
        with self._open() as base:
            sizes = base.execute("SELECT DISTINCT height, width FROM images WHERE split != '' LIMIT 2").fetchall()
            [all_grey] = base.execute("SELECT MIN(grey) FROM images WHERE split != ''").fetchone()
        height, width = sizes[0] if len(sizes) == 1 and max(sizes[0]) <= 64 else (64, 64)
        return height, width, 1 if all_grey else 3

    def split_of_files(self, split: str, first: int, count: int) -> list[tuple[str, str]]:
        """Files and classes of a split, in an order that is as good as random and changes little when others come."""
        with self._open() as base:
            return base.execute(
                "SELECT file, class FROM images WHERE split = ? ORDER BY digest LIMIT ? OFFSET ?", (split, count, first)
            ).fetchall()

    def count_problems(self) -> int:
        """How many files cannot be used, or not again."""
        with self._open() as base:
            return int(base.execute(_COUNT_PROBLEMS).fetchone()[0])

    def problems(self, most: int) -> list[tuple[str, str]]:
        """The first of these files, and why; those that cannot be read, which have no digest, before all others."""
        with self._open() as base:
            return base.execute(
                "SELECT file, problem FROM images WHERE problem != '' ORDER BY IFNULL(digest, '') != '', file LIMIT ?",
                (most,),
            ).fetchall()

    def write_csv(self, path: Path) -> None:
        """All files with what became of them; `looks` is a perceptual hash, nearly equal where images look alike."""
        with self._open() as base, open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(base.execute(f"SELECT {', '.join(_COLUMNS)} FROM images ORDER BY file"))


def _row(image: ListedImage) -> tuple[str, str, str, str]:
    name = image.file.encode("utf-8", "backslashreplace").decode()  # neither SQLite nor TFDS takes another one
    return name, image.class_name, image.split, "" if name == image.file else "has a name that is not UTF-8: rename it"


def splits_before(path: Path) -> Iterator[tuple[str, str]]:
    """Digest and split of each content, of what `Index.write_csv` wrote; none where there is no such file."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", newline="") as file:
        rows: Iterable[dict[str, Any]] = csv.DictReader(file)
        yield from ((row["digest"], row["split"]) for row in rows if row["split"])
