"""The submission: classifies images. Needs only TensorFlow (2.10 or later) and numpy.

    from model import predict
    predict(X)                        # int64 [n], class indices into `model.names`

The competition's server calls it like this:

    network = model(folder_that_contains_this_file)
    network.predict(X)

X: images [n, h, w, 3] with values 0 to 255 (numpy array, tensor or list; any integer or float dtype). Also accepted:
one image [h, w, c], grey images [n, h, w, 1], images with alpha [n, h, w, 4], any size, the path of an image file, a
Pillow image, and a list or generator of paths, Pillow images or arrays [h, w, c], which may differ in size.

The network computes in bfloat16 where the processor is faster in it, else in float32. The environment variable
SUBMISSION_PRECISION, set to float32 or bfloat16, decides it instead.
"""

import ctypes
import io
import itertools
import os
import sys
import threading
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

FOLDER = "SubmissionModel"
BATCH_SIZE = 16  # images per forward pass; limits the memory. 32 are hardly faster on a processor.
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
PRECISION = "SUBMISSION_PRECISION"  # environment variable
MIN_SPEEDUP = 1.2  # of a convolution: bfloat16 is used from here on
BFLOAT16_PASS = "auto_mixed_precision_onednn_bfloat16"  # of TensorFlow's graph optimizer
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # in /proc/cpuinfo
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
OVERSHOOT = 0.2  # of images scaled to 0 to 1, from resizing or brightening them
EXPECTED = "expected images [n, height, width, 3] (or one image, or 1 or 4 channels) with values 0 to 255"
ORIENTATION = 274  # EXIF tag
PHOTOMETRIC = 262  # TIFF tag: whether 0 is black or white
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # the chunks that decide what is shown
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

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
        precision: "float32" or "bfloat16", in which the network is computed. Input and output are float32 in both.

    Raises:
        FileNotFoundError: the folder contains no `SubmissionModel`.
        RuntimeError: the SavedModel cannot be loaded.
        ValueError: the environment variable SUBMISSION_PRECISION is neither float32 nor bfloat16.
    """

    def __init__(self, path):
        folder = os.path.join(os.path.abspath(os.fspath(path)), FOLDER)
        fix = "unpack the whole submission.zip again, model.py and {} side by side".format(FOLDER)
        if not os.path.isfile(os.path.join(folder, "saved_model.pb")):
            raise FileNotFoundError("no saved_model.pb in {}; {}".format(folder, fix))
        precision = _choose_precision(os.environ.get(PRECISION, ""))
        try:
            about, self._network, self.precision = _load(folder, precision)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RuntimeError("cannot load {} ({}); {}".format(folder, reason, fix)) from error
        about = {OLD_KEYS.get(key, key): value for key, value in about.items()}
        self.names = tuple(name.decode() for name in about["names"])
        self.tta_transforms = tuple(name.decode() for name in about["tta_transforms"])
        self.tta_threshold = float(about.get("tta_threshold", 1.0))  # the first exports have no threshold
        self._size = tuple(int(side) for side in about["size"])
        self.probabilities = None

    def predict(self, X):
        """Returns the most probable class of each image.

        Args:
            X: images, see the head of this file. NaN and infinite values are replaced, values outside 0 to 255 are
                clipped, and a float image within about 0 to 1 that has fractions is multiplied by 255. A warning lists
                these rows.

        Returns:
            int64 tensor [n], indices into `names`.

        Raises:
            ValueError: X cannot be read as images.
        """
        self.probabilities = self.predict_proba(X)
        return tf.constant(np.argmax(self.probabilities, axis=-1), tf.int64)

    def predict_proba(self, X):
        """Returns the class probabilities: float32 array [n, classes]. Accepts the same X as `predict`."""
        parts, views, uncertain, cleaned = [], [], [], {}
        others = self.tta_transforms[1:]
        pixels = (_resize(_as_pixels(image, row, cleaned), self._size) for row, image in enumerate(_as_images(X)))
        for batch in iter(lambda: list(itertools.islice(pixels, BATCH_SIZE)), []):
            start = len(parts) * BATCH_SIZE
            parts.append(self._forward(_transform(np.stack(batch), self.tta_transforms[0])))
            for place in np.flatnonzero(parts[-1].max(axis=-1) <= self.tta_threshold) if others else ():
                uncertain.append(start + place)
                views.extend((start + place, _transform(batch[place][None], name)) for name in others)
            while len(views) >= BATCH_SIZE:
                self._add(views[:BATCH_SIZE], parts)
                del views[:BATCH_SIZE]
        if views:
            self._add(views, parts)
        probabilities = np.concatenate([np.empty((0, len(self.names)), np.float32)] + parts)
        wrong = np.flatnonzero(~np.isfinite(probabilities).all(axis=-1)).tolist()
        if wrong:
            cleaned["the network returned NaN, so that the predicted class means nothing"] = wrong
        for reason, rows in cleaned.items():
            more = " and {} more".format(len(rows) - 10) if len(rows) > 10 else ""
            warnings.warn("rows {}{}: {}".format(", ".join(map(str, rows[:10])), more, reason), stacklevel=2)
        probabilities[uncertain] /= len(self.tta_transforms)
        if self.precision == "bfloat16":  # in which softmax rounds to three digits
            probabilities /= probabilities.sum(axis=-1, keepdims=True)
        return probabilities

    def _add(self, views, parts):
        """Adds the probabilities of transformed images, [(row, pixels [1, h, w, 3]), …], to those of their rows."""
        found = self._forward(np.concatenate([pixels for _, pixels in views]))
        for place, (row, _) in enumerate(views):
            parts[row // BATCH_SIZE][row % BATCH_SIZE] += found[place]

    def _forward(self, pixels):
        probabilities = np.array(self._network(pixels))
        if not np.isfinite(probabilities).all():  # a fault of a kernel may not repeat
            probabilities = np.array(self._network(pixels))
        return probabilities


def _choose_precision(wanted):
    """Returns "float32" or "bfloat16", the wanted one if that is possible. Without a wish "", the faster one."""
    if wanted not in ("", "float32", "bfloat16"):
        raise ValueError("{} must be float32 or bfloat16, got {!r}; change or unset it".format(PRECISION, wanted))
    if wanted == "float32":
        return wanted
    obstacle = _bfloat16_obstacle()
    speedup = 0.0 if obstacle else _bfloat16_speedup()
    if wanted and not speedup:
        reason = obstacle or "TensorFlow computes in float32 all the same"
        warnings.warn("{}=bfloat16 is not possible, float32 is used: {}".format(PRECISION, reason), stacklevel=4)
    return "bfloat16" if speedup >= MIN_SPEEDUP or (wanted and speedup) else "float32"


def _bfloat16_obstacle():
    """Returns why the network cannot be computed in bfloat16, or None."""
    if tf.config.list_physical_devices("GPU"):
        return "the network runs on a GPU"
    if not hasattr(tf.compat.v1.ConfigProto().graph_options.rewrite_options, BFLOAT16_PASS):
        return "TensorFlow {} has no {}".format(tf.__version__, BFLOAT16_PASS)
    if not BFLOAT16_FLAGS & _processor_flags():
        return "the processor has none of {}".format(", ".join(sorted(BFLOAT16_FLAGS)))
    return None


def _processor_flags():
    """Returns the words of /proc/cpuinfo; none on other systems than Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return set(file.read().split())
    except OSError:
        return set()


