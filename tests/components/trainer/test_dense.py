"""Dense classifiers: what each setting of the model does, and that the three forms are one function."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from mnist_tfx.components.settings import Activation, ModelSettings
from mnist_tfx.components.trainer.dense import AffineLayer, build_model
from mnist_tfx.components.trainer.export import ServingModule, export_model
from mnist_tfx.components.transform.preprocessing import Normalization
from tests.fixtures.tiny_run import TinyRun, decode, read_split

SHAPE = (6, 5, 1)
CLASSES = 4
FORMS = ("sequential", "functional", "custom")
Floats = npt.NDArray[np.float32]


def build(precision: str = "float32", seed: int = 1, **settings: Any) -> keras.Model:
    """A small model."""
    keras.utils.set_random_seed(seed)
    return build_model(ModelSettings.model_validate(settings), SHAPE, CLASSES, precision)


def random_pixels(count: int = 12) -> Floats:
    return np.random.default_rng(0).random((count, *SHAPE), np.float32)


def random_targets(count: int = 12) -> Floats:
    return np.eye(CLASSES, dtype=np.float32)[np.random.default_rng(1).integers(0, CLASSES, count)]


def affine_layers(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Dense | AffineLayer)]


def answer(model: keras.Model, pixels: Floats, training: bool = False) -> Floats:
    return np.asarray(model(pixels, training=training))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_three_forms_are_one_function_and_learn_the_same(precision: str) -> None:
    settings: dict[str, Any] = {"hidden_layers": (7, 3), "batch_normalization": True, "l2": 0.01, "activation": "gelu"}
    first, *others = (build(precision, form=form, **settings) for form in FORMS)
    pixels, targets = random_pixels(), random_targets()
    start = first.get_weights()
    at_inference, in_training = answer(first, pixels), answer(first, pixels, True)
    for other in others:
        assert [weight.shape for weight in other.weights] == [weight.shape for weight in first.weights]
        other.set_weights(start)
        np.testing.assert_allclose(answer(other, pixels), at_inference, atol=1e-6)
        np.testing.assert_allclose(answer(other, pixels, True), in_training, atol=1e-6)
    for model in (first, *others):
        model.set_weights(start)  # the answers in training moved the averages of batch normalization
        model.compile(keras.optimizers.SGD(0.5), keras.losses.CategoricalCrossentropy(from_logits=True))
    losses = {form: model.train_on_batch(pixels, targets) for form, model in zip(FORMS, (first, *others), strict=True)}
    assert losses == pytest.approx(dict.fromkeys(FORMS, losses["sequential"]), rel=1e-5)
    for other in others:
        for weight, expected in zip(other.get_weights(), first.get_weights(), strict=True):
            np.testing.assert_allclose(weight, expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_seed_decides_the_weights_at_the_beginning(form: str) -> None:
    first, second, other = (build(seed=seed, form=form, hidden_layers=(7,), dropout=0.1) for seed in (1, 1, 2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])
    kernel, bias = first.get_weights()[:2]
    assert (bias == 0).all()
    assert np.abs(kernel).max() <= np.sqrt(6 / (30 + 7))  # Glorot and Bengio (2010), equation 16


@pytest.mark.parametrize("form", FORMS)
def test_without_hidden_layers_the_classifier_is_linear(form: str) -> None:
    model = build(form=form, hidden_layers=())
    pixels = random_pixels()
    kernel, bias = model.get_weights()
    assert kernel.shape == (30, CLASSES) and bias.shape == (CLASSES,)
    model.set_weights([kernel, bias + np.arange(CLASSES)])
    np.testing.assert_allclose(answer(model, pixels), pixels.reshape(12, 30) @ kernel + np.arange(CLASSES), atol=1e-5)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation_is_used(activation: str) -> None:
    model = build(hidden_layers=(4,), activation=activation)
    pixels = random_pixels() - 0.5
    kernel, bias, out_kernel, out_bias = model.get_weights()
    hidden = np.asarray(keras.activations.get(activation)(pixels.reshape(12, -1) @ kernel + bias))
    np.testing.assert_allclose(answer(model, pixels), hidden @ out_kernel + out_bias, atol=1e-4)


def test_the_activations_are_those_that_everybody_knows() -> None:
    values = np.linspace(-3, 3, 25, dtype=np.float32)
    for name, expected in {
        "relu": np.maximum(values, 0),
        "sigmoid": 1 / (1 + np.exp(-values)),
        "tanh": np.tanh(values),
        "softplus": np.log1p(np.exp(values)),
        "linear": values,
    }.items():
        np.testing.assert_allclose(np.asarray(keras.activations.get(name)(values)), expected, atol=1e-6)


def test_each_layer_may_have_its_own_dropout_and_l2() -> None:
    model = build(hidden_layers=(8, 6, 4), layer_dropout=(0.5, 0.0, 0.25), layer_l2=(0.0, 0.1, 0.2))
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.5, 0.25]
    kernels = [layer.kernel for layer in affine_layers(model)]
    expected = [0.1 * float(np.square(kernels[1]).sum()), 0.2 * float(np.square(kernels[2]).sum())]
    assert [float(loss) for loss in model.losses] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_layers": (8, 6), "layer_dropout": (0.5,)}, "layer_dropout has 1 values for 2 hidden layers"),
        ({"hidden_layers": (8,), "layer_l2": (0.1,), "l2": 0.1}, "l2 and layer_l2 exclude each other"),
    ],
)
def test_what_does_not_go_together_is_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelSettings.model_validate(settings)


@pytest.mark.parametrize("form", FORMS)
def test_one_sigmoid_unit_is_a_classifier_of_two(form: str) -> None:
    """Its probabilities are the sigmoid's, its loss is binary cross entropy, and it has the weights of one unit."""
    keras.utils.set_random_seed(0)
    settings = ModelSettings.model_validate({"form": form, "hidden_layers": (), "output": "sigmoid"})
    model = build_model(settings, (6, 5, 1), 2)
    kernel, bias = model.get_weights()
    assert kernel.shape == (30, 1) and bias.shape == (1,)
    pixels = random_pixels()
    logits = pixels.reshape(12, 30) @ kernel + bias
    second = 1 / (1 + np.exp(-logits))
    probabilities = np.asarray(keras.ops.softmax(answer(model, pixels)))
    np.testing.assert_allclose(probabilities, np.concatenate([1 - second, second], axis=1), atol=1e-6)
    labels = np.arange(12) % 2
    of_both = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    of_one = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    both, one = of_both(np.eye(2)[labels], answer(model, pixels)), of_one(labels[:, np.newaxis], logits)
    assert float(both) == pytest.approx(float(one), abs=1e-6)


