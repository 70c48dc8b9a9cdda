"""Trains the best model for any labelled images within a number of minutes.

1. Heads on features of the pretrained backbone. Layers and strength are selected on held-out images.
2. If there is time, a fine-tuning of the whole backbone, kept only if it is better on the same held-out images.
Each step is a run of `training.run` with a recipe of its own, saved in `plan.json`, so that it can be repeated. The
folder `best` in the output is always the best run so far.
"""

import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from common.errors import UserError
from common.files import atomic_folder, write_json
from common.groups import with_groups, write_groups
from common.images import Images, load_folder
from training.config.override import change
from training.config.recipe import Augmentation, Data, Finetune, Head, Prediction, Recipe
from training.config.record import to_json
from training.data.augment import NO_TRANSFORMS, RandomTransforms
from training.data.split import split_rows
from training.fit.features import FeatureSpec, layer_features
from training.fit.finetune import CHECKPOINT, make_backbone, seconds_per_image
from training.fit.head import Features, fit_linear
from training.fit.precision import has_bfloat16
from training.fit.schedules import cosine_to_tenth
from training.model.backbones import inception_v3_frozen, inception_v3_small_init
from training.model.trainable import freeze
from training.run import Inputs, train
from training.run_folder import BEST, CACHE, FEATURES, LOCK

INPUT_SIZE = 192  # pixels
FROZEN_BACKBONE, BACKBONE = inception_v3_frozen, inception_v3_small_init
LAYERS = ("mixed7", "mixed8", "mixed10")
LAYER_SETS = (("mixed8", "mixed10"), LAYERS)
STRENGTHS = (0.003, 0.01)  # head.c of the linear head
CLUSTERS = 8  # groups of similar images in each class; one of them is held out
GROUPS = "groups.csv"
MAX_REPEATS = 3  # of each image of a rare class
MIN_EPOCHS, MAX_EPOCHS = 4, 80
PLANNED = 0.9  # share of the time left that is planned for epochs
FIXED_SECONDS = 75  # of a fine-tuning: tracing, batch statistics and evaluation
TRANSFORMS = RandomTransforms(
    vertical_flips=False, rotation=10.0, zoom=0.15, shift=0.08, brightness=0.2, contrast=0.2, saturation=0.2
)


@dataclass
class Plan:
    """What was decided, and how much time is left."""

    minutes: float
    began: float
    lines: list[str] = field(default_factory=list)
    steps: dict[str, dict] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.began)

    def say(self, line: str) -> None:
        """Prints a decision and keeps it."""
        self.lines.append(line)
        print(f"auto: {line}", flush=True)


def auto(inputs: Inputs, out: Path, minutes: float) -> float:
    """Trains a model for labelled images within a number of minutes.

    Args:
        inputs: `Inputs`; `test` is reported on and used for nothing else.
        out: a new folder. Gets `best`, the best run so far, `plan.json`, and the runs `quick` and `finetuned`.
        minutes: time for everything. The first step is done even if it needs more.

    Returns:
        The accuracy of the best run on the held-out images.

    Raises:
        UserError: `out` has files, `minutes` is not positive; see `train`.
    """
    if not minutes > 0:
        raise UserError(f"--minutes must be above 0, got {minutes:g}")
    if out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise UserError(f"--out must be a new folder, {out} has files; give another one")
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(minutes, time.monotonic())
    images = load_folder(inputs.data, inputs.size)
    base = _base(images)
    _describe(plan, images, base)
    features = _features(plan, base, images, inputs, out / CACHE)
    if inputs.groups is None:
        clusters = similar_groups(images.labels, features[LAYERS[1]][0])
        write_groups(out / GROUPS, images, clusters.tolist(), Path(inputs.data))
        inputs = replace(inputs, groups=out / GROUPS)
    images = with_groups(images, Path(inputs.groups or ""), Path(inputs.data))
    base = change(base, {"data.validation_split": _share(images)})
    accuracy = _quick(plan, base, images, features, (inputs, out))
    accuracy = _finetuned(plan, base, images, (inputs, out), accuracy)
    plan.say(f"best: {_held_out(accuracy)}see {out / BEST}")
    _save(plan, out)
    return accuracy


