"""Training without TensorFlow: under Keras' JAX backend, a recipe takes the same step."""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT, tiny

from competition.synthetic import draw_folder
from training import __main__ as cli
from training.export import export
from training.model import backbones
from training.trained import load_run

pytestmark = pytest.mark.integration
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests")])

# One step of a recipe and the validation loss after it, without MixUp and dropout, whose random numbers are the
# backend's own. Prints the backend, both losses, how far the kernels moved, and a sum of new batch statistics.
# InceptionV3 is in single precision, because the backends round to bfloat16 so differently that losses differ by
# 1.2e-3.
STEP = """
import json, sys
from pathlib import Path
import keras, numpy as np
from helpers import change, tiny
from common.images import load_folder
from training.data.pipeline import array_batches, one_hot
from training.data.split import TrainVal
from training.fit.checkpoint import TrainState
from training.fit.features import FeatureSpec
from training.fit.finetune import _compiled, _Job, make_backbone
from training.fit.swa import update_batch_norm
from training.model.heads import softmax_head
from training.recipes import load_recipe

data, weights, real = sys.argv[1], sys.argv[2], sys.argv[3] == "real"
own = {"precision": "float32", "resolution_schedule": ((1, 75),)}
own = own if real else {"backbone": tiny, "resolution_schedule": ((1, 48),)}
fixed = {"init_from": None, "batch_augmentations": (), "dropout": 0.0, "warmup_epochs": 0.0, "swa_epochs": 0}
recipe = change(load_recipe("released"), **fixed, **own, batch_size=16)
images, size = load_folder(data), recipe.finetune.input_size
backbone = make_backbone(recipe, "none")
head = softmax_head(recipe.finetune, backbone.output_shape[-1], len(images.names))
job = _Job(recipe, TrainVal(images, images.rows([])), Path(), TrainState(), backbone, head)
job.rows = np.arange(16)  # one step
model = job.model(size)
if keras.backend.backend() == "tensorflow":
    softmax = head.get_layer("softmax").kernel
    softmax.assign(softmax / 10)  # small, because the backends differ in probabilities below Keras' epsilon of 1e-7
    model.save_weights(weights)  # another backend draws other random weights
else:
    model.load_weights(weights)
model = _compiled(job, size)
batches = array_batches(images, np.arange(16), recipe, 0)
before = backbone.get_weights()
logs = model.fit(batches, validation_data=(images.images, one_hot(images.labels, 8)), verbose=0).history
moved = np.mean([np.abs(a - b).mean() for a, b in zip(backbone.get_weights(), before) if a.ndim == 4])
backbone.set_weights(before)
update_batch_norm(backbone, images.images, FeatureSpec(size, recipe.augmentation.transforms), 8)
sums = [np.abs(keras.ops.convert_to_numpy(v)).sum() for v in backbone.non_trainable_variables if "moving" in v.path]
print(json.dumps([keras.backend.backend(), logs["loss"][0], logs["val_loss"][0], float(moved), float(sum(sums))]))
"""


def step(backend, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        [sys.executable, "-c", STEP, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("network", ["small", "real"])
def test_step_has_the_same_loss_under_jax(network, tmp_path):
    draw_folder(tmp_path / "leaves", 2, classes=8, side=48)
    arguments = (str(tmp_path / "leaves"), str(tmp_path / "initial.weights.h5"), network)
    results = [step(backend, *arguments) for backend in ("tensorflow", "jax")]
    assert [result[0] for result in results] == ["tensorflow", "jax"]
    (_, loss, after, moved, statistics), (_, loss_jax, after_jax, moved_jax, statistics_jax) = results
    assert loss == pytest.approx(loss_jax, abs=1e-3)
    # Adam's first step is the sign of the gradient. If the gradient is almost 0, its sign depends on rounding.
    assert after == pytest.approx(after_jax, rel=1e-2)
    assert moved == pytest.approx(moved_jax, rel=1e-2) and moved > 1e-5
    assert statistics == pytest.approx(statistics_jax, rel=1e-3)


def test_backend_is_chosen_once_and_must_be_installed(tmp_path, capsys, monkeypatch):
    run = ["run", "online", "--data", str(tmp_path), "--backend", "jax"]
    assert cli.main(run) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --backend jax: ") and error.count("\n") == 1
    assert "already runs on tensorflow" in error and "new process" in error
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setattr(cli, "_is_installed", lambda module: module == "tensorflow")
    assert cli.main(run) == 2
    assert capsys.readouterr().err == "error: --backend jax is not installed; pip install jax\n"
    with pytest.raises(SystemExit):
        cli.main([*run[:-1], "theano"])


# The command line as on a machine without TensorFlow, with a recipe that takes seconds.
WITHOUT_TENSORFLOW = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
from training import __main__ as cli
from training.commands import train
load_recipe = train.load_recipe

def load_tiny(name):
    from helpers import tiny
    from training.config.override import change
    return change(load_recipe(name), {"finetune.backbone": tiny})

train.load_recipe = load_tiny
sys.exit(cli.main(sys.argv[1:]))
"""
SMALL = (
    "augmentation.precomputed=()",
    "finetune.resolution_schedule=((1, 32),)",
    "finetune.batch_size=4",
    "data.class_repeats={}",
    "checkpoint=last",
    "finetune.swa_epochs=1",
)


@pytest.mark.slow
def test_run_under_jax_needs_no_tensorflow_and_is_exported_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "tiny", tiny, raising=False)
    draw_folder(tmp_path / "leaves", 4, classes=3, side=32)
    run = ["run", "scratch_vgg", "--data", tmp_path / "leaves", "--out", tmp_path / "run", "--backend", "jax"]
    settings = [part for setting in SMALL for part in ("--set", setting)]
    # --backend comes before KERAS_BACKEND
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *map(str, run), *settings]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert set(record["versions"]) == {"python", "keras", "jax"}
    export(load_run(tmp_path / "run"), tmp_path / "SubmissionModel")
    assert (tmp_path / "SubmissionModel" / "saved_model.pb").is_file()
