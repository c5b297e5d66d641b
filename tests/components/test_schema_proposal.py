"""What `mnist-tfx init` and `schema update` make a schema of, and of what not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mnist_tfx.components.schema.proposal import LEAST_SCHEMA, propose_schema
from mnist_tfx.contract.errors import DataRejected
from mnist_tfx.contract.names import IMAGE, LABEL, SPLITS


def test_an_empty_split_is_told_with_its_name() -> None:
    some, none = statistics_pb2.DatasetFeatureStatisticsList(), statistics_pb2.DatasetFeatureStatisticsList()
    some.datasets.add(num_examples=3)
    none.datasets.add(num_examples=0)
    with pytest.raises(DataRejected, match=r"flowers has no examples in split eval, .* correct \[data\.splits\]"):
        propose_schema("flowers", {"train": some, "eval": none, "test": some}, ["a", "b"], (28, 28, 1))


def test_any_png_of_the_images_size_is_within_the_bound_where_the_data_are_jpegs() -> None:
    shape = (96, 64, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = [tf.io.encode_jpeg(noise // 8 + level, quality=75).numpy() for level in range(4)]
    schema = text_format.Parse(LEAST_SCHEMA, schema_pb2.Schema())
    statistics = tfdv.generate_statistics_from_dataframe(
        pd.DataFrame({IMAGE: images, LABEL: [0, 1, 0, 1]}),
        tfdv.StatsOptions(schema=schema, enable_semantic_domain_stats=True),
    )

    def bound(shape: tuple[int, int, int]) -> int:
        proposed = propose_schema("flowers", dict.fromkeys(SPLITS, statistics), ["a", "b"], shape)
        [image] = [each for each in text_format.Parse(proposed, schema_pb2.Schema()).feature if each.name == IMAGE]
        return int(image.image_domain.max_image_byte_size)

    twice, largest_png = 2 * max(map(len, images)), len(tf.io.encode_png(noise).numpy())
    assert twice < largest_png <= bound(shape) < 1.02 * largest_png
    assert bound((28, 28, 1)) == twice, "which is more than such a PNG takes"
