"""A schema for a dataset of labeled images: TFDV infers what it holds, and bounds are added, each with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_data_validation as tfdv
from google.protobuf import json_format, text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.contract.names import IMAGE, LABEL, SPAN, TRAIN

# What TFDV must know to count labels by class and bytes by image; the schema of a dataset of which nothing is known.
LEAST_SCHEMA = f"""\
feature {{ name: "{IMAGE}" type: BYTES image_domain {{}} }}
feature {{ name: "{LABEL}" type: INT int_domain {{ is_categorical: true }} }}
"""
# Of how many of its standard deviations a class's share may differ between two splits that were drawn at random.
_DEVIATIONS = 4.0
_LEAST_THRESHOLD = 0.03
_SPARE_BYTES = 2  # times the largest image seen

_TEMPLATE = """\
# The curated schema of {dataset}: what must hold of its data, or nothing is trained. Inferred by TFDV, bounds added by
# `mnist-tfx init`; review it like code. Reference: tensorflow_metadata/proto/v0/schema.proto.

feature {{
  name: "{image}"
  type: BYTES
  # One image in every example.
  presence {{ min_fraction: 1.0 min_count: 1 }}
  shape {{ dim {{ size: 1 }} }}  # just one value
  image_domain {{
    minimum_supported_image_fraction: 1.0
    # At least twice the largest image seen ({largest} bytes), and at least what a PNG of {size} can take:
    # logged and added images are PNG, whatever the data are. The data gate decodes each and checks its size in pixels.
    max_image_byte_size: {max_bytes}
  }}
}}

feature {{
  name: "{label}"
  type: INT
  presence {{ min_fraction: 1.0 min_count: 1 }}
  shape {{ dim {{ size: 1 }} }}  # just one value
  # The classes' numbers; another one is an anomaly.
  int_domain {{ name: "class" min: 0 max: {max_label} is_categorical: true }}
  # How many of the {classes} classes occur in each split: a lost class is an anomaly.
  unique_constraints {{ min: {min_unique} max: {classes} }}
  # By how much the share of a class may differ between train and another split (skew), or from the data of the live
  # model (drift): {deviations:g} standard deviations of a share in {smallest} random examples, at least {least:g}.
  skew_comparator {{ infinity_norm {{ threshold: {threshold} }} }}
  drift_comparator {{ infinity_norm {{ threshold: {threshold} }} }}
  annotation {{
    comment: "the classes, in order"
{tags}
  }}
}}

feature {{
  name: "{span}"
  type: INT
  # Where images were added (`mnist-tfx data add`), every example has the number of its span; else none has.
  value_count {{ min: 1 max: 1 }}
}}

# Half of the smallest split seen: data that were lost on their way are an anomaly.
dataset_constraints {{ min_examples_count: {min_examples} }}
"""


def propose_schema(
    dataset: str,
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    class_names: Sequence[str],
    image_shape: tuple[int, int, int],
) -> str:
    """The text of a schema that these data keep.

    Args:
        dataset: its name, for the header.
        statistics: by split, made with `LEAST_SCHEMA` or more, and semantic domains.
        class_names: in the order of the labels.
        image_shape: height, width and channels of every image.

    Raises:
        DataRejected: a split is empty.
        ValueError: the statistics are not those of labeled images.
    """
    counts = {split: int(each.datasets[0].num_examples) for split, each in statistics.items()}
    if empty := [split for split, count in counts.items() if not count]:
        raise DataRejected(
            f"{dataset} has no examples in split {' and '.join(empty)}, and so nothing to make a schema of. Add data "
            "(of three images of a class, one goes into each split), or correct [data.splits] in the recipe."
        )
    inferred = tfdv.infer_schema(statistics[TRAIN], infer_feature_shape=True)
    types = {feature.name: feature.type for feature in inferred.feature}
    if {**types, SPAN: schema_pb2.INT} != {IMAGE: schema_pb2.BYTES, LABEL: schema_pb2.INT, SPAN: schema_pb2.INT}:
        raise ValueError(f"these are no statistics of labeled images: {types}")
    images = [_feature(each, IMAGE) for each in statistics.values()]
    labels = [_feature(each, LABEL) for each in statistics.values()]
    largest = max(feature.bytes_stats.max_num_bytes_int for feature in images)
    shares = class_shares(statistics[TRAIN])
    smallest = min(counts.values())
    # Of a share p in n examples: sqrt(p (1 - p) / n).
    spread = max((math.sqrt(share * (1 - share) / smallest) for share in shares), default=0.0)
    return _TEMPLATE.format(
        dataset=dataset,
        image=IMAGE,
        label=LABEL,
        span=SPAN,
        largest=largest,
        size=" x ".join(map(str, image_shape)),
        max_bytes=max(_SPARE_BYTES * largest, _largest_png(*image_shape)),
        max_label=len(class_names) - 1,
        classes=len(class_names),
        min_unique=min(feature.string_stats.unique for feature in labels),
        deviations=_DEVIATIONS,
        least=_LEAST_THRESHOLD,
        smallest=smallest,
        threshold=round(max(_LEAST_THRESHOLD, _DEVIATIONS * spread), 3),
        tags="\n".join(f"    tag: {json.dumps(name, ensure_ascii=False)}" for name in class_names),
        min_examples=max(1, smallest // 2),
    )


def _largest_png(height: int, width: int, channels: int) -> int:
    """More bytes than a PNG of this size takes where nothing of it can be compressed.

    Every row has a byte more, for its filter; zlib's stored blocks and libpng's chunks of 8 KiB add less than 1/256.
    """
    raw = height * (width * channels + 1)
    return raw + raw // 256 + 128


def schema_differences(before: str, after: str) -> list[str]:
    """What one schema says otherwise than another, in lines `field: before -> after`.

    Raises:
        ValueError: one of them is no schema in text form.
    """
    old, new = _flat(before), _flat(after)
    return [
        f"{key}: {old.get(key, '(nothing)')} -> {new.get(key, '(nothing)')}"
        for key in [*old, *(key for key in new if key not in old)]
        if old.get(key) != new.get(key)
    ]


def _flat(text: str) -> dict[str, Any]:
    try:
        schema = text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise ValueError(f"no schema in text form: {error}") from error
    flat: dict[str, Any] = {}

    def walk(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                walk(f"{key}.{name}" if key else name, each)
        elif isinstance(value, list) and all(isinstance(each, dict) for each in value):
            for number, each in enumerate(value):
                walk(f"{key}[{number}]", each)
        else:
            flat[key] = value

    content = json_format.MessageToDict(schema, preserving_proto_field_name=True)
    features = {feature.pop("name"): feature for feature in content.pop("feature", [])}
    walk("", {**features, **content})
    return flat


def _feature(statistics: statistics_pb2.DatasetFeatureStatisticsList, name: str) -> Any:
    [found] = [feature for feature in statistics.datasets[0].features if feature.path.step[:] == [name]]
    return found


def class_shares(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> list[float]:
    """The share of each class that occurs in a split."""
    label = _feature(statistics, LABEL)
    counts = [bucket.sample_count for bucket in label.string_stats.rank_histogram.buckets]
    return [count / sum(counts) for count in counts]
