"""benchmarks.variants and benchmarks.rewrites: the rewritten graphs compute the same, with fewer operations."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import rewrites, variants
from benchmarks.process import NotMeasured
from benchmarks.result import read_result
from competition.synthetic import draw_folder, draw_images

pytestmark = pytest.mark.integration


def convolution(tensor, channels, rng, size=1):
    """A convolution as an export has it: constants, BiasAdd, the Identity of a folded BatchNormalization, Relu."""
    kernel = tf.constant(rng.normal(size=(size, size, int(tensor.shape[-1]), channels)).astype(np.float16))
    bias = tf.constant(rng.normal(size=(1, 1, 1, channels)).astype(np.float32))
    tensor = tf.nn.conv2d(tensor, tf.cast(kernel, tf.float32), 1, "SAME")
    return tf.nn.relu(tf.identity(tf.nn.bias_add(tensor, tf.squeeze(bias))))


def block():
    """A GraphDef like a block of InceptionV3, pixels:0 → result:0, with three sibling convolutions and a pooling."""
    rng = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, [None, 12, 12, 6], name="pixels")
        first, second, third = (convolution(tf.identity(pixels), channels, rng) for channels in (3, 4, 5))
        pooled = convolution(tf.nn.avg_pool2d(pixels, 3, 1, "SAME"), 2, rng)
        branches = [first, convolution(second, 4, rng, size=3), convolution(third, 4, rng, size=5), pooled]
        tf.concat(branches, axis=-1, name="result")
    return graph.as_graph_def()


def result(graph_def):
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(rewrites.sorted_graph(graph_def), name="")
    pixels = np.random.default_rng(1).normal(size=(3, 12, 12, 6)).astype(np.float32)
    with tf.compat.v1.Session(graph=graph) as session:
        return session.run("result:0", {"pixels:0": pixels})


def reached(graph_def, operation):
    """The nodes of an operation that the result needs."""
    needed = tf.compat.v1.graph_util.extract_sub_graph(graph_def, ["result"])
    return sorted(node.name for node in needed.node if node.op == operation)


def test_siblings_become_one_convolution_with_the_same_result():
    graph = block()
    before = result(graph)
    assert rewrites.merge_siblings(graph) == 1
    np.testing.assert_allclose(result(graph), before, rtol=1e-5, atol=1e-5)
    assert len(reached(graph, "Conv2D")) == 4  # of six: the merged one, two larger ones, and the one after the pooling
    assert len(reached(graph, "SplitV")) == 1


def test_pooling_moves_behind_the_convolution_with_the_same_result():
    graph = block()
    before = result(graph)
    assert rewrites.pool_late(graph) == 1
    np.testing.assert_allclose(result(graph), before, rtol=1e-4, atol=1e-4)
    (pool,) = [node for node in graph.node if node.op == "AvgPool"]
    assert next(node for node in graph.node if node.name == pool.input[0]).op == "BiasAdd"


def test_both_rewrites_together_have_the_same_result():
    graph = block()
    before = result(graph)
    rewrites.merge_siblings(graph)
    rewrites.pool_late(graph)
    np.testing.assert_allclose(result(graph), before, rtol=1e-4, atol=1e-4)


def test_a_pooling_that_others_read_stays():
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, [None, 12, 12, 6], name="pixels")
        pooled = tf.nn.avg_pool2d(pixels, 3, 1, "SAME")
        tf.concat([pooled, convolution(pooled, 2, np.random.default_rng(0))], axis=-1, name="result")
    graph_def = graph.as_graph_def()
    assert rewrites.pool_late(graph_def) == 0
    assert graph_def == graph.as_graph_def()


def test_shares_of_the_operations_of_the_submission():
    shares = variants.load_trace("float32")(draw_images(2).astype(np.float32))
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "Conv2D"
    assert shares["Conv2D"] > 0.5


@pytest.mark.slow
def test_variants_of_the_submission_agree(tmp_path):
    draw_folder(tmp_path / "leaves", 5)
    options = ["--data", str(tmp_path / "leaves"), "--test", str(tmp_path / "leaves"), "--images", "32"]
    assert variants.main([*options, "--rounds", "1", "--json", str(tmp_path / "v.json")]) == 0
    written = read_result(tmp_path / "v.json")
    assert list(written["variants"]) == list(variants.VARIANTS)
    for name in variants.VARIANTS[:-1]:
        assert written["variants"][name]["largest_difference"] < 0.1
    assert written["variants"][variants.EIGHT_BITS]["megabytes"] < 0.6 * written["variants"]["as exported"]["megabytes"]
    assert all(0 <= row["accuracy"] <= 1 for row in written["variants"].values())


class NoProcess:
    """A process that cannot measure anything."""

    def __init__(self, name, *arguments):
        raise NotMeasured(name)


def test_labels_are_those_of_the_submission_if_the_test_images_have_few_classes(tmp_path, monkeypatch):
    draw_folder(tmp_path / "leaves", 10, classes=4)
    for name in ("Species1", "Species3"):
        shutil.rmtree(tmp_path / "leaves" / name)
    measured = []
    monkeypatch.setattr(variants, "Process", NoProcess)
    monkeypatch.setattr(variants, "measure", lambda images, rounds, test: measured.append(test))
    options = ["--data", str(tmp_path / "leaves"), "--test", str(tmp_path / "leaves"), "--images", "20"]
    assert variants.main([*options, "--json", str(tmp_path / "v.json")]) == 2  # of 20 images, 32 are needed
    draw_folder(tmp_path / "train", 4)
    options = ["--data", str(tmp_path / "train"), "--test", str(tmp_path / "leaves"), "--images", "32"]
    assert variants.main([*options, "--json", str(tmp_path / "v.json")]) == 0
    assert set(measured[0].labels) == {1, 3}
    (tmp_path / "leaves" / "Species2").rename(tmp_path / "leaves" / "Weed")
    assert variants.main([*options, "--json", str(tmp_path / "v.json")]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "8"], "--images must be from 32"),
        (["--images", "99999"], "--images must be at most"),
    ],
)
def test_wrong_numbers_are_errors(tmp_path, capsys, options, message):
    draw_folder(tmp_path / "leaves", 1, classes=2)
    assert variants.main(["--data", str(tmp_path / "leaves"), "--json", str(tmp_path / "v.json"), *options]) == 2
    assert message in capsys.readouterr().err
