"""The exported SavedModel: what is in it, and whether it still is the network that was trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import NAMES, python, randomise, tiny_network
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from competition.drawings import draw_images
from training import architectures
from training.export import export, fold_batch_norm
from training.recipe import Recipe

# Operations that TensorFlow 2.10 has as well: of the network, its preprocessing, and of any SavedModel.
PLAIN = """
Add AddV2 AvgPool BiasAdd Cast ConcatV2 Const Conv2D Cos Identity LeakyRelu MatMul MaxPool Maximum Mean MergeV2Checkpoints
Mul NoOp Pack PartitionedCall Placeholder RealDiv Relu Reshape ResizeBicubic RestoreV2 SaveV2 ScaleAndTranslate Select Shape
ShardedFilename Softmax Sqrt Squeeze StatefulPartitionedCall StaticRegexFullMatch StridedSlice StringJoin Sub
"""


@pytest.fixture(scope="module")
def images():
    return draw_images(1000, seed=7)


@pytest.fixture(scope="module")
def network():
    return tiny_network()


@pytest.fixture(scope="module")
def known(network, images):
    return network.predict(images, batch_size=100, verbose=0)


def shipped(common=False):
    """A network of the form that ships: a nested backbone, and a head with a layer of this project's own."""
    pixels = x = keras.Input((None, None, 3))
    for count in (16, 32):
        x = keras.layers.Conv2D(count, 3, strides=2, use_bias=False)(x)
        x = keras.layers.BatchNormalization(scale=False)(x)
        x = keras.layers.LeakyReLU()(x)  # a feature that is 0 nearly everywhere would have no standard deviation to divide by
    backbone = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")
    recipe = Recipe(head_features=256, head_l2=1e-4, head_common_scale=common)
    head = architectures.quasi_svm_head(recipe, 32, 4.0, len(NAMES))
    network = architectures.whole_network(backbone, head, (96, 96), 32)
    randomise(network, np.random.default_rng(0))
    sample = architectures.preprocessing(32)(draw_images(200).astype(np.float32))
    head.get_layer("standardise").adapt(backbone.predict(sample, verbose=0))
    head.layers[-1].set_weights([np.random.default_rng(1).normal(0, 4, (256, 8)), np.zeros(8)])
    return network


def graph(folder):
    return SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]


def operations(folder):
    definition = graph(folder).graph_def
    return {node.op for node in definition.node} | {node.op for function in definition.library.function for node in function.node_def}


def answers(folder, images):
    saved = tf.saved_model.load(str(folder)).signatures["probabilities"]
    batches = [images[start : start + 100] for start in range(0, len(images), 100)]
    return np.concatenate([saved(pixels=tf.constant(batch, tf.float32))["probabilities"].numpy() for batch in batches])


@pytest.fixture(scope="module", params=["plain", "shipped", "common scale"])
def exported(request, network, tmp_path_factory):
    """(network, folder at full precision, folder at half precision)."""
    network = network if request.param == "plain" else shipped(request.param == "common scale")
    folder = tmp_path_factory.mktemp(request.param)
    export(network, NAMES, ("none", "horizontal"), 1.0, folder / "full", half=False)
    export(network, NAMES, ("none", "horizontal"), 1.0, folder / "half")
    return network, folder / "full", folder / "half"


@pytest.mark.parametrize("precision", ["full", "half"])
def test_the_answers_are_the_networks(exported, images, precision):
    network, full, half = exported
    expected = network.predict(images, batch_size=100, verbose=0)
    assert len(set(expected.argmax(axis=1))) >= 5  # else equal answers would mean nothing
    got = answers(full if precision == "full" else half, images)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 if precision == "full" else 1e-2)
    changed = int((got.argmax(axis=1) != expected.argmax(axis=1)).sum())
    assert changed <= (0 if precision == "full" else 2)


def test_only_plain_operations(exported):
    for folder in exported[1:]:
        assert operations(folder) - set(PLAIN.split()) == set()  # nothing of Keras, no variable, no normalisation, nothing new


def test_no_keras_object_and_no_variable(exported):
    for folder in exported[1:]:
        nodes = graph(folder).object_graph_def.nodes
        assert {node.WhichOneof("kind") for node in nodes} <= {"user_object", "function", "bare_concrete_function"}
        kinds = {node.user_object.identifier for node in nodes if node.WhichOneof("kind") == "user_object"}
        assert kinds == {"_generic_user_object", "signature_map"}
        assert b"keras" not in (folder / "saved_model.pb").read_bytes().lower()
        loaded = tf.saved_model.load(str(folder))
        assert set(loaded.signatures) == {"probabilities", "about"}
        assert loaded.signatures["probabilities"].variables == ()


