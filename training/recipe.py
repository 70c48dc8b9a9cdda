"""What an experiment is: one frozen record of every choice, and strict overrides of it."""

import ast
import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from training.architectures import inception_v3
from training.augment import FLIPS, MIXING, Augmentation
from training.balance import natural, smote, svmsmote
from training.errors import UserError
from training.layers import KERNELS
from training.pipeline import array_batches, folder_batches
from training.schedules import WARMED_UP, cosine
from training.thaw import Budget, Edges, Everything

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
HEADS = ("quasi_svm", "softmax")
SHARED = ("validation", "split_seed", "folds", "fold", "keep", "seed", "resampling", "offline", "offline_augmentation")  # with `start`
KEPT_EPOCHS = ("best", "last")
ACTIVATIONS = ("relu", "elu", "gelu", "selu", "silu", "tanh")


@dataclass(frozen=True)
class Recipe:
    """One experiment. A variant is `dataclasses.replace(other, …)`; one that makes no sense cannot be built."""

    # Data
    validation: float = 0.2  # share of each class held out; 0 trains on everything
    split_seed: int = 0  # of the division into training and validation
    folds: int = 0  # where not 0, the part held out is not `validation` but the `fold`th of so many stratified folds
    fold: int = 0
    keep: str = "best"  # the epoch of the lowest validation loss, which flatters that part's accuracy, or the "last" one
    seed: int = 0  # of everything else that is random
    resampling: Callable = natural  # `balance`: which images of the training part there are
    repeats: dict = field(default_factory=dict)  # class name → how often each of its images is seen in an epoch
    class_weights: bool = False  # rare classes count more in the loss, balanced
    offline: tuple = ()  # views made once, before training: rounds of (class names or () for all, copies of each image)
    offline_augmentation: Augmentation = Augmentation()
    augmentation: Augmentation = Augmentation()  # online: another view of each image in each epoch
    layers: tuple = ()  # Keras layers on each batch thereafter: rand_augment, cut_mix, mix_up of `augment`
    pipeline: Callable = array_batches

    # Fine-tuning of the backbone, below a softmax
    start: "Recipe | None" = None  # a fine-tuning that comes first; this one goes on from its network, SHARED is the same
    backbone: Callable = inception_v3
    frozen_epochs: int = 0  # of the softmax and its dense layers alone, first, on cached features of `head_views` views
    frozen_learning_rate: float = 1e-3
    thaw: Everything | Edges | Budget = Everything()
    batch_norm: bool = True  # whether BatchNormalization is trained or keeps its ImageNet statistics
    phases: tuple = ((10, 96),)  # (epochs, side in pixels the image is enlarged to), one after another; 0 epochs: none
    learning_rate: float = 1e-4  # peak
    schedule: Callable = cosine  # over all phases
    warmup: float = 1.0  # epochs, linear
    weight_decay: float = 0.004
    label_smoothing: float = 0.0
    dense: tuple = ()  # widths of the dense layers between features and softmax
    activation: str = "relu"  # of these
    dense_l2: float = 0.0  # ridge penalty of their weights
    dropout: float = 0.2  # of the features
    dense_dropout: float = 0.0  # behind each dense layer
    averaged_epochs: int = 0  # where not 0, the mean of so many last epochs' weights is kept (`averaging`); needs keep="last"
    batch: int = 32  # images of a step, on all devices together
    precision: str = "float32"  # Keras' dtype policy for the backbone in training
    replicas: int = 1  # devices of one machine that share each step

    # The classifier that ships: the quasi-SVM on the frozen backbone, or the softmax of the fine-tuning
    head: str = "quasi_svm"
    head_views: int = 8  # random views of each image whose features are computed
    head_epochs: int = 60
    head_learning_rate: float = 3e-2  # high, because the features are as small as sqrt(2 / head_features)
    head_kernel: str = "gaussian"
    head_features: int = 1024  # random Fourier features
    head_scale: float = 1.0  # kernel width, in units of the median distance between two images' features
    head_common_scale: bool = False  # all features are divided by one number, each otherwise by its own standard deviation
    head_logit_adjustment: float = 0.0  # how far rare classes are preferred once it is trained; 1 is as much as they are rarer
    head_dropout: float = 0.2
    head_l2: float = 1e-5
    head_batch: int = 256

    # What ships
    test_flips: tuple = ("none",)  # views averaged at prediction, some of `augment.FLIPS`
    test_sure: float = 1.0  # an image whose first view has a class of more than this probability is not looked at again

    def __post_init__(self):
        """Raises a UserError that names the first field that makes no sense, alone or beside the others."""
        if isinstance(self.start, Recipe):
            shared = {name: getattr(self, name) for name in SHARED}
            object.__setattr__(self, "start", dataclasses.replace(self.start, **shared))
        sizes = isinstance(self.phases, tuple) and self.phases and all(map(_is_phase, self.phases))
        self._expect("phases", sizes, "((epochs, side), …): whole numbers, epochs from 0 and at least 32 pixels")
        self._expect("repeats", all(_is_whole(n, 1) for n in self.repeats.values()), "whole numbers from 1")
        self._expect("offline", all(map(_is_round, self.offline)), "rounds of ((class names), copies), for example (((), 3),)")
        for name in ("seed", "split_seed", "folds", "fold", "frozen_epochs", "averaged_epochs"):
            self._expect(name, _is_whole(getattr(self, name), 0), "a whole number from 0")
        for name in ("batch", "replicas", "head_views", "head_epochs", "head_features", "head_batch"):
            self._expect(name, _is_whole(getattr(self, name), 1), "a whole number from 1")
        for name in ("validation", "label_smoothing", "dropout", "dense_dropout", "head_dropout"):
            self._expect(name, 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name in ("learning_rate", "frozen_learning_rate", "head_learning_rate", "head_scale"):
            self._expect(name, 0 < getattr(self, name) < math.inf, "a number above 0")
        for name in ("weight_decay", "dense_l2", "head_l2", "head_logit_adjustment"):
            self._expect(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("augmentation", "offline_augmentation"):
            self._expect(name, _is_augmentation(getattr(self, name)), "numbers from 0")
        self._expect("dense", all(_is_whole(width, 1) for width in self.dense), "widths of layers, for example (128,)")
        self._expect("folds", self.folds != 1, "0 for one validation part, or 2 and more")
        self._expect("fold", self.fold < max(1, self.folds), f"below the {self.folds} folds")
        choices = {"head": HEADS, "head_kernel": KERNELS, "precision": PRECISIONS, "activation": ACTIVATIONS, "keep": KEPT_EPOCHS}
        for name, known in choices.items():
            self._expect(name, getattr(self, name) in known, f"one of {', '.join(known)}")
        self._expect("test_sure", 0 <= self.test_sure <= 1, "a probability from 0 to 1")
        flips = self.test_flips and all(isinstance(flip, str) and flip in FLIPS for flip in self.test_flips)
        self._expect("test_flips", flips, f"some of {', '.join(FLIPS)}")
        self._expect_sense()

    def _expect_sense(self):
        """Fields that contradict each other."""
        self._expect("warmup", 0 <= self.warmup <= self.epochs, f"0 to the {self.epochs} epochs of all phases")
        self._expect("warmup", self.schedule in WARMED_UP or not self.warmup, f"0, since the schedule {self.schedule.__name__} has none")
        self._expect("averaged_epochs", self.averaged_epochs <= self.epochs, f"at most the {self.epochs} epochs of all phases")
        if self.averaged_epochs:
            self._expect("keep", self.keep == "last", f"last, since the mean of the last {self.averaged_epochs} epochs is kept")
            self._expect("replicas", self.replicas == 1, "1 with averaged_epochs, whose batch statistics are measured on one device")
        mixed = [layer.__name__ for layer in self.layers if layer in MIXING]
        # Keras takes the argmax of mixed labels before it looks up a weight: silently wrong.
        self._expect("class_weights", not (self.class_weights and mixed), f"False with {', '.join(mixed)}, whose labels are mixed")
        self._expect("batch", self.batch % self.replicas == 0, f"a multiple of the {self.replicas} replicas")
        on_files = self.pipeline is not folder_batches
        self._expect("resampling", on_files or self.resampling not in (smote, svmsmote), "none with folder_batches: it makes no files")
        self._expect("offline", on_files or not self.offline, "() with folder_batches, which reads files")
        self._expect("layers", on_files or not self.layers, "() with folder_batches, which has its own augmentation")
        if self.start is not None:
            self._expect("backbone", self.start.backbone is self.backbone, f"that of the start, {self.start.backbone.__name__}")
            self._expect("dense", self.start.dense == self.dense, f"that of the start, {self.start.dense}")
        self._expect(
            "head",
            self.epochs or self.earlier_epochs or self.frozen_epochs or self.head == "quasi_svm",
            "quasi_svm, for without epochs no softmax is trained",
        )

    def _expect(self, name, holds, expected):
        if not holds:
            raise UserError(f"recipe: {name}={getattr(self, name)!r}, expected {expected}")

    @property
    def epochs(self):
        """Fine-tuning epochs of all phases together."""
        return sum(epochs for epochs, _ in self.phases)

    @property
    def earlier_epochs(self):
        """Fine-tuning epochs of what comes first."""
        return self.start.earlier_epochs + self.start.epochs if self.start else 0

    @property
    def most_replicas(self):
        """Devices that it needs, what comes first included."""
        return max(self.replicas, self.start.most_replicas if self.start else 1)

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
    changes = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: expected field=value, for example --set batch=16")
        _change(changes, recipe, name.strip(), text.strip(), setting)
    return _changed(recipe, changes)


def _change(changes, record, name, text, setting):
    """Notes one setting: field → value, or → the same of the record that the field holds."""
    outer, dot, inner = name.partition(".")
    known = [f.name for f in dataclasses.fields(record)]
    if outer not in known:
        near = difflib.get_close_matches(outer, known, 3) or known
        raise UserError(f"--set {setting}: no field {outer}; did you mean {', '.join(near)}?")
    current = getattr(record, outer)
    if not dot:
        changes[outer] = _literal(text, current, setting)
        return
    if not dataclasses.is_dataclass(current):
        raise UserError(f"--set {setting}: {outer} has no fields of its own")
    if outer in changes and not isinstance(changes[outer], dict):
        raise UserError(f"--set {setting}: {outer} is set as a whole already")
    _change(changes.setdefault(outer, {}), current, inner, text, setting)


def _changed(record, changes):
    """All changes at once, for it is together that they must make sense."""
    current = {name: getattr(record, name) for name in changes}
    values = {
        name: _changed(current[name], value) if dataclasses.is_dataclass(current[name]) and isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(record, **values)


def _literal(text, current, setting):
    if callable(current) and not dataclasses.is_dataclass(current):
        raise UserError(f"--set {setting}: a function is changed in a recipe file, not here")
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
    if not isinstance(value, family):
        raise UserError(f"--set {setting}: expected {type(current).__name__}, got {type(value).__name__}")
    if isinstance(value, bool) != isinstance(current, bool):
        raise UserError(f"--set {setting}: expected {type(current).__name__}, got {type(value).__name__}")
    return value


def _is_whole(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_phase(phase):
    return isinstance(phase, tuple) and len(phase) == 2 and _is_whole(phase[0], 0) and _is_whole(phase[1], 32)


def _is_round(made):
    named = isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], tuple) and all(isinstance(name, str) for name in made[0])
    return named and _is_whole(made[1], 1)


def _is_augmentation(augmentation):
    return all(0 <= value < math.inf for value in dataclasses.astuple(augmentation))


def _plain(value):
    if dataclasses.is_dataclass(value):
        return {"name": type(value).__name__, **{f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if callable(value):
        return value.__name__
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
