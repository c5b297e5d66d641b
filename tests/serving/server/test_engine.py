from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from mnist_tfx.serving.server.engine import Engine
from mnist_tfx.serving.server.errors import ServingError
from tests.fixtures import saved_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    saved_models.write_scale_model(folder / "scale", 2.0)
    saved_models.write_text_model(folder / "text")
    saved_models.write_tf1_model(folder / "tf1")
    return folder


@pytest.fixture(scope="module")
def scale(models: Path) -> Engine:
    return Engine(str(models / "scale"))


@pytest.fixture(scope="module")
def tf1(models: Path) -> Engine:
    return Engine(str(models / "tf1"))


def test_a_tf2_model(scale: Engine) -> None:
    assert set(scale.signatures) == {"serving_default"}
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    answer = scale.run("serving_default", {"x": x}, ["factor", "y"])
    assert list(answer) == ["factor", "y"]
    np.testing.assert_array_equal(answer["y"], 2 * x)
    assert answer["factor"].tolist() == [2, 2]
    assert scale.run("serving_default", {"x": x[:0]}, ["y"])["y"].shape == (0, 3)


@pytest.mark.parametrize("dtype", saved_models.TF1_DTYPES, ids=lambda dtype: dtype.name)
def test_a_tf1_model_with_every_type(tf1: Engine, dtype: tf.DType) -> None:
    name = f"same_{dtype.name}"
    values = [b"a", b"\x00"] if dtype == tf.string else [0, 1]
    x = np.array(values, object if dtype == tf.string else dtype.as_numpy_dtype)
    tf1.check(name, {"x": x}, ["y"])
    answer = tf1.run(name, {"x": x}, ["y"])["y"]
    assert answer.dtype == x.dtype
    assert answer.tolist() == x.tolist()


def test_scalars_variables_and_tables_of_a_tf1_model(tf1: Engine) -> None:
    assert tf1.run("scalar", {"x": np.float32(1)}, ["y"])["y"] == 3.0
    words = np.array([b"b", b"z", b"a"], object)
    assert tf1.run("lookup", {"words": words}, ["ids"])["ids"].tolist() == [2, -1, 1]


def test_strings(models: Path) -> None:
    engine = Engine(str(models / "text"))
    answer = engine.run("serving_default", {"text": np.array([b"ab", b""], object)}, ["upper", "length"])
    assert answer["upper"].tolist() == [b"AB", b""]
    assert answer["length"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("signature", "inputs", "outputs", "code", "words"),
    [
        ("nope", {}, [], "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        ("serving_default", {"x": np.zeros((1, 3), np.float32)}, ["z"], "INVALID_ARGUMENT", "alias not found.*: z"),
        (
            "serving_default",
            {"x": np.zeros((1, 3), np.uint8)},
            ["y"],
            "INVALID_ARGUMENT",
            "float but uint8 is provided",
        ),
        ("serving_default", {"x": np.array([b"a"], object)}, ["y"], "INVALID_ARGUMENT", "float but string is provided"),
        ("serving_default", {"x": np.array(["a"])}, ["y"], "INVALID_ARGUMENT", "x: arrays of <U1"),
        ("serving_default", {}, ["y"], "INVALID_ARGUMENT", "Missing but required: {x}"),
        (
            "serving_default",
            {"x": np.zeros((1, 3), np.float32), "q": np.zeros(1)},
            ["y"],
            "INVALID_ARGUMENT",
            "Sent extra: {q}. Missing but required: {}",
        ),
    ],
)
def test_what_does_not_fit_the_signature(scale: Engine, signature, inputs, outputs, code: str, words: str) -> None:
    with pytest.raises(ServingError, match=words) as caught:
        scale.check(signature, inputs, outputs)
    assert caught.value.code == grpc.StatusCode[code]


def test_a_wrong_shape_is_the_kernels_error(tmp_path: Path) -> None:
    engine = Engine(str(saved_models.write_dense_model(tmp_path / "dense")))
    inputs = {"x": np.zeros((2, 5), np.float32)}
    engine.check("serving_default", inputs, ["probabilities"])
    with pytest.raises(ServingError, match="Matrix size-incompatible") as caught:
        engine.run("serving_default", inputs, ["probabilities"])
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_strings_that_are_no_bytes_are_refused(models: Path) -> None:
    engine = Engine(str(models / "text"))
    with pytest.raises(ServingError, match="Unsupported object type"):
        engine.run("serving_default", {"text": np.array([{"a": 1}], object)}, ["length"])


def test_many_threads_at_once(scale: Engine) -> None:
    def one(value: int) -> bool:
        x = np.full((1, 3), value, np.float32)
        return bool((scale.run("serving_default", {"x": x}, ["y"])["y"] == 2 * value).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(400)))


def test_a_half_copied_model(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="Could not find SavedModel") as caught:
        Engine(str(tmp_path))
    assert caught.value.code == grpc.StatusCode.NOT_FOUND
    shutil.copy(models / "scale" / "saved_model.pb", tmp_path)
    with pytest.raises(ServingError, match="variables"):
        Engine(str(tmp_path))
    (tmp_path / "saved_model.pb").write_bytes((models / "scale" / "saved_model.pb").read_bytes()[:100])
    with pytest.raises(ServingError, match="cannot be loaded: Cannot parse file"):
        Engine(str(tmp_path))


def test_a_model_for_training_only(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.constant(1)
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "m"))
        builder.add_meta_graph_and_variables(session, ["train"])
        builder.save()
    with pytest.raises(ServingError, match="Could not find meta graph def") as caught:
        Engine(str(tmp_path / "m"))
    assert caught.value.code == grpc.StatusCode.NOT_FOUND
    assert Engine(str(tmp_path / "m"), tags=["train"]).signatures == {}


def test_settings_of_the_session(models: Path) -> None:
    engine = Engine(str(models / "scale"), session=tf.compat.v1.ConfigProto(device_count={"CPU": 2}))
    assert [device.device_type for device in engine._session.list_devices()].count("CPU") == 2