def test_constants_are_halved(exported):
    """Every large constant is at half precision, every small one is not."""
    for folder, large in ((exported[1], tf.float32), (exported[2], tf.float16)):
        library = graph(folder).graph_def.library.function
        constants = [node.attr["value"].tensor for function in library for node in function.node_def if node.op == "Const"]
        sizes = [(tf.TensorShape(c.tensor_shape).num_elements(), tf.as_dtype(c.dtype)) for c in constants]
        floats = [(size, dtype) for size, dtype in sizes if dtype.is_floating]
        assert {dtype for size, dtype in floats if size >= 1024} == {large}
        assert {dtype for size, dtype in floats if size < 1024} == {tf.float32}


def test_half_precision_is_half_the_size(tmp_path):
    wide = tiny_network(filters=(64, 128, 256))
    size = {}
    for half in (False, True):
        export(wide, NAMES, ("none",), 1.0, tmp_path / "model", half=half)
        size[half] = sum(path.stat().st_size for path in (tmp_path / "model").rglob("*") if path.is_file())
    assert 0.49 < size[True] / size[False] < 0.55


def test_loads_without_keras(exported, images, tmp_path):
    network, _, half = exported
    np.save(tmp_path / "images.npy", images[:20])
    code = """
import sys
sys.modules["keras"] = sys.modules["tf_keras"] = None  # an import of them would raise
import numpy as np
import tensorflow as tf
saved = tf.saved_model.load(sys.argv[1]).signatures["probabilities"]
np.save("answers.npy", saved(pixels=tf.constant(np.load("images.npy"), tf.float32))["probabilities"].numpy())
"""
    done = python("-c", code, half, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = network.predict(images[:20], verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), expected, rtol=0, atol=1e-2)


