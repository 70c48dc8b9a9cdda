"""The submission: classifies photographs of leaves. Needs only TensorFlow (2.10 or later) and numpy.

    from model import predict
    predict(X)                        # int64 [n], class indices: 0 is Species1

The competition's server calls it like this:

    network = model(folder_that_contains_this_file)
    network.predict(X)

X: images [n, h, w, 3] with values 0 to 255 (numpy array, tensor or list; any integer or float dtype). Also accepted:
one image [h, w, c], grey images [n, h, w, 1], images with alpha [n, h, w, 4], any size, or the path of an image file.
"""

import os
import threading
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

FOLDER = "SubmissionModel"
BATCH_SIZE = 32  # images per forward pass; limits the memory
TTA_TRANSFORMS = {  # name: (swap rows and columns?, axes that are reversed afterwards); axis 0 is the batch
    "none": (False, ()),
    "horizontal": (False, (2,)),
    "vertical": (False, (1,)),
    "both": (False, (1, 2)),
    "diagonal": (True, ()),
    "right": (True, (2,)),
    "left": (True, (1,)),
    "antidiagonal": (True, (1, 2)),
}
OLD_KEYS = {"flips": "tta_transforms", "sure": "tta_threshold"}  # keys of earlier exports, the committed model's too
EXPECTED = "expected images [n, height, width, 3] (or one image, or 1 or 4 channels) with values 0 to 255"

_loaded = None
_lock = threading.Lock()


