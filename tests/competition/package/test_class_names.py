"""The class names in a SavedModel: read without TensorFlow, and safely from a file that is not trusted."""

import random
import zipfile

import keras
import pytest
import tensorflow as tf
from helpers import NAMES, ROOT, python, stub, stub_zip, tiny_submission
from PIL import Image

from common.images import load_folder
from competition.grade.grade import Rules, grade
from competition.grade.report import report
from competition.package import class_names as module
from competition.package.build import describe
from competition.package.class_names import class_names, listed_names, model_size, order_note

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


@pytest.mark.parametrize(
    "names", [["a", "a"], ["a"], ["a", "b\n"], ["a", "\x1b[31m"], ["a", "b" * 256]], ids=lambda names: str(names)[:20]
)
def test_names_that_no_class_folders_can_have_are_not_used(tmp_path, names):
    assert class_names(export(tmp_path, names)) is None


@pytest.mark.parametrize("kind", [tf.int32, tf.int64])
@pytest.mark.parametrize("size", [(96, 96), (64, 128), (1, 4096)])
def test_size_of_the_training_images(tmp_path, size, kind):
    about = tf.function(lambda: {"size": tf.constant(size, kind)}, input_signature=[])
    module = tf.Module()
    module.about = about
    tf.saved_model.save(module, str(tmp_path), {"about": about})
    assert model_size(tmp_path / GRAPH) == size


def test_size_of_the_committed_model():
    assert model_size(ROOT / "submission" / "SubmissionModel" / GRAPH) == (96, 96)


@pytest.mark.parametrize("size", [(0, 96), (-1, 5), (96, 4097)])
def test_size_that_no_images_have_is_not_used(tmp_path, size):
    about = tf.function(lambda: {"size": tf.constant(size)}, input_signature=[])
    module = tf.Module()
    module.about = about
    tf.saved_model.save(module, str(tmp_path), {"about": about})
    assert model_size(tmp_path / GRAPH) is None
    assert model_size(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a\nb\n", ("a", "b")),
        ("\ufeffBlätter\r\n\r\n b \r\n".encode(), ("Blätter", "b")),
        (b"a\na\n", None),
        (b"a\n", None),
        (b"", None),
        (b"a\n\xff\n", None),
        (b"a\n" + b"b" * 256, None),
        (None, None),
    ],
)
def test_names_in_a_text_file(tmp_path, content, names):
    if content is not None:
        (tmp_path / "classes.txt").write_bytes(content)
    assert listed_names(tmp_path / "classes.txt") == names


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


def field(number, value):
    """A message's field of bytes."""
    length, left = b"", len(value)
    while left > 127:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + value


def write_graph(path, nodes):
    """A SavedModel of these nodes, in which the names are the output a:0."""
    output = field(2, field(1, b"names") + field(2, field(1, b"a:0")))
    signature = field(5, field(1, b"about") + field(2, output))
    path.write_bytes(field(2, field(2, b"".join(field(1, node) for node in nodes) + field(2, b"")) + signature))


def test_endless_chain_of_nodes_ends(tmp_path):
    """A node whose input is itself."""
    write_graph(tmp_path / GRAPH, [field(1, b"a") + field(2, b"Identity") + field(3, b"a:0")])
    assert class_names(tmp_path / GRAPH) is None


@pytest.fixture
def fields_read(monkeypatch):
    """The number of fields that were read, in a list."""
    count, varint = [0], module._varint

    def counted(message, place):
        count[0] += 1
        return varint(message, place)

    monkeypatch.setattr(module, "_varint", counted)
    monkeypatch.setattr(module, "MAX_FIELDS", 1000)
    return count


def test_fields_of_all_messages_are_limited_together(tmp_path, fields_read):
    """A file of some kB when it is zipped stopped the grader for hours."""
    junk = b"\x18\x00" * 900  # numbers before the name of each node
    write_graph(tmp_path / GRAPH, [junk + field(1, name) + field(3, b"a:0") for name in (b"a", b"b", b"c")])
    assert class_names(tmp_path / GRAPH) is None
    assert fields_read[0] <= 2 * 1000  # a key and a length each


def test_nothing_is_read_behind_a_name(tmp_path, fields_read):
    junk = b"\x18\x00" * 900
    write_graph(tmp_path / GRAPH, [field(1, b"a") + field(3, b"missing:0"), field(1, b"b") + junk])
    assert class_names(tmp_path / GRAPH) is None
    assert fields_read[0] < 100


def test_committed_model_needs_few_fields(fields_read):
    assert class_names(ROOT / "submission" / "SubmissionModel" / GRAPH) == NAMES


def test_tensorflow_is_not_imported(tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from competition.package import class_names as module
from competition.package.class_names import class_names
assert class_names(sys.argv[2])[0] == "Species1"
assert not {"tensorflow", "google"} & set(sys.modules)
"""
    done = python("-c", code, ROOT, tiny_submission() / "SubmissionModel" / GRAPH)
    assert done.returncode == 0, done.stderr


ORDERS = {  # the classes in natural order: the place from which on Keras has others, and its class there
    ("Species1", "Species2"): None,
    ("a", "b", "c"): None,
    tuple(map(str, range(12))): None,  # the numbers themselves
    tuple(map(str, range(1, 12))): (1, "10"),
    tuple(f"class{number}" for number in range(1, 12)): (1, "class10"),
    ("apple", "Pear"): (0, "Pear"),
}


@pytest.mark.parametrize("names", ORDERS)
def test_another_order_than_that_of_keras_is_noted(names, tmp_path):
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name / "a.png")
    assert load_folder(tmp_path).names == names
    of_keras = keras.utils.image_dataset_from_directory(tmp_path, verbose=False).class_names
    note, expected = order_note(names), ORDERS[names]
    assert bool(note) == (expected is not None)
    if expected:
        number, other = expected
        assert of_keras[number] == other and of_keras[:number] == list(names[:number])
        assert note.startswith(f"class {number} is {names[number]}, and {other} where classes are sorted as text")


def test_order_is_noted_when_the_zip_is_built_and_graded(tmp_path):
    names = tuple(f"class{number}" for number in range(1, 12))
    export(tmp_path, names)
    path = stub_zip(tmp_path / "a.zip", stub())
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tmp_path / GRAPH, f"SubmissionModel/{GRAPH}")
    assert f"\nnote     {order_note(names)}\n" in describe(path, tmp_path)
    assert f"\nnote  {order_note(names)}\n" in report(grade(path, rules=Rules(layout="an2dl2024")))
