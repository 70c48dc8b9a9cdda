"""Every recipe trains one real step, and the networks are as the report describes them."""

import json
import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import NAMES, ROOT, change, python, tiny

import training.fit.finetune as fit
from common.images import Images, load_folder
from competition.synthetic import draw_folder
from training import run
from training.data.augment import NO_TRANSFORMS, precompute_augmentation
from training.data.balance import repeat_classes
from training.data.split import TrainVal, split_rows
from training.fit.checkpoint import read_history
from training.fit.features import FeatureSpec, extract_features
from training.fit.finetune import finetune, make_backbone
from training.model import backbones
from training.model.backbones import scratch_resnet, scratch_vgg, vgg19
from training.model.build import build_model
from training.model.heads import softmax_head
from training.model.trainable import FirstLast, ParameterBudget, set_trainable
from training.predict import predict_proba
from training.recipes import load_recipe, recipe_names
from training.recipes.ablations import ABLATIONS
from training.run import Inputs
from training.trained import load_run

pytestmark = pytest.mark.integration
RARE = ("Species1", "Species6")


@pytest.fixture(scope="module")
def eight_classes(tmp_path_factory):
    """Eight classes of 17 synthetic leaves. The rare ones have 8, enough for SMOTE's neighbors."""
    folder = tmp_path_factory.mktemp("recipes") / "leaves"
    draw_folder(folder, 17, side=48)
    for name in RARE:
        for path in sorted((folder / name).iterdir())[8:]:
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def vgg19_model():
    """(VGG19 with random weights under its softmax head, with the layers trainable that its recipe trains; recipe)."""
    recipe = load_recipe("vgg19")
    backbone = make_backbone(recipe, "none")
    return build_model(backbone, softmax_head(recipe.finetune, 512, 8), (48, 48), 48), recipe


def one_epoch(recipe):
    """The recipe with one epoch of a step or two at 48 pixels and a tiny backbone."""
    head = replace(recipe.head, views=1, epochs=1, fourier_features=16)
    return replace(recipe, finetune=one_epoch_of(recipe.finetune), head=head)


def one_epoch_of(tune):
    return replace(
        tune,
        init_from=tune.init_from and one_epoch_of(tune.init_from),
        backbone=tiny,
        resolution_schedule=((min(1, tune.epochs), 48),),
        warmup_epochs=min(tune.warmup_epochs, 0.5),
        head_warmup_epochs=min(1, tune.head_warmup_epochs),
        swa_epochs=min(1, tune.swa_epochs),
        batch_size=64,
    )


# A command line whose recipes have one epoch, in a process of its own, because several devices divide its processor.
DRIVER = """
import sys
sys.path[:0] = sys.argv[1:3]
import helpers
from training import __main__ as cli
from training.commands import train
this, load = helpers.load_module(sys.argv[3]), train.load_recipe
train.load_recipe = lambda name: this.one_epoch(load(name))
sys.exit(cli.main(sys.argv[4:]))
"""

REAL = ("scratch_vgg", "scratch_resnet")  # recipes whose own network is small enough
LOADED = (*REAL, "vgg19", "inception_svm", "tuned")  # one of each kind of network


def trained(name, data, out):
    """(recipe, metrics) of a run with one epoch."""
    recipe = one_epoch(load_recipe(name))
    if name in REAL:
        recipe = change(recipe, backbone=load_recipe(name).finetune.backbone, precomputed=())
    if recipe.finetune.replicas == 1:
        return recipe, run.train(recipe, name, Inputs(data, "none"), out)
    arguments = ("run", name, "--data", data, "--out", out, "--backbone-weights", "none")
    done = python("-c", DRIVER, ROOT, ROOT / "tests", __file__, *arguments, cwd=ROOT, isolated=False)
    assert done.returncode == 0, done.stderr
    return recipe, json.loads((out / "metrics.json").read_text("utf-8"))


# One recipe of each kind of network, data, augmentation and head; the others differ from them by a number.
QUICK = {"scratch_vgg", "tuned", "inception_edges", "inception_svm", "released", "folders", "smote"}
QUICK |= {"class_weights", "cutmix"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in recipe_names()]
)
def test_every_recipe_trains_an_epoch(name, eight_classes, tmp_path, monkeypatch):
    out = tmp_path / "out"
    recipe, result = trained(name, eight_classes, out)
    assert result["images"] == round(118 * recipe.data.validation_split)
    history = read_history(out / "history.csv")
    warmup = read_history(out / "head_warmup_history.csv") if recipe.finetune.head_warmup_epochs else []
    assert (len(history), len(warmup)) == (recipe.finetune.epochs, recipe.finetune.head_warmup_epochs)
    assert len(history) + len(warmup) >= 1
    assert all(np.isfinite(row["loss"]) for row in history + warmup)
    assert (out / "quasi_svm.weights.h5").exists() == (recipe.head.kind == "quasi_svm")
    if name in LOADED:
        monkeypatch.setattr(backbones, "tiny", tiny, raising=False)
        check_loaded_model_is_the_measured_one(recipe, eight_classes, out, result)


