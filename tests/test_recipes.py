"""The recipes of the report: each trains, and is what its docstring and the report say of it."""

import dataclasses
import json
import math
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import tiny
from helpers import ROOT, python

from competition.drawings import draw_folder
from training import architectures, fit, run
from training.__main__ import load_recipe, recipe_names
from training.architectures import scratch_resnet, scratch_vgg, softmax_head, vgg19, whole_network
from training.augment import NO_CHANGE, augment_offline
from training.balance import natural, oversample, repeat_classes, smote, svmsmote, undersample
from training.data import Images, load_folder, split
from training.distribute import prepare
from training.errors import UserError
from training.features import extract
from training.fit import finetune, make_backbone, read_history
from training.pipeline import array_batches, folder_batches
from training.thaw import Budget, Edges, thaw

NAMES = tuple(f"Species{number}" for number in range(1, 9))
RARE = ("Species1", "Species6")


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    """Eight classes of 17 drawn leaves, of the two rare ones 8, so that SMOTE has neighbours and something to do."""
    folder = tmp_path_factory.mktemp("recipes") / "leaves"
    draw_folder(folder, 17, side=48)
    for name in RARE:
        for path in sorted((folder / name).iterdir())[8:]:
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def network_of_vgg19():
    """(VGG19 with random weights, thawed as its recipe does, below its softmax; recipe)."""
    recipe = load_recipe("vgg19")
    backbone = make_backbone(recipe, "none")
    return whole_network(backbone, softmax_head(recipe, 512, 8), (48, 48), 48), recipe


def shrunk(recipe):
    """One epoch of a step or two at 48 pixels below a tiny backbone."""
    return replace(
        recipe,
        start=recipe.start and shrunk(recipe.start),
        backbone=tiny,
        phases=((min(1, recipe.epochs), 48),),
        warmup=min(recipe.warmup, 0.5),
        frozen_epochs=min(1, recipe.frozen_epochs),
        averaged_epochs=min(1, recipe.averaged_epochs),
        batch=64,
        head_views=1,
        head_epochs=1,
        head_features=16,
    )


