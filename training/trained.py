"""The models of finished runs."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from training.config.recipe import LINEAR, SOFTMAX, Prediction, Recipe
from training.fit.finetune import FINETUNED_WEIGHTS
from training.model.backbones import pooled_layers
from training.model.build import build_model, load_weights
from training.model.heads import averaged_head, linear_head, quasi_svm_head, softmax_head
from training.run_folder import HEAD_WEIGHTS, SAMPLES, best_of, read_metrics, read_record, run_file


@dataclass(frozen=True)
class TrainedModel:
    """What a finished run ships.

    model: the model in float32, [b, h, w, 3] of 0 to 255 → probabilities [b, classes].
    names: class names.
    prediction: test-time augmentation.
    samples: some photographs, uint8 [n, h, w, 3], on which an export is checked; None if there are none.
    trained_on: hashes of the training images' files, see `common.images.Images`; empty if they are not known.
    """

    model: keras.Model
    names: tuple
    prediction: Prediction
    samples: np.ndarray | None = None
    trained_on: tuple[bytes, ...] = ()


def load_run(out: Path) -> TrainedModel:
    """Loads the trained model of a finished run, or of the best run of `training.auto`.

    Raises:
        UserError: no run, an unfinished one, or weights that are damaged or not finite.
    """
    out = best_of(Path(out))
    record = read_record(out)
    read_metrics(out)  # raises if the run is not finished
    recipe, tune = record.recipe, record.recipe.finetune
    if recipe.head.kind == SOFTMAX:
        model = finetuned_model(recipe, record.classes, record.image_shape, out)
    else:
        backbone = pooled_layers(tune.backbone("none"), recipe.head.feature_layers)
        head = _head(recipe, backbone.output_shape[-1], len(record.classes))
        model = build_model(backbone, head, record.image_shape, tune.input_size)
        load_weights(model, out / HEAD_WEIGHTS[recipe.head.kind])
    return TrainedModel(model, record.classes, recipe.prediction, *_saved_samples(out / SAMPLES))


def finetuned_model(recipe: Recipe, names: tuple, image_shape: tuple, folder: Path) -> keras.Model:
    """The fine-tuned backbone with its softmax head, in float32.

    Args:
        recipe: the run's recipe.
        names: class names.
        image_shape: (height, width) of the images, in pixels.
        folder: the run's folder.

    Returns:
        `keras.Model`, [b, h, w, 3] of 0 to 255 → probabilities [b, classes].

    Raises:
        UserError: see `training.model.build.load_weights`.
    """
    tune = recipe.finetune
    backbone = tune.backbone("none")
    head = softmax_head(tune, backbone.output_shape[-1], len(names))
    model = build_model(backbone, head, image_shape, tune.input_size)
    load_weights(model, run_file(folder, FINETUNED_WEIGHTS))
    return model


def _saved_samples(path: Path) -> tuple[np.ndarray | None, tuple[bytes, ...]]:
    """The photographs of a run and the hashes of its training images, which runs of earlier versions lack."""
    if not path.is_file():
        return None, ()
    with np.load(path) as file:
        hashes = file["trained_on"] if "trained_on" in file else np.empty(0, np.uint64)
        return file["images"], tuple(value.tobytes() for value in hashes)


def _head(recipe: Recipe, width: int, classes: int) -> keras.Model:
    """A quasi-SVM or linear head without its weights, averaged with a softmax if the recipe says so."""
    if recipe.head.kind == LINEAR:
        head = linear_head(width, classes)
    else:
        head = quasi_svm_head(recipe.head, width, classes, 1.0, recipe.seed)
    return averaged_head(head, softmax_head(recipe.finetune, width, classes), recipe.head.softmax_share)
