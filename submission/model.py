"""The submission: photographs in, species out. Needs TensorFlow 2.10 or later and numpy; nothing else of this project.

    from model import predict
    predict(X)                        # int64 [n], positions in the alphabet of species: 0 is Species1

or, as the competition's kit does it:

    network = model(folder_that_holds_this_file)
    network.predict(X)

X: images [n, h, w, 3] with values 0 to 255 (numpy, tensor or list; any integer or float type). One image, grey
[n, h, w, 1] and alpha [n, h, w, 4] images, and other sizes are taken as an image viewer would show them.
"""

import os
import threading
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

FOLDER = "SubmissionModel"
VIEWS = 32  # images or mirror images that go through the network at once: bounds the memory
FLIPS = {  # whether rows become columns, and the axes that are then turned round; 0, the batch, is never one of them
    "none": (False, ()),
    "horizontal": (False, (2,)),
    "vertical": (False, (1,)),
    "both": (False, (1, 2)),
    "diagonal": (True, ()),
    "right": (True, (2,)),
    "left": (True, (1,)),
    "antidiagonal": (True, (1, 2)),
}
EXPECTED = "expected images [n, height, width, 3] (or one image, or 1 or 4 channels) with values 0 to 255"

_loaded = None
_lock = threading.Lock()


def predict(X):
    """`model(folder of this file).predict(X)`, loaded at the first call."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = model(os.path.dirname(os.path.abspath(__file__)))
    return _loaded.predict(X)


class model:  # lower case, because the competition's server asks for this name
    """The saved network.

    Args:
        path: the folder that holds `SubmissionModel`.

    Attributes:
        names: class names, in the order of the answers.
        probabilities: float32 array [n, classes] of the latest `predict`; None before. The grader draws from it how sure
            the model was against how right.
        flips: the views whose probabilities are averaged, as stored with the network.
        sure: an image whose first view has a class of more than this probability is not looked at again, for the other
            views would hardly change the answer; stored as well.

    Raises:
        FileNotFoundError: no `SubmissionModel` in the folder.
        RuntimeError: it is there and cannot be loaded.
    """

    def __init__(self, path):
        folder = os.path.join(os.path.abspath(os.fspath(path)), FOLDER)
        mend = "unpack the whole submission.zip again, model.py and {} side by side".format(FOLDER)
        if not os.path.isfile(os.path.join(folder, "saved_model.pb")):
            raise FileNotFoundError("no saved_model.pb in {}; {}".format(folder, mend))
        try:
            self._saved = tf.saved_model.load(folder)
            self._probabilities = self._saved.signatures["probabilities"]
            about = {key: value.numpy() for key, value in self._saved.signatures["about"]().items()}
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RuntimeError("cannot load {} ({}); {}".format(folder, reason, mend)) from error
        self.names = tuple(name.decode() for name in about["names"])
        self.flips = tuple(flip.decode() for flip in about["flips"])
        self.sure = float(about.get("sure", 1.0))  # what was exported before this was thought of looks at all views
        self._size = tuple(int(side) for side in about["size"])
        self.probabilities = None

    def predict(self, X):
        """The most probable class of each image.

        Args:
            X: see the head of this file. A row with NaN, infinite or out-of-range values is cleaned, and a float row
                within 0 to 1 is taken as scaled; a warning names such rows. No other row is touched.

        Returns:
            int64 tensor [n], positions in `names`.

        Raises:
            ValueError: X is not images.
        """
        self.probabilities = self.predict_proba(X)
        return tf.constant(np.argmax(self.probabilities, axis=-1), tf.int64)

    def predict_proba(self, X):
        """The probability of each class: float32 array [n, classes]. Takes what `predict` takes."""
        images = _as_images(X)
        probabilities = np.empty((len(images), len(self.names)), np.float32)
        odd = {}
        for start in range(0, len(images), VIEWS):
            pixels = _as_pixels(images[start : start + VIEWS], start, odd)
            probabilities[start : start + VIEWS] = self._average(_resize(pixels, self._size))
        for reason, rows in odd.items():
            more = " and {} more".format(len(rows) - 10) if len(rows) > 10 else ""
            warnings.warn("rows {}{}: {}".format(", ".join(map(str, rows[:10])), more, reason), stacklevel=2)
        return probabilities

    def _average(self, pixels):
        """One view of each image, and all of them of those that it leaves a doubt about."""
        answers = self._look(_flip(pixels, self.flips[0]))
        unsure = np.flatnonzero(answers.max(axis=-1) <= self.sure)
        if len(unsure) and len(self.flips) > 1:
            again = [(row, flip) for flip in self.flips[1:] for row in unsure]
            for start in range(0, len(again), VIEWS):
                part = again[start : start + VIEWS]
                others = self._look(np.concatenate([_flip(pixels[row : row + 1], flip) for row, flip in part]))
                np.add.at(answers, [row for row, _ in part], others)
            answers[unsure] /= len(self.flips)
        return answers

    def _look(self, pixels):
        return np.array(self._probabilities(pixels=tf.constant(pixels))["probabilities"])


def _flip(pixels, flip):
    transposed, axes = FLIPS[flip]
    return np.flip(np.swapaxes(pixels, 1, 2) if transposed else pixels, axes)


def _as_images(X):
    """X as an array [n, h, w, 1, 3 or 4] of numbers, without copying where that can be."""
    if isinstance(X, (str, os.PathLike)):
        X = _read(X)
    try:
        images = np.asarray(X.numpy() if isinstance(X, (tf.Tensor, tf.Variable)) else X)
    except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise ValueError("{}, got {} that is no array: {}".format(EXPECTED, type(X).__name__, error)) from error
    if images.dtype.kind not in "uif" and images.dtype.name != "bfloat16":
        raise ValueError("{}, got {} of type {}".format(EXPECTED, type(X).__name__, images.dtype))
    got = images.shape
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape[1:]:
        raise ValueError("{}, got shape {}".format(EXPECTED, list(got)))
    return images


def _as_pixels(images, start, odd):
    """A few rows as clean RGB: float32 [b, h, w, 3], 0 to 255. Appends to `odd`: reason → row numbers."""
    may_be_scaled = images.dtype.kind not in "ui"
    with np.errstate(over="ignore"):
        pixels = images.astype(np.float32)
    for row, image in enumerate(pixels):
        finite = np.isfinite(image)
        whole = finite.all()
        known = image if whole else image[finite]
        low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
        if not whole:
            image[np.isnan(image)] = known.mean() if known.size else 0
            odd.setdefault("NaN or infinite values, replaced by the image's mean or the nearest limit", []).append(start + row)
        if may_be_scaled and low >= 0 and 0 < high <= 1:
            image *= 255
            odd.setdefault("all values within 0 to 1, taken as scaled and multiplied by 255", []).append(start + row)
        if low < 0 or high > 255:
            odd.setdefault("values outside 0 to 255, clipped", []).append(start + row)
        np.clip(image, 0, 255, out=image)
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 4:  # over white
        alpha = pixels[..., 3:] / 255
        return pixels[..., :3] * alpha + 255 * (1 - alpha)
    return pixels


def _resize(pixels, size):
    """To the size of the training photographs: what is enlarged later must first be as coarse as they are."""
    if pixels.shape[1:3] == size:
        return pixels
    return np.clip(tf.image.resize(pixels, size, method="bicubic", antialias=True).numpy(), 0, 255)


def _read(path):
    """An image file as an array [h, w, 3], uint8."""
    if not os.path.isfile(path):
        raise ValueError("{}, got text that names no image file: {!r}".format(EXPECTED, str(path)[:100]))
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):  # Pillow would clip it to white
                image = Image.fromarray((np.asarray(image, np.float64) / 257).round().astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("{}, got a file that is no readable image: {} ({})".format(EXPECTED, path, error)) from error
