"""What an experiment is: one frozen record of every choice, and strict overrides of it."""

import ast
import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from training.architectures import inception_v3
from training.augment import FLIPS, Augmentation
from training.errors import UserError
from training.layers import KERNELS
from training.thaw import Budget, Edges, Everything

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Recipe:
    """One experiment. A variant is `dataclasses.replace(other, …)`; one that makes no sense cannot be built."""

    # Data
    validation: float = 0.2  # share of each class held out; 0 trains on everything
    repeats: dict = field(default_factory=dict)  # class name → how often each of its images is seen in an epoch
    augmentation: Augmentation = Augmentation()
    seed: int = 0

    # Fine-tuning of the backbone, below a plain softmax
    backbone: Callable = inception_v3
    thaw: Everything | Edges | Budget = Everything()
    batch_norm: bool = True  # whether BatchNormalization is trained or keeps its ImageNet statistics
    phases: tuple = ((10, 96),)  # (epochs, side in pixels the image is enlarged to), one after another
    learning_rate: float = 1e-4  # peak; linear warm-up, then cosine decay over all phases
    warmup: float = 1.0  # epochs
    weight_decay: float = 0.004
    label_smoothing: float = 0.0
    dropout: float = 0.2
    batch: int = 32
    precision: str = "float32"  # Keras' dtype policy for the backbone in training

    # The quasi-SVM, on the frozen backbone
    head_views: int = 8  # random views of each image whose features are computed
    head_epochs: int = 60
    head_learning_rate: float = 1e-3
    head_kernel: str = "gaussian"
    head_features: int = 1024  # random Fourier features
    head_scale: float = 1.0  # kernel width, in units of the median distance between two images' features
    head_dropout: float = 0.2
    head_l2: float = 1e-5
    head_batch: int = 256

    # What ships
    test_flips: tuple = ("none",)  # views averaged at prediction: none, horizontal, vertical, both

    def __post_init__(self):
        """Raises a UserError that names the first field that makes no sense."""
        sizes = isinstance(self.phases, tuple) and self.phases and all(map(_is_phase, self.phases))
        self._expect("phases", sizes, "((epochs, side), …): whole numbers, at least one epoch and 75 pixels")
        self._expect("repeats", all(_is_whole(n, 1) for n in self.repeats.values()), "whole numbers from 1")
        self._expect("seed", _is_whole(self.seed, 0), "a whole number from 0")
        for name in ("batch", "head_views", "head_epochs", "head_features", "head_batch"):
            self._expect(name, _is_whole(getattr(self, name), 1), "a whole number from 1")
        for name in ("validation", "label_smoothing", "dropout", "head_dropout"):
            self._expect(name, 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name in ("learning_rate", "head_learning_rate", "head_scale"):
            self._expect(name, 0 < getattr(self, name) < math.inf, "a number above 0")
        for name in ("weight_decay", "head_l2"):
            self._expect(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        self._expect("warmup", 0 <= self.warmup <= self.epochs, f"0 to the {self.epochs} epochs of all phases")
        self._expect("augmentation", _is_augmentation(self.augmentation), "numbers from 0")
        self._expect("head_kernel", self.head_kernel in KERNELS, f"one of {', '.join(KERNELS)}")
        self._expect("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        flips = self.test_flips and all(isinstance(flip, str) and flip in FLIPS for flip in self.test_flips)
        self._expect("test_flips", flips, f"some of {', '.join(FLIPS)}")

    def _expect(self, name, holds, expected):
        if not holds:
            raise UserError(f"recipe: {name}={getattr(self, name)!r}, expected {expected}")

    @property
    def epochs(self):
        """Fine-tuning epochs of all phases together."""
        return sum(epochs for epochs, _ in self.phases)

    @property
    def size(self):
        """Side in pixels at which the backbone sees an image in the end."""
        return self.phases[-1][1]

    def to_json(self):
        """A dictionary of plain values, functions and records by name."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def override(recipe, settings):
    """Applies `field=literal` settings; `augmentation.field=literal` reaches into the augmentation.

    Args:
        recipe: `Recipe`.
        settings: iterable of strings.

    Returns:
        A new `Recipe`.

    Raises:
        UserError: no such field, a value that is no Python literal, of another type, or out of range.
    """
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: expected field=value, for example --set batch=16")
        recipe = _replace(recipe, name.strip(), text.strip(), setting)
    return recipe


def _replace(record, name, text, setting):
    outer, dot, inner = name.partition(".")
    known = [f.name for f in dataclasses.fields(record)]
    if outer not in known:
        near = difflib.get_close_matches(outer, known, 3) or known
        raise UserError(f"--set {setting}: no field {outer}; did you mean {', '.join(near)}?")
    current = getattr(record, outer)
    if dot:
        if not dataclasses.is_dataclass(current):
            raise UserError(f"--set {setting}: {outer} has no fields of its own")
        return dataclasses.replace(record, **{outer: _replace(current, inner, text, setting)})
    return dataclasses.replace(record, **{outer: _literal(text, current, setting)})


def _literal(text, current, setting):
    makers = {"Everything": Everything, "Edges": Edges, "Budget": Budget}
    try:
        tree = ast.parse(text, mode="eval").body
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in makers:
            names = {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords}
            value = makers[tree.func.id](*(ast.literal_eval(a) for a in tree.args), **names)
        else:
            value = ast.literal_eval(tree)
    except (SyntaxError, ValueError, TypeError):
        if not isinstance(current, str):
            raise UserError(f"--set {setting}: {text} is no Python literal, for example 0.1, 16, True or (1, 2)") from None
        value = text
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    family = (Everything, Edges, Budget) if isinstance(current, (Everything, Edges, Budget)) else type(current)
    if callable(current) and not isinstance(current, type) or not isinstance(value, family):
        kind = "nothing (change it in a recipe file)" if callable(current) else type(current).__name__
        raise UserError(f"--set {setting}: expected {kind}, got {type(value).__name__}")
    if isinstance(value, bool) != isinstance(current, bool):
        raise UserError(f"--set {setting}: expected {type(current).__name__}, got {type(value).__name__}")
    return value


def _is_whole(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_phase(phase):
    return isinstance(phase, tuple) and len(phase) == 2 and _is_whole(phase[0], 1) and _is_whole(phase[1], 75)


def _is_augmentation(augmentation):
    return all(0 <= value < math.inf for value in dataclasses.astuple(augmentation))


def _plain(value):
    if dataclasses.is_dataclass(value):
        return {"name": type(value).__name__, **{f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if callable(value):
        return value.__name__
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
