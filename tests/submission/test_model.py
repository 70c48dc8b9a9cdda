"""submission/model.py: accepted inputs, predictions, cleaning of bad values and error messages."""

import json
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import NAMES, ROOT, load_module, python, tiny_submission
from PIL import Image

from competition.synthetic import draw_images
from training import predict

pytestmark = pytest.mark.integration

EXPECTED = r"^expected images \[n, height, width, 3\] .*, got "


@pytest.fixture(scope="module")
def model_code():
    return load_module(tiny_submission() / "model.py", "submitted")


@pytest.fixture(scope="module")
def classifier(model_code):
    return model_code.model(tiny_submission())


@pytest.fixture(scope="module")
def leaf_images():
    return draw_images(40)


@pytest.fixture(scope="module")
def leaf_probabilities(classifier, leaf_images):
    """The probabilities of `leaf_images`, which differ enough to detect mixed-up rows."""
    probabilities = classifier.predict_proba(leaf_images)
    assert len(set(probabilities.argmax(axis=1))) >= 5
    return probabilities


@pytest.fixture
def no_warnings():
    """Turns every warning into a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- environment


def test_predicts_in_a_fresh_process_without_keras(tmp_path, leaf_images, leaf_probabilities):
    np.save(tmp_path / "images.npy", leaf_images[:9])
    code = """