def test_hidden_layers_options_build_what_they_say() -> None:
    model = build(hidden_layers=(8, 6), batch_normalization=True, dropout=0.3, input_dropout=0.1)
    kinds = [type(layer).__name__ for layer in model.layers]
    hidden = ["Dense", "BatchNormalization", "Activation", "Dropout"]
    assert kinds == ["Flatten", "Dropout", *hidden, *hidden, "Dense"]
    assert [layer.units for layer in affine_layers(model)] == [8, 6, CLASSES]
    assert [layer.use_bias for layer in affine_layers(model)] == [False, False, True]
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.1, 0.3, 0.3]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("settings", "share"),
    [({"hidden_layers": (), "input_dropout": 0.25}, 0.25), ({"hidden_layers": (2000,), "dropout": 0.4}, 0.4)],
)
def test_dropout_acts_in_training_and_is_absent_at_inference(form: str, settings: dict[str, Any], share: float) -> None:
    # Weights of 1 on the way in and a single output per unit: an output is what became of one unit.
    keras.utils.set_random_seed(0)
    units = 2000
    model = build_model(ModelSettings.model_validate(settings | {"form": form}), (units, 1, 1), units)
    eye, zero = np.eye(units, dtype=np.float32), np.zeros(units, np.float32)
    model.set_weights([eye, zero] * (len(model.weights) // 2))
    pixels = np.ones((3, units, 1, 1), np.float32)
    np.testing.assert_array_equal(answer(model, pixels), 1)
    trained = answer(model, pixels, training=True)
    dropped = trained == 0
    assert dropped.mean() == pytest.approx(share, abs=0.03)
    np.testing.assert_allclose(trained[~dropped], 1 / (1 - share), rtol=1e-5)
    assert not np.array_equal(trained, answer(model, pixels, training=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hidden", [(), (7, 3)])
def test_l2_adds_the_squared_kernels_to_the_loss(form: str, hidden: tuple[int, ...]) -> None:
    plain, punished = (build(form=form, hidden_layers=hidden, l2=l2) for l2 in (0.0, 0.02))
    punished.set_weights(plain.get_weights())
    for model in (plain, punished):
        model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    pixels, targets = random_pixels(), random_targets()
    without, with_l2 = (model.evaluate(pixels, targets, verbose=0) for model in (plain, punished))
    # Of a classifier with hidden layers, the output layer is left alone.
    kernels = [layer.get_weights()[0] for layer in affine_layers(plain)[: len(hidden) or 1]]
    assert with_l2 - without == pytest.approx(0.02 * sum((kernel**2).sum() for kernel in kernels), rel=1e-4)
    assert plain.losses == []


def test_batch_normalization_uses_the_batch_in_training_and_its_averages_at_inference() -> None:
    model = build(hidden_layers=(7,), batch_normalization=True)
    pixels = random_pixels()
    kernel, gamma, beta, mean, variance, out_kernel, out_bias = model.get_weights()
    assert (mean == 0).all() and (variance == 1).all()

    def expected(mean: Floats, variance: Floats) -> Floats:
        normalized = (pixels.reshape(12, -1) @ kernel - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        return np.asarray(np.maximum(normalized, 0) @ out_kernel + out_bias)

    np.testing.assert_allclose(answer(model, pixels), expected(mean, variance), atol=1e-5)
    inner = pixels.reshape(12, -1) @ kernel
    np.testing.assert_allclose(answer(model, pixels, True), expected(inner.mean(axis=0), inner.var(axis=0)), atol=1e-4)
    moved = model.layers[2].moving_mean
    np.testing.assert_allclose(moved, 0.01 * inner.mean(axis=0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_mixed_precision_computes_in_bfloat16_with_weights_and_answers_in_float32(form: str) -> None:
    exact, mixed = build(form=form, hidden_layers=(64,)), build("mixed_bfloat16", form=form, hidden_layers=(64,))
    mixed.set_weights(exact.get_weights())
    pixels = random_pixels()
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    rounded = mixed(pixels)
    assert rounded.dtype == tf.float32
    assert not np.allclose(rounded, answer(exact, pixels), atol=1e-6)
    np.testing.assert_allclose(rounded, answer(exact, pixels), atol=0.03)
    hidden, logits = affine_layers(mixed)
    assert hidden.compute_dtype == "bfloat16" and logits.compute_dtype == "float32"


def test_mirrored_averaging_is_the_mean_of_the_answers_to_an_image_and_its_mirror_image(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(1)
    shape = (28, 28, 1)
    model = build_model(ModelSettings(hidden_layers=(16,)), shape, 10)
    graph = tft.TFTransformOutput(str(tiny_run.transform_graph))
    normalization = Normalization.of_graph(graph, shape)
    module = ServingModule(model, graph, normalization, list("abcdefghij"), shape, mirrored_averaging=True)
    export_model(module, str(tmp_path), {})
    signatures = tf.saved_model.load(str(tmp_path)).signatures

    encoded = [image for image, _ in read_split(tiny_run.examples, "test")]
    images = decode(encoded)

    def probabilities(of: npt.NDArray[np.uint8]) -> Floats:
        return np.asarray(tf.nn.softmax(answer(model, np.asarray(normalization(tf.constant(of))))))

    plain, mirrored = probabilities(images), probabilities(images[:, :, ::-1])
    mean = (plain + mirrored) / 2
    assert np.abs(plain - mirrored).max() > 0.05 and (plain.argmax(axis=1) != mean.argmax(axis=1)).any()
    examples = [
        tf.train.Example(
            features=tf.train.Features(feature={"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[one]))})
        ).SerializeToString()
        for one in encoded
    ]
    for name, key, values in (
        ("images", "images", images),
        ("encoded_images", "encoded_images", encoded),
        ("serving_default", "examples", examples),
    ):
        outputs = signatures[name](**{key: tf.constant(values)})
        np.testing.assert_allclose(outputs["probabilities"], mean, atol=1e-5)
        np.testing.assert_array_equal(outputs["classes"], outputs["probabilities"].numpy().argmax(axis=1))
