"""What `mnist-tfx init` and `schema update` make a schema of, and of what not."""

from __future__ import annotations

import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

from mnist_tfx.components.schema.proposal import propose_schema
from mnist_tfx.contract.errors import DataRejected


def test_an_empty_split_is_told_with_its_name() -> None:
    some, none = statistics_pb2.DatasetFeatureStatisticsList(), statistics_pb2.DatasetFeatureStatisticsList()
    some.datasets.add(num_examples=3)
    none.datasets.add(num_examples=0)
    with pytest.raises(DataRejected, match=r"flowers has no examples in split eval, .* correct \[data\.splits\]"):
        propose_schema("flowers", {"train": some, "eval": none, "test": some}, ["a", "b"])