import sys
sys.modules["keras"] = sys.modules["tf_keras"] = None  # an import of them would raise
sys.path.insert(0, sys.argv[1])
import json
import numpy as np
from model import model, predict
X = np.load("images.npy")
first, second, other = predict(X), predict(X), model(sys.argv[1]).predict(X)
others = "training", "competition", "sklearn", "matplotlib"
foreign = [name for name in sys.modules if name.partition(".")[0] in others]
print(json.dumps([first.dtype.name, first.numpy().tolist(), second.numpy().tolist(), other.numpy().tolist(), foreign]))
"""
    done = python("-c", code, tiny_submission(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    dtype, first, second, other, foreign = json.loads(done.stdout)
    assert dtype == "int64"
    assert first == second == other == leaf_probabilities[:9].argmax(axis=1).tolist()
    assert foreign == []


def test_memory_is_bounded_by_the_batch_size(tmp_path):
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from model import predict
X = np.random.default_rng(0).integers(0, 256, (2000, 96, 96, 3), np.uint8)
predict(X[:64])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answers = predict(X)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(len(answers), grown / (2**20 if sys.platform == "darwin" else 2**10))
"""
    done = python("-c", code, tiny_submission(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    count, grown = done.stdout.split()
    assert int(count) == 2000
    assert float(grown) < 500, "all 2000 at once take more than 1000 MB"


# --- accepted inputs


@pytest.mark.parametrize("count", [0, 1, 7, 33])
def test_any_number_of_images_is_accepted(classifier, leaf_images, leaf_probabilities, count, no_warnings):
    answers = classifier.predict(leaf_images[:count])
    assert isinstance(answers, tf.Tensor)
    assert answers.dtype == tf.int64
    assert answers.shape == [count]
    assert answers.numpy().tolist() == leaf_probabilities[:count].argmax(axis=1).tolist()


def test_names_and_probabilities_have_the_documented_form(classifier, leaf_probabilities):
    assert classifier.names == NAMES
    assert leaf_probabilities.dtype == np.float32
    assert leaf_probabilities.shape == (40, 8)
    np.testing.assert_allclose(leaf_probabilities.sum(axis=1), 1, atol=1e-5)


def test_probabilities_of_the_last_predict_are_kept_for_the_grader(model_code, leaf_images, leaf_probabilities):
    classifier = model_code.model(tiny_submission())
    assert classifier.probabilities is None
    for rows in (slice(9), slice(9, 12)):
        classifier.predict(leaf_images[rows])
        np.testing.assert_allclose(classifier.probabilities, leaf_probabilities[rows], atol=1e-5)


INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@pytest.mark.parametrize("form", ["numpy", "tensor"])
def test_every_numeric_dtype_gives_the_same_probabilities(classifier, leaf_images, dtype, form, no_warnings):
    pixels = leaf_images[:5] // 2  # fits int8, and is exact in all of them
    expected = classifier.predict_proba(pixels)
    given = tf.cast(tf.constant(pixels), dtype)
    given = given if form == "tensor" else given.numpy()
    np.testing.assert_allclose(classifier.predict_proba(given), expected, atol=1e-6)
    assert classifier.predict(given).dtype == tf.int64


def test_variables_and_lists_are_accepted(classifier, leaf_images, leaf_probabilities, no_warnings):
    for given in (
        tf.Variable(leaf_images[:3]),
        list(leaf_images[:3]),
        leaf_images[:3].tolist(),
        [tf.constant(image) for image in leaf_images[:3]],
    ):
        np.testing.assert_allclose(classifier.predict_proba(given), leaf_probabilities[:3], atol=1e-6)


def test_non_contiguous_arrays_are_accepted(classifier, leaf_images, leaf_probabilities, no_warnings):
    np.testing.assert_allclose(classifier.predict_proba(leaf_images[::-2]), leaf_probabilities[::-2], atol=1e-5)
    np.testing.assert_allclose(
        classifier.predict_proba(np.asfortranarray(leaf_images[:4])), leaf_probabilities[:4], atol=1e-5
    )


def test_single_image_is_accepted(classifier, leaf_images, leaf_probabilities, no_warnings):
    assert classifier.predict(leaf_images[3]).shape == [1]
    np.testing.assert_allclose(classifier.predict_proba(leaf_images[3]), leaf_probabilities[3:4], atol=1e-5)


def test_grey_images_are_accepted(classifier, leaf_images, no_warnings):
    grey = leaf_images[:4, :, :, 1:2]
    np.testing.assert_array_equal(classifier.predict_proba(grey), classifier.predict_proba(np.repeat(grey, 3, axis=-1)))
    np.testing.assert_array_equal(
        classifier.predict_proba(grey[0]), classifier.predict_proba(np.repeat(grey[0], 3, axis=-1))
    )


def test_alpha_is_composited_over_white(classifier, leaf_images, leaf_probabilities, no_warnings):
    alpha = np.concatenate([leaf_images[:4], np.full((4, 96, 96, 1), 255, np.uint8)], axis=-1)
    alpha[1, ..., 3] = 0
    alpha[2, :48, :, 3] = 0
    alpha[3, ..., 3] = 51
    expected = leaf_images[:4].astype(np.float32)
    expected[1] = 255
    expected[2, :48] = 255
    expected[3] = expected[3] * 0.2 + 255 * 0.8
    got = classifier.predict_proba(alpha)
    np.testing.assert_allclose(got, classifier.predict_proba(expected), atol=1e-5)
    np.testing.assert_allclose(got[0], leaf_probabilities[0], atol=1e-5)
    assert np.abs(got[1] - leaf_probabilities[1]).max() > 1e-3


def test_scaled_alpha_is_composited_over_white(classifier, leaf_images):
    alpha = np.concatenate([leaf_images[:2], np.full((2, 96, 96, 1), 102, np.uint8)], axis=-1)
    with pytest.warns(UserWarning, match="^rows 0, 1: all values within 0 to 1"):
        got = classifier.predict_proba(alpha.astype(np.float32) / 255)
    np.testing.assert_allclose(got, classifier.predict_proba(alpha), atol=1e-5)


@pytest.mark.parametrize("side", [(1, 1), (3, 5), (50, 120), (96, 97), (300, 200)])
def test_size_of_a_uniform_image_does_not_matter(classifier, side, no_warnings):
    """Resizing an image of one color gives the same color, so the probabilities must not depend on the size."""
    colors = np.array([[200, 30, 90], [10, 120, 60], [0, 0, 255]], np.uint8)[:, None, None]
    expected = classifier.predict_proba(np.broadcast_to(colors, (3, 96, 96, 3)))
    np.testing.assert_allclose(classifier.predict_proba(np.broadcast_to(colors, (3, *side, 3))), expected, atol=1e-4)


def test_other_sizes_are_resized_like_pillow(classifier, leaf_images, leaf_probabilities, no_warnings):
    large = [np.asarray(Image.fromarray(image).resize((150, 150), Image.BICUBIC)) for image in leaf_images[:8]]
    shrunk = [np.asarray(Image.fromarray(image).resize((96, 96), Image.BICUBIC)) for image in large]
    got = classifier.predict_proba(np.stack(large))
    np.testing.assert_allclose(got, classifier.predict_proba(np.stack(shrunk)), atol=0.03)
    np.testing.assert_allclose(got, leaf_probabilities[:8], atol=0.15)


@pytest.mark.parametrize("pads", [((0, 0), (31, 32)), ((40, 41), (0, 0))], ids=["wide", "high"])
def test_another_aspect_is_cropped_at_the_center(classifier, leaf_images, leaf_probabilities, no_warnings, pads):
    framed = np.stack([np.pad(image, (*pads, (0, 0)), constant_values=99) for image in leaf_images[:8]])
    np.testing.assert_allclose(classifier.predict_proba(framed), leaf_probabilities[:8], atol=1e-4)


def test_shrinking_is_antialiased(classifier, no_warnings):
    """Without antialiasing, a large noisy image would stay noisy instead of becoming grey."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 480, 480, 3), np.uint8)
    shrunk = np.stack([np.asarray(Image.fromarray(image).resize((96, 96), Image.BICUBIC)) for image in noise])
    np.testing.assert_allclose(classifier.predict_proba(noise), classifier.predict_proba(shrunk), atol=0.03)
    assert np.abs(classifier.predict_proba(noise[:, ::5, ::5]) - classifier.predict_proba(shrunk)).max() > 0.1


# --- image files


def _files(folder, image):
    """Saves one image in several file formats. Returns {file name: the pixels that a viewer shows}."""
    picture = Image.fromarray(image)
    stripes = np.zeros((96, 96), np.uint8)
    stripes[::2] = 255
    clear = np.where(stripes[..., None] > 0, image, 255).astype(np.uint8)
    grey = np.asarray(picture.convert("L"))
    grey3 = np.repeat(grey[..., None], 3, axis=-1)
    indexed = picture.quantize(64)
    shown = np.asarray(indexed.convert("RGB")).copy()
    shown[np.asarray(indexed) == 3] = 255
    turned = Image.Exif()
    turned[274] = 6  # rotated by 90 degrees
    picture.save(folder / "rgb.png")
    picture.save(folder / "rgb.jpg", quality=90)
    picture.convert("L").save(folder / "grey.png")
    Image.fromarray(np.dstack([image, stripes])).save(folder / "rgba.png")
    Image.fromarray(np.dstack([grey, stripes])).save(folder / "grey_alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "grey16.png")
    indexed.save(folder / "palette.png", transparency=3)
    picture.rotate(90, expand=True).save(folder / "turned.png", exif=turned)
    return {
        "rgb.png": image,
        "rgb.jpg": np.asarray(Image.open(folder / "rgb.jpg")),
        "grey.png": grey3,
        "rgba.png": clear,
        "grey_alpha.png": np.where(stripes[..., None] > 0, grey3, 255).astype(np.uint8),
        "grey16.png": grey3,
        "palette.png": shown,
        "turned.png": image,
    }


FILES = ["rgb.png", "rgb.jpg", "grey.png", "rgba.png", "grey_alpha.png", "grey16.png", "palette.png", "turned.png"]


@pytest.mark.parametrize("name", FILES)
def test_image_file_is_read_as_a_viewer_shows_it(classifier, leaf_images, tmp_path, name, no_warnings):
    shown = _files(tmp_path, leaf_images[5])[name]
    expected = classifier.predict_proba(shown)
    for path in (tmp_path / name, str(tmp_path / name)):
        np.testing.assert_allclose(classifier.predict_proba(path), expected, atol=1e-5)


def test_pillow_image_is_accepted(classifier, leaf_images, leaf_probabilities, no_warnings):
    np.testing.assert_allclose(
        classifier.predict_proba(Image.fromarray(leaf_images[5])), leaf_probabilities[5:6], atol=1e-5
    )


def test_images_of_several_sizes_and_kinds_are_predicted_one_by_one(
    classifier, leaf_images, leaf_probabilities, tmp_path, no_warnings
):
    Image.fromarray(leaf_images[1]).save(tmp_path / "leaf.png")
    large = np.asarray(Image.fromarray(leaf_images[2]).resize((300, 200), Image.BICUBIC))
    given = [
        leaf_images[0],
        tmp_path / "leaf.png",
        large,
        str(tmp_path / "leaf.png"),
        Image.fromarray(leaf_images[3]),
        tf.constant(leaf_images[4]),
        leaf_images[5, :, :, :1],
    ]
    alone = np.concatenate([classifier.predict_proba(image) for image in given])
    np.testing.assert_allclose(alone[[0, 1, 3, 4, 5]], leaf_probabilities[[0, 1, 1, 3, 4]], atol=1e-5)
    for several in (given, tuple(given), iter(given), (image for image in given)):
        np.testing.assert_allclose(classifier.predict_proba(several), alone, atol=1e-5)


def test_a_generator_is_read_as_it_is_predicted(model_code, classifier, leaf_images, monkeypatch):
    """At most one batch of its images is read before a prediction."""
    monkeypatch.setattr(model_code, "BATCH_SIZE", 4)
    events, forward = [], classifier._forward
    monkeypatch.setattr(classifier, "_forward", lambda pixels: events.append("predicted") or forward(pixels))

    def generate():
        for image in leaf_images[:10]:
            events.append("read")
            yield image

    assert classifier.predict(generate()).shape == [10]
    reads = [event == "read" for event in events]
    assert sum(reads[: events.index("predicted")]) == 4
    assert sum(reads) == 10


@pytest.mark.parametrize("empty", [iter([]), (image for image in ())])
def test_empty_generator_is_rejected(classifier, empty):
    with pytest.raises(ValueError, match=EXPECTED + ".* without an image"):
        classifier.predict(empty)


@pytest.mark.slow
def test_large_photographs_need_little_memory(tmp_path):
    """Eight photographs of 12 megapixels as one float array would take 1,150 MB."""
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from PIL import Image
from model import predict
Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)).resize((4000, 3000)).save("photo.jpg")
predict(np.zeros((2, 96, 96, 3), np.uint8))
predict("photo.jpg")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answers = predict(["photo.jpg"] * 8)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
photos = np.empty((8, 3000, 4000, 3), np.uint8)
photos[:] = 7
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
predict(photos)
grown = max(grown, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(len(answers), grown / (2**20 if sys.platform == "darwin" else 2**10))
"""
    done = python("-c", code, tiny_submission(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    count, grown = done.stdout.split()
    assert int(count) == 8
    assert float(grown) < 200


@pytest.mark.parametrize("damage", ["text", "truncated", "folder", "empty"])
def test_damaged_image_file_is_rejected(classifier, leaf_images, tmp_path, damage):
    path = tmp_path / "leaf.png"
    Image.fromarray(leaf_images[0]).save(path)
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"text": b"not an image", "truncated": data[: len(data) // 2], "empty": b""}[damage])
    with pytest.raises(ValueError, match=EXPECTED + "(a file|text) .*leaf.png"):
        classifier.predict(path)


def test_image_file_above_pillows_limit_is_rejected(classifier, leaf_images, tmp_path, monkeypatch):
    """Pillow then raises DecompressionBombError, which is neither an OSError nor a ValueError."""
    Image.fromarray(leaf_images[0]).save(tmp_path / "leaf.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=EXPECTED + "a file .*leaf.png"):
        classifier.predict(tmp_path / "leaf.png")


# --- rejected inputs

INVALID = {
    "rank 0": (np.float32(3), r"shape \[\]"),
    "rank 1": (np.zeros(96), r"shape \[96\]"),
    "rank 2": (np.zeros((96, 96)), r"shape \[96, 96\]"),
    "rank 5": (np.zeros((1, 1, 96, 96, 3)), r"shape \[1, 1, 96, 96, 3\]"),
    "two channels": (np.zeros((2, 96, 96, 2)), r"shape \[2, 96, 96, 2\]"),
    "five channels": (np.zeros((2, 96, 96, 5)), r"shape \[2, 96, 96, 5\]"),
    "channels first": (np.zeros((2, 3, 96, 96)), r"shape \[2, 3, 96, 96\]"),
    "no height": (np.zeros((2, 0, 96, 3)), r"shape \[2, 0, 96, 3\]"),
    "empty list": ([], r"shape \[0\]"),
    "text": ("hello", "text that is not the path .*: 'hello'"),
    "missing file": (Path("nowhere/leaf.jpg"), "text that is not the path .*: '.*leaf.jpg'"),
    "bytes": (b"hello", "bytes of type"),
    "none": (None, "NoneType"),
    "wrong image in a list": ([np.zeros((96, 96, 3)), np.zeros((95, 96, 2))], r"an image of shape \[95, 96, 2\]"),
    "batches in a list": ([np.zeros((2, 96, 96, 3))] * 2, r"shape \[2, 2, 96, 96, 3\]"),
    "mixed list": (["nowhere.jpg", np.zeros((96, 96, 3))], "text that is not the path .*: 'nowhere.jpg'"),
    "ragged rows": ([[[1, 2, 3], [4, 5]]], "list that is not an array"),
    "ragged tensor": (tf.ragged.constant([[[[1, 2, 3]]], [[[1, 2, 3], [4, 5, 6]]]]), "RaggedTensor"),
    "sparse tensor": (tf.sparse.from_dense(np.eye(3)), "SparseTensor"),
    "missing files": (["a.jpg", "b.jpg"], "text that is not the path .*: 'a.jpg'"),
    "string tensor": (tf.constant(["a.jpg"]), "EagerTensor of type object"),
    "objects": (np.full((1, 96, 96, 3), None), "ndarray of type object"),
    "dictionary": ({"images": np.zeros((1, 96, 96, 3))}, "dict of type object"),
    "complex": (np.zeros((1, 96, 96, 3), complex), "ndarray of type complex128"),
    "bool": (np.zeros((1, 96, 96, 3), bool), "ndarray of type bool"),
    "bool tensor": (tf.zeros((1, 96, 96, 3), tf.bool), "EagerTensor of type bool"),
    "dates": (np.zeros((1, 96, 96, 3), "datetime64[s]"), "ndarray of type datetime64"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_input_is_rejected(classifier, case):
    given, got = INVALID[case]
    for method in (classifier.predict, classifier.predict_proba):
        with pytest.raises(ValueError, match=EXPECTED + got):
            method(given)


def test_symbolic_tensor_is_rejected(classifier):
    with pytest.raises(ValueError, match=EXPECTED.lstrip("^") + "SymbolicTensor that is not an array"):
        tf.function(classifier.predict_proba).get_concrete_function(tf.TensorSpec([1, 96, 96, 3], tf.float32))


# --- cleaning of bad values


def _predict_with_warning(classifier, given, warning):
    before = given.copy()
    with pytest.warns(UserWarning, match=warning):
        got = classifier.predict_proba(given)
    np.testing.assert_array_equal(given, before)  # the input must not be changed
    return got


def _assert_only_changed(got, leaf_probabilities, rows):
    """Asserts that all rows other than the given ones have unchanged probabilities."""
    others = np.setdiff1d(np.arange(len(leaf_probabilities)), rows)
    np.testing.assert_allclose(got[others], leaf_probabilities[others], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_nan_and_infinity_are_cleaned_row_by_row(classifier, leaf_images, leaf_probabilities, dtype):
    given = leaf_images.astype(dtype)
    given[3, 10:30, 10:30] = np.nan
    given[37, :20] = np.inf
    given[37, 20:30, :, 1] = -np.inf
    clean = leaf_images.astype(np.float32)
    clean[3, 10:30, 10:30] = np.nanmean(given[3].astype(np.float64))
    clean[37, :20] = 255
    clean[37, 20:30, :, 1] = 0
    got = _predict_with_warning(classifier, given, "^rows 3, 37: NaN or infinite values, replaced")
    _assert_only_changed(got, leaf_probabilities, [3, 37])
    tolerance = 1e-4 if dtype is not np.float16 else 1e-2
    np.testing.assert_allclose(got[[3, 37]], classifier.predict_proba(clean[[3, 37]]), atol=tolerance)
    assert np.abs(got[3] - leaf_probabilities[3]).max() > 1e-4


def test_rows_without_a_finite_value_are_predicted(classifier, leaf_images, leaf_probabilities):
    given = leaf_images.astype(np.float32)
    given[2] = np.nan
    given[5] = np.inf
    got = _predict_with_warning(classifier, given, "^rows 2, 5: NaN or infinite values")
    _assert_only_changed(got, leaf_probabilities, [2, 5])
    np.testing.assert_allclose(got[5], classifier.predict_proba(np.full((1, 96, 96, 3), 255, np.uint8))[0], atol=1e-5)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32, np.float64])
def test_values_out_of_range_are_clipped_row_by_row(classifier, leaf_images, leaf_probabilities, dtype):
    given = leaf_images.astype(dtype)
    given[1] *= 2
    given[33] -= 100
    got = _predict_with_warning(classifier, given, "^rows 1, 33: values outside 0 to 255, clipped")
    _assert_only_changed(got, leaf_probabilities, [1, 33])
    clean = np.clip(given[[1, 33]], 0, 255).astype(np.uint8)
    np.testing.assert_allclose(got[[1, 33]], classifier.predict_proba(clean), atol=1e-5)


def test_values_beyond_float32_are_clipped(classifier, leaf_images, leaf_probabilities):
    given = leaf_images.astype(np.float64)
    given[4, :50] = 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # numpy's own, which names no row
        got = _predict_with_warning(classifier, given, "^rows 4: ")
    _assert_only_changed(got, leaf_probabilities, [4])
    clean = np.clip(given[4], 0, 255)
    np.testing.assert_allclose(got[4], classifier.predict_proba(clean)[0], atol=1e-5)


def test_warning_counts_many_rows(classifier, leaf_images):
    with pytest.warns(UserWarning, match=r"^rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 30 more: values outside"):
        classifier.predict(leaf_images.astype(np.int32) + 300)


def test_module_level_predict_warns_too(model_code, leaf_images, leaf_probabilities):
    given = leaf_images[:3].astype(np.float32)
    given[1, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="^rows 1: NaN"):
        answers = model_code.predict(given)
    assert answers.numpy()[[0, 2]].tolist() == leaf_probabilities[[0, 2]].argmax(axis=1).tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaled_rows_are_detected_row_by_row(classifier, leaf_images, leaf_probabilities, dtype):
    given = leaf_images.astype(dtype)
    scaled = [0, 5, 36]
    given[scaled] /= 255
    got = _predict_with_warning(classifier, given, "^rows 0, 5, 36: all values within 0 to 1, taken as scaled")
    np.testing.assert_allclose(got, leaf_probabilities, atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.002), (-0.15, 1.15)])
def test_scaled_rows_that_were_resized_or_brightened_are_detected(classifier, leaf_images, low, high):
    """Bicubic resizing goes a little below 0 and beyond 1."""
    given = leaf_images[:4].astype(np.float32)
    given[1] /= 255
    given[1, 0, 0], given[1, 0, 1] = low, high
    same = leaf_images[:4].copy()
    same[1, 0, 0], same[1, 0, 1] = 0, 255
    with pytest.warns(UserWarning, match="^rows 1: all values within 0 to 1, taken as scaled"):
        got = classifier.predict_proba(given)
    np.testing.assert_allclose(got, classifier.predict_proba(same), atol=1e-5)


def test_scaled_rows_with_nan_are_cleaned(classifier, leaf_images, leaf_probabilities):
    given = leaf_images.astype(np.float32)
    given[7] /= 255
    given[7, :5] = np.nan
    clean = leaf_images[7].astype(np.float32)
    clean[:5] = clean[5:].mean()
    with pytest.warns(UserWarning) as caught:
        got = classifier.predict_proba(given)
    assert sorted(str(warning.message).partition(",")[0] for warning in caught) == [
        "rows 7: NaN or infinite values",
        "rows 7: all values within 0 to 1",
    ]
    _assert_only_changed(got, leaf_probabilities, [7])
    np.testing.assert_allclose(got[7], classifier.predict_proba(clean)[0], atol=1e-4)


def test_float_rows_of_0_and_1_are_those_of_integers(classifier, leaf_images):
    given = leaf_images[:4].astype(np.float32)
    given[2] = np.random.default_rng(0).integers(0, 2, given[2].shape)
    got = _predict_with_warning(classifier, given, "^rows 2: all values are 0 or 1, taken as nearly black")
    np.testing.assert_allclose(got, classifier.predict_proba(given.astype(np.uint8)), atol=1e-5)


def test_nan_of_the_network_is_computed_again_and_else_reported(classifier, leaf_images, monkeypatch):
    expected, network, calls = classifier.predict_proba(leaf_images[:3]), classifier._network, []

    def faulty(pixels):
        calls.append(len(pixels))
        return network(pixels) * (np.nan if len(calls) in bad else 1)

    monkeypatch.setattr(classifier, "_network", faulty)
    bad = (1,)
    np.testing.assert_allclose(classifier.predict_proba(leaf_images[:3]), expected, atol=1e-5)
    calls.clear()
    bad = (1, 2)
    _predict_with_warning(classifier, leaf_images[:3], "^rows 0, 1, 2: the network returned NaN")


def test_integer_rows_are_never_taken_as_scaled(classifier, leaf_images, no_warnings):
    """The value 1 is nearly black as an integer but white as a float."""
    dark = leaf_images[:4] // 200
    assert dark.max() == 1
    got = classifier.predict_proba(dark)
    for dtype in (np.uint8, np.int32, np.int64):
        np.testing.assert_array_equal(classifier.predict_proba(dark.astype(dtype)), got)
    assert np.abs(got - classifier.predict_proba(dark * 255)).max() > 1e-3


def test_black_float_rows_are_not_taken_as_scaled(classifier, no_warnings):
    black = np.zeros((2, 96, 96, 3))
    np.testing.assert_array_equal(classifier.predict_proba(black), classifier.predict_proba(black.astype(np.uint8)))


# --- independence of the batch


def test_neighbors_and_order_do_not_matter(classifier, leaf_images, leaf_probabilities):
    alone = np.concatenate([classifier.predict_proba(leaf_images[row : row + 1]) for row in range(len(leaf_images))])
    order = np.random.default_rng(1).permutation(len(leaf_images))
    permuted = classifier.predict_proba(leaf_images[order])
    beside_noise = classifier.predict_proba(np.concatenate([leaf_images[:1], 255 - leaf_images[:20]]))[:1]
    np.testing.assert_allclose(alone, leaf_probabilities, atol=1e-5)
    np.testing.assert_allclose(permuted, leaf_probabilities[order], atol=1e-5)
    np.testing.assert_allclose(beside_noise, leaf_probabilities[:1], atol=1e-5)
    assert alone.argmax(axis=1).tolist() == leaf_probabilities.argmax(axis=1).tolist()
    assert permuted.argmax(axis=1).tolist() == leaf_probabilities[order].argmax(axis=1).tolist()


@pytest.mark.parametrize("batch_size", [1, 5, 200])
def test_batch_size_does_not_matter(model_code, classifier, leaf_images, leaf_probabilities, batch_size, monkeypatch):
    monkeypatch.setattr(model_code, "BATCH_SIZE", batch_size)
    np.testing.assert_allclose(classifier.predict_proba(leaf_images), leaf_probabilities, atol=1e-5)


def test_concurrent_predictions_agree_and_the_first_loads_the_model_once(
    model_code, leaf_images, leaf_probabilities, monkeypatch
):
    loaded, model = [], model_code.model
    monkeypatch.setattr(model_code, "_loaded", None)
    monkeypatch.setattr(model_code, "model", lambda path: loaded.append(path) or model(path))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: model_code.predict(leaf_images).numpy().tolist(), range(8)))
    assert answers == [leaf_probabilities.argmax(axis=1).tolist()] * 8
    assert len(loaded) == 1


# --- test-time augmentation

WITH_NUMPY = {  # the transforms, written with other functions of numpy
    "none": lambda x: x,
    "horizontal": lambda x: x[:, :, ::-1],
    "vertical": lambda x: x[:, ::-1],
    "both": lambda x: x[:, ::-1, ::-1],
    "diagonal": lambda x: x.transpose(0, 2, 1, 3),
    "right": lambda x: np.rot90(x, -1, (1, 2)),
    "left": lambda x: np.rot90(x, 1, (1, 2)),
    "antidiagonal": lambda x: np.rot90(x, 2, (1, 2)).transpose(0, 2, 1, 3),
}


def probabilities_by_transform(tta_transforms, images):
    """Returns the probabilities under every transform, computed directly with the SavedModel."""
    folder = tiny_submission(tta_transforms=tta_transforms) / "SubmissionModel"
    saved = tf.saved_model.load(str(folder)).signatures["probabilities"]
    return {
        name: saved(pixels=tf.constant(transform(images), tf.float32))["probabilities"].numpy()
        for name, transform in WITH_NUMPY.items()
    }


@pytest.mark.parametrize(
    "tta_transforms", [("none",), ("none", "horizontal"), ("vertical",), tuple(WITH_NUMPY)], ids="-".join
)
def test_stored_transforms_are_averaged(model_code, leaf_images, tta_transforms):
    classifier = model_code.model(tiny_submission(tta_transforms=tta_transforms))
    assert classifier.tta_transforms == tta_transforms
    assert classifier.tta_threshold == 1.0
    expected = probabilities_by_transform(tta_transforms, leaf_images)
    got = classifier.predict_proba(leaf_images)
    np.testing.assert_allclose(got, np.mean([expected[name] for name in tta_transforms], axis=0), atol=1e-5)
    # The transforms differ enough that an average over the wrong ones would fail.
    assert min(np.abs(expected[a] - expected[b]).max() for a in expected for b in expected if a < b) > 1e-2


def test_transforms_are_those_of_training(model_code):
    assert model_code.TTA_TRANSFORMS == predict.TTA_TRANSFORMS
    numbers = np.arange(2 * 3 * 3).reshape(2, 3, 3, 1)
    for name, transform in WITH_NUMPY.items():
        np.testing.assert_array_equal(predict.transform(numbers, name), transform(numbers), err_msg=name)
        np.testing.assert_array_equal(model_code._transform(numbers, name), transform(numbers), err_msg=name)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_only_images_with_low_confidence_are_augmented(model_code, leaf_images, batch_size, monkeypatch):
    monkeypatch.setattr(model_code, "BATCH_SIZE", batch_size)
    tta_transforms = ("horizontal", "none", "left")
    by_transform = probabilities_by_transform(tta_transforms, leaf_images)
    first, mean = by_transform["horizontal"], np.mean([by_transform[name] for name in tta_transforms], axis=0)
    tta_threshold = float(np.median(first.max(axis=1)))
    classifier = model_code.model(tiny_submission(tta_transforms=tta_transforms, tta_threshold=tta_threshold))
    batches, forward = [], classifier._forward
    monkeypatch.setattr(classifier, "_forward", lambda pixels: batches.append(len(pixels)) or forward(pixels))
    got = classifier.predict_proba(leaf_images)
    uncertain = first.max(axis=1) <= tta_threshold
    assert 0 < uncertain.sum() < len(leaf_images)
    np.testing.assert_allclose(got[uncertain], mean[uncertain], atol=1e-5)
    np.testing.assert_allclose(got[~uncertain], first[~uncertain], atol=1e-5)
    assert np.abs(mean - first)[~uncertain].max() > 1e-3
    firsts, others = len(leaf_images), 2 * uncertain.sum()
    assert sum(batches) == firsts + others
    assert max(batches) <= batch_size
    assert len(batches) == -(-firsts // batch_size) - (-others // batch_size)  # all full but the last of each


# --- the SavedModel


TRANSFORMS = [b"horizontal", b"left"]
KEYS = {
    "current": {"tta_transforms": TRANSFORMS, "tta_threshold": np.float32(0.75)},
    "of the committed model": {"flips": TRANSFORMS, "sure": np.float32(0.75)},
    "without threshold": {"flips": TRANSFORMS},
}


def save_constant_model(folder, settings):
    """Writes a SavedModel whose `about` signature returns the given settings, besides names and size."""
    about = {"names": [b"A", b"B"], "size": np.array([8, 8], np.int32), **settings}
    module = tf.Module()
    module.probabilities = tf.function(
        lambda pixels: {"probabilities": tf.tile([[0.25, 0.75]], [tf.shape(pixels)[0], 1])},
        input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="pixels")],
    )
    module.about = tf.function(lambda: {key: tf.constant(value) for key, value in about.items()}, input_signature=[])
    signatures = {"probabilities": module.probabilities, "about": module.about}
    tf.saved_model.save(module, str(folder / "SubmissionModel"), signatures)


@pytest.mark.parametrize("keys", KEYS)
def test_settings_are_read_under_current_and_earlier_keys(tmp_path, keys):
    save_constant_model(tmp_path, KEYS[keys])
    classifier = load_module(ROOT / "submission" / "model.py", "keys").model(tmp_path)
    assert classifier.names == ("A", "B")
    assert classifier.tta_transforms == ("horizontal", "left")
    assert classifier.tta_threshold == (1.0 if keys == "without threshold" else 0.75)
    np.testing.assert_allclose(classifier.predict_proba(np.zeros((3, 8, 8, 3), np.uint8)), [[0.25, 0.75]] * 3)


def test_missing_model_is_named(model_code, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        model_code.model(tmp_path)
    assert str(tmp_path / "SubmissionModel") in str(caught.value)
    assert "unpack the whole submission.zip again" in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "another model"])
def test_damaged_model_is_named(model_code, tmp_path, damage):
    shutil.copytree(tiny_submission() / "SubmissionModel", tmp_path / "SubmissionModel")
    graph = tmp_path / "SubmissionModel" / "saved_model.pb"
    data = graph.read_bytes()
    if damage == "another model":
        shutil.rmtree(tmp_path / "SubmissionModel")
        tf.saved_model.save(tf.Module(), str(tmp_path / "SubmissionModel"))
    else:
        graph.write_bytes({"empty": b"", "garbage": b"\xff" * 5000, "truncated": data[: len(data) // 2]}[damage])
    with pytest.raises(RuntimeError) as caught:
        model_code.model(tmp_path)
    assert f"cannot load {tmp_path / 'SubmissionModel'}" in str(caught.value)
    assert "unpack the whole submission.zip again" in str(caught.value)


def test_module_level_predict_names_the_missing_folder(tmp_path, leaf_images):
    shutil.copy(ROOT / "submission" / "model.py", tmp_path)
    with pytest.raises(FileNotFoundError, match="SubmissionModel"):
        load_module(tmp_path / "model.py", "alone").predict(leaf_images[:1])
