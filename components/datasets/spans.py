"""Spans: labelled data that came later, each by itself beside the data that a dataset began with.

The terms are TFX's (docs/guide/examplegen.md, "Span"): a span is a piece of the data by number, which may have several
versions, of which the newest counts. The data that the dataset began with are span 1. Span N lies as the TFDS dataset
`span_N` in `DATA_DIR/spans/DATASET`, with splits train, eval and test.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mnist_tfx.components.datasets.prepared import PreparedDataset, load_prepared
from mnist_tfx.contract.errors import UsageError
from mnist_tfx.contract.names import FIRST_SPAN

_NAME = re.compile(r"span_(\d+)")


def spans_dir(dataset: PreparedDataset) -> Path:
    """The TFDS data_dir of a dataset's added spans."""
    return _spans_dir(dataset.name, dataset.data_dir)


def span_name(number: int) -> str:
    """What a span is called in TFDS."""
    return f"span_{number}"


def added_spans(dataset: PreparedDataset) -> list[int]:
    """The numbers of what was added, ascending."""
    return _numbers(spans_dir(dataset))


def load_added(name: str, data_dir: Path) -> list[PreparedDataset]:
    """What was added to the dataset of that name, which itself may be damaged, or be made anew: its spans, ascending.

    Raises:
        NotPrepared: a PipelineError; a span is damaged.
    """
    folder = _spans_dir(name, data_dir)
    return [_load(folder, number, None) for number in _numbers(folder)]


def with_newest_spans(dataset: PreparedDataset, wanted: int | Literal["all"]) -> PreparedDataset:
    """The dataset with the `wanted` newest spans; `all`, or where nothing was added: with all that there is.

    The data that it began with count as the oldest: with spans 1, 2 and 3, the two newest are 2 and 3.

    Raises:
        NotPrepared: a PipelineError; a span is damaged.
        UsageError: a span has a class that the dataset has no more.
    """
    numbers = [FIRST_SPAN, *added_spans(dataset)]
    chosen = numbers if wanted == "all" else numbers[-wanted:]
    return with_spans(dataset, dict.fromkeys(chosen)) if chosen != [FIRST_SPAN] else dataset


def with_spans(
    dataset: PreparedDataset, versions: Mapping[int, str | None], *, remedy: str | None = None
) -> PreparedDataset:
    """The dataset with just these spans, by number, each in the named version, or in the newest.

    Its fingerprint then is over those of its spans, and their numbers, which its Examples hold. `remedy` says what to
    do where a span is not there, or damaged; None: to add it again.

    Raises:
        NotPrepared: a PipelineError; a span is damaged, or not there in that version.
        UsageError: a span has a class that the dataset has no more.
    """
    spans = {
        number: dataset if number == FIRST_SPAN else _load_for(dataset, number, version, remedy)
        for number, version in sorted(versions.items())
    }
    content = [dataset.class_names, [(number, span.fingerprint) for number, span in spans.items()]]
    return replace(dataset, spans=spans, fingerprint=hashlib.sha256(json.dumps(content).encode()).hexdigest())


def _spans_dir(name: str, data_dir: Path) -> Path:
    return data_dir / "spans" / name


def _numbers(folder: Path) -> list[int]:
    versions = folder.glob("span_*/*")  # without any, a span is one that a kill left before its first
    return sorted({int(found[1]) for path in versions if (found := _NAME.fullmatch(path.parent.name))})


def _load(folder: Path, number: int, version: str | None, remedy: str | None = None) -> PreparedDataset:
    remedy = remedy or f"Remove {folder / span_name(number)}, and add its images again with `mnist-tfx data add`."
    return load_prepared(span_name(number), version, folder, remedy=remedy)


def _load_for(dataset: PreparedDataset, number: int, version: str | None, remedy: str | None) -> PreparedDataset:
    span = _load(spans_dir(dataset), number, version, remedy)
    if unknown := [name for name in span.class_names if name not in dataset.class_names]:
        raise UsageError(
            f"span {number} of {dataset.name} has class {', '.join(unknown)}, which the dataset has no more: remove "
            f"{span.data_dir / span.name}, or leave it out with data.spans."
        )
    labels = tuple(dataset.class_names.index(name) for name in span.class_names)
    return replace(span, labels=None if span.class_names == dataset.class_names else labels)
