"""Training on several devices or machines gives the numbers of one.

Each case has its own process, because TensorFlow starts once.
"""

import csv
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import ROOT, change, python, shrunk

from common.errors import UserError
from common.images import Images
from competition.synthetic import draw_images
from training.config.recipe import Finetune, Recipe
from training.data.split import TrainVal
from training.fit.distribute import prepare
from training.fit.finetune import finetune

pytestmark = pytest.mark.integration

# The halves of a batch have different statistics, because they are small.
FINETUNE = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
data, out, replicas, synchronized = sys.argv[3:]
from training.fit.distribute import prepare
prepare(int(replicas))
import training.fit.finetune as fit
from common.images import load_folder
from helpers import change, shrunk
from training.config.recipe import Finetune, Recipe
from training.data.split import TrainVal, split
if synchronized == "no":
    fit.synchronize = lambda backbone: None
tune = Finetune(learning_rate=3e-3, warmup_epochs=0.0, dropout=0.0, weight_decay=0.0)
recipe = change(shrunk(Recipe(finetune=tune)), resolution_schedule=((2, 48),), batch_size=6, replicas=int(replicas))
images = load_folder(data)
train_val = TrainVal(*(images.rows(rows) for rows in split(images.labels, 0.25, 0)))
out = Path(out)
out.mkdir(exist_ok=True)
fit.finetune(recipe, train_val, "none", out, out / "features")
"""


@pytest.fixture(scope="module")
def replicated(class_folder, tmp_path_factory):
    """Name → (losses of the epochs, arrays at the end): one device, two, and two without synchronized statistics."""
    folder, found = tmp_path_factory.mktemp("replicated"), {}
    for name, replicas, synchronized in (("one", 1, "yes"), ("two", 2, "yes"), ("apart", 2, "no")):
        done = python(
            "-c", FINETUNE, ROOT, ROOT / "tests", class_folder, folder / name, replicas, synchronized, isolated=False
        )
        assert done.returncode == 0, done.stderr
        with np.load(folder / name / "checkpoint.npz") as file:
            found[name] = losses(folder / name), [file[f"arr_{number}"] for number in range(len(file.files) - 1)]
    return found


def losses(out):
    with open(out / "history.csv", newline="") as file:
        return np.array([[float(row["loss"]), float(row["val_loss"])] for row in csv.DictReader(file)])


def difference(one, other):
    """Largest difference between two numbers of the arrays."""
    floats = [(a.astype(float), b.astype(float)) for a, b in zip(one, other, strict=True) if a.dtype.kind == "f"]
    return max(np.abs(a - b).max() for a, b in floats)


@pytest.mark.slow
def test_two_devices_give_the_numbers_of_one(replicated):
    (one, arrays), (two, others) = replicated["one"], replicated["two"]
    assert one.shape == (2, 2)
    np.testing.assert_allclose(two, one, atol=1e-4)
    assert [a.shape for a in arrays] == [a.shape for a in others]
    assert difference(arrays, others) < 1e-4


@pytest.mark.slow
def test_two_devices_without_synchronized_statistics_do_not(replicated):
    (one, arrays), (apart, others) = replicated["one"], replicated["apart"]
    assert np.abs(one - apart).max() > 1e-3
    assert difference(arrays, others) > 1e-3


def test_more_replicas_than_devices_are_a_user_error(tmp_path):
    recipe = change(shrunk(Recipe(finetune=Finetune(warmup_epochs=0.0))), replicas=8)
    images = Images(draw_images(6, classes=2, side=32), np.arange(6) % 2, ("a", "b"), ("",) * 6)
    with pytest.raises(UserError, match="8 replicas need as many devices, found 1"):
        finetune(recipe, TrainVal(images, images.rows([])), "none", tmp_path, tmp_path / "features")


def test_processor_that_is_in_use_cannot_be_divided():
    keras.ops.zeros(1) + 1
    with pytest.raises(UserError, match="2 replicas.*start a new process"):
        prepare(2)


# Several machines


def free_ports(count):
    """Unused ports. All are open at the same time, so that no two are equal."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def start(data, out, configuration=None):
    """Starts a fine-tuning in a process of its own."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    if configuration:
        environment["TF_CONFIG"] = json.dumps(configuration)
    command = [sys.executable, "-c", FINETUNE, ROOT, ROOT / "tests", data, out, "1", "yes"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_machines_that_continue_after_different_epochs_are_refused(class_folder, tmp_path):
    """One has finished an epoch, the other none, for example because it was replaced."""
    first = start(class_folder, tmp_path / "worker0")
    assert first.wait(300) == 0, first.stdout.read()
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for number in range(2):
        configuration = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": number}}
        processes.append(start(class_folder, tmp_path / f"worker{number}", configuration))
    try:
        for process in processes:
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 1, output
            assert "UserError: all machines must continue after the same epoch, got 2, 0 finished epochs" in output
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_two_machines_give_the_numbers_of_one(class_folder, tmp_path):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = {"alone": start(class_folder, tmp_path / "alone")}
    for number in range(2):
        configuration = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": number}}
        processes[f"worker{number}"] = start(class_folder, tmp_path / f"worker{number}", configuration)
    try:
        for process in processes.values():
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output
    finally:
        for process in processes.values():
            process.kill()
    alone, first, second = (losses(tmp_path / name) for name in processes)
    assert alone.shape == (2, 2)
    np.testing.assert_allclose(first, second, atol=1e-6)
    np.testing.assert_allclose(first, alone, atol=1e-4)
