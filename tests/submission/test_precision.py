"""submission/model.py: float32 or bfloat16, loading without tf.saved_model.load, and independence of the batch."""

import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, load_module, python, tiny_submission

from competition.synthetic import draw_images

pytestmark = pytest.mark.integration

VARIABLE = "SUBMISSION_PRECISION"


@pytest.fixture(scope="module")
def model_code():
    return load_module(tiny_submission() / "model.py", "precise")


@pytest.fixture(scope="module")
def leaf_images():
    return draw_images(400)


def loaded(model_code, precision, folder=None):
    """The tiny submission, or another one, with a precision. Skips the test if the machine does not have it."""
    obstacle = model_code._bfloat16_obstacle() if precision == "bfloat16" else None
    if obstacle or (precision == "bfloat16" and os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0"):
        pytest.skip(f"no bfloat16 here: {obstacle or 'oneDNN is off'}")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv(VARIABLE, precision)
        warnings.simplefilter("error")  # also if it is loaded the slow way, with which some tests compare it
        classifier = model_code.model(folder or tiny_submission())
    assert classifier.precision == precision
    return classifier


# --- choice of the precision


@pytest.mark.parametrize("value", ["float16", "BFLOAT16", " "])
def test_unknown_precision_is_rejected(model_code, monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match="float32 or bfloat16, got") as caught:
        model_code.model(tiny_submission())
    assert "\n" not in str(caught.value)


MACHINES = {  # name: (flags, GPUs, speedup, chosen, reason why a wanted bfloat16 is refused)
    "AVX-512 BF16": ({"avx512f", "avx512_bf16"}, [], 1.9, "bfloat16", None),
    "AMX": ({"amx_bf16"}, [], 3.0, "bfloat16", None),
    "hardly faster": ({"avx512_bf16"}, [], 1.19, "float32", None),
    "no AVX-512": ({"avx2"}, [], 1.9, "float32", "processor has none"),
    "no /proc/cpuinfo": (set(), [], 1.9, "float32", "processor has none"),
    "a GPU": ({"avx512_bf16"}, ["GPU:0"], 1.9, "float32", "GPU"),
    "oneDNN off": ({"avx512_bf16"}, [], 0.0, "float32", "float32 all the same"),
}


@pytest.fixture
def on_machine(model_code, monkeypatch):
    """A function that lets model.py see the machine of one row of MACHINES."""

    def see(name):
        flags, devices, speedup, *_ = MACHINES[name]
        monkeypatch.setattr(model_code, "_processor_flags", lambda: flags)
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: devices)
        monkeypatch.setattr(model_code, "_bfloat16_speedup", lambda: speedup)

    return see