def check_loaded_model_is_the_measured_one(recipe, data, out, result):
    loaded, val = load_run(out), val_part(recipe, data)
    confusion = np.zeros((8, 8), int)
    predicted = predict_proba(loaded.model, val.images, loaded.prediction).argmax(axis=1)
    np.add.at(confusion, (val.labels, predicted), 1)
    assert loaded.names == NAMES
    assert confusion.tolist() == result["confusion"]


def val_part(recipe, data):
    images = load_folder(data)
    return images.rows(split_rows(recipe.data, images)[1])


def parts(data, recipe):
    """The images split, but not balanced."""
    images = load_folder(data)
    return TrainVal(*(images.rows(rows) for rows in split_rows(replace(recipe.data, validation_split=0.25), images)))


def test_network_from_scratch_says_that_it_uses_no_weights(eight_classes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "finetune", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.train(load_recipe("scratch_vgg"), "scratch_vgg", Inputs(eight_classes, "some.weights.h5"), tmp_path / "out")
    line = "scratch_vgg starts from random weights; --backbone-weights some.weights.h5 is not used"
    assert line in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["backbone_weights"] == "none"


# Steps of the comparisons

COUNTS = (149, 426, 412, 409, 425, 178, 429, 406)  # of the competition's training part


def steps(recipe):
    """Training steps of a recipe on the competition's class counts. The images are tiny, because nothing sees them."""
    labels = np.repeat(np.arange(8), COUNTS)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 2, 2, 3)).astype(np.uint8)
    images = recipe.data.resampling(Images(pixels, labels, NAMES, ("",) * len(labels)), 0)
    images = precompute_augmentation(images, recipe.augmentation.precomputed, NO_TRANSFORMS, 0)
    rows = repeat_classes(images.labels, NAMES, recipe.data.class_repeats)
    return recipe.finetune.epochs * math.ceil(len(rows) / recipe.finetune.batch_size)


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"online"}))
def test_variant_trains_as_many_steps_as_its_base(name):
    assert steps(load_recipe(name)) == pytest.approx(steps(load_recipe("online")), rel=0.15)


def test_numbers_of_images_and_steps_in_the_docstrings_are_right():
    recipe = load_recipe("scratch_vgg")
    batch_size = recipe.finetune.batch_size
    assert steps(recipe) / recipe.finetune.epochs * batch_size == pytest.approx(12_640, abs=batch_size)
    plain = math.ceil(sum(COUNTS) / batch_size)
    assert steps(load_recipe("inception_edges")) / plain == pytest.approx(50, rel=0.15)


# The networks, as the report describes them


def count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def layers_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_small_network_has_fewer_than_140_000_parameters():
    recipe = load_recipe("scratch_vgg")
    backbone = scratch_vgg("none")
    head = softmax_head(recipe.finetune, backbone.output_shape[-1], 8)
    assert recipe.finetune.backbone is scratch_vgg
    assert 100_000 < count(backbone.trainable_variables) + count(head.trainable_variables) < 140_000
    assert len(layers_of(backbone, keras.layers.Conv2D)) == 10


def test_deeper_network_is_twice_as_deep_and_has_skip_connections():
    small, deep = scratch_vgg("none"), scratch_resnet("none")
    assert load_recipe("scratch_resnet").finetune.backbone is scratch_resnet
    three = [
        sum(layer.kernel_size == (3, 3) for layer in layers_of(model, keras.layers.Conv2D)) for model in (small, deep)
    ]
    assert 1.8 * three[0] <= three[1] <= 2.2 * three[0]
    assert not layers_of(small, keras.layers.Add)
    assert len(layers_of(deep, keras.layers.Add)) >= 5


def test_vgg19_trains_its_last_14_layers_and_the_pooling(vgg19_model):
    model, recipe = vgg19_model
    backbone = model.get_layer("backbone")
    flags = [layer.trainable for layer in backbone.layers]
    assert flags == [False] * (len(flags) - 15) + [True] * 15
    assert isinstance(backbone.layers[-1], keras.layers.GlobalAveragePooling2D)
    assert backbone.layers[-16].name != backbone.layers[-15].name == "block3_conv2"
    assert recipe.finetune.learning_rate <= 1e-5 < recipe.finetune.head_warmup_learning_rate


