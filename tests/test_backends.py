"""Training without TensorFlow: the same recipe takes the same step under Keras' JAX backend."""

import json
import os
import subprocess
import sys

import pytest
from conftest import tiny
from helpers import ROOT

from competition.drawings import draw_folder
from training import __main__ as cli
from training import architectures
from training.export import export
from training.run import load_network

PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
# One step of a recipe and a look at the validation loss behind it, without what is drawn by the backend's own generator:
# MixUp and dropout. Prints the backend, both losses, and how far the kernels moved.
# InceptionV3 in single precision: to bfloat16 the two round so differently that losses are 1.2e-3 apart.
STEP = """
import json, sys
from dataclasses import replace
import keras, numpy as np
from training.__main__ import load_recipe
from conftest import tiny
from training.architectures import softmax_head, whole_network
from training.data import load_folder
from training.fit import _compiled, make_backbone
from training.pipeline import array_batches, one_hot

data, weights, real = sys.argv[1], sys.argv[2], sys.argv[3] == "real"
recipe = replace(load_recipe("leaderboard"), start=None, layers=(), dropout=0.0, warmup=0.0, averaged_epochs=0, batch=16)
recipe = replace(recipe, phases=((1, 75),), precision="float32") if real else replace(recipe, backbone=tiny, phases=((1, 48),))
images = load_folder(data)
backbone = make_backbone(recipe, "none")
head = softmax_head(recipe, backbone.output_shape[-1], len(images.names))
network = whole_network(backbone, head, images.images.shape[1:3], recipe.size)
if keras.backend.backend() == "tensorflow":
    softmax = head.get_layer("softmax").kernel  # made small, for Keras' backends differ in probabilities below its epsilon, 1e-7
    softmax.assign(softmax / 10)
    network.save_weights(weights)  # another backend draws other random weights
else:
    network.load_weights(weights)
network = _compiled(recipe, backbone, head, images, recipe.size, 1)
batches = array_batches(images, np.arange(16), recipe, 0)
before = backbone.get_weights()
logs = network.fit(batches, validation_data=(images.images, one_hot(images.labels, 8)), verbose=0).history
moved = np.mean([np.abs(a - b).mean() for a, b in zip(backbone.get_weights(), before) if a.ndim == 4])
print(json.dumps([keras.backend.backend(), logs["loss"][0], logs["val_loss"][0], float(moved)]))
"""


def step(backend, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", STEP, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("network", ["small", pytest.param("real", marks=pytest.mark.slow)])
def test_a_step_has_the_same_loss_under_jax(network, tmp_path):
    draw_folder(tmp_path / "leaves", 2, classes=8, side=48)
    arguments = (str(tmp_path / "leaves"), str(tmp_path / "start.weights.h5"), network)
    results = [step(backend, *arguments) for backend in ("tensorflow", "jax")]
    assert [result[0] for result in results] == ["tensorflow", "jax"]
    (_, loss, after, moved), (_, loss_jax, after_jax, moved_jax) = results
    assert loss == pytest.approx(loss_jax, abs=1e-3)
    # Adam's first step is the gradient's sign, and that of a gradient of almost 0 is rounding.
    assert after == pytest.approx(after_jax, rel=1e-2)
    assert moved == pytest.approx(moved_jax, rel=1e-2) and moved > 1e-5


def test_a_backend_is_chosen_once_and_only_where_it_is_installed(tmp_path, capsys, monkeypatch):
    run = ["run", "online", "--data", str(tmp_path), "--backend", "jax"]
    assert cli.main(run) == 2
    assert capsys.readouterr().err == "error: --backend jax: Keras runs on tensorflow in this process already; start a new one\n"
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setattr(cli, "_is_installed", lambda module: module == "tensorflow")
    assert cli.main(run) == 2
    assert capsys.readouterr().err == "error: --backend jax: not installed here; pip install jax\n"
    with pytest.raises(SystemExit):
        cli.main([*run[:-1], "theano"])


# The command line as on a machine without TensorFlow, with a recipe that takes seconds.
WITHOUT_TENSORFLOW = """
import sys
from dataclasses import replace

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
from training import __main__ as cli
load_recipe = cli.load_recipe

def load_tiny(name):
    from conftest import tiny
    return replace(load_recipe(name), backbone=tiny)

cli.load_recipe = load_tiny
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_run_under_jax_needs_no_tensorflow_and_is_exported_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "tiny", tiny, raising=False)
    draw_folder(tmp_path / "leaves", 4, classes=3, side=32)
    run = ["run", "scratch_vgg", "--data", tmp_path / "leaves", "--out", tmp_path / "run", "--backend", "jax"]
    small = ["offline=()", "phases=((1, 32),)", "batch=4", "repeats={}", "keep=last", "averaged_epochs=1"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": PYTHONPATH}  # --backend comes before it
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *run, *(part for setting in small for part in ("--set", setting))]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "recipe.json").read_text("utf-8"))
    assert set(record["versions"]) == {"python", "keras", "jax"}
    network, names, *_ = load_network(tmp_path / "run")
    export(network, names, ("none",), 1.0, tmp_path / "SubmissionModel")
    assert (tmp_path / "SubmissionModel" / "saved_model.pb").is_file()
