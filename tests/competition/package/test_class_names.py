"""The class names in a SavedModel: read without TensorFlow, and safely from a file that is not trusted."""

import random

import pytest
import tensorflow as tf
from helpers import NAMES, ROOT, python, tiny_submission

from competition.package.class_names import class_names

pytestmark = pytest.mark.integration

GRAPH = "saved_model.pb"


def export(folder, names):
    """A SavedModel whose signature `about` returns the names."""
    about = tf.function(lambda: {"names": tf.constant(names), "size": tf.constant([1, 2])}, input_signature=[])
    module = tf.Module()
    module.about = about
    tf.saved_model.save(module, str(folder), {"about": about})
    return folder / GRAPH


def test_names_are_those_that_the_model_says():
    assert class_names(tiny_submission() / "SubmissionModel" / GRAPH) == NAMES


def test_names_of_the_committed_model():
    assert class_names(ROOT / "submission" / "SubmissionModel" / GRAPH) == NAMES


@pytest.mark.parametrize("names", [["b", "a"], ["Blätter", "楓"], [f"class {number}" for number in range(300)]])
def test_names_keep_their_order_and_encoding(tmp_path, names):
    assert class_names(export(tmp_path, names)) == tuple(names)


@pytest.mark.parametrize("names", [["a", "a"], ["a"], ["a", "b\n"], ["a", "\x1b[31m"]], ids=str)
def test_names_that_no_class_folders_can_have_are_not_used(tmp_path, names):
    assert class_names(export(tmp_path, names)) is None


def test_model_that_tells_no_names(tmp_path):
    module = tf.Module()
    module.other = tf.function(lambda: {"names": tf.constant(["a", "b"])}, input_signature=[])
    tf.saved_model.save(module, str(tmp_path), {"other": module.other})
    assert class_names(tmp_path / GRAPH) is None


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 5000, b"\x12", b"\x12\xff\xff\xff\xff\x0f", bytes(100)])
def test_missing_or_damaged_file_has_no_names(tmp_path, content):
    if content is not None:
        (tmp_path / GRAPH).write_bytes(content)
    assert class_names(tmp_path / GRAPH) is None


def test_damage_anywhere_gives_the_names_or_none(tmp_path):
    data = export(tmp_path, ["first", "second"]).read_bytes()
    rng = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / GRAPH).write_bytes(damaged[: rng.randrange(len(data)) if rng.random() < 0.2 else None])
        names = class_names(tmp_path / GRAPH)
        assert names is None or (len(names) > 1 and all(isinstance(name, str) for name in names))


def test_endless_chain_of_nodes_ends(tmp_path):
    """A node whose input is itself."""

    def field(number, value):
        return bytes([number << 3 | 2, len(value)]) + value

    node = field(1, b"a") + field(2, b"Identity") + field(3, b"a:0")
    output = field(2, field(1, b"names") + field(2, field(1, b"a:0")))
    signature = field(5, field(1, b"about") + field(2, output))
    (tmp_path / GRAPH).write_bytes(field(2, field(2, field(1, node) + field(2, b"")) + signature))
    assert class_names(tmp_path / GRAPH) is None


def test_tensorflow_is_not_imported(tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from competition.package.class_names import class_names
assert class_names(sys.argv[2])[0] == "Species1"
assert not {"tensorflow", "google"} & set(sys.modules)
"""
    done = python("-c", code, ROOT, tiny_submission() / "SubmissionModel" / GRAPH)
    assert done.returncode == 0, done.stderr