@pytest.mark.parametrize("name", MACHINES)
def test_faster_precision_is_chosen(model_code, on_machine, name):
    on_machine(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model_code._choose_precision("") == MACHINES[name][3]
        assert model_code._choose_precision("float32") == "float32"


@pytest.mark.parametrize("name", MACHINES)
def test_wanted_bfloat16_is_used_or_refused_with_the_reason(model_code, on_machine, name):
    on_machine(name)
    reason = MACHINES[name][4]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert model_code._choose_precision("bfloat16") == ("float32" if reason else "bfloat16")
    assert [reason in str(warning.message) for warning in caught] == ([True] if reason else [])


def test_tensorflow_without_the_option_computes_in_float32(model_code, on_machine, monkeypatch):
    on_machine("AVX-512 BF16")
    monkeypatch.setattr(model_code, "BFLOAT16_PASS", "auto_mixed_precision_of_a_later_version")
    assert model_code._choose_precision("") == "float32"
    with pytest.warns(UserWarning, match="TensorFlow .* has no auto_mixed"):
        assert model_code._choose_precision("bfloat16") == "float32"


def test_missing_processor_information_is_no_error(model_code, monkeypatch):
    def refuse(*arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(model_code, "open", refuse, raising=False)
    assert model_code._processor_flags() == set()


@pytest.mark.slow
def test_one_core_and_no_onednn_give_the_same_labels(model_code, leaf_images, tmp_path):
    """A fresh process on one core, without the operations that have bfloat16, for which bfloat16 is asked."""
    np.save(tmp_path / "images.npy", leaf_images[:40])
    code = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.path.insert(0, sys.argv[1])
import json
import numpy as np
from model import model
network = model(sys.argv[1])
print(json.dumps([network.precision, network.predict(np.load("images.npy")).numpy().tolist()]))
"""
    environment = {"TF_ENABLE_ONEDNN_OPTS": "0", VARIABLE: "bfloat16"}
    done = python("-c", code, tiny_submission(), cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    precision, labels = json.loads(done.stdout)
    assert precision == "float32"
    assert f"{VARIABLE}=bfloat16 is not possible" in done.stderr
    assert labels == loaded(model_code, "float32").predict(leaf_images[:40]).numpy().tolist()


# --- bfloat16


def test_speedup_is_that_of_bfloat16(model_code):
    loaded(model_code, "bfloat16")  # skips on other machines
    assert 0.2 < model_code._bfloat16_speedup() < 50


def test_disturbed_timings_are_measured_again(model_code):
    """Other programs make twenty measurements of bfloat16 as slow as float32. The next one shows the speedup."""
    calls = []
    times = iter([2.0] * 20 + [1.0] * 40)
    speedup = model_code._ratio_of_minima([lambda: calls.append(0) or 2.0, lambda: next(times)])
    assert speedup == 2.0
    assert len(calls) == 21


def test_timings_end_where_bfloat16_is_not_faster(model_code):
    calls = []
    assert model_code._ratio_of_minima([lambda: calls.append(0) or 1.1, lambda: 1.0]) == pytest.approx(1.1)
    assert len(calls) == 60


@pytest.mark.parametrize("tta_threshold", [0.0, 0.6, 1.0])
def test_bfloat16_gives_nearly_the_same_probabilities(model_code, leaf_images, tta_threshold):
    both = []
    for precision in ("float32", "bfloat16"):
        classifier = loaded(model_code, precision, tiny_submission(("none", "left")))
        classifier.tta_threshold = tta_threshold
        both.append(classifier.predict_proba(leaf_images))
    expected, got = both
    assert (expected != got).any()
    second, first = np.sort(expected, axis=1)[:, -2:].T
    clear = first - second > 0.05  # the weights are random, so many images are nearly tied
    assert clear.mean() > 0.8
    assert np.mean(expected.argmax(axis=1) == got.argmax(axis=1), where=clear) >= 0.985
    assert np.quantile(np.abs(expected - got), 0.99) < 0.05  # where one of them crosses the threshold, it is more
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


def test_nothing_else_in_the_process_changes_its_numbers(model_code, leaf_images):
    """Functions of the same operations, called before, during and after a prediction, and in another thread."""
    kernel = tf.constant(np.random.default_rng(0).normal(size=(5, 5, 3, 32)), tf.float32)
    pixels = tf.constant(leaf_images[:8], tf.float32)

    def own():
        return tf.function(lambda x: tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")))(pixels).numpy()

    before, found = own(), []

    def images():
        for row, image in enumerate(leaf_images[:64]):
            if row % 20 == 19:
                found.append(own())
            yield image

    classifier = loaded(model_code, "bfloat16")
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(lambda: [own() for _ in range(5)])
        classifier.predict(images())
        found += [*thread.result(), own()]
    assert len(found) == 9
    for values in found:
        np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_labels_do_not_depend_on_the_batch(model_code, leaf_images, monkeypatch, precision):
    classifier = loaded(model_code, precision)
    expected = classifier.predict_proba(leaf_images[:70])
    for batch_size in (1, 7, 32):
        monkeypatch.setattr(model_code, "BATCH_SIZE", batch_size)
        got = classifier.predict_proba(leaf_images[:70])
        np.testing.assert_array_equal(got.argmax(axis=1), expected.argmax(axis=1))
        np.testing.assert_allclose(got, expected, atol=1e-5 if precision == "float32" else 1e-2)


@pytest.mark.slow
def test_phase1_accuracy_is_not_lower_than_in_float32(model_code, leaves):
    """Of the few images whose labels differ, either precision may have more right."""
    from common.images import load_folder

    images = load_folder(leaves / "phase1")
    both = [loaded(model_code, name, ROOT / "submission").predict(images.images) for name in ("float32", "bfloat16")]
    float32, bfloat16 = (labels.numpy() for labels in both)
    assert np.mean(float32 == bfloat16) >= 0.995
    assert np.mean(bfloat16 == images.labels) >= np.mean(float32 == images.labels) - 0.001


# --- loading


def save(folder, probabilities):
    """Writes a SavedModel of two classes and 8×8 pixels with a function float32 [b, 8, 8, 3] → [b, 2]."""
    about = {"names": [b"A", b"B"], "size": np.array([8, 8], np.int32), "tta_transforms": [b"none"]}
    module = tf.Module()
    module.weights = [value for value in (probabilities.__defaults__ or ()) if isinstance(value, tf.Variable)]
    module.probabilities = tf.function(
        lambda pixels: {"probabilities": probabilities(pixels)},
        input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="pixels")],
    )
    module.about = tf.function(lambda: {key: tf.constant(value) for key, value in about.items()}, input_signature=[])
    signatures = {"probabilities": module.probabilities, "about": module.about}
    tf.saved_model.save(module, str(folder / "SubmissionModel"), signatures)


def test_network_is_the_function_that_tensorflow_loads(model_code, leaf_images):
    expected = tf.saved_model.load(str(tiny_submission() / "SubmissionModel")).signatures["probabilities"]
    classifier = loaded(model_code, "float32")
    classifier.tta_transforms = ("none",)
    for images in (leaf_images[:16], leaf_images[:1]):
        found = expected(pixels=tf.constant(images, tf.float32))["probabilities"]
        np.testing.assert_allclose(classifier.predict_proba(images), found, atol=1e-6)


def test_a_machine_with_a_gpu_keeps_tensorflows_own_optimization(model_code, leaf_images, monkeypatch):
    expected = loaded(model_code, "float32").predict_proba(leaf_images[:8])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    configs, session = [], tf.compat.v1.Session
    monkeypatch.setattr(
        tf.compat.v1, "Session", lambda **options: configs.append(options.get("config")) or session(**options)
    )
    got = loaded(model_code, "float32").predict_proba(leaf_images[:8])
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert not configs[-1].graph_options.rewrite_options.optimizers


def test_tensorflow_with_other_internals_loads_the_slow_way(model_code, leaf_images, monkeypatch):
    expected = loaded(model_code, "float32").predict_proba(leaf_images[:40])

    def refuse(folder, precision):
        raise ImportError("no module function_def_to_graph")

    monkeypatch.setattr(model_code, "_load_directly", refuse)
    monkeypatch.delenv(VARIABLE)
    with pytest.warns(UserWarning, match="loading takes longer.*function_def_to_graph"):
        classifier = model_code.model(tiny_submission())
    assert classifier.precision == "float32"
    np.testing.assert_allclose(classifier.predict_proba(leaf_images[:40]), expected, atol=1e-6)


def test_model_with_a_variable_loads_the_slow_way(model_code, tmp_path):
    def probabilities(pixels, weights=tf.Variable([[0.25, 0.75]])):  # noqa: B008
        return tf.tile(weights, [tf.shape(pixels)[0], 1])

    save(tmp_path, probabilities)
    with pytest.warns(UserWarning, match="loading takes longer.*without variables"):
        classifier = model_code.model(tmp_path)
    np.testing.assert_allclose(classifier.predict_proba(np.zeros((3, 8, 8, 3), np.uint8)), [[0.25, 0.75]] * 3)


def test_branch_within_the_network_is_kept(model_code, tmp_path):
    """The two ways of a branch are functions of their own in the graph."""

    def probabilities(pixels):
        bright = tf.reduce_max(pixels) > 100
        row = tf.cond(bright, lambda: tf.constant([[0.25, 0.75]]), lambda: tf.constant([[0.5, 0.5]]))
        return tf.tile(row, [tf.shape(pixels)[0], 1])

    save(tmp_path, probabilities)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier = model_code.model(tmp_path)
    for value, row in ((0, [0.5, 0.5]), (255, [0.25, 0.75])):
        np.testing.assert_allclose(classifier.predict_proba(np.full((2, 8, 8, 3), value, np.uint8)), [row] * 2)
