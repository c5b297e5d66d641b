"""`TfdsExampleGen`: reads a prepared TFDS image-classification dataset and writes TFX Examples.

Not file-based and without a driver of its own, so that it runs on Kubeflow Pipelines v2 as it does here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.types.channel import OutputChannel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.standard_artifacts import Examples

from mnist_tfx.components.settings import Splits
from mnist_tfx.components.tfds_example_gen.executor import Executor


class TfdsExampleGenSpec(ComponentSpec):
    """Parameters and output of `TfdsExampleGen`. The fingerprint makes a cache hit mean the same data."""

    PARAMETERS = {
        "dataset": ExecutionParameter(type=str),
        "version": ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str),
        "data_dir": ExecutionParameter(type=str),
        "splits": ExecutionParameter(type=str),  # JSON: split -> TFDS slicing notation
        "shards": ExecutionParameter(type=int),
        "fit_to": ExecutionParameter(type=str),  # JSON: [height, width, channels], or null
        "labels": ExecutionParameter(type=str),  # JSON: [class number of each of TFDS's], or null
        "spans": ExecutionParameter(type=str, optional=True),  # JSON: span -> version; where data were added
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"examples": ChannelParameter(type=Examples)}


class TfdsExampleGen(BaseBeamComponent):
    """Writes splits train, eval and test as gzipped TFRecords of tf.Example with `image` (bytes) and `label` (int64).

    Where data were added, also `span` (int64). Output `examples`: a standard `Examples` artifact, whose custom property
    `fingerprint` names its content, and `spans` its spans with their versions.
    """

    SPEC_CLASS = TfdsExampleGenSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)

    def __init__(
        self,
        *,
        dataset: str,
        version: str,
        fingerprint: str,
        data_dir: str | Path,
        splits: Splits,
        shards: int,
        fit_to: tuple[int, int, int] | None = None,
        labels: tuple[int, ...] | None = None,
        spans: Mapping[int, str] | None = None,
    ) -> None:
        """Reads `dataset:version` as prepared in the TFDS `data_dir`.

        Args:
            dataset: name of the TFDS builder.
            version: its version, as prepared.
            fingerprint: content fingerprint of the prepared files (`PreparedDataset.fingerprint`); the executor refuses
                data that no longer match it.
            data_dir: the TFDS data_dir: a folder, or any path that TensorFlow's file layer reads.
            splits: what each split reads.
            shards: files per split, which is also the unit of parallel work.
            fit_to: height, width and channels that every image is fitted to, as a request's image is; None: the images
                stay as they are.
            labels: the class number of each of TFDS's class numbers; None: the same.
            spans: the version of each span that is read, by number (see `components.datasets.spans`); none: the data
                that the dataset began with.
        """
        super().__init__(
            spec=TfdsExampleGenSpec(
                dataset=dataset,
                version=version,
                fingerprint=fingerprint,
                data_dir=str(data_dir),
                splits=splits.model_dump_json(),
                shards=shards,
                fit_to=json.dumps(fit_to),
                labels=json.dumps(labels),
                spans=json.dumps(spans) if spans else None,
                examples=OutputChannel(Examples, self, "examples"),
            )
        )
