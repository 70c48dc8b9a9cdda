"""The exported SavedModel: its contents, and that it computes the same probabilities as the trained model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import NAMES, python, randomise, tiny_network
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from common.errors import UserError
from competition.synthetic import draw_images
from training import export as export_module
from training.config.recipe import Head, Prediction
from training.export import export, export_run, fold_batch_norm
from training.model.backbones import inception_v3
from training.model.build import build_model, preprocessing
from training.model.heads import quasi_svm_head
from training.trained import TrainedModel

pytestmark = pytest.mark.integration
# Operations that TensorFlow 2.10 has too: those of the model, its preprocessing, and any SavedModel.
PLAIN = """
Add AddV2 AvgPool BiasAdd Cast ConcatV2 Const Conv2D Cos Identity LeakyRelu MatMul MaxPool Maximum Mean
MergeV2Checkpoints Mul NoOp Pack PartitionedCall Placeholder RealDiv Relu Reshape ResizeBicubic RestoreV2 SaveV2
ScaleAndTranslate Select Shape ShardedFilename Softmax Sqrt Squeeze StatefulPartitionedCall StaticRegexFullMatch
StridedSlice StringJoin Sub
"""


@pytest.fixture(scope="module")
def exported_images():
    return draw_images(1000, seed=7)


@pytest.fixture(scope="module")
def plain_model():
    return tiny_network()


def trained(model, names=NAMES, tta_transforms=("none",), tta_threshold=1.0):
    return TrainedModel(model, names, Prediction(tta_transforms, tta_threshold))


def model_that_ships(shared_feature_scale=False):
    """A model of the form that ships: a nested backbone, and a head with a custom layer."""
    pixels = x = keras.Input((None, None, 3))
    for count in (16, 32):
        x = keras.layers.Conv2D(count, 3, strides=2, use_bias=False)(x)
        x = keras.layers.BatchNormalization(scale=False)(x)
        x = keras.layers.LeakyReLU()(x)  # a feature that is 0 almost everywhere cannot be standardized
    backbone = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")
    fields = Head(fourier_features=256, l2=1e-4, shared_feature_scale=shared_feature_scale)
    head = quasi_svm_head(fields, 32, len(NAMES), 4.0, seed=0)
    model = build_model(backbone, head, (96, 96), 32)
    randomise(model, np.random.default_rng(0))
    sample = preprocessing(32)(draw_images(200).astype(np.float32))
    head.get_layer("standardise").adapt(backbone.predict(sample, verbose=0))
    head.layers[-1].set_weights([np.random.default_rng(1).normal(0, 4, (256, 8)), np.zeros(8)])
    return model


def graph(folder):
    return SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]


def operations(folder):
    definition = graph(folder).graph_def
    return {node.op for node in definition.node} | {
        node.op for function in definition.library.function for node in function.node_def
    }


def saved_probabilities(folder, images):
    saved = tf.saved_model.load(str(folder)).signatures["probabilities"]
    batches = [images[start : start + 100] for start in range(0, len(images), 100)]
    return np.concatenate([saved(pixels=tf.constant(batch, tf.float32))["probabilities"].numpy() for batch in batches])


@pytest.fixture(scope="module", params=["plain", "shipped", "shared feature scale"])
def exported(request, plain_model, tmp_path_factory):
    """(model, folder at single precision, folder at half precision)."""
    model = plain_model
    if request.param != "plain":
        model = model_that_ships(shared_feature_scale=request.param == "shared feature scale")
    folder = tmp_path_factory.mktemp(request.param)
    export_at_single_precision(model, folder / "full")
    export(trained(model, tta_transforms=("none", "horizontal")), folder / "half")
    return model, folder / "full", folder / "half"


def export_at_single_precision(model, folder):
    """What `export` does if half precision changes a probability too much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "HALF_TOLERANCE", -1.0)
        export(trained(model, tta_transforms=("none", "horizontal")), folder)


@pytest.mark.parametrize("precision", ["full", "half"])
def test_the_probabilities_are_those_of_the_model(exported, exported_images, precision):
    model, full, half = exported
    expected = model.predict(exported_images, batch_size=100, verbose=0)
    assert len(set(expected.argmax(axis=1))) >= 5  # otherwise equal predictions would prove nothing
    got = saved_probabilities(full if precision == "full" else half, exported_images)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 if precision == "full" else 1e-2)
    changed = int((got.argmax(axis=1) != expected.argmax(axis=1)).sum())
    assert changed <= (0 if precision == "full" else 2)