def _bfloat16_speedup():
    """Returns how many times as fast a small convolution is in bfloat16. 0: TensorFlow computes it in float32."""
    values = np.random.default_rng(0).normal(size=(4 * 24 * 24 + 9 * 128, 128)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(tf.float32, [None, 24, 24, 128], name="pixels")
        kernel = tf.constant(values[-9 * 128 :].reshape(3, 3, 128, 128))
        tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(pixels, kernel, 1, "SAME")), (1, 2), name="means")
    networks = [_Network(graph, "pixels:0", "means:0", precision) for precision in ("float32", "bfloat16")]
    pixels = values[: -9 * 128].reshape(4, 24, 24, 128)
    first, second = [network(pixels) for network in networks]
    if np.array_equal(first, second):
        return 0.0
    return _ratio_of_minima([lambda network=network: _seconds(network, pixels) for network in networks])


def _ratio_of_minima(measures, least=5, most=60):
    """Returns the ratio of the shortest times of two functions, which are measured in turn.

    They are measured until the ratio reaches MIN_SPEEDUP, at most `most` times. On a busy processor, `least`
    measurements can all be disturbed, and two processes on one machine would choose different precisions.

    Args:
        measures: two functions without arguments that return seconds.
        least, most: number of measurements.
    """
    seconds = []
    while len(seconds) < least or (len(seconds) < most and np.divide(*np.min(seconds, axis=0)) < MIN_SPEEDUP):
        seconds.append([measure() for measure in measures])
    return float(np.divide(*np.min(seconds, axis=0)))


