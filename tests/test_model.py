"""submission/model.py: what it takes, what it answers, and what it says about the rest."""

import ast
import json
import shutil
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import NAMES, ROOT, load_module, python, tiny_submission
from PIL import Image

from competition.drawings import draw_images
from training import augment

ON_THE_SERVER = ("submission/model.py", "competition/ingestion_program/ingestion.py", "competition/scoring_program/score.py")
EXPECTED = r"^expected images \[n, height, width, 3\] .*, got "


@pytest.fixture(scope="module")
def module():
    return load_module(tiny_submission() / "model.py", "submitted")


@pytest.fixture(scope="module")
def network(module):
    return module.model(tiny_submission())


@pytest.fixture(scope="module")
def images():
    return draw_images(40)


@pytest.fixture(scope="module")
def known(network, images):
    """The probabilities of `images`, varied enough that a mix-up of rows cannot hide."""
    probabilities = network.predict_proba(images)
    assert len(set(probabilities.argmax(axis=1))) >= 5
    return probabilities


@pytest.fixture
def quiet():
    """Turns any warning into a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- what it needs


@pytest.mark.parametrize("path", ON_THE_SERVER)
def test_server_code_needs_no_file_of_this_project_and_no_new_syntax(path):
    tree = ast.parse((ROOT / path).read_text("utf-8"), feature_version=(3, 8))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} is a relative import"
            roots.add(node.module.partition(".")[0])
    allowed = {"numpy", "tensorflow", "PIL"} | ({"model"} if "ingestion" in path else {"details"})
    assert roots - allowed <= set(sys.stdlib_module_names)


def test_fresh_process_without_keras_in_another_folder(tmp_path, images, known):
    np.save(tmp_path / "images.npy", images[:9])
    code = """
