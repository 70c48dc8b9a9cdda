"""The report's open questions, each answered by one command: `python -m training.questions.NAME`; docs/questions.md."""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.data import load_folder
from training.errors import UserError, interruptible
from training.features import cached_features
from training.files import write_json

COMPONENTS = 256  # of the 2,048 features, for the classifiers that are trained a hundred times
SIDE = 96


@dataclass(frozen=True)
class Question:
    """What a question's command line gave: the images, the frozen backbone's weights, and where the answer goes."""

    data: str
    test: str | None
    backbone_weights: str
    cache: Path
    out: Path

    def answer(self, name, values):
        """Writes docs/questions/NAME.json and says so."""
        write_json(self.out / f"{name}.json", values)
        print(f"done: {self.out / name}.json and .png")

    def picture(self, name):
        return self.out / f"{name}.png"

    def images(self):
        """(training images, test images or None)."""
        images = load_folder(self.data)
        return images, load_folder(self.test, images.images.shape[1:3]) if self.test else None

    def features(self, *parts, augmentation=None, views=1):
        """Features [views, n, 2048] of each of some `Images` behind a frozen InceptionV3 at 96×96."""
        from training.architectures import inception_v3
        from training.thaw import freeze

        keras.utils.set_random_seed(0)  # without weights, the same random ones each time
        backbone = inception_v3(self.backbone_weights)
        freeze(backbone)
        return [cached_features(self.cache, backbone, part.images, SIDE, augmentation, views) for part in parts]


def ask(description, answer):
    """The command line of a question. Returns the exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with one folder of training images for each class")
    parser.add_argument("--test", help="another such folder, which is reported on and used for nothing else")
    parser.add_argument("--backbone-weights", default="imagenet", help="imagenet, a .weights.h5 file, or none")
    parser.add_argument("--cache", default="runs/.features", help="folder of cached features (default %(default)s)")
    parser.add_argument("--out", default="docs/questions", help="folder of the answer (default %(default)s)")
    options = parser.parse_args()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    try:
        with interruptible():
            answer(Question(options.data, options.test, options.backbone_weights, Path(options.cache), Path(options.out)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


def main_components():
    """Standardised features → their 256 main components. Most of the time of a hundred classifiers is in the rest."""
    return make_pipeline(StandardScaler(), PCA(COMPONENTS, random_state=0))


def linear_classifier(class_weight=None):
    """Multinomial logistic regression on `main_components`."""
    return LogisticRegression(C=0.003, max_iter=300, class_weight=class_weight)


def folds(labels, repeats=1, seed=0):
    """Five stratified folds, some times over: (training rows, validation rows) each."""
    return list(RepeatedStratifiedKFold(n_splits=5, n_repeats=repeats, random_state=seed).split(labels, labels))


def class_f1(truth, predicted, classes):
    """F1 of every class, float64 [classes]."""
    return f1_score(truth, predicted, labels=range(classes), average=None, zero_division=0)


def thinned(labels, keep, seed):
    """Rows with some classes thinned at random: `keep` maps a label to how many of its rows stay."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = [rng.choice(r, keep[labels[r[0]]], replace=False) if labels[r[0]] in keep else r for r in rows]
    return np.sort(np.concatenate(chosen))
