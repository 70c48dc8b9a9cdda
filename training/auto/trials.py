"""Heads on features of the pretrained backbone, which are tried on held-out images."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import keras
import numpy as np

from common.errors import UserError
from common.files import digest
from common.folders import ClassFiles
from common.images import cost_of_reading
from common.machine import free_memory
from training.auto import choices
from training.auto.heldout import accuracy, clearly_worse, held_out_probabilities, held_out_share, similar_groups
from training.auto.plan import QUICK, Plan
from training.config.override import change
from training.config.recipe import Head, Recipe
from training.data.groups import with_groups, write_groups
from training.data.split import split_rows, split_warnings
from training.fit.features import FeatureSpec, extract_features, tta_features
from training.fit.finetune import make_backbone
from training.fit.precision import fastest
from training.inputs import Inputs, list_inputs, load_inputs
from training.model.backbones import pooled_layers
from training.model.trainable import freeze
from training.planned import planned_record
from training.run_folder import CACHE, VAL, read_metrics, read_record

GROUPS = "groups.csv"
MIN_MINUTES = 2  # that the quick model may need, even if fewer are given
FEATURE_SHARE = 0.15  # of the time, at most, for reading the images and their features, so that a fine-tuning fits
MIN_IMAGES = 2  # of each class, even if there is no time for their features
QUICK_SHARE, QUICK_MINUTES = 0.4, 10  # FEATURE_SHARE with fewer minutes than that, in which few epochs would fit
LARGER_SHARES = (0.25, 0.5)  # that are tried if no smaller share of groups can be held out
TRIAL_IMAGES = 64  # on which the speed of the pretrained backbone is measured
COPIES = 5  # of all images, which a fine-tuning has in memory at most
FEATURE_BYTES = 450_000  # of an image's features in memory: four views, and copies while a head is trained
LARGE_TRIAL = 0.1  # of the time left, at most, for features at LARGE_SIZE
HEADS_SHARE = 0.15  # of the time, at most, for comparing layers, and again for comparing heads; one is always tried
_Candidate = TypeVar("_Candidate")


class Trials:
    """The images of one search, and heads on features of the pretrained backbone. `prepare` comes first.

    Attributes:
        inputs: what each run reads.
        images: `Images` that are trained on or held out.
        test: `Images` that are reported on, or None.
        rows: (training rows, held-out rows).
        base: the recipe that all steps share.
        size: of the network's input, in pixels.
        view_seconds: of one image through the pretrained backbone.
        head_seconds: of the training of a head, the longest so far.
    """

    def __init__(self, plan: Plan, inputs: Inputs) -> None:
        self.plan, self.cache = plan, plan.out / CACHE
        self._known: dict[tuple, np.ndarray] = {}  # probabilities of the heads that were trained
        self.head_seconds = 0.0
        listed = list_inputs(inputs)  # first, so that a wrong folder is an error before anything takes time
        quick = plan.recipe(QUICK)  # of an interrupted search, which may have begun on another processor
        precision = quick.head.feature_precision if quick else fastest()
        self.backbone = make_backbone(choices.base_recipe({}, precision), inputs.backbone_weights)
        freeze(self.backbone)
        self.view_seconds = _seconds_per_view(self.backbone, precision)
        plan.say(f"{1 / self.view_seconds:.0f} images per second through the backbone in {precision}")
        self.inputs = self._limited(inputs, listed)
        self.images, self.test = load_inputs(self.inputs)
        repeats = choices.class_repeats(self.images.names, self._training_counts())
        self.base, self.size = choices.base_recipe(repeats, precision), choices.INPUT_SIZE
        self._describe()
        self.features = self._features(choices.MIRRORED)

    def prepare(self) -> None:
        """Decides which images are held out, and whether images are mirrored, or as the interrupted search did.

        Raises:
            UserError: the interrupted search had other images.
        """
        quick = self.plan.recipe(QUICK)
        if quick and "--data" in self._differences(quick):  # before the groups, which are those of other images
            self._refuse("--data")
        self._hold_out()
        if quick:
            self._continue(quick)
            self.plan.confirm()
        else:
            self._choose_mirroring()

    def holds_out(self) -> bool:
        """Whether there are held-out images."""
        return len(self.rows[1]) > 0

    @property
    def held_out_labels(self) -> np.ndarray:
        """int [held-out images]."""
        return self.images.labels[self.rows[1]]

    def accuracy(self, probabilities: np.ndarray) -> float:
        """The accuracy of probabilities [held-out images, classes]."""
        return accuracy(probabilities, self.held_out_labels)

    def choose_size(self) -> None:
        """Takes the larger input if the images are as large, there is time, and it is not worse on held-out images."""
        size, views = choices.LARGE_SIZE, self.base.prediction.tta_transforms
        seconds = len(views) * self.view_seconds * len(self.images)
        available = LARGE_TRIAL * self.plan.seconds_left
        if min(self.images.images.shape[1:3]) < size or seconds * choices.relative_cost(size) > available:
            return
        small, before = self.features, self._score(self.base.head)
        self._use_size(size)
        after = self._score(self.base.head)
        if after < before:
            self.size, self.features = choices.INPUT_SIZE, small
        self.plan.say(
            f"input size {self.size}×{self.size}: the quick model has {after:.1%} at {size}×{size} and "
            f"{before:.1%} at {choices.INPUT_SIZE}×{choices.INPUT_SIZE}"
        )

    def best_head(self, kernels: bool) -> tuple[Head, np.ndarray]:
        """The most accurate head on features of the pretrained backbone: its layers first, then its kind and strength.

        Args:
            kernels: whether quasi-SVMs are tried as well.

        Returns:
            (the head with its layers, its probabilities of the held-out images).
        """
        head, seconds = self.base.head, HEADS_SHARE * 60 * max(MIN_MINUTES, self.plan.minutes)
        sets = sorted(choices.LAYER_SETS, key=lambda layers: layers != choices.LAYERS)  # whose head is known
        found = {layers: self._predicted(head, layers) for layers in self._in_time(sets, "sets of layers", seconds)}
        tried = [layers for layers in choices.LAYER_SETS if layers in found]  # ties: the first
        layers = max(tried, key=lambda layers: self.accuracy(found[layers]))
        best = found[layers]
        for other in self._in_time(choices.quick_heads(self.base, kernels), "heads", seconds):
            predicted = self._predicted(other, layers)
            if self.accuracy(predicted) > self.accuracy(best):
                head, best = other, predicted
        return replace(head, feature_layers=layers), best

    def may_turn(self) -> bool:
        """Whether a head that has also seen quarter turns and upside down images is as accurate on upright ones.

        Both are tried: a quarter turn of an up arrow is no down arrow, but upside down it is one.
        """
        plain = self._joined(choices.LAYERS)
        needed = 20 * self.view_seconds * len(self.images) + 2 * self.head_seconds  # of a head with twice the views
        if len(plain) == 1 or self.plan.seconds_left < needed:
            return False
        turned = self._features(("right", "vertical"))
        with_turns = np.concatenate([plain, np.concatenate([turned[name] for name in choices.LAYERS], axis=-1)])
        before = self._score(self.base.head)
        after = self.accuracy(self._trained(self.base, self.base.head, with_turns))
        turned_by = "quarter turns and up to 20 degrees" if after >= before else "up to 10 degrees"
        self.plan.say(
            f"trained on turned and upside down images as well, the quick model has {after:.1%} instead of "
            f"{before:.1%}: images are rotated by {turned_by}"
        )
        return after >= before

    def best_finetuned_head(
        self, finetuning: Recipe, backbone: keras.Model, softmax: np.ndarray
    ) -> tuple[Head | None, float]:
        """The most accurate head on features of a fine-tuned backbone, alone or averaged with the softmax.

        Args:
            finetuning: the recipe of the fine-tuning.
            backbone: the fine-tuned backbone; it is frozen.
            softmax: the probabilities of the held-out images of its softmax head.

        Returns:
            (the head, or None if none is better than the softmax; the accuracy on the held-out images).
        """
        freeze(backbone)
        spec = FeatureSpec(finetuning.finetune.input_size, precision=self.base.head.feature_precision)
        features = self._features_of_parts(self.rows, backbone, (), spec, finetuning.prediction.tta_transforms)
        best, score = None, self.accuracy(softmax)
        for head in self._in_time(choices.finetuned_heads(self.base), "heads", self.plan.seconds_left / 2):
            own = self._trained(finetuning, head, features)
            for share in choices.SOFTMAX_SHARES:
                tried = self.accuracy((1 - share) * own + share * softmax)
                if tried > score:
                    best, score = replace(head, softmax_share=share), tried
        return best, score

    def _limited(self, inputs: Inputs, listed: ClassFiles) -> Inputs:
        """Leaves out some of the listed images if there is no time for the features of all, or too little memory."""
        if self.plan.max_images is None:
            self.plan.max_images = self._most_images(inputs, listed)
        return replace(inputs, max_images=self.plan.max_images or inputs.max_images)

    def _most_images(self, inputs: Inputs, listed: ClassFiles) -> int:
        """How many images are used at most; 0 if all are.

        Images of --validation and --test are never left out; they may take half of the time and memory.
        """
        read_seconds, image_bytes = cost_of_reading(listed, inputs.size)
        others = sum(folder.files().count for folder in inputs.other_folders().values())
        share = QUICK_SHARE if self.plan.minutes < QUICK_MINUTES else FEATURE_SHARE
        seconds = share * 60 * max(MIN_MINUTES, self.plan.minutes)
        affordable, fitting = (
            int(max(available / 2, available - others * each) / each)
            for available, each in (
                (seconds, read_seconds + self.view_seconds * len(choices.MIRRORED)),
                (free_memory(), COPIES * image_bytes + FEATURE_BYTES),
            )
        )
        if not inputs.validation:  # else nothing could be held out
            affordable = max(affordable, MIN_IMAGES * len(listed.classes))
        most, count = min(affordable, fitting), listed.count
        if count <= most:
            return 0
        what = "time is too short" if affordable <= fitting else "memory is too small"
        self.plan.say(f"{listed.limited(most).count} of the {count} images are used, because the {what} for more")
        return max(1, most)

    def _continue(self, quick: Recipe) -> None:
        """Takes what the interrupted search has decided for its quick model. Raises a UserError for other images."""
        for what in self._differences(quick):
            self._refuse("--data or --validation" if what == "--data" and self.inputs.validation else what)
        self._require_same_test()
        if self.holds_out():
            with np.load(self.plan.out / VAL) as file:
                if not np.array_equal(file["rows"], self.rows[1]):
                    self._refuse("split")
        transforms = quick.prediction.tta_transforms
        self.base = change(self.base, {"prediction.tta_transforms": transforms})
        self.features = {name: views[: len(transforms)] for name, views in self.features.items()}
        if quick.finetune.input_size != self.size:
            self._use_size(quick.finetune.input_size)

    def _require_same_test(self) -> None:
        """Raises a UserError if the test images are others than those that the quick model was reported on."""
        reported = read_metrics(self.plan.out / QUICK).get("test", {}).get("data_sha256")
        if self.test and reported and reported != digest(self.test.images, self.test.labels):
            self._refuse("--test")

    def _differences(self, quick: Recipe) -> list[str]:
        """The inputs that differ from those of the interrupted search's quick model."""
        return read_record(self.plan.out / QUICK).differences(planned_record(quick, QUICK, self.images, self.inputs))

    def _refuse(self, what: str) -> None:
        out = self.plan.out
        raise UserError(f"{out} holds a search with another {what}: a file has changed; give another --out")

    def _describe(self) -> None:
        images, repeats, counts = self.images, self.base.data.class_repeats, self._training_counts()
        height, width = images.images.shape[1:3]
        grey = bool((images.images[::10, ..., :1] == images.images[::10]).all())
        self.plan.say(
            f"{counts.sum()} {'grey' if grey else 'color'} images of {len(images.names)} classes, {counts.min()} to "
            f"{counts.max()} each, at {height}×{width}"
        )
        if repeats:
            self.plan.say(f"rare classes are repeated: {repeats}")

    def _training_counts(self) -> np.ndarray:
        """The number of images of each class, without those of --validation."""
        images = self.images
        labels = images.labels[~np.array(images.held_out)] if images.held_out else images.labels
        return np.bincount(labels, minlength=len(images.names))

    def _hold_out(self) -> None:
        """Decides which images are held out: those of the user, or an eighth of the groups of similar images."""
        data = Path(self.inputs.data)
        if not self.images.held_out and self.inputs.groups is None:
            if not self.plan.steps:
                groups, split = similar_groups(self.images.labels, self._joined(choices.LAYERS)[0])
                if split:
                    self.plan.say(
                        f"{split} groups of similar images are larger than a quarter of their class, and are split: "
                        "the held-out accuracy may be too high; --groups or --validation decides what is held out"
                    )
                write_groups(self.plan.out / GROUPS, self.images, groups.tolist(), data)
            self.inputs = replace(self.inputs, groups=self.plan.out / GROUPS)
            self.images = with_groups(self.images, self.plan.out / GROUPS, data)
        self._split()
        if not self.images.held_out:
            share = self.base.data.validation_split
            for line in split_warnings(self.images.labels, self.images.names, *self.rows, share):
                self.plan.say(line)

    def _split(self) -> None:
        """Splits the images. If groups with images of several classes allow no small part, a larger one is held out."""
        for share in (held_out_share(self.images), *LARGER_SHARES, 0.0):
            if not self.images.held_out:
                self.base = change(self.base, {"data.validation_split": share})
            try:
                self.rows = split_rows(self.base.data, self.images)
                return
            except UserError:
                if not share or self.images.held_out:
                    raise

    def _choose_mirroring(self) -> None:
        """Turns mirroring off, in training and prediction, if it clearly lowers the accuracy, as for signs."""
        if not self.holds_out():
            return
        mirrored, plain = (
            self._predicted(self.base.head, choices.LAYERS, views) for views in (len(choices.MIRRORED), 1)
        )
        if not clearly_worse(mirrored, plain, self.held_out_labels):
            return
        self.base = change(self.base, {"prediction.tta_transforms": ("none",)})
        self.features = {name: views[:1] for name, views in self.features.items()}
        self.plan.say(
            f"images are not mirrored: the quick model has {self.accuracy(plain):.1%} without mirror images and "
            f"{self.accuracy(mirrored):.1%} with them"
        )

    def _use_size(self, size: int) -> None:
        """Sets the input size, and computes the features at it."""
        self.size = size
        self.features = self._features(self.base.prediction.tta_transforms)

    def _features(self, transforms: tuple) -> dict[str, np.ndarray]:
        """Layer → features of all images under some transforms: float32 [transforms, n, d]."""
        spec = FeatureSpec(self.size, precision=self.base.head.feature_precision)
        layers, held_out = choices.LAYERS, np.array(self.images.held_out, bool)
        parts = (
            [np.flatnonzero(~held_out), np.flatnonzero(held_out)] if len(held_out) else [np.arange(len(self.images))]
        )
        features = self._features_of_parts(parts, self.backbone, layers, spec, transforms)
        ends = np.cumsum([self.backbone.get_layer(name).output.shape[-1] for name in layers])
        return dict(zip(layers, np.split(features, ends[:-1], axis=-1), strict=True))

    def _features_of_parts(
        self, parts: Sequence[np.ndarray], backbone: keras.Model, layers: tuple, spec: FeatureSpec, transforms: tuple
    ) -> np.ndarray:
        """Features of all images, computed for each part, so that the training of a head finds them in the cache."""
        images = self.images.images
        found = [tta_features(self.cache, backbone, layers, images[rows], spec, transforms) for rows in parts]
        return np.concatenate(found, axis=1)[:, np.argsort(np.concatenate(parts))]

    def _joined(self, layers: Iterable[str]) -> np.ndarray:
        """The features of some layers together: float32 [views, n, d]."""
        return np.concatenate([self.features[name] for name in layers], axis=-1)

    def _predicted(self, head: Head, layers: tuple, views: int | None = None) -> np.ndarray:
        """The probabilities of a head on the held-out images, trained once.

        Args:
            head: its layers are not used.
            layers: the layers that it is trained on.
            views: number of the first views; None: all.
        """
        features = self._joined(layers)[:views]
        key = (repr(head), layers, self.size, len(features))
        if key not in self._known:
            self._known[key] = self._trained(self.base, head, features)
        return self._known[key]

    def _trained(self, recipe: Recipe, head: Head, features: np.ndarray) -> np.ndarray:
        """The probabilities of a head on the held-out images, see `held_out_probabilities`."""
        began = time.monotonic()
        probabilities = held_out_probabilities(recipe, head, features, self.images, self.rows)
        self.head_seconds = max(self.head_seconds, time.monotonic() - began)
        return probabilities

    def _score(self, head: Head) -> float:
        """The accuracy of a head on the held-out images, from all layers."""
        return self.accuracy(self._predicted(head, choices.LAYERS))

    def _in_time(self, candidates: Sequence[_Candidate], what: str, seconds: float) -> Iterator[_Candidate]:
        """Yields the first candidate, and others while the training of another head fits into the time."""
        began = time.monotonic()
        for number, candidate in enumerate(candidates):
            if number and time.monotonic() - began + self.head_seconds > seconds:
                each = f"one takes {self.head_seconds:.0f} s"
                self.plan.say(f"{number} of {len(candidates)} {what} tried, because the time is short: {each}")
                return
            yield candidate


def _seconds_per_view(backbone: keras.Model, precision: str) -> float:
    """Seconds per image through a backbone, without compilation."""
    images = np.random.default_rng(0).integers(0, 256, (TRIAL_IMAGES, 96, 96, 3)).astype(np.uint8)
    spec = FeatureSpec(choices.INPUT_SIZE, precision=precision)
    network = pooled_layers(backbone, choices.LAYERS)
    extract_features(network, images[:32], spec)
    began = time.monotonic()
    extract_features(network, images, spec)
    return (time.monotonic() - began) / TRIAL_IMAGES