def _seconds(network, pixels):
    began = time.perf_counter()
    network(pixels)
    return time.perf_counter() - began


class _Network:
    """A tensor of a graph as a function of another, with a precision of its own.

    It is a session, because a session has its own options of the graph optimizer: nothing else in the process computes
    differently, not even at the same time. Only the passes that make the network faster are run. With all passes the
    results are bit-identical, but the first call takes three times as long, and 500 MB more.

    Args:
        graph: `tf.Graph`.
        source, result: names of the two tensors.
        precision: "float32" or "bfloat16".
    """

    def __init__(self, graph, source, result, precision):
        config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
        config.intra_op_parallelism_threads = tf.config.threading.get_intra_op_parallelism_threads()
        config.inter_op_parallelism_threads = tf.config.threading.get_inter_op_parallelism_threads()
        config.experimental.optimize_for_static_graph = True
        if not tf.config.list_physical_devices("GPU"):
            options = config.graph_options.rewrite_options
            options.optimizers.extend([BFLOAT16_PASS] if precision == "bfloat16" else [])
            options.optimizers.extend(["constfold", "remap"])
            options.meta_optimizer_iterations = options.ONE
            config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        self._source, self._result, self._optimized = source, result, False

    def __call__(self, pixels):
        if not self._optimized:  # the first call makes several copies of the constants: no batch is in memory meanwhile
            self._optimized = True
            self(pixels[:1])
            _release_memory()
        return self._session.run(self._result, {self._source: pixels})