def predict(X):
    """Returns `model(folder of this file).predict(X)`. The model is loaded at the first call."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = model(os.path.dirname(os.path.abspath(__file__)))
    return _loaded.predict(X)


class model:  # lower case: the competition's server requires this name
    """A trained network, loaded from a SavedModel.

    Args:
        path: folder that contains `SubmissionModel`.

    Attributes:
        names: class names, in the order of the probabilities.
        probabilities: float32 array [n, classes] of the latest `predict` call, None before. The grader reads it to plot
            calibration.
        tta_transforms: test-time augmentation (TTA): the flips and rotations over which probabilities are averaged.
        tta_threshold: images whose top-1 confidence under the first transform exceeds this value skip the other
            transforms.

    Raises:
        FileNotFoundError: the folder contains no `SubmissionModel`.
        RuntimeError: the SavedModel cannot be loaded.
    """

    def __init__(self, path):
        folder = os.path.join(os.path.abspath(os.fspath(path)), FOLDER)
        fix = "unpack the whole submission.zip again, model.py and {} side by side".format(FOLDER)
        if not os.path.isfile(os.path.join(folder, "saved_model.pb")):
            raise FileNotFoundError("no saved_model.pb in {}; {}".format(folder, fix))
        try:
            self._saved = tf.saved_model.load(folder)
            self._probabilities = self._saved.signatures["probabilities"]
            about = {OLD_KEYS.get(key, key): value.numpy() for key, value in self._saved.signatures["about"]().items()}
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RuntimeError("cannot load {} ({}); {}".format(folder, reason, fix)) from error
        self.names = tuple(name.decode() for name in about["names"])
        self.tta_transforms = tuple(name.decode() for name in about["tta_transforms"])
        self.tta_threshold = float(about.get("tta_threshold", 1.0))  # the first exports have no threshold
        self._size = tuple(int(side) for side in about["size"])
        self.probabilities = None

    def predict(self, X):
        """Returns the most probable class of each image.

        Args:
            X: images, see the head of this file. NaN and infinite values are replaced, values outside 0 to 255 are
                clipped, and a float image within 0 to 1 is multiplied by 255. A warning lists these rows.

        Returns:
            int64 tensor [n], indices into `names`.

        Raises:
            ValueError: X cannot be read as images.
        """
        self.probabilities = self.predict_proba(X)
        return tf.constant(np.argmax(self.probabilities, axis=-1), tf.int64)

    def predict_proba(self, X):
        """Returns the class probabilities: float32 array [n, classes]. Accepts the same X as `predict`."""
        images = _as_images(X)
        probabilities = np.empty((len(images), len(self.names)), np.float32)
        cleaned = {}
        for start in range(0, len(images), BATCH_SIZE):
            pixels = _as_pixels(images[start : start + BATCH_SIZE], start, cleaned)
            probabilities[start : start + BATCH_SIZE] = self._predict_batch(_resize(pixels, self._size))
        for reason, rows in cleaned.items():
            more = " and {} more".format(len(rows) - 10) if len(rows) > 10 else ""
            warnings.warn("rows {}{}: {}".format(", ".join(map(str, rows[:10])), more, reason), stacklevel=2)
        return probabilities

    def _predict_batch(self, pixels):
        """Applies the first transform to all images and the others only to those with low confidence."""
        probabilities = self._forward(_transform(pixels, self.tta_transforms[0]))
        uncertain = np.flatnonzero(probabilities.max(axis=-1) <= self.tta_threshold)
        if len(uncertain) and len(self.tta_transforms) > 1:
            pending = [(row, name) for name in self.tta_transforms[1:] for row in uncertain]
            for start in range(0, len(pending), BATCH_SIZE):
                part = pending[start : start + BATCH_SIZE]
                others = self._forward(np.concatenate([_transform(pixels[row : row + 1], name) for row, name in part]))
                np.add.at(probabilities, [row for row, _ in part], others)
            probabilities[uncertain] /= len(self.tta_transforms)
        return probabilities

    def _forward(self, pixels):
        return np.array(self._probabilities(pixels=tf.constant(pixels))["probabilities"])


def _transform(pixels, name):
    swapped, axes = TTA_TRANSFORMS[name]
    return np.flip(np.swapaxes(pixels, 1, 2) if swapped else pixels, axes)


def _as_images(X):
    """Returns X as a numeric array [n, h, w, 1, 3 or 4], without a copy if possible."""
    if isinstance(X, (str, os.PathLike)):
        X = _read(X)
    try:
        images = np.asarray(X.numpy() if isinstance(X, (tf.Tensor, tf.Variable)) else X)
    except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise ValueError("{}, got {} that is not an array: {}".format(EXPECTED, type(X).__name__, error)) from error
    if images.dtype.kind not in "uif" and images.dtype.name != "bfloat16":
        raise ValueError("{}, got {} of type {}".format(EXPECTED, type(X).__name__, images.dtype))
    got = images.shape
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape[1:]:
        raise ValueError("{}, got shape {}".format(EXPECTED, list(got)))
    return images


def _as_pixels(images, start, cleaned):
    """Returns a batch as float32 RGB [b, h, w, 3], 0 to 255. Adds row numbers to `cleaned`: {reason: [row, …]}."""
    is_float = images.dtype.kind not in "ui"
    with np.errstate(over="ignore"):
        pixels = images.astype(np.float32)
    for row, image in enumerate(pixels, start):
        finite = np.isfinite(image)
        all_finite = finite.all()
        values = image if all_finite else image[finite]
        low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
        if not all_finite:
            image[np.isnan(image)] = values.mean() if values.size else 0
            reason = "NaN or infinite values, replaced by the image's mean or the nearest limit"
            cleaned.setdefault(reason, []).append(row)
        if is_float and low >= 0 and 0 < high <= 1:
            image *= 255
            cleaned.setdefault("all values within 0 to 1, taken as scaled and multiplied by 255", []).append(row)
        if low < 0 or high > 255:
            cleaned.setdefault("values outside 0 to 255, clipped", []).append(row)
        np.clip(image, 0, 255, out=image)
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 4:  # composited over white
        alpha = pixels[..., 3:] / 255
        return pixels[..., :3] * alpha + 255 * (1 - alpha)
    return pixels


def _resize(pixels, size):
    """Resizes to the resolution of the training images. The network itself enlarges its input afterwards."""
    if pixels.shape[1:3] == size:
        return pixels
    return np.clip(tf.image.resize(pixels, size, method="bicubic", antialias=True).numpy(), 0, 255)


def _read(path):
    """Returns an image file as a uint8 array [h, w, 3]."""
    if not os.path.isfile(path):
        raise ValueError("{}, got text that is not the path of an image file: {!r}".format(EXPECTED, str(path)[:100]))
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):  # Pillow's own conversion clips to 255
                image = Image.fromarray((np.asarray(image, np.float64) / 257).round().astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            "{}, got a file that is not a readable image: {} ({})".format(EXPECTED, path, error)
        ) from error
