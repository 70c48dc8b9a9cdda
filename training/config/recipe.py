"""A recipe: every choice of one experiment, in nested frozen dataclasses.

A variant is `dataclasses.replace(base, …)`. A recipe whose fields are out of range or contradict each other cannot be
built.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from common.errors import UserError
from training.config.checks import Check, is_finite, is_round, is_stage, is_whole, require
from training.data.augment import MIXING, RandomTransforms
from training.data.balance import natural, smote, svmsmote
from training.data.pipeline import array_batches, folder_batches
from training.fit.precision import PRECISIONS
from training.fit.schedules import WITH_WARMUP, cosine
from training.model.backbones import MIN_SIZES, inception_v3
from training.model.fourier_features import KERNELS
from training.model.trainable import All, FirstLast, ParameterBudget
from training.predict import TTA_TRANSFORMS, needs_square

DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
ACTIVATIONS = ("relu", "elu", "gelu", "selu", "silu", "tanh")
CHECKPOINTS = ("best_val_loss", "last")
QUASI_SVM, SOFTMAX, LINEAR = "quasi_svm", "softmax", "linear"


@dataclass(frozen=True)
class Data:
    """How the images are split, balanced and made into batches."""

    validation_split: float = 0.2  # share of each class held out; 0 trains on all images
    split_seed: int = 0
    folds: int = 0  # if not 0, the `fold`th of this number of stratified folds is held out, not `validation_split`
    fold: int = 0
    resampling: Callable = natural  # a function of data/balance.py, applied to the training part
    class_repeats: dict = field(default_factory=dict)  # class name → how often each of its images occurs in an epoch
    class_weights: bool = False  # weight the loss by scikit-learn's balanced class weights
    pipeline: Callable = array_batches  # a function of data/pipeline.py

    def __post_init__(self) -> None:
        check = Check("data", self)
        check.seed("split_seed")
        check.whole(0, "folds", "fold")
        check.within_one("validation_split")
        check("class_repeats", all(is_whole(n, 1) for n in self.class_repeats.values()), "whole numbers from 1")
        check("class_repeats", all(isinstance(name, str) for name in self.class_repeats), "named by classes as text")
        check("folds", self.folds != 1, "0 for one validation part, or at least 2")
        check(
            "fold", self.fold < max(1, self.folds), f"below the {self.folds} folds" if self.folds else "0 without folds"
        )


@dataclass(frozen=True)
class Augmentation:
    """How the training images are varied."""

    transforms: RandomTransforms = RandomTransforms()  # of each image, drawn anew in each epoch
    # augmentation before training, in rounds of (class names or () for all, copies of each image)
    precomputed: tuple = ()
    precomputed_transforms: RandomTransforms = RandomTransforms()

    def __post_init__(self) -> None:
        check = Check("augmentation", self)
        check(
            "precomputed",
            all(map(is_round, self.precomputed)),
            "rounds of ((class names), copies), for example (((), 3),)",
        )
        for name in ("transforms", "precomputed_transforms"):
            numbers = dataclasses.astuple(getattr(self, name))
            check(name, all(0 <= value < math.inf for value in numbers), "numbers from 0")


@dataclass(frozen=True)
class Finetune:
    """How the backbone is fine-tuned under a softmax head."""

    init_from: "Finetune | None" = None  # an earlier fine-tuning on the same data; this one continues from its weights
    backbone: Callable = inception_v3  # a function of model/backbones.py
    # epochs of the softmax head alone on cached features (`head.views` views), before fine-tuning
    head_warmup_epochs: int = 0
    head_warmup_learning_rate: float = 1e-3
    trainable: All | FirstLast | ParameterBudget = All()  # which layers of the backbone are trained
    train_batch_norm: bool = True  # False keeps BatchNormalization's ImageNet statistics and weights
    resolution_schedule: tuple = ((10, 96),)  # (epochs, input size in pixels), in order; 0 epochs: no fine-tuning
    learning_rate: float = 1e-4  # peak
    schedule: Callable = cosine  # a function of fit/schedules.py, over all epochs
    warmup_epochs: float = 1.0  # linear warm-up
    weight_decay: float = 0.004
    label_smoothing: float = 0.0
    teacher_share: float = 0.0  # of a teacher's probabilities in the targets; the rest is the label
    batch_augmentations: tuple = ()  # functions of data/augment.py, applied to each batch in order
    dense_units: tuple = ()  # units of the dense layers between features and softmax
    activation: str = "relu"  # of the dense layers
    dense_l2: float = 0.0  # L2 penalty of their kernels
    dropout: float = 0.2  # of the features
    dense_dropout: float = 0.0  # after each dense layer
    swa_epochs: int = 0  # number of last epochs whose weights are averaged (SWA), 0: none; needs checkpoint="last"
    soup: int = 1  # number of fine-tunings from `init_from`, each with another seed, whose weights are averaged
    batch_size: int = 32  # images per step, over all devices
    precision: str = "float32"  # Keras dtype policy of the backbone during training
    replicas: int = 1  # devices of one machine that share each step

    def __post_init__(self) -> None:
        check = Check("finetune", self)
        schedule = self.resolution_schedule
        holds = isinstance(schedule, tuple) and schedule and all(map(is_stage, schedule))
        check(
            "resolution_schedule", holds, "((epochs, size), …): whole numbers, epochs from 0 and sizes from 32 pixels"
        )
        least = MIN_SIZES.get(self.backbone, 0)
        enough = all(size >= least for _, size in schedule)
        check("resolution_schedule", enough, f"sizes from {least} pixels with the backbone {self.backbone.__name__}")
        check.whole(0, "head_warmup_epochs", "swa_epochs")
        check.whole(1, "batch_size", "replicas", "soup")
        check.within_one("label_smoothing", "teacher_share", "dropout", "dense_dropout")
        check.positive("learning_rate", "head_warmup_learning_rate")
        check.not_negative("weight_decay", "dense_l2")
        self._check_tuples(check)
        check.one_of("precision", DTYPE_POLICIES)
        check.one_of("activation", ACTIVATIONS)
        check(
            "warmup_epochs",
            0 <= self.warmup_epochs <= self.epochs,
            f"from 0 to the {self.epochs} epochs of resolution_schedule",
        )
        allowed = self.schedule in WITH_WARMUP or not self.warmup_epochs
        check("warmup_epochs", allowed, f"0, because the schedule {self.schedule.__name__} has no warm-up")
        check("swa_epochs", self.swa_epochs <= self.epochs, f"at most the {self.epochs} epochs of resolution_schedule")
        check(
            "replicas",
            self.replicas == 1 or not self.swa_epochs,
            "1 with swa_epochs, which measures batch statistics on one device",
        )
        check("batch_size", self.batch_size % self.replicas == 0, f"a multiple of the {self.replicas} replicas")
        if self.soup > 1:
            self._check_soup(check)
        if self.init_from:
            before = self.init_from
            check("backbone", before.backbone is self.backbone, f"that of init_from, {before.backbone.__name__}")
            check("dense_units", before.dense_units == self.dense_units, f"those of init_from, {before.dense_units}")

    def _check_tuples(self, check: Check) -> None:
        units = all(is_whole(units, 1) for units in self.dense_units)
        check("dense_units", units, "units of layers, for example (128,)")
        functions = all(map(callable, self.batch_augmentations))
        check("batch_augmentations", functions, "functions of training/data/augment.py, for example (mix_up,)")

    def _check_soup(self, check: Check) -> None:
        """The fine-tunings of a soup must start from the same weights, or their mean is no useful network."""
        check("soup", self.init_from, "1 without init_from, because its fine-tunings must start from the same weights")
        check("soup", self.epochs and not self.head_warmup_epochs, "1 without epochs or with head_warmup_epochs")
        check("soup", self.replicas == 1, "1 with several replicas")

    @property
    def epochs(self) -> int:
        """Epochs of this fine-tuning, without those of `init_from`."""
        return sum(epochs for epochs, _ in self.resolution_schedule)

    @property
    def with_earlier(self) -> "tuple[Finetune, ...]":
        """This fine-tuning and those before it, the last one first."""
        return (self, *(self.init_from.with_earlier if self.init_from else ()))

    @property
    def earlier_epochs(self) -> int:
        """Epochs of the fine-tunings before this one."""
        return self.init_from.all_epochs if self.init_from else 0

    @property
    def all_epochs(self) -> int:
        """Epochs of this fine-tuning, of all that are averaged, and of those before it."""
        return self.earlier_epochs + self.soup * self.epochs

    @property
    def input_size(self) -> int:
        """Input size of the network at the end, in pixels. The head, the metrics and the SavedModel use it."""
        return self.resolution_schedule[-1][1]

    @property
    def most_replicas(self) -> int:
        """Devices needed, `init_from` included."""
        return max(tune.replicas for tune in self.with_earlier)


@dataclass(frozen=True)
class Head:
    """The classifier that ships: a quasi-SVM or logistic regression on frozen features, or a softmax."""

    kind: str = QUASI_SVM  # or "linear", or "softmax"
    feature_layers: tuple = ()  # layers of the backbone whose pooled outputs are the features; (): its own output
    feature_precision: str = "float32"  # or "bfloat16": twice as fast on processors with AVX-512 BF16 or AMX
    views: int = 8  # random views of each image whose features are computed; 0: prediction.tta_transforms
    softmax_share: float = 0.0  # of the fine-tuning's softmax in a weighted mean with this head
    teacher_share: float = 0.0  # of a teacher's probabilities in the targets; the rest is the label
    epochs: int = 60
    learning_rate: float = 3e-2  # high, because the Fourier features are as small as sqrt(2 / fourier_features)
    kernel: str = "gaussian"
    fourier_features: int = 1024
    kernel_scale: float = 1.0  # kernel width in units of the median distance between the features of two images
    shared_feature_scale: bool = False  # divide all features by one standard deviation instead of each by its own
    logit_adjustment: float = 0.0  # τ of logit adjustment: 1 corrects fully for class frequencies
    class_bias: dict = field(default_factory=dict)  # class name → added to its logit after training
    dropout: float = 0.2
    l2: float = 1e-5
    c: float = 0.01  # of "linear": inverse strength of the L2 penalty, as in scikit-learn
    batch_size: int = 256

    def __post_init__(self) -> None:
        check = Check("head", self)
        check.one_of("kind", (QUASI_SVM, SOFTMAX, LINEAR))
        check.one_of("kernel", KERNELS)
        check.one_of("feature_precision", PRECISIONS)
        check.whole(0, "views")
        check.whole(1, "epochs", "fourier_features", "batch_size")
        check.within_one("dropout", "softmax_share", "teacher_share")
        check.positive("learning_rate", "kernel_scale", "c")
        check.not_negative("l2", "logit_adjustment")
        check(
            "feature_layers", self.kind != SOFTMAX or not self.feature_layers, "() with the softmax of the fine-tuning"
        )
        check("softmax_share", not self.softmax_share or not self.feature_layers, "0 with head.feature_layers")
        check("teacher_share", not self.teacher_share or self.kind == QUASI_SVM, f"0 with head.kind={self.kind}")
        check("class_bias", all(map(is_finite, self.class_bias.values())), "finite numbers")
        check("class_bias", all(isinstance(name, str) for name in self.class_bias), "named by classes as text")
        check("feature_layers", all(isinstance(name, str) for name in self.feature_layers), "names of layers")
        check("class_bias", not self.class_bias or self.kind == QUASI_SVM, f"{{}} with head.kind={self.kind}")
        check("class_bias", not (self.class_bias and self.softmax_share), "{} with head.softmax_share")


@dataclass(frozen=True)
class Prediction:
    """How images are predicted: test-time augmentation (TTA)."""

    # flips and rotations whose predictions are averaged; the first one is always computed
    tta_transforms: tuple = ("none",)
    tta_threshold: float = 1.0  # images whose first prediction has a higher top-1 confidence get no further transforms
    precision: str = "float32"  # or "bfloat16", of the run's own evaluation; model.py chooses by the processor

    def __post_init__(self) -> None:
        check = Check("prediction", self)
        known = self.tta_transforms and all(
            isinstance(name, str) and name in TTA_TRANSFORMS for name in self.tta_transforms
        )
        check("tta_transforms", known, f"some of {', '.join(TTA_TRANSFORMS)}")
        check("tta_threshold", 0 <= self.tta_threshold <= 1, "a probability from 0 to 1")
        check.one_of("precision", PRECISIONS)

    def check_image_shape(self, image_shape: tuple) -> None:
        """Raises a UserError if a transform swaps height and width of images that are not square."""
        height, width = image_shape[:2]
        swapped = [name for name in self.tta_transforms if needs_square(name)]
        if swapped and height != width:
            raise UserError(
                f"prediction.tta_transforms: {swapped[0]} needs square images, got {height}×{width}; "
                "give --set \"prediction.tta_transforms=('none', 'horizontal', 'vertical', 'both')\""
            )


@dataclass(frozen=True)
class Recipe:
    """One experiment."""

    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    finetune: Finetune = Finetune()
    head: Head = Head()
    prediction: Prediction = Prediction()
    checkpoint: str = "best_val_loss"  # which epoch's weights are kept, of the fine-tuning and of the head; or "last"
    seed: int = 0  # of everything random except the split

    def __post_init__(self) -> None:
        """Checks what depends on several sections."""
        check = Check("", self)
        check.seed("seed")
        check.one_of("checkpoint", CHECKPOINTS)
        tune = self.finetune
        check("checkpoint", not tune.swa_epochs or self.checkpoint == "last", "last with finetune.swa_epochs")
        mixed = [layer.__name__ for one in tune.with_earlier for layer in one.batch_augmentations if layer in MIXING]
        # Keras looks up a class weight by the argmax of the label, which is wrong for mixed labels.
        allowed = not (self.data.class_weights and mixed)
        require("data.class_weights", True, allowed, f"False with {', '.join(mixed)}, which mix labels")
        if self.data.pipeline is folder_batches:
            self._check_file_pipeline()
        self._check_teacher()
        trained = tune.epochs or tune.earlier_epochs or tune.head_warmup_epochs
        require(
            "head.kind",
            self.head.kind,
            trained or self.head.kind != SOFTMAX,
            "quasi_svm or linear if no epochs train the softmax",
        )
        require(
            "head.softmax_share", self.head.softmax_share, trained or not self.head.softmax_share, "0 without epochs"
        )
        require("head.views", self.head.views, self.head.views or not tune.head_warmup_epochs, "above 0 with a warm-up")

    @property
    def largest_teacher_share(self) -> float:
        """The largest share of a teacher's probabilities in the targets of a fine-tuning or of the head."""
        return max(self.head.teacher_share, *(one.teacher_share for one in self.finetune.with_earlier))

    def _check_teacher(self) -> None:
        """A teacher has predicted the labelled images only, and mixed labels suit neither class weights nor files."""
        data = self.data
        for name, used in (
            ("data.class_weights", data.class_weights),
            ("data.pipeline=folder_batches", data.pipeline is folder_batches),
            (f"data.resampling={data.resampling.__name__}", data.resampling in (smote, svmsmote)),
            ("augmentation.precomputed", self.augmentation.precomputed),
        ):
            allowed = not (used and self.largest_teacher_share)
            require("teacher_share of finetune and head", self.largest_teacher_share, allowed, f"0 with {name}")

    def _check_file_pipeline(self) -> None:
        """folder_batches reads image files, so arrays that are no files cannot be used."""
        why = "with folder_batches, which reads files"
        require(
            "data.resampling",
            self.data.resampling.__name__,
            self.data.resampling not in (smote, svmsmote),
            f"natural, oversample or undersample {why}",
        )
        precomputed = self.augmentation.precomputed
        require("augmentation.precomputed", precomputed, not precomputed, f"() {why}")
        for one in self.finetune.with_earlier:
            layers = one.batch_augmentations
            require("finetune.batch_augmentations", layers, not layers, f"() {why}")
        for name in ("quarter_turns", "brightness", "contrast", "saturation", "tint"):
            value = getattr(self.augmentation.transforms, name)
            least = type(value)(0)
            require(f"augmentation.transforms.{name}", value, not value, f"{least} with folder_batches, which lacks it")