def _release_memory():
    """Returns freed memory to the system. Only the GNU C library has this function and needs it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass


def _load(folder, precision):
    """Loads a SavedModel.

    Returns:
        What its signature `about` returns: {name: array}. A function: float32 [b, h, w, 3] → float32 [b, classes].
        The precision of that function.
    """
    try:
        return _load_directly(folder, precision) + (precision,)
    except Exception as error:  # variables inside, or a TensorFlow with other internals
        saved = tf.saved_model.load(folder)
        about = {key: value.numpy() for key, value in saved.signatures["about"]().items()}
        warnings.warn("loading takes longer and float32 is used: {}".format(error), stacklevel=4)

    def network(pixels):
        return saved.signatures["probabilities"](pixels=tf.constant(pixels))["probabilities"].numpy()

    return about, network, "float32"


def _load_directly(folder, precision):
    """`_load` without the tracing and the copies of `tf.saved_model.load`. Needs a SavedModel without variables."""
    from tensorflow.core.protobuf import saved_model_pb2

    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    signatures, graph = saved.meta_graphs[0].signature_def, saved.meta_graphs[0].graph_def
    functions = {function.signature.name: function for function in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    flat, source, result = _flatten(
        nodes[signatures["probabilities"].outputs["probabilities"].name.split(":")[0]], functions
    )
    outputs = {key: output.name for key, output in signatures["about"].outputs.items()}
    about = tf.compat.v1.GraphDef(versions=graph.versions)
    about.node.extend(nodes[name] for name in {tensor.split(":")[0] for tensor in outputs.values()})
    about.library.function.extend(functions.values())
    with tf.compat.v1.Session(graph=_as_graph(about)) as session:
        settings = session.run(outputs)
    network = _Network(_as_graph(flat), source, result, precision)
    del saved, signatures, graph, functions, nodes, flat, about
    _release_memory()
    return settings, network


def _flatten(node, functions):
    """The graph of the function that a node calls. Functions that only call another are skipped.

    Args:
        node: NodeDef of the call.
        functions: {name: FunctionDef}. Those that were flattened or skipped are removed.

    Returns:
        GraphDef, the name of its input tensor, the name of its output tensor.
    """
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

    calls = [node]
    while len(calls) == 1:
        function = functions.pop(calls[0].attr["f"].func.name)
        if len(function.signature.input_arg) != 1 or len(function.signature.output_arg) != 1:
            raise ValueError("the network is not a function of one tensor, without variables")
        others = [node for node in function.node_def if node.op not in ("Identity", "NoOp")]
        calls = others if others[0].op in CALLS else []
    graph, names = function_def_to_graph_def(function)
    if any(value.HasField("func") or value.list.func for node in graph.node for value in node.attr.values()):
        graph.library.function.extend(functions.values())  # not otherwise: TensorFlow then keeps the whole GraphDef
    result = function.ret[function.signature.output_arg[0].name]
    return graph, function.signature.input_arg[0].name + ":0", names[result]


def _as_graph(graph_def):
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
    return graph


def _transform(pixels, name):
    swapped, axes = TTA_TRANSFORMS[name]
    return np.flip(np.swapaxes(pixels, 1, 2) if swapped else pixels, axes)


def _as_images(X):
    """Returns the images of X one by one: an array [n, h, w, 1, 3 or 4], or an iterator of arrays [h, w, 1, 3 or 4]."""
    if _is_image(X):
        return [_as_image(X)]
    if isinstance(X, (list, tuple)):
        if len(X) and (_is_image(X[0]) or len(getattr(X[0], "shape", ())) == 3):
            return map(_as_image, X)
    elif hasattr(X, "__next__"):
        return _as_image_each(X)
    images = _as_array(X)
    got = images.shape
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape[1:]:
        raise ValueError("{}, got shape {}".format(EXPECTED, list(got)))
    return images


def _as_image_each(X):
    """Yields the images of an iterator."""
    image = None
    for image in X:
        yield _as_image(image)
    if image is None:
        raise ValueError("{}, got {} without an image".format(EXPECTED, type(X).__name__))


def _is_image(X):
    """Whether X is a path or a Pillow image."""
    pillow = sys.modules.get("PIL.Image")  # not imported unless it is needed
    return isinstance(X, (str, os.PathLike)) or (pillow is not None and isinstance(X, pillow.Image))


def _as_image(X):
    """Returns a path, a Pillow image or an array of one image as an array [h, w, 1, 3 or 4]."""
    if isinstance(X, (str, os.PathLike)):
        return _read(X)
    if _is_image(X):
        return _checked(_upright_rgb, X, "a Pillow image that cannot be read")
    image = _as_array(X)
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError("{}, got an image of shape {} among several".format(EXPECTED, list(image.shape)))
    return image


def _as_array(X):
    """Returns X as a numeric array, without a copy if possible."""
    try:
        array = np.asarray(X.numpy() if isinstance(X, (tf.Tensor, tf.Variable)) else X)
    except (ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise ValueError("{}, got {} that is not an array: {}".format(EXPECTED, type(X).__name__, error)) from error
    if array.dtype.kind not in "uif" and array.dtype.name != "bfloat16":
        raise ValueError("{}, got {} of type {}".format(EXPECTED, type(X).__name__, array.dtype))
    return array


def _as_pixels(image, row, cleaned):
    """Returns an image as RGB [h, w, 3] of 0 to 255, uint8 or float32. Adds to `cleaned`: {reason: [row, …]}."""
    pixels = image
    if image.dtype != np.uint8:  # large photographs stay small
        with np.errstate(over="ignore"):
            pixels = image.astype(np.float32)
        _clean(pixels, image.dtype.kind not in "ui", row, cleaned)
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 4:  # composited over white
        pixels = pixels.astype(np.float32)
        alpha = pixels[..., 3:] / 255
        return pixels[..., :3] * alpha + 255 * (1 - alpha)
    return pixels


def _clean(pixels, is_float, row, cleaned):
    """Replaces, scales and clips the values of float32 pixels in place."""
    finite = np.isfinite(pixels)
    all_finite = finite.all()
    values = pixels if all_finite else pixels[finite]
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    if not all_finite:
        pixels[np.isnan(pixels)] = values.mean() if values.size else 0
        reason = "NaN or infinite values, replaced by the image's mean or the nearest limit"
        cleaned.setdefault(reason, []).append(row)
    if is_float and -OVERSHOOT <= low and 0 < high <= 1 + OVERSHOOT:
        if (values == np.rint(values)).all():
            reason = "all values are 0 or 1, taken as nearly black; if 1 is white, multiply them by 255"
        else:
            pixels *= 255
            low, high = 255 * low, 255 * high
            reason = "all values within 0 to 1, taken as scaled and multiplied by 255"
        cleaned.setdefault(reason, []).append(row)
    if low < 0 or high > 255:
        cleaned.setdefault("values outside 0 to 255, clipped", []).append(row)
    np.clip(pixels, 0, 255, out=pixels)


def _resize(pixels, size):
    """Resizes to the resolution of the training images. Another aspect is first cropped at the center."""
    if pixels.shape[:2] == size:
        return pixels.astype(np.float32)
    center = _center(pixels, size)
    return np.clip(tf.image.resize(center, size, method="bicubic", antialias=True).numpy(), 0, 255)


def _center(pixels, size):
    """Returns the largest part in the center that has the aspect of a size (height, width)."""
    height, width = pixels.shape[:2]
    inner = min(width, max(1, round(height * size[1] / size[0])))
    upper = min(height, max(1, round(width * size[0] / size[1])))
    left, top = (width - inner) // 2, (height - upper) // 2
    return pixels[top : top + upper, left : left + inner]


def _read(path):
    """Returns an image file as a uint8 array [h, w, 3], as an image viewer shows it."""
    if not os.path.isfile(path):
        raise ValueError("{}, got text that is not the path of an image file: {!r}".format(EXPECTED, str(path)[:100]))
    return _checked(_decode, path, "a file that is not a readable image: {}".format(path))


def _checked(read, X, what):
    """Returns `read(X)`. Raises a ValueError if it fails: each of Pillow's decoders raises its own exceptions."""
    try:
        return read(X)
    except Exception as error:
        raise ValueError("{}, got {} ({})".format(EXPECTED, what, error)) from error