def test_turned_views_need_a_square_network(tmp_path):
    wide = keras.Sequential([keras.Input((24, 32, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(8, activation="softmax")])
    with pytest.raises(ValueError, match="left needs square images, and the network takes 24×32"):
        export(wide, NAMES, ("none", "left"), 1.0, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_about(network, tmp_path):
    names = ("Blattrose", "楓", *NAMES[2:])
    export(network, names, ("none", "both"), 0.9, tmp_path / "model")
    about = tf.saved_model.load(str(tmp_path / "model")).signatures["about"]()
    assert [name.decode() for name in about["names"].numpy()] == list(names)
    assert [flip.decode() for flip in about["flips"].numpy()] == ["none", "both"]
    assert about["sure"].dtype == tf.float32 and float(about["sure"]) == np.float32(0.9)
    assert about["size"].numpy().tolist() == [96, 96]
    assert about["size"].dtype == tf.int32
    assert about["tensorflow"].numpy().decode() == tf.__version__


def test_signature_takes_any_number_of_images(exported, images):
    saved = tf.saved_model.load(str(exported[2])).signatures["probabilities"]
    assert saved.structured_input_signature[1] == {"pixels": tf.TensorSpec([None, 96, 96, 3], tf.float32, name="pixels")}
    for count in (1, 5, 40):
        assert saved(pixels=tf.constant(images[:count], tf.float32))["probabilities"].shape == [count, 8]


@pytest.mark.parametrize("names", [(), NAMES[:7], (*NAMES, "Species9")], ids=["none", "too few", "too many"])
def test_names_that_do_not_fit(network, tmp_path, names):
    export(network, NAMES, ("none",), 1.0, tmp_path / "model")
    before = (tmp_path / "model" / "saved_model.pb").read_bytes()
    with pytest.raises(ValueError, match=f"{len(names)} names for 8 outputs"):
        export(network, names, ("none",), 1.0, tmp_path / "model")
    assert (tmp_path / "model" / "saved_model.pb").read_bytes() == before


def test_another_precision_is_refused(tmp_path):
    """Weights or activations at half precision would ship as they are, and not be what was measured."""
    pixels = keras.Input((96, 96, 3))
    x = keras.layers.Conv2D(8, 3, dtype="mixed_float16")(pixels)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    mixed = keras.Model(pixels, keras.layers.Dense(8, activation="softmax")(x))
    with pytest.raises(ValueError, match="float32"):
        export(mixed, NAMES, ("none",), 1.0, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_older_folder_is_replaced(network, images, known, tmp_path):
    (tmp_path / "model" / "assets").mkdir(parents=True)
    (tmp_path / "model" / "assets" / "stale.txt").write_text("old")
    (tmp_path / ".tmp-model").mkdir()  # an export that was killed
    (tmp_path / ".tmp-model" / "stale.txt").write_text("old")
    export(network, NAMES, ("none",), 1.0, tmp_path / "model")
    assert list(tmp_path.rglob("stale.txt")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    np.testing.assert_allclose(answers(tmp_path / "model", images[:20]), known[:20], rtol=0, atol=1e-2)


def test_an_older_folder_stays_when_the_export_fails(network, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="No space"):
        export(network, NAMES, ("none",), 1.0, tmp_path / "model")
    assert (tmp_path / "model" / "saved_model.pb").read_bytes() == b"old"


# --- folding


def kinds(network):
    return [type(layer).__name__ for layer in network.layers]


def check_folding(network, remaining, seed=3):
    """The folded network is the same function with `remaining` BatchNormalizations, and the given one is as it was."""
    randomise(network, np.random.default_rng(seed))
    x = np.random.default_rng(seed).normal(0, 1, (4, *network.input_shape[1:])).astype(np.float32)
    expected, weights = network.predict(x, verbose=0), network.get_weights()
    folded = fold_batch_norm(network)
    assert expected.std() > 1e-2  # else everything would equal everything
    np.testing.assert_allclose(folded.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(network.predict(x, verbose=0), expected)
    for before, after in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert kinds(folded).count("BatchNormalization") == remaining
    return folded


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_every_form_of_batch_norm_is_folded(bias, scale, center):
    pixels = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, (1, 3), strides=2, padding="same", use_bias=bias)(pixels)
    x = keras.layers.BatchNormalization(scale=scale, center=center, epsilon=0.01)(x)
    folded = check_folding(keras.Model(pixels, keras.layers.ReLU()(x)), remaining=0)
    (conv,) = [layer for layer in folded.layers if isinstance(layer, keras.layers.Conv2D)]
    assert conv.use_bias


def test_grouped_and_dilated_convolutions_are_folded():
    pixels = keras.Input((12, 12, 4))
    x = keras.layers.Conv2D(8, 3, groups=2)(pixels)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(6, 3, dilation_rate=2, use_bias=False)(x)
    check_folding(keras.Model(pixels, keras.layers.BatchNormalization()(x)), remaining=0)


def test_batch_norm_elsewhere_is_kept():
    pixels = keras.Input((12, 12, 3))
    x = keras.layers.BatchNormalization()(pixels)
    x = keras.layers.Conv2D(8, 3)(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(3)(x)
    check_folding(keras.Model(pixels, keras.layers.BatchNormalization()(x)), remaining=4)


def test_a_convolution_with_two_consumers_is_not_folded():
    pixels = keras.Input((12, 12, 3))
    conv = keras.layers.Conv2D(8, 3)(pixels)
    x = keras.layers.Add()([keras.layers.BatchNormalization()(conv), conv])
    check_folding(keras.Model(pixels, x), remaining=1)


def test_batch_norm_along_another_axis_is_kept():
    pixels = keras.Input((10, 10, 3))
    conv = keras.layers.Conv2D(8, 3)(pixels)  # 8×8×8, so that a wrong axis would fit as well
    check_folding(keras.Model(pixels, keras.layers.BatchNormalization(axis=1)(conv)), remaining=1)


def test_nested_networks_are_folded():
    folded = fold_batch_norm(shipped())
    assert kinds(folded.get_layer("backbone")).count("BatchNormalization") == 0
    assert kinds(folded.get_layer("backbone")).count("_Folded") == 2


def test_inception_v3_is_folded():
    """The real backbone. Its statistics are near those of a batch, so that the signal neither dies on its way through 94
    layers nor grows until rounding shows."""
    backbone = architectures.inception_v3("none")
    rng = np.random.default_rng(0)
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    x = architectures.preprocessing(96)(draw_images(16).astype(np.float32))
    backbone(x, training=True)
    for norm in norms:
        shape = norm.moving_mean.shape
        norm.moving_mean.assign_add(rng.normal(0, 0.1, shape) * np.sqrt(norm.moving_variance))
        norm.moving_variance.assign(norm.moving_variance * rng.uniform(1.2, 1.7, shape))
        norm.beta.assign(rng.normal(0, 0.1, shape))
    expected = backbone(x[:4]).numpy()
    assert expected.std(axis=0).mean() > 0.02  # it sees the images
    folded = fold_batch_norm(backbone)
    np.testing.assert_allclose(folded(x[:4]).numpy(), expected, rtol=0, atol=1e-4)
    assert kinds(folded).count("BatchNormalization") == 0
    assert kinds(folded).count("Conv2D") == len(norms) == 94


def test_weights_that_half_precision_would_spoil_are_kept_whole(tmp_path, capsys):
    """All classes share a large weight, and half precision rounds away what tells them apart."""
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    network = keras.Model(pixels, keras.layers.Dense(len(NAMES), activation="softmax")(x))
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([np.random.default_rng(0).normal(1000, 1, kernel.shape), bias])
    export(network, NAMES, ("none",), 1.0, tmp_path / "model")
    assert "single precision" in capsys.readouterr().out
    inputs = np.random.default_rng(1).uniform(0, 255, (9, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(answers(tmp_path / "model", inputs), network.predict(inputs, verbose=0), atol=1e-3)


def test_another_function_is_never_saved(network, tmp_path, monkeypatch):
    monkeypatch.setattr("training.export.fold_batch_norm", keras.models.clone_model)  # with weights of its own
    with pytest.raises(ValueError, match="differ from the network's"):
        export(network, NAMES, ("none",), 1.0, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
