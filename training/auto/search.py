"""The steps of `training.auto`: quick heads, a fine-tuning, heads on the fine-tuned backbone, and all images."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import Diverged, UserError
from common.files import locked, write_arrays
from training.auto import choices
from training.auto.heldout import clearly_worse
from training.auto.plan import ALL, FINETUNED, HEAD, QUICK, Plan, open_plan, require_own_folder
from training.auto.trials import Trials
from training.config.override import change
from training.config.recipe import LINEAR, Head, Recipe
from training.evaluate.metrics import metrics
from training.evaluate.plots import plot_confusion
from training.fit.finetune import seconds_per_image
from training.inputs import Inputs, require_outside
from training.run import train
from training.run_folder import (
    BEST,
    LOCK,
    RECORD,
    VAL,
    Finished,
    package_versions,
    read_metrics,
    read_record,
    saved_probabilities,
)
from training.trained import finetuned_model

KERNEL_MINUTES = 3  # with less time, no quasi-SVM is tried on the pretrained backbone
MIN_EPOCHS = 4
MIN_STEPS = 300  # enough for a fine-tuning of less than MIN_EPOCHS
PLANNED = 0.9  # share of the time left that is planned for epochs
FIXED_SECONDS = 60  # of a fine-tuning: tracing, batch statistics and evaluation
SAVE_SECONDS = 1  # of a checkpoint, after each epoch
HEAD_SECONDS = 60  # of the heads after a fine-tuning, besides features; at least twice that of a head so far
REPEAT_FACTOR = 1.3  # the fine-tuning is repeated on all images if this multiple of its duration is left


def auto(inputs: Inputs, out: Path, minutes: float) -> float | None:
    """Trains a model for labelled images within a number of minutes, or continues an interrupted search.

    Args:
        inputs: `Inputs`; `test` is reported on and used for nothing else.
        out: a new folder, or that of an interrupted search. Gets `best`, the best run so far, `plan.json`, the run of
            each step, and `val.npz` and `confusion.png` of the best run on the held-out images.
        minutes: time for everything. The first step is done even if it needs more, and a fine-tuning that was begun
            before an interruption is finished.

    Returns:
        The accuracy of the best run on the held-out images; None if none could be held out.

    Raises:
        UserError: `minutes` is not positive; see `require_own_folder`, `open_plan` and `train`.
    """
    if not minutes > 0:
        raise UserError(f"--minutes must be above 0, got {minutes:g}")
    require_own_folder(out)
    require_outside(out, inputs)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, f"the search {out}"):
        plan = open_plan(minutes, out, inputs)
        search = Search(plan, inputs)
        search.quick()
        search.finetune()
        search.train_on_all()
        search.draw_confusion()
        held_out = (
            "" if plan.accuracy is None else f"{plan.accuracy:.1%} on the held-out images, which also selected it; "
        )
        plan.finished = True
        plan.say(f"best: {held_out}see {out / BEST}")
    return plan.accuracy


class Search:
    """One search for the best model of some images. See `training.auto`.

    Attributes:
        plan: the time left, the decisions, and the best run so far.
        trials: `Trials`, the images and the heads that are tried on them.
    """

    def __init__(self, plan: Plan, inputs: Inputs) -> None:
        self.plan, self.trials = plan, Trials(plan, inputs)
        self.trials.prepare()

    def quick(self) -> None:
        """Selects layers and a head on held-out images, then trains the head on all images."""
        if QUICK in self.plan.steps:
            return
        trials, best, held_out = self.trials, None, ""
        head = replace(trials.base.head, feature_layers=choices.LAYERS)
        if trials.holds_out():
            trials.choose_size()
            head, predicted = trials.best_head(self.plan.minutes >= KERNEL_MINUTES)
            best = trials.accuracy(predicted)
            held_out = f", {best:.1%} on {len(trials.rows[1])} held-out images"
        else:
            self.plan.say(
                "no images are held out: at least two classes need two groups of images each; so nothing is selected, "
                "and there is no fine-tuning; --validation gives held-out images"
            )
        self.plan.say(f"quick model: {_described(head)}, on {' and '.join(head.feature_layers)}{held_out}")
        changes = {"data.validation_split": 0.0, "finetune.resolution_schedule": ((0, trials.size),)}
        recipe = replace(change(trials.base, changes), head=head)
        self._train(recipe, QUICK)
        if best is not None:
            self._save_held_out(predicted)
        self.plan.keep(QUICK, recipe, best)

    def finetune(self) -> None:
        """Fine-tunes the backbone if there is time. Keeps it unless it is clearly worse, and a head on it if better."""
        plan = self.plan
        if HEAD in plan.steps:  # in case of an interruption before they were saved
            self._save_held_out(_held_out(plan.out / HEAD))
        if HEAD in plan.steps or self._begun(ALL) or not self.trials.holds_out():
            return
        recipe = self._begun(FINETUNED) or self._planned_finetuning()
        if recipe is None:
            return
        result = self._tried(recipe, FINETUNED)
        if result is None:
            return
        if FINETUNED not in plan.steps:
            self._keep_unless_worse(recipe, result["accuracy"])
        seconds = self._heads_seconds(recipe.prediction.tta_transforms)
        if self._begun(HEAD) or plan.seconds_left > seconds * choices.relative_cost(recipe.finetune.input_size):
            self._train_head(self._begun(HEAD) or self._best_head(recipe))
        else:
            plan.say("no other head on the fine-tuned backbone: the time is over")

    def _planned_finetuning(self) -> Recipe | None:
        """The recipe of a fine-tuning that fits into the time, or None."""
        plan, trials = self.plan, self.trials
        turns = plan.seconds_left > FIXED_SECONDS and trials.may_turn()
        views = choices.TURNED if turns else trials.base.prediction.tta_transforms
        fixed = FIXED_SECONDS + self._test_seconds(views) + self._heads_seconds(views)
        if plan.seconds_left < fixed:
            left = max(0.0, plan.seconds_left)
            plan.say(f"no fine-tuning: {left:.0f} s are left, and it needs {fixed:.0f} s besides its epochs")
            return None
        schedule = self._schedule(PLANNED * (plan.seconds_left - fixed), turns)
        return choices.finetuning_recipe(trials.base, schedule, turns) if schedule else None

    def _test_seconds(self, views: tuple) -> float:
        return self.trials.view_seconds * len(self.trials.test or ()) * len(views)

    def _heads_seconds(self, views: tuple) -> float:
        """The time for heads on the fine-tuned backbone, at the smaller input size."""
        features = self.trials.view_seconds * len(self.trials.images) * len(views)
        return max(HEAD_SECONDS, 2 * self.trials.head_seconds) + features + self._test_seconds(views)

    def _keep_unless_worse(self, recipe: Recipe, accuracy: float) -> None:
        """Keeps the fine-tuning unless it is clearly worse than the quick model."""
        plan, predicted = self.plan, _held_out(self.plan.out / FINETUNED)
        if clearly_worse(predicted, _held_out(plan.out), self.trials.held_out_labels):
            plan.say(f"{FINETUNED}: {accuracy:.1%}, worse than {plan.accuracy:.1%} by more than chance; not kept")
            return
        self._save_held_out(predicted)
        plan.keep(FINETUNED, recipe, accuracy)

    def draw_confusion(self) -> None:
        """Draws the saved predictions of the held-out images, if there are some, as a confusion matrix."""
        if self.trials.holds_out():
            result = metrics(self.trials.held_out_labels, _held_out(self.plan.out), self.trials.images.names)
            plot_confusion(result, self.plan.out / "confusion.png")

    def train_on_all(self) -> None:
        """Repeats the fine-tuning that is the best run with the held-out images as well, if there is time."""
        best = self.plan.recipe(HEAD) or self.plan.recipe(FINETUNED)
        if best is None or self.trials.images.held_out or ALL in self.plan.steps:
            return
        recipe = change(best, {"data.validation_split": 0.0})
        if self._begun(ALL) != recipe:
            minutes = read_metrics(self.plan.out / FINETUNED)["finetuning_minutes"]  # of the epochs
            minutes *= len(self.trials.images) / len(self.trials.rows[0])
            fixed = FIXED_SECONDS + self._test_seconds(best.prediction.tta_transforms)
            if self.plan.seconds_left < REPEAT_FACTOR * (60 * minutes + fixed):
                return
            self.plan.say("there is time to repeat the training with the held-out images as well")
        if self._tried(recipe, ALL) is None:
            return
        text = f"trained on all images; {self.plan.accuracy:.1%} is that of the model without the held-out ones; "
        self.plan.keep(ALL, recipe, self.plan.accuracy, text)

    def _train(self, recipe: Recipe, step: str, inputs: Inputs | None = None) -> dict:
        """Trains a step's run, with the images that are loaded, or continues it. Returns its metrics."""
        out, loaded = self.plan.out / step, (self.trials.images, self.trials.test)
        try:
            return train(recipe, f"auto-{step}", inputs or self.trials.inputs, out, loaded)
        except Finished:  # before an interruption
            return read_metrics(out)

    def _begun(self, step: str) -> Recipe | None:
        """The recipe of a step that an interrupted search has begun, or None."""
        folder = self.plan.out / step
        return read_record(folder).recipe if (folder / RECORD).is_file() else None

    def _tried(self, recipe: Recipe, step: str, inputs: Inputs | None = None) -> dict | None:
        """`_train`, or None if the training diverges, which leaves the best run as it is."""
        try:
            return self._train(recipe, step, inputs)
        except Diverged as error:
            self.plan.say(f"{step}: not kept, {str(error).split(';')[0]}")
            return None

    def _save_held_out(self, probabilities: np.ndarray) -> None:
        """Saves the best model's predictions of the held-out images, before it is trained on them."""
        labels, rows = self.trials.held_out_labels, self.trials.rows[1]
        write_arrays(self.plan.out / VAL, probabilities=probabilities, labels=labels, rows=rows)

    def _schedule(self, seconds: float, turns: bool) -> tuple[tuple[int, int], ...]:
        """The epochs that fit into the time, and their input sizes; () if they are too few."""
        trials, images = self.trials, self.trials.images
        recipe = choices.finetuning_recipe(trials.base, ((MIN_EPOCHS, choices.INPUT_SIZE),), turns)
        per_image = seconds_per_image(recipe, images, trials.inputs.backbone_weights)
        repeats = trials.base.data.class_repeats
        count = sum(repeats.get(images.names[label], 1) for label in images.labels[trials.rows[0]])
        batch = recipe.finetune.batch_size
        seen = -(-count // batch) * batch  # the last batch is filled up
        epoch = per_image * seen + SAVE_SECONDS + trials.view_seconds * len(trials.rows[1])
        affordable = max(0.0, seconds / epoch)
        schedule = choices.stages(affordable, trials.size > choices.INPUT_SIZE)
        epochs = sum(epochs for epochs, _ in schedule)
        stages = " and ".join(f"{epochs} epochs at {size}×{size}" for epochs, size in schedule)
        self.plan.say(f"{1 / per_image:.0f} images per second in training: {stages} fit into the time")
        if epochs < MIN_EPOCHS and epochs * count < MIN_STEPS * batch:
            self.plan.say(f"no fine-tuning: at least {MIN_EPOCHS} epochs or {MIN_STEPS} steps are needed")
            return ()
        return schedule

    def _best_head(self, finetuning: Recipe) -> Recipe | None:
        """Tries other heads on the fine-tuned backbone. Returns the recipe of the best; None if the softmax is it."""
        folder, images = self.plan.out / FINETUNED, self.trials.images
        backbone = finetuned_model(finetuning, images.names, images.images.shape[1:3], folder).get_layer("backbone")
        try:
            best, score = self.trials.best_finetuned_head(finetuning, backbone, _held_out(folder))
        except UserError as error:  # the features are not finite or all the same, or a head diverges
            self.plan.say(f"no other head on the fine-tuned backbone: {str(error).split(';')[0]}")
            return None
        if best is None:
            self.plan.say("no other head on the fine-tuned backbone is better than its softmax")
            return None
        self.plan.say(f"{_described(best)}, on the fine-tuned backbone: {score:.1%}")
        return replace(finetuning, head=best)

    def _train_head(self, recipe: Recipe | None) -> None:
        """Trains another head on the fine-tuned backbone, and keeps it if it is as accurate as the best run."""
        if recipe is None:
            return
        if read_record(self.plan.out / FINETUNED).versions != package_versions():
            self.plan.say("no other head: the fine-tuning was begun with other versions of the packages")
            return
        inputs = replace(self.trials.inputs, reuse=(self.plan.out / FINETUNED,), require_reuse=True)
        result = self._tried(recipe, HEAD, inputs)
        if result and self.plan.keep_if_better(HEAD, recipe, result["accuracy"]):
            self._save_held_out(_held_out(self.plan.out / HEAD))


def _held_out(folder: Path) -> np.ndarray:
    """The saved probabilities of the held-out images."""
    with np.load(folder / VAL) as file:
        return saved_probabilities(file, folder / VAL)


def _described(head: Head) -> str:
    kind = f"logistic regression, C={head.c}"
    if head.kind != LINEAR:
        kind = f"quasi-SVM, kernel scale {head.kernel_scale}"
    return f"{kind}, averaged with the softmax" if head.softmax_share else kind
