"""The report's open questions. `python -m training.questions.NAME` answers one of them; see docs/questions.md."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

import keras
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from common.cli import argument_parser, run_command
from common.errors import UserError
from common.files import write_json
from common.images import Images, load_folder
from training.data.augment import RandomTransforms
from training.fit.features import FeatureSpec, cached_features
from training.model.backbones import inception_v3
from training.model.trainable import freeze

COMPONENTS = 256  # of the 2,048 features, so that a hundred classifiers are trained in minutes
INPUT_SIZE = 96
FOLDS = 5


@dataclass(frozen=True)
class Question:
    """What the command line of a question gave.

    name: of the question's module; the files are called like it.
    data: folder of class folders to train on.
    test: another such folder that is reported on and used for nothing else, or None.
    backbone_weights: see `training.model.backbones`.
    cache: folder of cached features.
    out: folder of the answer, NAME.json.
    pictures: folder of the picture, question_NAME.png.
    """

    name: str
    data: str
    test: str | None
    backbone_weights: str
    cache: Path
    out: Path
    pictures: Path

    @property
    def picture(self) -> Path:
        """The path of the picture."""
        return self.pictures / f"question_{self.name}.png"

    def save(self, values: dict) -> None:
        """Writes the answer. Call it after plotting the picture."""
        path = self.out / f"{self.name}.json"
        write_json(path, values)
        print(f"done: {path} and {self.picture}")

    def require_test(self) -> str:
        """Returns the folder of the test images. Raises a UserError if there is none."""
        if self.test is None:
            raise UserError("--test must be given for this question: a folder of class folders, which selects nothing")
        return self.test

    def images(self, each: int = 1) -> Images:
        """Reads the training images. Raises a UserError if there are fewer than `each` of a class."""
        images = load_folder(self.data)
        counts = np.bincount(images.labels)
        if counts.min() < each:
            name = images.names[counts.argmin()]
            raise UserError(
                f"--data must have at least {each} images of each class for this question, {name} has {counts.min()}; "
                "add images, or leave the class out"
            )
        return images

    def test_images(self, images: Images) -> Images:
        """Reads the test images at the size and with the classes of the training images."""
        return load_folder(self.require_test(), images.images.shape[1:3]).with_classes(images.names, "--test", "--data")

    def features(self, *parts: Images, transforms: RandomTransforms | None = None, views: int = 1) -> list[np.ndarray]:
        """Computes the features of a frozen InceptionV3 at 96×96.

        Args:
            parts: the images.
            transforms, views: see `FeatureSpec`.

        Returns:
            float32 [views, n, 2048] for each of the parts.
        """
        keras.utils.set_random_seed(0)  # without weights, the same random ones each time
        backbone = inception_v3(self.backbone_weights)
        freeze(backbone)
        spec = FeatureSpec(INPUT_SIZE, transforms, views)
        return [cached_features(self.cache, backbone, part.images, spec) for part in parts]


def question_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options of every question."""
    parser = argument_parser(description, f"python -m training.questions.{name}")
    parser.set_defaults(name=name)
    parser.add_argument("--data", required=True, help="folder with one folder of training images for each class")
    parser.add_argument("--test", help="another such folder, which is reported on and used for nothing else")
    parser.add_argument("--backbone-weights", default="imagenet", help="imagenet, a .weights.h5 file, or none")
    parser.add_argument("--cache", default="runs/.features", help="folder of cached features (default: %(default)s)")
    parser.add_argument("--out", default="results/questions", help="folder of the answer (default: %(default)s)")
    parser.add_argument("--pictures", default="docs/img", help="folder of the picture (default: %(default)s)")
    return parser


def run_question(options: argparse.Namespace, answer: Callable[[Question], Any]) -> int:
    """Answers a question. Returns the exit code.

    Args:
        options: the arguments that a `question_parser` has parsed.
        answer: writes the answer and its picture.
    """

    def command() -> None:
        folders = Path(options.cache), Path(options.out), Path(options.pictures)
        for folder in folders[1:]:
            folder.mkdir(parents=True, exist_ok=True)
        answer(Question(options.name, options.data, options.test, options.backbone_weights, *folders))

    return run_command(command)


def fitted_components(x: np.ndarray) -> Pipeline:
    """Standardization and PCA to 256 components, or as many as there are rows, fitted on features [n, d]."""
    return make_pipeline(StandardScaler(), PCA(min(COMPONENTS, len(x)), random_state=0)).fit(x)


def linear_classifier(class_weight: str | None = None) -> LogisticRegression:
    """Multinomial logistic regression on `fitted_components`."""
    return LogisticRegression(C=0.003, max_iter=300, class_weight=class_weight)


def folds(labels: np.ndarray, repeats: int = 1, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """The (training rows, validation rows) of five stratified folds, for each repeat."""
    return list(RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=repeats, random_state=seed).split(labels, labels))


def class_f1(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """F1 of each class, float64 [classes]; 0 for a class that does not occur."""
    return f1_score(truth, predicted, labels=range(classes), average=None, zero_division=0)


def undersampled(labels: np.ndarray, sizes: dict[int, int], seed: int) -> np.ndarray:
    """Rows with some classes reduced at random.

    Args:
        labels: int [n].
        sizes: label → number of its rows that are kept. Other classes keep all rows.
        seed: integer.

    Returns:
        int64 [m], sorted.
    """
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    kept = [rng.choice(r, sizes[labels[r[0]]], replace=False) if labels[r[0]] in sizes else r for r in rows]
    return np.sort(np.concatenate(kept))