# The functions below have the rules of the training's reader, common/image_file.py.


def _decode(path):
    from PIL import Image

    with open(path, "rb") as file:
        data = file.read()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _upright_rgb(image)
    except Exception:
        if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
            raise ValueError("Pillow has no HEIC reader; convert the file to JPEG") from None
        if not data.startswith(PNG_START):
            raise
        # Pillow refuses a whole PNG file for a text or color profile above its limit, or with a wrong checksum.
        with Image.open(io.BytesIO(_without_metadata(data))) as image:
            return _upright_rgb(image)


def _upright_rgb(image):
    """Returns a Pillow image as a uint8 array [h, w, 3], rotated as its EXIF data says. It may be unreadable."""
    image.load()
    turn = _orientation(image)
    pixels = np.asarray(_to_rgb(image))
    if turn >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _orientation(image):
    """Returns the EXIF orientation 1 to 8; damaged or unknown values are 1."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception as error:
        warnings.warn(
            "an image has EXIF data that is not readable ({}), so it is not rotated".format(error), stacklevel=2
        )
        return 1
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image):
    """Returns a Pillow image in mode RGB: more than 8 bits are scaled by mode, alpha is composited over white."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image, 1 if image.mode == "F" else 65535)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bit(image, white):
    """Scales by the mode alone, never by the values, so that a dark image stays dark. Keeps a transparent value."""
    from PIL import Image

    array = np.asarray(image)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= white):  # also if one is NaN
        raise ValueError(
            "pixels of mode {} must be from 0 to {}, got {:g} to {:g}; save it with 8 bits".format(
                image.mode, white, low, high
            )
        )
    levels = array.astype(np.float32)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # a TIFF file with 0 as white; Pillow inverts only 8 bits
        levels = white - levels
    grey = Image.fromarray((levels * np.float32(255 / white)).round().astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(array == clear, 0, 255).astype(np.uint8))))


def _without_metadata(data):
    """Returns a PNG file with only the chunks that decide what is shown."""
    kept, place = [PNG_START], len(PNG_START)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] in PNG_PIXELS:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)