import sys
sys.modules["keras"] = sys.modules["tf_keras"] = None  # an import of them would raise
sys.path.insert(0, sys.argv[1])
import json
import numpy as np
from model import model, predict
X = np.load("images.npy")
first, second, other = predict(X), predict(X), model(sys.argv[1]).predict(X)
foreign = [name for name in sys.modules if name.partition(".")[0] in ("training", "competition", "sklearn", "matplotlib")]
print(json.dumps([first.dtype.name, first.numpy().tolist(), second.numpy().tolist(), other.numpy().tolist(), foreign]))
"""
    done = python("-c", code, tiny_submission(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    dtype, first, second, other, foreign = json.loads(done.stdout)
    assert dtype == "int64"
    assert first == second == other == known[:9].argmax(axis=1).tolist()
    assert foreign == []


def test_memory_stays_bounded(tmp_path):
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


# --- what it takes


@pytest.mark.parametrize("count", [0, 1, 7, 33])
def test_any_number_of_images(network, images, known, count, quiet):
    answers = network.predict(images[:count])
    assert isinstance(answers, tf.Tensor)
    assert answers.dtype == tf.int64
    assert answers.shape == [count]
    assert answers.numpy().tolist() == known[:count].argmax(axis=1).tolist()


def test_probabilities_and_names(network, known):
    assert network.names == NAMES
    assert known.dtype == np.float32
    assert known.shape == (40, 8)
    np.testing.assert_allclose(known.sum(axis=1), 1, atol=1e-5)


INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@pytest.mark.parametrize("form", ["numpy", "tensor"])
def test_every_number_type_gives_the_same(network, images, dtype, form, quiet):
    pixels = images[:5] // 2  # fits int8, and is exact in all of them
    expected = network.predict_proba(pixels)
    given = tf.cast(tf.constant(pixels), dtype)
    given = given if form == "tensor" else given.numpy()
    np.testing.assert_allclose(network.predict_proba(given), expected, atol=1e-6)
    assert network.predict(given).dtype == tf.int64


def test_variables_and_lists(network, images, known, quiet):
    for given in (tf.Variable(images[:3]), list(images[:3]), images[:3].tolist(), [tf.constant(image) for image in images[:3]]):
        np.testing.assert_allclose(network.predict_proba(given), known[:3], atol=1e-6)


def test_views_that_are_not_contiguous(network, images, known, quiet):
    np.testing.assert_allclose(network.predict_proba(images[::-2]), known[::-2], atol=1e-5)
    np.testing.assert_allclose(network.predict_proba(np.asfortranarray(images[:4])), known[:4], atol=1e-5)


def test_one_image(network, images, known, quiet):
    assert network.predict(images[3]).shape == [1]
    np.testing.assert_allclose(network.predict_proba(images[3]), known[3:4], atol=1e-5)


def test_grey(network, images, quiet):
    grey = images[:4, :, :, 1:2]
    np.testing.assert_array_equal(network.predict_proba(grey), network.predict_proba(np.repeat(grey, 3, axis=-1)))
    np.testing.assert_array_equal(network.predict_proba(grey[0]), network.predict_proba(np.repeat(grey[0], 3, axis=-1)))


def test_alpha_lies_over_white(network, images, known, quiet):
    alpha = np.concatenate([images[:4], np.full((4, 96, 96, 1), 255, np.uint8)], axis=-1)
    alpha[1, ..., 3] = 0
    alpha[2, :48, :, 3] = 0
    alpha[3, ..., 3] = 51
    expected = images[:4].astype(np.float32)
    expected[1] = 255
    expected[2, :48] = 255
    expected[3] = expected[3] * 0.2 + 255 * 0.8
    got = network.predict_proba(alpha)
    np.testing.assert_allclose(got, network.predict_proba(expected), atol=1e-5)
    np.testing.assert_allclose(got[0], known[0], atol=1e-5)
    assert np.abs(got[1] - known[1]).max() > 1e-3


def test_scaled_alpha(network, images):
    alpha = np.concatenate([images[:2], np.full((2, 96, 96, 1), 102, np.uint8)], axis=-1)
    with pytest.warns(UserWarning, match="^rows 0, 1: all values within 0 to 1"):
        got = network.predict_proba(alpha.astype(np.float32) / 255)
    np.testing.assert_allclose(got, network.predict_proba(alpha), atol=1e-5)


@pytest.mark.parametrize("side", [(1, 1), (3, 5), (50, 120), (96, 97), (300, 200)])
def test_other_sizes_of_one_colour(network, side, quiet):
    """Enlarging and shrinking one colour gives that colour, so the answers must not depend on the size."""
    colours = np.array([[200, 30, 90], [10, 120, 60], [0, 0, 255]], np.uint8)[:, None, None]
    expected = network.predict_proba(np.broadcast_to(colours, (3, 96, 96, 3)))
    np.testing.assert_allclose(network.predict_proba(np.broadcast_to(colours, (3, *side, 3))), expected, atol=1e-4)


def test_other_sizes_of_drawn_images(network, images, known, quiet):
    """As Pillow would show them at the size of the training photographs."""
    large = [np.asarray(Image.fromarray(image).resize((210, 150), Image.BICUBIC)) for image in images[:8]]
    shrunk = [np.asarray(Image.fromarray(image).resize((96, 96), Image.BICUBIC)) for image in large]
    got = network.predict_proba(np.stack(large))
    np.testing.assert_allclose(got, network.predict_proba(np.stack(shrunk)), atol=0.03)
    np.testing.assert_allclose(got, known[:8], atol=0.15)


def test_fine_patterns_are_smoothed_as_they_shrink(network, quiet):
    """Without it, a large photograph would be noise where it should be grey."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 480, 384, 3), np.uint8)
    shrunk = np.stack([np.asarray(Image.fromarray(image).resize((96, 96), Image.BICUBIC)) for image in noise])
    np.testing.assert_allclose(network.predict_proba(noise), network.predict_proba(shrunk), atol=0.03)
    assert np.abs(network.predict_proba(noise[:, ::5, ::4]) - network.predict_proba(shrunk)).max() > 0.1


# --- files


def _files(folder, image):
    """The same drawn photograph in the forms that files come in → file, and the pixels that a viewer shows."""
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
    turned[274] = 6  # the camera was on its side
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
def test_image_file_as_a_viewer_shows_it(network, images, tmp_path, name, quiet):
    shown = _files(tmp_path, images[5])[name]
    expected = network.predict_proba(shown)
    for path in (tmp_path / name, str(tmp_path / name)):
        np.testing.assert_allclose(network.predict_proba(path), expected, atol=1e-5)


def test_pillow_image(network, images, known, quiet):
    np.testing.assert_allclose(network.predict_proba(Image.fromarray(images[5])), known[5:6], atol=1e-5)