def _base(images: Images) -> Recipe:
    """What all steps share: the held-out images, and how often the images of rare classes are repeated."""
    counts = np.bincount(images.labels, minlength=len(images.names))
    repeats = {
        name: int(min(MAX_REPEATS, np.sqrt(counts.max() / count).round()))
        for name, count in zip(images.names, counts, strict=True)
        if np.sqrt(counts.max() / count).round() > 1
    }
    bfloat16 = has_bfloat16() and keras.backend.backend() == "tensorflow"
    return Recipe(
        data=Data(class_repeats=repeats),
        augmentation=Augmentation(transforms=replace(NO_TRANSFORMS, flips=True, vertical_flips=False)),
        finetune=Finetune(backbone=FROZEN_BACKBONE, resolution_schedule=((0, INPUT_SIZE),), warmup_epochs=0.0),
        head=Head(kind="linear", views=2, feature_precision="bfloat16" if bfloat16 else "float32"),
        prediction=Prediction(("none", "horizontal")),
        checkpoint="last",
    )


def _describe(plan: Plan, images: Images, base: Recipe) -> None:
    counts = np.bincount(images.labels, minlength=len(images.names))
    height, width = images.images.shape[1:3]
    grey = bool((images.images[::10, ..., :1] == images.images[::10]).all())
    for note in images.notes:
        print(note)
    plan.say(
        f"{len(images)} {'grey' if grey else 'color'} images of {len(images.names)} classes, {counts.min()} to "
        f"{counts.max()} each, at {height}×{width}; the network sees {INPUT_SIZE}×{INPUT_SIZE}"
    )
    if base.data.class_repeats:
        plan.say(f"rare classes are repeated: {base.data.class_repeats}")


