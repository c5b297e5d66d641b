"""The names that Transform, Trainer, serving and tests share (the contracts of the Examples and of the model)."""

import re

# Features of the Examples.
IMAGE = "image"  # encoded image, bytes
LABEL = "label"  # int64
SPAN = "span"  # int64; only where data were added: the number of the span that the example is of
FIRST_SPAN = 1  # the data that the dataset began with

# Feature that Transform makes.
PIXELS = "pixels"  # float32 [N, height, width, channels], normalized

TRAIN, EVAL, TEST = "train", "eval", "test"
SPLITS = (TRAIN, EVAL, TEST)

# Signatures of the exported model, each with the name of its one input.
SERVING_DEFAULT, EXAMPLES = "serving_default", "examples"
IMAGES = "images"
ENCODED_IMAGES = "encoded_images"

# Outputs of every signature.
PROBABILITIES = "probabilities"  # float32 [N, classes]
CLASSES = "classes"  # int64 [N]
LABELS = "labels"  # string [N]

# In the model's folder. TF Serving reads only the files it knows in `assets.extra` and leaves the rest alone.
METADATA_PATH = "assets.extra/model_metadata.json"
# What the Pusher adds: how the model came to be pushed, the statistics of the data it was trained and judged on, and
# what it answered to split test.
PUSH_RECORD_PATH = "assets.extra/push.json"
DATA_STATISTICS_PATH = "assets.extra/data_statistics"
REFERENCE_PATH = "assets.extra/reference.json"
# What the Report adds after the push: the model card, in Markdown.
MODEL_CARD_PATH = "assets.extra/MODEL_CARD.md"

TARGETS = ("vertex", "kubeflow")  # what a compiled pipeline is for


def model_name(dataset: str) -> str:
    """What a dataset's model and its folders are called: no path, as `builder/configuration` is, but one folder."""
    return dataset.replace("/", "_")


def plain_name(name: str) -> str:
    """A name as pipelines, labels and schedules take it: lower-case letters, digits, and `-` between them."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