@pytest.mark.parametrize("damage", ["text", "truncated", "folder", "empty"])
def test_damaged_image_file(network, images, tmp_path, damage):
    path = tmp_path / "leaf.png"
    Image.fromarray(images[0]).save(path)
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"text": b"not an image", "truncated": data[: len(data) // 2], "empty": b""}[damage])
    with pytest.raises(ValueError, match=EXPECTED + "(a file|text) .*leaf.png"):
        network.predict(path)


def test_image_file_too_large_to_be_honest(network, images, tmp_path, monkeypatch):
    """Pillow refuses it with an error of its own, which is neither OSError nor ValueError."""
    Image.fromarray(images[0]).save(tmp_path / "leaf.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=EXPECTED + "a file .*leaf.png"):
        network.predict(tmp_path / "leaf.png")


# --- what it refuses

WRONG = {
    "rank 0": (np.float32(3), r"shape \[\]"),
    "rank 1": (np.zeros(96), r"shape \[96\]"),
    "rank 2": (np.zeros((96, 96)), r"shape \[96, 96\]"),
    "rank 5": (np.zeros((1, 1, 96, 96, 3)), r"shape \[1, 1, 96, 96, 3\]"),
    "two channels": (np.zeros((2, 96, 96, 2)), r"shape \[2, 96, 96, 2\]"),
    "five channels": (np.zeros((2, 96, 96, 5)), r"shape \[2, 96, 96, 5\]"),
    "channels first": (np.zeros((2, 3, 96, 96)), r"shape \[2, 3, 96, 96\]"),
    "no height": (np.zeros((2, 0, 96, 3)), r"shape \[2, 0, 96, 3\]"),
    "empty list": ([], r"shape \[0\]"),
    "text": ("hello", "text that names no image file: 'hello'"),
    "missing file": (Path("nowhere/leaf.jpg"), "text that names no image file: '.*leaf.jpg'"),
    "bytes": (b"hello", "bytes of type"),
    "none": (None, "NoneType"),
    "ragged list": ([np.zeros((96, 96, 3)), np.zeros((95, 96, 3))], "list that is no array"),
    "ragged rows": ([[[1, 2, 3], [4, 5]]], "list that is no array"),
    "ragged tensor": (tf.ragged.constant([[[[1, 2, 3]]], [[[1, 2, 3], [4, 5, 6]]]]), "RaggedTensor"),
    "sparse tensor": (tf.sparse.from_dense(np.eye(3)), "SparseTensor"),
    "strings": (["a.jpg", "b.jpg"], "list of type <U5"),
    "string tensor": (tf.constant(["a.jpg"]), "EagerTensor of type object"),
    "objects": (np.full((1, 96, 96, 3), None), "ndarray of type object"),
    "dictionary": ({"images": np.zeros((1, 96, 96, 3))}, "dict of type object"),
    "complex": (np.zeros((1, 96, 96, 3), complex), "ndarray of type complex128"),
    "bool": (np.zeros((1, 96, 96, 3), bool), "ndarray of type bool"),
    "bool tensor": (tf.zeros((1, 96, 96, 3), tf.bool), "EagerTensor of type bool"),
    "dates": (np.zeros((1, 96, 96, 3), "datetime64[s]"), "ndarray of type datetime64"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_image_is_refused(network, case):
    given, got = WRONG[case]
    for method in (network.predict, network.predict_proba):
        with pytest.raises(ValueError, match=EXPECTED + got):
            method(given)


def test_symbolic_tensor_is_refused(network):
    with pytest.raises(ValueError, match=EXPECTED.lstrip("^") + "SymbolicTensor that is no array"):
        tf.function(network.predict_proba).get_concrete_function(tf.TensorSpec([1, 96, 96, 3], tf.float32))


# --- what it cleans


def _rows(network, given, warning):
    before = given.copy()
    with pytest.warns(UserWarning, match=warning):
        got = network.predict_proba(given)
    np.testing.assert_array_equal(given, before)  # the caller's array is the caller's
    return got


def _only(got, known, rows):
    """All other rows are as they were."""
    others = np.setdiff1d(np.arange(len(known)), rows)
    np.testing.assert_allclose(got[others], known[others], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_nan_and_infinity_are_cleaned_row_by_row(network, images, known, dtype):
    given = images.astype(dtype)
    given[3, 10:30, 10:30] = np.nan
    given[37, :20] = np.inf
    given[37, 20:30, :, 1] = -np.inf
    clean = images.astype(np.float32)
    clean[3, 10:30, 10:30] = np.nanmean(given[3].astype(np.float64))
    clean[37, :20] = 255
    clean[37, 20:30, :, 1] = 0
    got = _rows(network, given, "^rows 3, 37: NaN or infinite values, replaced")
    _only(got, known, [3, 37])
    tolerance = 1e-4 if dtype is not np.float16 else 1e-2
    np.testing.assert_allclose(got[[3, 37]], network.predict_proba(clean[[3, 37]]), atol=tolerance)
    assert np.abs(got[3] - known[3]).max() > 1e-4


def test_rows_without_one_number_still_get_an_answer(network, images, known):
    given = images.astype(np.float32)
    given[2] = np.nan
    given[5] = np.inf
    got = _rows(network, given, "^rows 2, 5: NaN or infinite values")
    _only(got, known, [2, 5])
    np.testing.assert_allclose(got[5], network.predict_proba(np.full((1, 96, 96, 3), 255, np.uint8))[0], atol=1e-5)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32, np.float64])
def test_values_out_of_range_are_clipped_row_by_row(network, images, known, dtype):
    given = images.astype(dtype)
    given[1] *= 2
    given[33] -= 100
    got = _rows(network, given, "^rows 1, 33: values outside 0 to 255, clipped")
    _only(got, known, [1, 33])
    clean = np.clip(given[[1, 33]], 0, 255).astype(np.uint8)
    np.testing.assert_allclose(got[[1, 33]], network.predict_proba(clean), atol=1e-5)


def test_numbers_beyond_single_precision_are_clipped(network, images, known):
    given = images.astype(np.float64)
    given[4, :50] = 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # numpy's own, which names no row
        got = _rows(network, given, "^rows 4: ")
    _only(got, known, [4])
    clean = np.clip(given[4], 0, 255)
    np.testing.assert_allclose(got[4], network.predict_proba(clean)[0], atol=1e-5)


def test_many_rows_are_counted(network, images):
    with pytest.warns(UserWarning, match=r"^rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 30 more: values outside"):
        network.predict(images.astype(np.int32) + 300)


def test_module_predict_warns_as_well(module, images, known):
    given = images[:3].astype(np.float32)
    given[1, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="^rows 1: NaN"):
        answers = module.predict(given)
    assert answers.numpy()[[0, 2]].tolist() == known[[0, 2]].argmax(axis=1).tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaled_rows_are_found_row_by_row(network, images, known, dtype):
    given = images.astype(dtype)
    scaled = [0, 5, 36]
    given[scaled] /= 255
    got = _rows(network, given, "^rows 0, 5, 36: all values within 0 to 1, taken as scaled")
    np.testing.assert_allclose(got, known, atol=1e-5)


def test_scaled_rows_with_nan(network, images, known):
    given = images.astype(np.float32)
    given[7] /= 255
    given[7, :5] = np.nan
    clean = images[7].astype(np.float32)
    clean[:5] = clean[5:].mean()
    with pytest.warns(UserWarning) as caught:
        got = network.predict_proba(given)
    assert sorted(str(warning.message).partition(",")[0] for warning in caught) == [
        "rows 7: NaN or infinite values",
        "rows 7: all values within 0 to 1",
    ]
    _only(got, known, [7])
    np.testing.assert_allclose(got[7], network.predict_proba(clean)[0], atol=1e-4)


def test_integer_rows_are_never_scaled(network, images, quiet):
    """Ones are nearly black in integers, and white in floats."""
    dark = images[:4] // 200
    assert dark.max() == 1
    got = network.predict_proba(dark)
    for dtype in (np.uint8, np.int32, np.int64):
        np.testing.assert_array_equal(network.predict_proba(dark.astype(dtype)), got)
    assert np.abs(got - network.predict_proba(dark * 255)).max() > 1e-3


def test_black_float_rows_are_no_scaled_rows(network, quiet):
    black = np.zeros((2, 96, 96, 3))
    np.testing.assert_array_equal(network.predict_proba(black), network.predict_proba(black.astype(np.uint8)))


# --- the same row, the same answer


def test_neighbours_order_and_batch_do_not_matter(network, images, known):
    alone = np.concatenate([network.predict_proba(images[row : row + 1]) for row in range(len(images))])
    order = np.random.default_rng(1).permutation(len(images))
    permuted = network.predict_proba(images[order])
    beside_noise = network.predict_proba(np.concatenate([images[:1], 255 - images[:20]]))[:1]
    np.testing.assert_allclose(alone, known, atol=1e-5)
    np.testing.assert_allclose(permuted, known[order], atol=1e-5)
    np.testing.assert_allclose(beside_noise, known[:1], atol=1e-5)
    assert alone.argmax(axis=1).tolist() == known.argmax(axis=1).tolist()
    assert permuted.argmax(axis=1).tolist() == known[order].argmax(axis=1).tolist()


@pytest.mark.parametrize("views", [1, 5, 200])
def test_batch_size_does_not_matter(module, network, images, known, views, monkeypatch):
    monkeypatch.setattr(module, "VIEWS", views)
    np.testing.assert_allclose(network.predict_proba(images), known, atol=1e-5)


def test_threads(module, images, known):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: module.predict(images).numpy().tolist(), range(8)))
    assert answers == [known.argmax(axis=1).tolist()] * 8


BY_HAND = {  # numpy's own turns
    "none": lambda x: x,
    "horizontal": lambda x: x[:, :, ::-1],
    "vertical": lambda x: x[:, ::-1],
    "both": lambda x: x[:, ::-1, ::-1],
    "diagonal": lambda x: x.transpose(0, 2, 1, 3),
    "right": lambda x: np.rot90(x, -1, (1, 2)),
    "left": lambda x: np.rot90(x, 1, (1, 2)),
    "antidiagonal": lambda x: np.rot90(x, 2, (1, 2)).transpose(0, 2, 1, 3),
}


def views_by_hand(flips, images):
    """Each view's probabilities, straight from the SavedModel."""
    saved = tf.saved_model.load(str(tiny_submission(flips) / "SubmissionModel")).signatures["probabilities"]
    return {name: saved(pixels=tf.constant(view(images), tf.float32))["probabilities"].numpy() for name, view in BY_HAND.items()}


@pytest.mark.parametrize("flips", [("none",), ("none", "horizontal"), ("vertical",), tuple(BY_HAND)])
def test_flips_are_averaged_as_stored(module, images, flips):
    network = module.model(tiny_submission(flips))
    assert network.flips == flips and network.sure == 1.0
    views = views_by_hand(flips, images)
    got = network.predict_proba(images)
    np.testing.assert_allclose(got, np.mean([views[flip] for flip in flips], axis=0), atol=1e-5)
    # without this, an average of the wrong views would pass
    assert min(np.abs(views[a] - views[b]).max() for a in views for b in views if a < b) > 1e-2


def test_views_are_those_of_training():
    assert set(BY_HAND) == set(augment.FLIPS)
    numbers = np.arange(2 * 3 * 3).reshape(2, 3, 3, 1)
    for name, view in BY_HAND.items():
        np.testing.assert_array_equal(augment.flip(numbers, name), view(numbers), err_msg=name)


@pytest.mark.parametrize("views", [3, 32])
def test_only_an_image_in_doubt_is_looked_at_again(module, images, views, monkeypatch):
    monkeypatch.setattr(module, "VIEWS", views)
    flips = ("horizontal", "none", "left")
    by_hand = views_by_hand(flips, images)
    first, mean = by_hand["horizontal"], np.mean([by_hand[flip] for flip in flips], axis=0)
    sure = float(np.median(first.max(axis=1)))
    network = module.model(tiny_submission(flips, sure))
    looked, look = [], network._look
    monkeypatch.setattr(network, "_look", lambda pixels: looked.append(len(pixels)) or look(pixels))
    got = network.predict_proba(images)
    doubt = first.max(axis=1) <= sure
    assert 0 < doubt.sum() < len(images)
    np.testing.assert_allclose(got[doubt], mean[doubt], atol=1e-5)
    np.testing.assert_allclose(got[~doubt], first[~doubt], atol=1e-5)
    assert np.abs(mean - first)[~doubt].max() > 1e-3
    assert sum(looked) == len(images) + 2 * doubt.sum() and max(looked) <= views


# --- the model's folder


def test_missing_model(module, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        module.model(tmp_path)
    assert str(tmp_path / "SubmissionModel") in str(caught.value)
    assert "unpack the whole submission.zip again" in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "another model"])
def test_damaged_model(module, tmp_path, damage):
    shutil.copytree(tiny_submission() / "SubmissionModel", tmp_path / "SubmissionModel")
    graph = tmp_path / "SubmissionModel" / "saved_model.pb"
    data = graph.read_bytes()
    if damage == "another model":
        shutil.rmtree(tmp_path / "SubmissionModel")
        tf.saved_model.save(tf.Module(), str(tmp_path / "SubmissionModel"))
    else:
        graph.write_bytes({"empty": b"", "garbage": b"\xff" * 5000, "truncated": data[: len(data) // 2]}[damage])
    with pytest.raises(RuntimeError) as caught:
        module.model(tmp_path)
    assert f"cannot load {tmp_path / 'SubmissionModel'}" in str(caught.value)
    assert "unpack the whole submission.zip again" in str(caught.value)


def test_module_predict_names_the_missing_folder(tmp_path, images):
    shutil.copy(ROOT / "submission" / "model.py", tmp_path)
    with pytest.raises(FileNotFoundError, match="SubmissionModel"):
        load_module(tmp_path / "model.py", "alone").predict(images[:1])
