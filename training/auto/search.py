"""The steps of `training.auto`: quick heads, a fine-tuning, heads on the fine-tuned backbone, and all images."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from common.errors import Diverged, UserError
from common.files import write_arrays
from common.folders import ClassFolders, list_classes
from common.groups import with_groups, write_groups
from common.images import cost_of_reading
from common.memory import free_memory
from training.auto import choices
from training.auto.heldout import accuracy, clearly_worse, held_out_probabilities, held_out_share, similar_groups
from training.auto.plan import Plan
from training.config.override import change
from training.config.recipe import LINEAR, Head, Recipe
from training.data.split import not_held_out, split_rows
from training.evaluate.metrics import metrics
from training.evaluate.plots import plot_confusion
from training.fit.features import FeatureSpec, extract_features, tta_features
from training.fit.finetune import make_backbone, seconds_per_image
from training.fit.precision import fastest
from training.inputs import Inputs, list_inputs, load_inputs
from training.model.backbones import pooled_layers
from training.model.trainable import freeze
from training.run import train
from training.run_folder import BEST, CACHE, LOCK, VAL
from training.trained import finetuned_model

GROUPS = "groups.csv"
QUICK, FINETUNED, HEAD, ALL = "quick", "finetuned", "head", "all"
LEAST_MINUTES = 2  # the quick model may need so many, however few are given
FEATURE_SHARE = 0.15  # of the time, at most, for reading the images and their features, so that a fine-tuning fits
QUICK_SHARE, QUICK_MINUTES = 0.4, 10  # FEATURE_SHARE with fewer minutes than that, in which few epochs would fit
LARGER_SHARES = (0.25, 0.5)  # that are tried if no smaller share of groups can be held out
TRIAL_IMAGES = 64  # on which the speed of the pretrained backbone is measured
COPIES = 5  # of all images, which a fine-tuning has in memory at most
FEATURE_BYTES = 450_000  # of an image's features in memory: four views, and copies while a head is trained
KERNEL_MINUTES = 3  # with less time, no quasi-SVM is tried on the pretrained backbone
MIN_EPOCHS = 4
LARGE_TRIAL = 0.1  # of the time left, at most, for features at LARGE_SIZE
MIN_STEPS = 300  # so many steps are enough for a fine-tuning of less than MIN_EPOCHS
PLANNED = 0.9  # share of the time left that is planned for epochs
FIXED_SECONDS = 60  # of a fine-tuning: tracing, batch statistics and evaluation
HEAD_SECONDS = 60  # of the heads after a fine-tuning, besides features
AGAIN = 1.3  # the fine-tuning is repeated on all images if so many times its duration is left


def auto(inputs: Inputs, out: Path, minutes: float) -> float | None:
    """Trains a model for labelled images within a number of minutes.

    Args:
        inputs: `Inputs`; `test` is reported on and used for nothing else.
        out: a new folder. Gets `best`, the best run so far, `plan.json`, the run of each step, and `val.npz` and
            `confusion.png` of the best run on the held-out images.
        minutes: time for everything. The first step is done even if it needs more.

    Returns:
        The accuracy of the best run on the held-out images; None if none could be held out.

    Raises:
        UserError: `out` has files, `minutes` is not positive; see `train`.
    """
    if not minutes > 0:
        raise UserError(f"--minutes must be above 0, got {minutes:g}")
    if out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise UserError(f"--out must be a new folder, {out} has files; give another one")
    out.mkdir(parents=True, exist_ok=True)
    search = Search(Plan(minutes, out), inputs)
    search.quick()
    search.finetune()
    search.train_on_all()
    search.draw_confusion()
    plan = search.plan
    held_out = "" if plan.accuracy is None else f"{plan.accuracy:.1%} on the held-out images; "
    plan.say(f"best: {held_out}see {out / BEST}")
    plan.save()
    return plan.accuracy


class Search:
    """One search for the best model of some images. See `training.auto`.

    Attributes:
        plan: the time left, the decisions, and the best run so far.
        inputs: what each run reads.
        images: `Images` that are trained on or held out.
        test: `Images` that are reported on, or None.
        rows: (training rows, held-out rows).
        base: the recipe that all steps share.
        size: of the network's input, in pixels.
    """

    def __init__(self, plan: Plan, inputs: Inputs) -> None:
        self.plan, self.cache = plan, plan.out / CACHE
        self.finetuned_recipe: Recipe | None = None  # of the fine-tuning in `best`, if it is one, with its head
        self.finetuning_seconds = 0.0
        listed = list_inputs(inputs)  # first, so that a wrong folder is an error before anything takes time
        precision = fastest()
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
        self._hold_out()
        self._choose_mirroring()

    def quick(self) -> None:
        """Selects layers and a head on held-out images, then trains the head on all images."""
        layers: tuple[str, ...] = choices.LAYERS
        head, best = self.base.head, None
        if self._holds_out():
            self._choose_size()
            found = {tried: self._predicted(head, self._joined(tried)) for tried in choices.LAYER_SETS}
            layers = max(found, key=lambda tried: self._accuracy(found[tried]))
            self.quick_predicted, features = found[layers], self._joined(layers)
            for other in choices.quick_heads(self.base, self.plan.minutes >= KERNEL_MINUTES)[1:]:
                predicted = self._predicted(other, features)
                if self._accuracy(predicted) > self._accuracy(self.quick_predicted):
                    head, self.quick_predicted = other, predicted
            best = self._accuracy(self.quick_predicted)
        else:
            self.plan.say(
                "no images are held out: at least two classes need two groups of images each; so nothing is selected, "
                "and there is no fine-tuning; --validation gives held-out images"
            )
        head = replace(head, feature_layers=layers)
        held_out = "" if best is None else f", {best:.1%} on {len(self.rows[1])} held-out images"
        self.plan.say(f"quick model: {_described(head)}, on {' and '.join(layers)}{held_out}")
        changes = {"data.validation_split": 0.0, "finetune.resolution_schedule": ((0, self.size),)}
        recipe = replace(change(self.base, changes), head=head)
        self._train(recipe, QUICK)
        self.plan.keep(QUICK, recipe, best)
        if best is not None:
            self._save_held_out(self.quick_predicted)

    def finetune(self) -> None:
        """Fine-tunes the backbone if there is time. Keeps it unless it is clearly worse, and a head on it if better."""
        plan = self.plan
        if not self._holds_out():
            return
        turns = plan.seconds_left > FIXED_SECONDS and self._may_turn()
        views = choices.TURNED if turns else self.base.prediction.tta_transforms
        test_seconds = self.view_seconds * len(self.test or ()) * len(views)
        heads_seconds = HEAD_SECONDS + self.view_seconds * len(self.images) * len(views) + test_seconds
        fixed = FIXED_SECONDS + test_seconds + heads_seconds
        if plan.seconds_left < fixed:
            plan.say("no fine-tuning: the time is over")
            return
        schedule = self._schedule(PLANNED * (plan.seconds_left - fixed), turns)
        if not schedule:
            return
        recipe = choices.finetuning_recipe(self.base, schedule, turns)
        began = time.monotonic()
        result = self._tried(recipe, FINETUNED)
        if result is None:
            return
        self.finetuning_seconds = time.monotonic() - began
        labels, predicted = self.images.labels[self.rows[1]], _held_out(plan.out / FINETUNED)
        if clearly_worse(predicted, self.quick_predicted, labels):
            plan.say(
                f"{FINETUNED}: {result['accuracy']:.1%}, worse than {plan.accuracy:.1%} by more than chance; not kept"
            )
        else:
            plan.keep(FINETUNED, recipe, result["accuracy"])
            self._save_held_out(predicted)
            self.finetuned_recipe = recipe
        if plan.seconds_left > heads_seconds * choices.relative_cost(recipe.finetune.input_size):
            self._heads(recipe)
        else:
            plan.say("no other head on the fine-tuned backbone: the time is over")

    def draw_confusion(self) -> None:
        """Draws the saved predictions of the held-out images, if there are some, as a confusion matrix."""
        if self._holds_out():
            labels = self.images.labels[self.rows[1]]
            result = metrics(labels, _held_out(self.plan.out), self.images.names)
            plot_confusion(result, self.plan.out / "confusion.png")

    def train_on_all(self) -> None:
        """Repeats the fine-tuning that is the best run with the held-out images as well, if there is time."""
        recipe = self.finetuned_recipe
        if recipe is None or self.images.held_out or self.plan.seconds_left < AGAIN * self.finetuning_seconds:
            return
        self.plan.say("there is time to repeat the training with the held-out images as well")
        recipe = change(recipe, {"data.validation_split": 0.0})
        if self._tried(recipe, ALL) is None:
            return
        text = f"trained on all images; {self.plan.accuracy:.1%} is that of the model without the held-out ones; "
        self.plan.keep(ALL, recipe, self.plan.accuracy, text)

    def _limited(self, inputs: Inputs, listed: ClassFolders) -> Inputs:
        """Leaves out some of the listed images if there is no time for the features of all, or too little memory.

        Images of --validation and --test are never left out; they may take half of the time and memory.
        """
        read_seconds, image_bytes = cost_of_reading(listed, inputs.size)
        others = sum(list_classes(folder).count for folder in (inputs.validation, inputs.test) if folder)
        share = QUICK_SHARE if self.plan.minutes < QUICK_MINUTES else FEATURE_SHARE
        seconds = share * 60 * max(LEAST_MINUTES, self.plan.minutes)
        affordable, fitting = (
            int(max(available / 2, available - others * each) / each)
            for available, each in (
                (seconds, read_seconds + self.view_seconds * len(choices.MIRRORED)),
                (free_memory(), COPIES * image_bytes + FEATURE_BYTES),
            )
        )
        most, count = min(affordable, fitting), listed.count
        if count <= most:
            return inputs
        what = "time is too short" if affordable <= fitting else "memory is too small"
        self.plan.say(f"{listed.limited(most).count} of the {count} images are used, because the {what} for more")
        return replace(inputs, max_images=most)

    def _train(self, recipe: Recipe, step: str, inputs: Inputs | None = None) -> dict:
        """Trains a step's run, with the images that are loaded. Returns its metrics."""
        out = self.plan.out / step
        return train(recipe, f"auto-{step}", inputs or self.inputs, out, (self.images, self.test))

    def _tried(self, recipe: Recipe, step: str, inputs: Inputs | None = None) -> dict | None:
        """`_train`, or None if the training diverges, which leaves the best run as it is."""
        try:
            return self._train(recipe, step, inputs)
        except Diverged as error:
            self.plan.say(f"{step}: not kept, {str(error).split(';')[0]}")
            return None

    def _save_held_out(self, probabilities: np.ndarray) -> None:
        """Saves the best model's predictions of the held-out images, before it is trained on them."""
        rows = self.rows[1]
        write_arrays(self.plan.out / VAL, probabilities=probabilities, labels=self.images.labels[rows], rows=rows)

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
            groups = similar_groups(self.images.labels, self._joined(choices.LAYERS)[0])
            write_groups(self.plan.out / GROUPS, self.images, groups.tolist(), data)
            self.inputs = replace(self.inputs, groups=self.plan.out / GROUPS)
            self.images = with_groups(self.images, self.plan.out / GROUPS, data)
        self._split()
        if not self.images.held_out:
            for line in not_held_out(self.images.labels, self.images.names, *self.rows):
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
        if not self._holds_out():
            return
        features, head = self._joined(choices.LAYERS), self.base.head
        mirrored, plain = self._predicted(head, features), self._predicted(head, features[:1])
        if not clearly_worse(mirrored, plain, self.images.labels[self.rows[1]]):
            return
        self.base = change(self.base, {"prediction.tta_transforms": ("none",)})
        self.features = {name: views[:1] for name, views in self.features.items()}
        self.plan.say(
            f"images are not mirrored: the quick model has {self._accuracy(plain):.1%} without mirror images and "
            f"{self._accuracy(mirrored):.1%} with them"
        )

    def _holds_out(self) -> bool:
        return len(self.rows[1]) > 0

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

    def _predicted(self, head: Head, features: np.ndarray) -> np.ndarray:
        """The probabilities of a head on the held-out images."""
        return held_out_probabilities(self.base, head, features, self.images, self.rows)

    def _accuracy(self, probabilities: np.ndarray) -> float:
        return accuracy(probabilities, self.images.labels[self.rows[1]])

    def _score(self, head: Head, features: np.ndarray) -> float:
        """The accuracy of a head on the held-out images."""
        return self._accuracy(self._predicted(head, features))

    def _choose_size(self) -> None:
        """Takes the larger input if the images are as large, there is time, and it is not worse on held-out images."""
        size, views = choices.LARGE_SIZE, self.base.prediction.tta_transforms
        seconds = len(views) * self.view_seconds * len(self.images)
        available = LARGE_TRIAL * self.plan.seconds_left
        if min(self.images.images.shape[1:3]) < size or seconds * choices.relative_cost(size) > available:
            return
        small, before = self.features, self._score(self.base.head, self._joined(choices.LAYERS))
        self.size = size
        self.features = self._features(views)
        after = self._score(self.base.head, self._joined(choices.LAYERS))
        if after < before:
            self.size, self.features = choices.INPUT_SIZE, small
        self.plan.say(
            f"input size {self.size}×{self.size}: the quick model has {after:.1%} at {size}×{size} and "
            f"{before:.1%} at {choices.INPUT_SIZE}×{choices.INPUT_SIZE}"
        )

    def _may_turn(self) -> bool:
        """Whether a head that has also seen quarter turns and upside down images is as accurate on upright ones.

        Both are tried: a quarter turn of an up arrow is no down arrow, but upside down it is one.
        """
        plain = self._joined(choices.LAYERS)
        if len(plain) == 1 or self.plan.seconds_left < 20 * self.view_seconds * len(self.images):
            return False
        turned = self._features(("right", "vertical"))
        with_turns = np.concatenate([plain, np.concatenate([turned[name] for name in choices.LAYERS], axis=-1)])
        before, after = (self._score(self.base.head, features) for features in (plain, with_turns))
        turned_by = "quarter turns and up to 20 degrees" if after >= before else "up to 10 degrees"
        self.plan.say(
            f"trained on turned and upside down images as well, the quick model has {after:.1%} instead of "
            f"{before:.1%}: images are rotated by {turned_by}"
        )
        return after >= before

    def _schedule(self, seconds: float, turns: bool) -> tuple[tuple[int, int], ...]:
        """The epochs that fit into the time, and their input sizes; () if they are too few."""
        recipe = choices.finetuning_recipe(self.base, ((MIN_EPOCHS, choices.INPUT_SIZE),), turns)
        per_image = seconds_per_image(recipe, self.images, self.inputs.backbone_weights)
        names, repeats = self.images.names, self.base.data.class_repeats
        count = sum(repeats.get(names[label], 1) for label in self.images.labels[self.rows[0]])
        epoch = per_image * count + self.view_seconds * len(self.rows[1])
        affordable = max(0.0, seconds / epoch)
        schedule = choices.stages(affordable, self.size > choices.INPUT_SIZE)
        epochs = sum(epochs for epochs, _ in schedule)
        stages = " and ".join(f"{epochs} epochs at {size}×{size}" for epochs, size in schedule)
        self.plan.say(f"{1 / per_image:.0f} images per second in training: {stages} fit into the time")
        if epochs < MIN_EPOCHS and epochs * count < MIN_STEPS * recipe.finetune.batch_size:
            self.plan.say(f"no fine-tuning: at least {MIN_EPOCHS} epochs or {MIN_STEPS} steps are needed")
            return ()
        return schedule

    def _heads(self, finetuning: Recipe) -> None:
        """Tries other heads on the fine-tuned backbone, and keeps the best if it is better than the softmax."""
        images, labels = self.images, self.images.labels[self.rows[1]]
        folder = self.plan.out / FINETUNED
        backbone = finetuned_model(finetuning, images.names, images.images.shape[1:3], folder).get_layer("backbone")
        freeze(backbone)
        spec = FeatureSpec(finetuning.finetune.input_size, precision=self.base.head.feature_precision)
        transforms = finetuning.prediction.tta_transforms
        features = self._features_of_parts(self.rows, backbone, (), spec, transforms)
        softmax = _held_out(folder)
        best, score = None, accuracy(softmax, labels)
        for head in choices.finetuned_heads(self.base):
            own = held_out_probabilities(finetuning, head, features, images, self.rows)
            for share in choices.SOFTMAX_SHARES:
                tried = accuracy((1 - share) * own + share * softmax, labels)
                if tried > score:
                    best, score = replace(head, softmax_share=share), tried
        if best is None:
            self.plan.say("no other head on the fine-tuned backbone is better than its softmax")
            return
        self.plan.say(f"{_described(best)}, on the fine-tuned backbone: {score:.1%}")
        recipe = replace(finetuning, head=best)
        inputs = replace(self.inputs, reuse=(folder,), require_reuse=True)
        result = self._tried(recipe, HEAD, inputs)
        if result and self.plan.keep_if_better(HEAD, recipe, result["accuracy"]):
            self._save_held_out(_held_out(self.plan.out / HEAD))
            self.finetuned_recipe = recipe


def _seconds_per_view(backbone: keras.Model, precision: str) -> float:
    """Seconds per image through a backbone, without compilation."""
    images = np.random.default_rng(0).integers(0, 256, (TRIAL_IMAGES, 96, 96, 3)).astype(np.uint8)
    spec = FeatureSpec(choices.INPUT_SIZE, precision=precision)
    network = pooled_layers(backbone, choices.LAYERS)
    extract_features(network, images[:32], spec)
    began = time.monotonic()
    extract_features(network, images, spec)
    return (time.monotonic() - began) / TRIAL_IMAGES


def _held_out(folder: Path) -> np.ndarray:
    """The saved probabilities of the held-out images."""
    with np.load(folder / VAL) as file:
        return file["probabilities"]


def _described(head: Head) -> str:
    kind = f"logistic regression, C={head.c}"
    if head.kind != LINEAR:
        kind = f"quasi-SVM, kernel scale {head.kernel_scale}"
    return f"{kind}, averaged with the softmax" if head.softmax_share else kind