def test_vgg19_is_saved_and_loaded_completely(vgg19_model, tmp_path, recwarn):
    model, recipe = vgg19_model
    model.save_weights(tmp_path / "model.weights.h5")
    model.get_layer("backbone").save_weights(tmp_path / "backbone.weights.h5")
    other = build_model(vgg19("none"), softmax_head(recipe.finetune, 512, 8), (48, 48), 48)
    other.load_weights(tmp_path / "model.weights.h5")
    backbone = vgg19(str(tmp_path / "backbone.weights.h5"))
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 48, 48, 3)).astype(np.float32)
    for one, two in ((model, other), (model.get_layer("backbone"), backbone)):
        assert len(one.get_weights()) == len(two.get_weights())
        assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True))
        np.testing.assert_allclose(one(pixels, training=False), two(pixels, training=False), rtol=1e-4)
    assert not [str(warning.message) for warning in recwarn if "Skipping" in str(warning.message)]


def test_head_warm_up_of_vgg19_does_not_change_the_backbone(eight_classes, tmp_path, monkeypatch):
    recipe = change(one_epoch(load_recipe("vgg19")), head_warmup_epochs=3, head_warmup_learning_rate=1e-2)
    recipe = replace(recipe, head=replace(recipe.head, views=2))
    jobs = []
    monkeypatch.setattr(fit, "_run_epochs", jobs.append)
    finetune(recipe, parts(eight_classes, recipe), "none", tmp_path, tmp_path / "features")
    backbone = make_backbone(recipe, "none")
    head = softmax_head(recipe.finetune, 8, 8)
    for before, after in zip(backbone.get_weights(), jobs[0].backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(head.get_weights(), jobs[0].head.get_weights(), strict=True))
    losses = [row["loss"] for row in read_history(tmp_path / "head_warmup_history.csv")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_model_without_fine_tuning_is_the_backbone_and_its_best_head(eight_classes, tmp_path):
    recipe = change(one_epoch(load_recipe("tuned")), seed=3, dense_units=(128,))
    data = parts(eight_classes, recipe)
    parameters = finetune(recipe, data, "none", tmp_path, tmp_path / "features")
    backbone = tiny("none")
    model = build_model(backbone, softmax_head(recipe.finetune, 8, 8), (48, 48), recipe.finetune.input_size)
    model.load_weights(tmp_path / "finetuned.weights.h5")
    for before, after in zip(make_backbone(recipe, "none").get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert parameters == 8 * 128 + 128 + 128 * 8 + 8
    features = extract_features(backbone, data.val.images, FeatureSpec(48))[0]
    best = min(row["val_loss"] for row in read_history(tmp_path / "head_warmup_history.csv"))
    probabilities = model.get_layer("softmax_head").predict(features, verbose=0)
    loss = -np.log(probabilities[np.arange(len(data.val)), data.val.labels]).mean()
    assert loss == pytest.approx(best, rel=1e-4)


def test_inception_svm_trains_both_ends_within_six_million_parameters(inception):
    recipe = load_recipe("inception_svm")
    parameters = set_trainable(inception, recipe.finetune.trainable, recipe.finetune.train_batch_norm)
    flags = [bool(layer.trainable_variables) for layer in inception.layers]
    assert 5_000_000 < parameters <= 6_000_000
    assert any(flags[:15])
    assert any(flags[-15:])
    assert not any(flags[140:180])
    assert recipe.finetune.train_batch_norm
    assert recipe.finetune.input_size == 96
    assert recipe.data.class_repeats == {"Species1": 2, "Species6": 2}


def test_inception_edges_trains_830_000_parameters(inception):
    recipe = load_recipe("inception_edges")
    tune = recipe.finetune
    assert tune.trainable == FirstLast(15, 15)
    assert tune.dense_units == (128,)
    head = softmax_head(tune, 2048, 8)
    trained_parameters = set_trainable(inception, tune.trainable, tune.train_batch_norm)
    assert trained_parameters + count(head.trainable_variables) == 829_880


@pytest.mark.parametrize("name", ["inception_more", "inception_svm", "inception_decay", "inception_svm_full"])
def test_inception_more_trains_5_to_6_million_parameters(inception, name):
    tune = load_recipe(name).finetune
    assert tune.trainable == ParameterBudget(6_000_000)
    assert 5_000_000 < set_trainable(inception, tune.trainable, tune.train_batch_norm) <= 6_000_000


@pytest.mark.parametrize("name", ["released", "released_full"])
def test_all_layers_of_inception_are_trained(inception, name):
    tune = load_recipe(name).finetune
    assert set_trainable(inception, tune.trainable, tune.train_batch_norm) == 21_768_352