def test_only_plain_operations_are_used(exported):
    for folder in exported[1:]:
        # no operation of Keras, no variable, no normalization, nothing that TensorFlow 2.10 lacks
        assert operations(folder) - set(PLAIN.split()) == set()


def test_there_is_no_keras_object_and_no_variable(exported):
    for folder in exported[1:]:
        nodes = graph(folder).object_graph_def.nodes
        assert {node.WhichOneof("kind") for node in nodes} <= {"user_object", "function", "bare_concrete_function"}
        kinds = {node.user_object.identifier for node in nodes if node.WhichOneof("kind") == "user_object"}
        assert kinds == {"_generic_user_object", "signature_map"}
        assert b"keras" not in (folder / "saved_model.pb").read_bytes().lower()
        loaded = tf.saved_model.load(str(folder))
        assert set(loaded.signatures) == {"probabilities", "about"}
        assert loaded.signatures["probabilities"].variables == ()


def test_large_constants_are_at_half_precision_and_small_ones_are_not(exported):
    for folder, large in ((exported[1], tf.float32), (exported[2], tf.float16)):
        library = graph(folder).graph_def.library.function
        constants = [
            node.attr["value"].tensor for function in library for node in function.node_def if node.op == "Const"
        ]
        sizes = [(tf.TensorShape(c.tensor_shape).num_elements(), tf.as_dtype(c.dtype)) for c in constants]
        floats = [(size, dtype) for size, dtype in sizes if dtype.is_floating]
        assert {dtype for size, dtype in floats if size >= 1024} == {large}
        assert {dtype for size, dtype in floats if size < 1024} == {tf.float32}