DRIVER = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import conftest, test_recipes
from training import __main__ as cli
load = cli.load_recipe
cli.load_recipe = lambda name: test_recipes.shrunk(load(name))
sys.exit(cli.main(sys.argv[3:]))
"""


REAL = ("online", "scratch_resnet")  # those whose network is small enough; the other comparisons have `online`'s
LOADED = (*REAL, "vgg19", "inception_svm", "tuned")  # one of each kind of network


def trained(name, leaves, out):
    """The metrics of a shrunk run; one on several devices has a process of its own, whose processor is divided."""
    recipe = shrunk(load_recipe(name))
    if name in REAL:
        recipe = replace(recipe, backbone=load_recipe(name).backbone, offline=())
    if recipe.replicas == 1:
        return recipe, run.train(recipe, name, leaves, "none", out)
    arguments = ("run", name, "--data", leaves, "--out", out, "--backbone-weights", "none")
    done = python("-c", DRIVER, ROOT, ROOT / "tests", *arguments, cwd=ROOT, isolated=False)
    assert done.returncode == 0, done.stderr
    return recipe, json.loads((out / "metrics.json").read_text("utf-8"))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_an_epoch(name, leaves, tmp_path, monkeypatch):
    recipe, result = trained(name, leaves, tmp_path / "out")
    assert result["images"] == round(118 * recipe.validation)
    history = read_history(tmp_path / "out" / "history.csv")
    frozen = read_history(tmp_path / "out" / "frozen_history.csv") if recipe.frozen_epochs else []
    assert (len(history), len(frozen)) == (recipe.epochs, recipe.frozen_epochs)
    assert len(history) + len(frozen) >= 1
    assert all(np.isfinite(row["loss"]) for row in history + frozen)
    assert (tmp_path / "out" / "quasi_svm.weights.h5").exists() == (recipe.head == "quasi_svm")
    if name in LOADED:  # what is loaded is what was measured
        monkeypatch.setattr(architectures, "tiny", tiny, raising=False)
        network, names, *views = run.load_network(tmp_path / "out")
        held = run._parts(recipe, load_folder(leaves))[1]
        confusion = np.zeros((8, 8), int)
        np.add.at(confusion, (held.labels, run.predict(network, held.images, *views).argmax(axis=1)), 1)
        assert names == NAMES
        assert confusion.tolist() == result["confusion"]


# What the report says of its networks


def count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def layers_of(network, kind):
    return [layer for layer in network.layers if isinstance(layer, kind)]


def test_the_small_network_has_fewer_than_140_000_parameters():
    recipe = load_recipe("scratch_vgg")
    backbone = scratch_vgg("none")
    head = softmax_head(recipe, backbone.output_shape[-1], 8)
    assert recipe.backbone is scratch_vgg
    assert 100_000 < count(backbone.trainable_variables) + count(head.trainable_variables) < 140_000
    assert len(layers_of(backbone, keras.layers.Conv2D)) == 10


def test_the_deeper_network_is_twice_as_deep_and_has_skip_connections():
    small, deep = scratch_vgg("none"), scratch_resnet("none")
    assert load_recipe("scratch_resnet").backbone is scratch_resnet
    three = [sum(layer.kernel_size == (3, 3) for layer in layers_of(network, keras.layers.Conv2D)) for network in (small, deep)]
    assert 1.8 * three[0] <= three[1] <= 2.2 * three[0]
    assert not layers_of(small, keras.layers.Add)
    assert len(layers_of(deep, keras.layers.Add)) >= 5


@pytest.mark.parametrize("build", [scratch_vgg, scratch_resnet])
def test_a_network_from_scratch_does_not_see_the_light_of_the_day(build):
    backbone = build("none")
    image = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 48, 48, 3)).astype(np.float32)
    np.testing.assert_allclose(backbone(image * 1.7 + 0.2), backbone(image), atol=2e-2)
    assert np.abs(backbone(image[:1]) - backbone(image[1:])).max() > 1e-3


def test_a_network_from_scratch_says_that_it_takes_no_weights(leaves, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "finetune", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.train(load_recipe("online"), "online", leaves, "some.weights.h5", tmp_path / "out")
    assert "scratch_vgg starts from random weights; --backbone-weights some.weights.h5 is not used" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "recipe.json").read_text("utf-8"))["backbone_weights"] == "none"


def test_vgg19_has_its_own_preprocessing():
    backbone = vgg19("none")
    before = keras.Model(backbone.input, layers_of(backbone, keras.layers.Conv2D)[0].input)
    images = np.random.default_rng(0).uniform(0, 255, (3, 40, 50, 3)).astype(np.float32)
    expected = keras.applications.vgg19.preprocess_input(images.copy())
    np.testing.assert_allclose(before(images / 127.5 - 1), expected, atol=1e-3)


def test_vgg19_thaws_its_last_14_layers_and_the_pooling(network_of_vgg19):
    network, recipe = network_of_vgg19
    backbone = network.get_layer("backbone")
    flags = [layer.trainable for layer in backbone.layers]
    assert flags == [False] * (len(flags) - 15) + [True] * 15
    assert isinstance(backbone.layers[-1], keras.layers.GlobalAveragePooling2D)
    assert backbone.layers[-16].name != backbone.layers[-15].name == "block3_conv2"
    assert recipe.learning_rate <= 1e-5 < recipe.frozen_learning_rate


def test_vgg19_is_saved_and_loaded_whole(network_of_vgg19, tmp_path):
    network, recipe = network_of_vgg19
    network.save_weights(tmp_path / "whole.weights.h5")
    network.get_layer("backbone").save_weights(tmp_path / "backbone.weights.h5")
    other = whole_network(vgg19("none"), softmax_head(recipe, 512, 8), (48, 48), 48)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        other.load_weights(tmp_path / "whole.weights.h5")
        backbone = vgg19(str(tmp_path / "backbone.weights.h5"))
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 48, 48, 3)).astype(np.float32)
    for one, two in ((network, other), (network.get_layer("backbone"), backbone)):
        assert len(one.get_weights()) == len(two.get_weights())
        assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True))
        np.testing.assert_allclose(one(pixels), two(pixels), rtol=1e-4)
    assert not [str(warning.message) for warning in caught if "Skipping" in str(warning.message)]


def test_vgg19_s_first_phase_leaves_the_backbone_as_it_came(leaves, tmp_path, monkeypatch):
    recipe = replace(shrunk(load_recipe("vgg19")), head_views=2, frozen_epochs=3, frozen_learning_rate=1e-2)
    images = load_folder(leaves)
    train, held = (images.rows(rows) for rows in split(images.labels, 0.25, 0))
    seen = []
    monkeypatch.setattr(fit, "_epochs", lambda recipe, backbone, head, *others: seen.extend((backbone, head)))
    finetune(recipe, train, held, "none", tmp_path, tmp_path / "features")
    start = make_backbone(recipe, "none")
    head = softmax_head(recipe, 8, 8)
    for before, after in zip(start.get_weights(), seen[0].get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(head.get_weights(), seen[1].get_weights(), strict=True))
    losses = [row["loss"] for row in read_history(tmp_path / "frozen_history.csv")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_a_frozen_backbone_alone_is_a_whole_network(leaves, tmp_path):
    recipe = replace(shrunk(load_recipe("tuned")), seed=3, dense=(128,))
    images = load_folder(leaves)
    train, held = (images.rows(rows) for rows in split(images.labels, 0.25, 0))
    parameters = finetune(recipe, train, held, "none", tmp_path, tmp_path / "features")
    backbone = tiny("none")
    network = whole_network(backbone, softmax_head(recipe, 8, 8), (48, 48), recipe.size)
    network.load_weights(tmp_path / "best.weights.h5")
    for before, after in zip(make_backbone(recipe, "none").get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert parameters == 8 * 128 + 128 + 128 * 8 + 8
    features = extract(backbone, held.images, 48)[0]
    best = min(row["val_loss"] for row in read_history(tmp_path / "frozen_history.csv"))
    answers = network.get_layer("softmax_head").predict(features, verbose=0)
    assert -np.log(answers[np.arange(len(held)), held.labels]).mean() == pytest.approx(best, rel=1e-4)


def test_inception_edges_trains_830_000_parameters(inception):
    recipe = load_recipe("inception_edges")
    assert recipe.thaw == Edges(15, 15)
    assert recipe.dense == (128,)
    head = softmax_head(recipe, 2048, 8)
    assert thaw(inception, recipe.thaw, recipe.batch_norm) + count(head.trainable_variables) == 829_880


@pytest.mark.parametrize("name", ["inception_more", "inception_svm", "inception_decay", "inception_svm_full"])
def test_inception_more_trains_5_to_6_million(inception, name):
    recipe = load_recipe(name)
    assert recipe.thaw == Budget(6_000_000)
    assert 5_000_000 < thaw(inception, recipe.thaw, recipe.batch_norm) <= 6_000_000


def changes(name, base):
    """Names of the fields in which two recipes differ."""
    one, other = load_recipe(name), load_recipe(base)
    return {field.name for field in dataclasses.fields(one) if getattr(one, field.name) != getattr(other, field.name)}


FIELDS = {
    ("inception_svm", "inception_more"): {"head"},
    ("inception_svm_full", "inception_svm"): {"validation"},
    ("inception_decay", "inception_more"): {"schedule", "warmup"},
    ("inception_multi_gpu", "inception_edges"): {"replicas"},
    ("scratch_resnet", "scratch_vgg"): {"backbone"},
    ("online", "scratch_vgg"): {"offline", "augmentation", "phases"},
    ("class_weights", "online"): {"class_weights"},
    ("concat", "online"): {"repeats", "phases"},
    ("oversample", "online"): {"resampling", "phases"},
    ("undersample", "online"): {"resampling", "phases"},
    ("smote", "online"): {"resampling", "phases"},
    ("svmsmote", "online"): {"resampling", "phases"},
    ("offline", "online"): {"offline", "augmentation", "phases"},
    ("selective", "online"): {"offline", "augmentation", "phases"},
    ("randaug", "online"): {"augmentation", "layers"},
    ("cutmix", "online"): {"layers"},
    ("mixup", "online"): {"layers"},
    ("randaug_cutmix_mixup", "randaug"): {"layers"},
    ("folders", "online"): {"pipeline"},
    ("inception_svm_averaged_full", "inception_svm_averaged"): {"validation", "start"},
    ("inception_svm_mixed", "inception_svm_192"): {
        *("keep", "layers", "phases", "averaged_epochs", "head_views", "head_learning_rate", "test_flips", "test_sure")
    },
    ("inception_svm_mixed_full", "inception_svm_mixed"): {"validation"},
    ("inception_svm_quiet", "inception_svm_mixed"): {"validation", "backbone", "phases", "schedule"},
    ("inception_svm_quiet_full", "inception_svm_quiet"): {"validation"},
    ("leaderboard", "inception_svm_quiet"): {"start", "phases", "learning_rate", "head_common_scale", "head_logit_adjustment", "test_sure"},
    ("leaderboard_full", "leaderboard"): {"validation", "start"},
}


@pytest.mark.parametrize(("pair", "fields"), FIELDS.items(), ids=lambda names: "-".join(sorted(names) if isinstance(names, set) else names))
def test_a_variant_differs_in_what_it_names_and_in_nothing_else(pair, fields):
    assert changes(*pair) == fields


def test_variants_are_what_their_names_say():
    resampling = {name: load_recipe(name).resampling for name in ("online", "oversample", "undersample", "smote", "svmsmote")}
    expected = {"online": natural, "oversample": oversample, "undersample": undersample, "smote": smote, "svmsmote": svmsmote}
    assert resampling == expected
    layers = {
        name: [layer.__name__ for layer in load_recipe(name).layers] for name in ("randaug", "cutmix", "mixup", "randaug_cutmix_mixup")
    }
    assert layers["randaug_cutmix_mixup"] == layers["randaug"] + layers["cutmix"] + layers["mixup"] == ["rand_augment", "cut_mix", "mix_up"]
    assert load_recipe("folders").pipeline is folder_batches
    assert load_recipe("online").pipeline is array_batches
    assert load_recipe("class_weights").class_weights
    for name in ("offline", "selective", "scratch_vgg"):
        assert load_recipe(name).augmentation == NO_CHANGE != load_recipe("online").augmentation


COUNTS = (149, 426, 412, 409, 425, 178, 429, 406)  # of the competition's training part


def steps(recipe):
    """Training steps of a recipe on the competition's class counts; pixels are few, since none are looked at."""
    labels = np.repeat(np.arange(8), COUNTS)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 2, 2, 3)).astype(np.uint8)
    images = recipe.resampling(Images(pixels, labels, NAMES, ("",) * len(labels)), 0)
    images = augment_offline(images, recipe.offline, NO_CHANGE, 0)
    return recipe.epochs * math.ceil(len(repeat_classes(images.labels, NAMES, recipe.repeats)) / recipe.batch)


COMPARED = sorted(name for name, base in FIELDS if base == "online") + ["randaug_cutmix_mixup"]


@pytest.mark.parametrize("name", COMPARED)
def test_variants_train_as_many_steps_as_their_base(name):
    assert steps(load_recipe(name)) == pytest.approx(steps(load_recipe("online")), rel=0.15)


def test_the_numbers_in_the_docstrings_are_right():
    recipe = load_recipe("scratch_vgg")
    assert steps(recipe) / recipe.epochs * recipe.batch == pytest.approx(12_640, abs=recipe.batch)
    plain = math.ceil(sum(COUNTS) / recipe.batch)
    assert steps(recipe) / plain == pytest.approx(13, abs=0.5)
    edges = load_recipe("inception_edges")
    assert steps(edges) / plain == pytest.approx(50, rel=0.15)


def test_dividing_a_processor_in_use_is_a_fault_of_the_user():
    keras.ops.zeros(1) + 1
    with pytest.raises(UserError, match="2 replicas.*start a new process"):
        prepare(2)
