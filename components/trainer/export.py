"""The exported SavedModel: its signatures, labels and metadata. What is trained is what is served."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.saved.saved_transform_io_v2 import SavedModelLoader

from mnist_tfx.components.trainer.calibration import Calibration
from mnist_tfx.components.transform.images import fit_images
from mnist_tfx.components.transform.preprocessing import Normalization
from mnist_tfx.contract import names as features

METADATA_VERSION = 1
LEAST_PROBABILITY = 1e-30  # whose logarithm is finite


class ServingModule(tf.Module):
    """A classifier of encoded or raw images, with normalization and class names inside.

    Nothing here branches on a tensor in Python: without AutoGraph, which would rewrite Keras and Transform function by
    function, the export takes half the time.
    """

    def __init__(
        self,
        model: keras.Model,
        transform_output: tft.TFTransformOutput,
        normalization: Normalization,
        class_names: Sequence[str],
        image_shape: tuple[int, int, int],
        *,
        mirrored_averaging: bool = False,
    ) -> None:
        """Takes a model of normalized pixels to logits, and the Transform graph that normalizes.

        With `mirrored_averaging`, an answer is the mean of the probabilities of the image and of its mirror image.
        """
        super().__init__()
        # Only what serving needs, as TensorFlow's own variables: an attribute with the Keras model would bring the
        # optimizer's state along, and make variables that TF Serving's loader does not restore.
        self._weights = [variable.value for variable in model.variables]
        self._logits = functools.partial(model, training=False)
        # As `transform_features_layer` does, but that is a Keras 2 layer, of which TensorFlow would save much more
        # than the graph: twice the time of the export.
        graph = SavedModelLoader(transform_output.transform_savedmodel_dir)
        self._transform = graph.apply_transform_model
        self._transform_resources = graph._imported  # kept for its tables, if a preprocessing_fn has any
        self._normalization = normalization
        self._class_names = tf.constant(list(class_names), tf.string)
        self._image_shape = image_shape
        self._mirrored_averaging = mirrored_averaging
        self.calibration = Calibration()  # set before the signatures are made: they have it as constants

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes, in order."""
        return tuple(name.decode() for name in self._class_names.numpy())

    def signatures(self) -> dict[str, Any]:
        """The three signatures, by name, as concrete functions."""
        return {
            features.SERVING_DEFAULT: self.classify_examples.get_concrete_function(
                tf.TensorSpec([None], tf.string, features.EXAMPLES)
            ),
            features.IMAGES: self.classify_images.get_concrete_function(
                tf.TensorSpec([None, *self._image_shape], tf.uint8, features.IMAGES)
            ),
            features.ENCODED_IMAGES: self.classify_encoded_images.get_concrete_function(
                tf.TensorSpec([None], tf.string, features.ENCODED_IMAGES)
            ),
        }

    @tf.function(autograph=False)
    def classify_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies serialized tf.Examples (string [N]); they need no label."""
        parsed = tf.io.parse_example(examples, {features.IMAGE: tf.io.FixedLenFeature([1], tf.string)})
        return self._answer(self._transform(parsed)[features.PIXELS])

    @tf.function(autograph=False)
    def classify_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies images (uint8 [N, height, width, channels])."""
        return self._answer(self._normalization(images))

    @tf.function(autograph=False)
    def classify_encoded_images(self, encoded_images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies image files (string [N]) of any size and of the kinds that `fit_images` takes."""
        images = fit_images(encoded_images, self._image_shape)
        return self._answer(self._normalization(images))

    def probabilities(self, pixels: tf.Tensor) -> tf.Tensor:
        """float32 [N, classes] of normalized pixels, float32 [N, height, width, channels]."""
        probabilities = tf.nn.softmax(self._logits(pixels))
        if self._mirrored_averaging:
            mirrored = tf.reverse(pixels, [2])
            probabilities = (probabilities + tf.nn.softmax(self._logits(mirrored))) / 2.0
        if self.calibration == Calibration():
            return probabilities
        logarithms = tf.math.log(tf.maximum(probabilities, LEAST_PROBABILITY))
        behind = tf.reduce_max(logarithms, axis=-1, keepdims=True) - logarithms
        return tf.nn.softmax(self.calibration.scores(behind))

    def _answer(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = self.probabilities(pixels)
        classes = tf.argmax(probabilities, axis=-1, output_type=tf.int64)
        return {
            features.PROBABILITIES: probabilities,
            features.CLASSES: classes,
            features.LABELS: tf.gather(self._class_names, classes),
        }


def export_model(module: ServingModule, folder: str, metadata: dict[str, Any]) -> None:
    """Writes the SavedModel, with `metadata` (JSON-able: recipe, data fingerprint, code version) inside it.

    The names of all classes are added to it: the graph tells a client only the likeliest one's.
    """
    tf.saved_model.save(module, folder, signatures=module.signatures())
    path = os.path.join(folder, features.METADATA_PATH)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        added = {"metadata_version": METADATA_VERSION, "class_names": list(module.class_names)}
        json.dump(added | metadata, file, indent=2, sort_keys=True)


def read_weights(model: Any) -> list[tf.Variable]:
    """The weights of a loaded model, from the first layer on; none if it was not exported here."""
    kept = getattr(model, "_weights", ())  # as `ServingModule` keeps them, with the state of Dropout's seeds
    return [weight for weight in kept if weight.dtype.is_floating]