def test_half_precision_is_half_the_size(tmp_path):
    wide = tiny_network(filters=(64, 128, 256))
    export_at_single_precision(wide, tmp_path / "full")
    export(trained(wide), tmp_path / "half")
    full, half = (
        sum(path.stat().st_size for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("full", "half")
    )
    assert 0.49 < half / full < 0.55


def test_it_is_loaded_without_keras(exported, exported_images, tmp_path):
    model, _, half = exported
    np.save(tmp_path / "images.npy", exported_images[:20])
    code = """
import sys
sys.modules["keras"] = sys.modules["tf_keras"] = None  # an import of them would raise
import numpy as np
import tensorflow as tf
saved = tf.saved_model.load(sys.argv[1]).signatures["probabilities"]
np.save("probabilities.npy", saved(pixels=tf.constant(np.load("images.npy"), tf.float32))["probabilities"].numpy())
"""
    done = python("-c", code, half, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = model.predict(exported_images[:20], verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected, rtol=0, atol=1e-2)


def test_transforms_that_swap_height_and_width_need_square_images(tmp_path):
    wide = keras.Sequential(
        [keras.Input((24, 32, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(8, activation="softmax")]
    )
    with pytest.raises(ValueError, match="left needs square images, got 24×32"):
        export(trained(wide, tta_transforms=("none", "left")), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_about_has_the_names_the_augmentation_the_size_and_the_version(plain_model, tmp_path):
    names = ("Blattrose", "楓", *NAMES[2:])
    export(trained(plain_model, names, ("none", "both"), 0.9), tmp_path / "model")
    about = tf.saved_model.load(str(tmp_path / "model")).signatures["about"]()
    assert set(about) == {"names", "tta_transforms", "tta_threshold", "size", "tensorflow"}
    assert [name.decode() for name in about["names"].numpy()] == list(names)
    assert [name.decode() for name in about["tta_transforms"].numpy()] == ["none", "both"]
    assert about["tta_threshold"].dtype == tf.float32 and float(about["tta_threshold"]) == np.float32(0.9)
    assert about["size"].numpy().tolist() == [96, 96]
    assert about["size"].dtype == tf.int32
    assert about["tensorflow"].numpy().decode() == tf.__version__


def test_the_signature_takes_any_number_of_images(exported, exported_images):
    saved = tf.saved_model.load(str(exported[2])).signatures["probabilities"]
    assert saved.structured_input_signature[1] == {
        "pixels": tf.TensorSpec([None, 96, 96, 3], tf.float32, name="pixels")
    }
    for count in (1, 5, 40):
        pixels = tf.constant(exported_images[:count], tf.float32)
        assert saved(pixels=pixels)["probabilities"].shape == [count, 8]


@pytest.mark.parametrize("names", [(), NAMES[:7], (*NAMES, "Species9")], ids=["none", "too few", "too many"])
def test_names_that_do_not_fit_are_refused_and_the_folder_stays(plain_model, tmp_path, names):
    export(trained(plain_model), tmp_path / "model")
    before = (tmp_path / "model" / "saved_model.pb").read_bytes()
    with pytest.raises(ValueError, match=f"8 outputs .* names, got {len(names)}"):
        export(trained(plain_model, names), tmp_path / "model")
    assert (tmp_path / "model" / "saved_model.pb").read_bytes() == before


def test_a_folder_without_a_run_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="no folder .*nowhere"):
        export_run(tmp_path / "nowhere", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_another_precision_is_refused(tmp_path):
    """Weights or activations at half precision would give other probabilities than those that were measured."""
    pixels = keras.Input((96, 96, 3))
    x = keras.layers.Conv2D(8, 3, dtype="mixed_float16")(pixels)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    mixed = keras.Model(pixels, keras.layers.Dense(8, activation="softmax")(x))
    with pytest.raises(ValueError, match="float32"):
        export(trained(mixed), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_older_folder_is_replaced(plain_model, exported_images, tmp_path):
    (tmp_path / "model" / "assets").mkdir(parents=True)
    (tmp_path / "model" / "assets" / "stale.txt").write_text("old")
    export(trained(plain_model), tmp_path / "model")
    assert list(tmp_path.rglob("stale.txt")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    expected = plain_model.predict(exported_images[:20], verbose=0)
    got = saved_probabilities(tmp_path / "model", exported_images[:20])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-2)


def test_an_older_folder_stays_if_the_export_fails(plain_model, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="No space"):
        export(trained(plain_model), tmp_path / "model")
    assert (tmp_path / "model" / "saved_model.pb").read_bytes() == b"old"


# Folding of BatchNormalization


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def check_folding(model, remaining, seed=3):
    """Checks that the folded model is the same function, has `remaining` BatchNormalizations, and changed no weight."""
    randomise(model, np.random.default_rng(seed))
    x = np.random.default_rng(seed).normal(0, 1, (4, *model.input_shape[1:])).astype(np.float32)
    expected, weights = model.predict(x, verbose=0), model.get_weights()
    folded = fold_batch_norm(model)
    assert expected.std() > 1e-2  # otherwise equal outputs would prove nothing
    np.testing.assert_allclose(folded.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    for before, after in zip(weights, model.get_weights(), strict=True):
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
    conv = keras.layers.Conv2D(8, 3)(pixels)  # 8×8×8, so that a wrong axis would fit too
    check_folding(keras.Model(pixels, keras.layers.BatchNormalization(axis=1)(conv)), remaining=1)


def test_nested_models_are_folded():
    folded = fold_batch_norm(model_that_ships())
    assert kinds(folded.get_layer("backbone")).count("BatchNormalization") == 0
    assert kinds(folded.get_layer("backbone")).count("_Folded") == 2


def test_inception_v3_is_folded():
    """Its statistics are close to those of a batch, so that the signal neither vanishes nor explodes in 94 layers."""
    backbone = inception_v3("none")
    rng = np.random.default_rng(0)
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    x = preprocessing(96)(draw_images(16).astype(np.float32))
    backbone(x, training=True)
    for norm in norms:
        shape = norm.moving_mean.shape
        norm.moving_mean.assign_add(rng.normal(0, 0.1, shape) * np.sqrt(norm.moving_variance))
        norm.moving_variance.assign(norm.moving_variance * rng.uniform(1.2, 1.7, shape))
        norm.beta.assign(rng.normal(0, 0.1, shape))
    expected = backbone(x[:4]).numpy()
    assert expected.std(axis=0).mean() > 0.02  # the features depend on the images
    folded = fold_batch_norm(backbone)
    np.testing.assert_allclose(folded(x[:4]).numpy(), expected, rtol=0, atol=1e-4)
    assert kinds(folded).count("BatchNormalization") == 0
    assert kinds(folded).count("Conv2D") == len(norms) == 94


def test_weights_that_need_single_precision_keep_it(tmp_path, capsys):
    """All classes share a large weight, and half precision rounds their differences away."""
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, keras.layers.Dense(len(NAMES), activation="softmax")(x))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.random.default_rng(0).normal(1000, 1, kernel.shape), bias])
    export(trained(model), tmp_path / "model")
    assert "single precision" in capsys.readouterr().out
    inputs = np.random.default_rng(1).uniform(0, 255, (9, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(
        saved_probabilities(tmp_path / "model", inputs), model.predict(inputs, verbose=0), atol=1e-3
    )


def test_a_model_with_other_probabilities_is_never_saved(plain_model, tmp_path, monkeypatch):
    monkeypatch.setattr("training.export.fold_batch_norm", keras.models.clone_model)  # with other weights
    with pytest.raises(ValueError, match="probabilities differ from the model"):
        export(trained(plain_model), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
