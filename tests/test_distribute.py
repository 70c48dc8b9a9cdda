"""Several devices and several machines: the numbers of one. Each case is a process of its own, for TensorFlow starts once."""

import csv
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, shrunk
from helpers import python

from competition.drawings import draw_folder
from training.errors import UserError
from training.fit import finetune
from training.recipe import Recipe


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distribute") / "leaves"
    draw_folder(folder, 8, classes=3, side=32)
    return folder


# Two halves of a batch differ in their statistics: their sizes are few, and images of a class follow each other.
FINETUNE = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
data, out, replicas, mend = sys.argv[3:]
from dataclasses import replace
from training.distribute import prepare
prepare(int(replicas))
import conftest
from training import fit
from training.data import load_folder, split
from training.recipe import Recipe
if mend == "no":
    fit.synchronise = lambda backbone: None
recipe = replace(
    conftest.shrunk(Recipe(learning_rate=3e-3, warmup=0.0, dropout=0.0, weight_decay=0.0)),
    phases=((2, 48),), batch=6, replicas=int(replicas),
)
images = load_folder(data)
parts = [images.rows(rows) for rows in split(images.labels, 0.25, 0)]
Path(out).mkdir()
fit.finetune(recipe, *parts, "none", out, Path(out) / "features")
"""


@pytest.fixture(scope="module")
def tuned(drawn, tmp_path_factory):
    """(losses of the epochs, arrays at the end) on one device, on two, and on two without synchronised statistics."""
    folder, found = tmp_path_factory.mktemp("tuned"), {}
    for name, replicas, mend in (("one", 1, "yes"), ("two", 2, "yes"), ("apart", 2, "no")):
        done = python("-c", FINETUNE, ROOT, ROOT / "tests", drawn, folder / name, replicas, mend, isolated=False)
        assert done.returncode == 0, done.stderr
        with np.load(folder / name / "checkpoint.npz") as file:
            found[name] = losses(folder / name), [file[f"arr_{number}"] for number in range(len(file.files) - 1)]
    return found


def losses(out):
    with open(out / "history.csv", newline="") as file:
        return np.array([[float(row["loss"]), float(row["val_loss"])] for row in csv.DictReader(file)])


def difference(one, other):
    """Largest difference of an array's number."""
    floats = [(a.astype(float), b.astype(float)) for a, b in zip(one, other, strict=True) if a.dtype.kind == "f"]
    return max(np.abs(a - b).max() for a, b in floats)


def test_two_devices_give_the_numbers_of_one(tuned):
    (one, arrays), (two, others) = tuned["one"], tuned["two"]
    assert one.shape == (2, 2)
    np.testing.assert_allclose(two, one, atol=1e-4)
    assert [a.shape for a in arrays] == [a.shape for a in others]
    assert difference(arrays, others) < 1e-4


def test_without_synchronised_statistics_they_do_not(tuned):
    (one, arrays), (apart, others) = tuned["one"], tuned["apart"]
    assert np.abs(one - apart).max() > 1e-3
    assert difference(arrays, others) > 1e-3


def test_more_replicas_than_devices_are_a_fault_of_the_user(tmp_path):
    recipe = replace(shrunk(Recipe(warmup=0.0)), replicas=8)
    from competition.drawings import draw_images
    from training.data import Images

    images = Images(draw_images(6, classes=2, side=32), np.arange(6) % 2, ("a", "b"), ("",) * 6)
    with pytest.raises(UserError, match="8 replicas need as many devices, found 1"):
        finetune(recipe, images, images.rows([]), "none", tmp_path, tmp_path / "features")


# Several machines


def free_ports(count):
    """Ports that nobody listens on; all are open at once, so that no two are the same."""
    with_ports = [socket.socket() for _ in range(count)]
    try:
        for one in with_ports:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in with_ports]
    finally:
        for one in with_ports:
            one.close()


def start(drawn, out, configuration=None):
    """A run of `online` as a process of its own."""
    settings = ("phases=((2, 48),)", "repeats={}", "dropout=0.0", "batch=6")
    command = [sys.executable, "-m", "training", "run", "online", "--out", out, "--data", drawn, "--backbone-weights", "none"]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    if configuration:
        environment["TF_CONFIG"] = json.dumps(configuration)
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_machines_give_the_numbers_of_one(drawn, tmp_path):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = {"alone": start(drawn, tmp_path / "alone" / "run")}
    for number in range(2):
        configuration = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": number}}
        processes[f"worker{number}"] = start(drawn, tmp_path / f"worker{number}" / "run", configuration)
    try:
        for process in processes.values():
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output
    finally:
        for process in processes.values():
            process.kill()
    alone, first, second = (losses(tmp_path / name / "run") for name in processes)
    assert alone.shape == (2, 2)
    np.testing.assert_allclose(first, second, atol=1e-6)
    np.testing.assert_allclose(first, alone, atol=1e-4)
    for name in processes:
        assert (tmp_path / name / "run" / "metrics.json").is_file()