def similar_groups(labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Groups the images of each class into clusters of similar features.

    Photographs of one object or scene often come in series. If some of a series are held out and others trained on, the
    held-out accuracy is far too high and selects the wrong model.

    Args:
        labels: int [n].
        features: float32 [n, d].

    Returns:
        int64 [n], the number of the cluster within the class.
    """
    scaled = StandardScaler().fit_transform(features)
    groups = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(CLUSTERS, max(1, len(rows) // 2))
        groups[rows] = KMeans(count, n_init=1, random_state=0).fit_predict(scaled[rows])
    return groups


def _share(images: Images) -> float:
    """The share of the groups that is held out: one group of each class; 0 if a class has only one group."""
    pairs = set(zip(images.labels.tolist(), images.groups.tolist(), strict=True))
    groups = np.bincount([label for label, _ in pairs], minlength=len(images.names))
    return float(max(1 / CLUSTERS, len(groups) / groups.sum())) if groups.min() >= 2 else 0.0


def _features(plan: Plan, base: Recipe, images: Images, inputs: Inputs, cache: Path) -> dict[str, np.ndarray]:
    """Layer → features of random views of all images: float32 [views, n, d]."""
    backbone = make_backbone(base, inputs.backbone_weights)
    freeze(backbone)
    head = base.head
    spec = FeatureSpec(INPUT_SIZE, base.augmentation.transforms, head.views, base.seed, head.feature_precision)
    began = time.monotonic()
    features = layer_features(cache, backbone, LAYERS, images.images, spec)
    speed = head.views * len(images) / (time.monotonic() - began)
    plan.say(f"{speed:.0f} images per second through the backbone in {head.feature_precision}")
    ends = np.cumsum([backbone.get_layer(name).output.shape[-1] for name in LAYERS])
    return dict(zip(LAYERS, np.split(features, ends[:-1], axis=-1), strict=True))


def _quick(plan: Plan, base: Recipe, images: Images, features: dict, place: tuple[Inputs, Path]) -> float:
    """Selects layers and strength of a linear head on held-out groups, then trains it on all images."""
    inputs, out = place
    rows = split_rows(base.data, images)
    if not len(rows[1]):
        plan.say("too few images per class to hold some out: nothing is selected, and there is no fine-tuning")
    scores: dict[tuple, float] = {}
    for layers in LAYER_SETS if len(rows[1]) else LAYER_SETS[-1:]:
        for c in STRENGTHS if len(rows[1]) else STRENGTHS[:1]:
            recipe = change(base, {"head.feature_layers": layers, "head.c": c})
            chosen = np.concatenate([features[name] for name in layers], axis=-1)
            scores[layers, c] = _held_out_accuracy(recipe, chosen, images, rows)
    (layers, c), accuracy = max(scores.items(), key=lambda item: item[1])
    recipe = change(base, {"head.feature_layers": layers, "head.c": c, "data.validation_split": 0.0})
    held_out = f", {accuracy:.1%} on {len(rows[1])} held-out images" if len(rows[1]) else ""
    plan.say(f"quick model: logistic regression, C={c}, on {' and '.join(layers)}{held_out}")
    train(recipe, "auto-quick", inputs, out / "quick")
    _keep(plan, recipe, "quick", accuracy, out)
    return accuracy


def _held_out_accuracy(recipe: Recipe, features: np.ndarray, images: Images, rows: tuple) -> float:
    """The accuracy of a linear head on the held-out rows, averaged over the views; 0 without held-out rows."""
    train_rows, val_rows = rows
    if not len(val_rows):
        return 0.0
    labels = images.labels
    split = Features(features[:, train_rows], labels[train_rows], features[0, val_rows], labels[val_rows], images.names)
    head = fit_linear(recipe, split)
    views = [head.predict(view[val_rows], verbose=0) for view in features]
    return float((np.mean(views, axis=0).argmax(axis=-1) == labels[val_rows]).mean())


def _finetuned(plan: Plan, base: Recipe, images: Images, place: tuple[Inputs, Path], best: float) -> float:
    """Fine-tunes the backbone if there is time, and keeps the result if it is better. Returns the best accuracy."""
    inputs, out = place
    if not base.data.validation_split:
        return best
    recipe = _finetuning(base, MIN_EPOCHS)
    if plan.seconds_left < FIXED_SECONDS:
        plan.say("no fine-tuning: the time is over")
        return best
    rows = split_rows(base.data, images)[0]
    seconds = seconds_per_image(recipe, images, inputs.backbone_weights)
    count = sum(base.data.class_repeats.get(images.names[label], 1) for label in images.labels[rows])
    epochs = int(min(MAX_EPOCHS, PLANNED * (plan.seconds_left - FIXED_SECONDS) / (seconds * count)))
    plan.say(f"{1 / seconds:.0f} images per second in training: {max(0, epochs)} epochs fit into the time")
    if epochs < MIN_EPOCHS:
        plan.say(f"no fine-tuning: at least {MIN_EPOCHS} epochs are needed")
        return best
    recipe = _finetuning(base, epochs)
    result = train(recipe, "auto-finetuned", inputs, out / "finetuned")
    return _keep_if_better(plan, recipe, "finetuned", (result["accuracy"], best), out)


def _finetuning(base: Recipe, epochs: int) -> Recipe:
    """The fine-tuning of the whole backbone for a number of epochs, under a softmax."""
    bfloat16 = base.head.feature_precision == "bfloat16"
    return replace(
        base,
        augmentation=Augmentation(transforms=TRANSFORMS),
        finetune=Finetune(
            backbone=BACKBONE,
            resolution_schedule=((epochs, INPUT_SIZE),),
            learning_rate=3e-4,
            schedule=cosine_to_tenth,
            warmup_epochs=min(1.0, epochs / 4),
            weight_decay=0.05,
            label_smoothing=0.1,
            dropout=0.3,
            swa_epochs=max(1, epochs // 5),
            precision="mixed_bfloat16" if bfloat16 else "float32",
        ),
        head=Head(kind="softmax"),
    )


def _keep_if_better(plan: Plan, recipe: Recipe, step: str, accuracies: tuple, out: Path) -> float:
    """Keeps a step if it is at least as accurate as the best so far. Returns the best accuracy."""
    accuracy, best = accuracies
    if accuracy < best:
        plan.say(f"{step}: {accuracy:.1%} on the held-out images, not better than {best:.1%}; not kept")
        return best
    _keep(plan, recipe, step, accuracy, out)
    return accuracy


def _keep(plan: Plan, recipe: Recipe, step: str, accuracy: float, out: Path) -> None:
    """Copies a step's run to `best`, without what only training needs."""
    with atomic_folder(out / BEST) as temporary:
        for path in (out / step).iterdir():
            if path.is_file() and path.name not in (CHECKPOINT, FEATURES, LOCK):
                shutil.copy2(path, temporary / path.name)
    plan.steps[step] = {"recipe": to_json(recipe), "held_out_accuracy": accuracy}
    plan.say(f"{step}: {_held_out(accuracy)}kept as {out / BEST}")
    _save(plan, out)


def _held_out(accuracy: float) -> str:
    return f"{accuracy:.1%} on the held-out images; " if accuracy else ""


def _save(plan: Plan, out: Path) -> None:
    write_json(out / "plan.json", {"minutes": plan.minutes, "decisions": plan.lines, "steps": plan.steps})
