"""What several test files share: a tiny network and its submission, stub zips, and fresh processes."""

import atexit
import csv
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).resolve().parents[1]
NAMES = tuple(f"Species{number}" for number in range(1, 9))

# A submission that passes every check; `{answers}` is an expression of x, int64 [n, h, w, c].
STUB = """
import numpy as np

class model:
    def __init__(self, path=None):
        pass

    def predict(self, X):
        x = np.asarray(X).astype(np.int64)
        good = x[:, ::7, ::5].sum((1, 2, 3)) % 8
        return {answers}

Model = model  # the contract of 2024, under which TensorFlow need not be imported
"""


def stub(answers="good"):
    """The source of a stub submission."""
    return STUB.format(answers=answers)


def csv_rows(path):
    """The rows of a CSV file, each a list of its cells."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def stub_zip(path, source, metadata=""):
    """Writes a submission of one model.py. Returns the path."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.py", source)
        archive.writestr("metadata", metadata)
    return path


def tiny(weights):
    """A backbone of 1,472 weights with the interface of `backbones.inception_v3`; it trains within seconds."""
    import keras

    pixels = x = keras.Input((None, None, 3))
    for channels, side in ((8, 5), (8, 3)):
        x = keras.layers.Conv2D(channels, side, strides=4, use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
        x = keras.layers.ReLU(name=f"block{side}")(x)
    backbone = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")
    if weights not in ("imagenet", "none"):
        backbone.load_weights(weights)
    return backbone


def tiny_mixed(weights):
    """A backbone of three convolutions with the names of InceptionV3's last blocks; trained within seconds."""
    import keras

    pixels = x = keras.Input((None, None, 3))
    for name in ("mixed7", "mixed8", "mixed10"):
        x = keras.layers.Conv2D(8, 3, strides=3, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU(name=name)(x)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")


def tiny_recipe(**changes):
    """A recipe that trains an epoch of the tiny backbone on 32×32 images and holds a quarter out, with changes."""
    from training.config.recipe import Data, Finetune, Head, Recipe

    finetune = Finetune(
        backbone=tiny, resolution_schedule=((1, 32),), batch_size=8, warmup_epochs=0.0, learning_rate=1e-2
    )
    return change(Recipe(data=Data(validation_split=0.25), finetune=finetune, head=Head(kind="softmax")), **changes)


def shrunk(recipe):
    """The recipe with everything that takes time made small."""
    return change(
        recipe,
        backbone=tiny,
        resolution_schedule=((1, 75), (1, 80)),
        batch_size=8,
        head=replace(recipe.head, views=2, epochs=4, fourier_features=64, batch_size=16),
    )


def change(recipe, **values):
    """A recipe with other fields: sections and top-level fields by their names, all others where they are unique.

    `batch_size`, `learning_rate`, `dropout` and `epochs` mean those of the fine-tuning.
    """
    sections = {}
    for name, value in values.items():
        if hasattr(recipe, name):
            sections[name] = value
    recipe = replace(recipe, **sections)
    for section in ("finetune", "data", "augmentation", "prediction", "head"):
        part = getattr(recipe, section)
        own = {name: value for name, value in values.items() if name not in sections and name in vars(part)}
        values = {name: value for name, value in values.items() if name not in own}
        sections[section] = replace(part, **own)
    unknown = set(values) - set(sections)
    assert not unknown, unknown
    return replace(recipe, **sections)


def randomise(network, rng):
    """Draws every convolution and BatchNormalization anew, so that no statistic is the trivial 0 or 1."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.Model):
            randomise(layer, rng)
        elif isinstance(layer, keras.layers.Conv2D):
            fan_in = layer.kernel.shape[0] * layer.kernel.shape[1] * layer.kernel.shape[2]
            layer.kernel.assign(rng.normal(0, (2 / fan_in) ** 0.5, layer.kernel.shape))
            if layer.use_bias:
                layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))
        elif isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.3, shape))
            layer.moving_variance.assign(rng.uniform(0.3, 2, shape))
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.3, shape))


def tiny_network(size=24, filters=(16, 32, 64), seed=0):
    """[b, 96, 96, 3] of 0 to 255 → 8 probabilities; a second to build, and all classes come up."""
    import keras
    import numpy as np

    from competition.synthetic import draw_images
    from training.model.build import preprocessing

    rng = np.random.default_rng(seed)
    pixels = keras.Input((96, 96, 3))
    x = preprocessing(size)(pixels)
    for count in filters:
        x = keras.layers.Conv2D(count, 3, strides=1 if count == filters[0] else 2, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(pixels, keras.layers.Dense(len(NAMES), activation="softmax")(pooled))
    randomise(network, rng)
    features = keras.Model(pixels, pooled).predict(draw_images(64, seed=seed + 100), verbose=0)
    kernel = rng.normal(0, 0.3, (filters[-1], len(NAMES))) / (features.std(axis=0)[:, None] + 1e-3)
    network.layers[-1].set_weights([kernel, -features.mean(axis=0) @ kernel])
    return network


@functools.cache
def tiny_submission(tta_transforms=("none", "horizontal"), tta_threshold=1.0):
    """An unpacked submission: model.py, metadata, SubmissionModel. Shared by the tests: copy it before changing it."""
    from training.config.recipe import Prediction
    from training.export import export
    from training.trained import TrainedModel

    folder = Path(tempfile.mkdtemp(prefix="tiny-submission-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("model.py", "metadata"):
        shutil.copy(ROOT / "submission" / name, folder / name)
    trained = TrainedModel(tiny_network(), NAMES, Prediction(tta_transforms, tta_threshold))
    export(trained, folder / "SubmissionModel")
    return folder


def load_module(path, name="loaded"):
    """A Python file as a module of its own, not kept in sys.modules."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python(*arguments, cwd=None, isolated=True, environment=None, timeout=300):
    """Runs a fresh interpreter, isolated from this project unless told. Returns the `subprocess.CompletedProcess`."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", **(environment or {})}
    command = [sys.executable, *(["-I"] if isolated else []), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, errors="replace", timeout=timeout
    )
