"""Class biases: what to add to each class's logit so that a model predicts no class too rarely or too often.

A network that has seen the few images of a rare class many times is certain of them, and may then predict the class
too rarely on new images. Images that were held out show by how much.
"""

from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedKFold

from common.errors import UserError
from training.config.recipe import QUASI_SVM
from training.evaluate.paired import Difference, finished_folds, held_out, paired_difference
from training.run_folder import best_of, read_record

PENALTY = 1e-3  # of the squared biases; it also decides their common offset, which changes no probability
MIN_PROBABILITY = 1e-7  # of a probability, for its logarithm
FOLDS = 5


def fit_class_bias(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The biases with the highest likelihood of the labels.

    Source: A. Alexandari, A. Kundaje and A. Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is
    Hard-To-Beat at Label Shift Adaptation", ICML 2020, section 3.2, with a temperature of 1.

    Args:
        labels: int [n].
        probabilities: float [n, classes], of images that the model was not trained on.

    Returns:
        float64 [classes]. Added to the logits, the mean probability of each class is about its share of the labels.
    """
    logits = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    shares = np.bincount(labels, minlength=logits.shape[1]) / len(labels)

    def loss(bias: np.ndarray) -> tuple[float, np.ndarray]:
        log_likelihood = log_softmax(logits + bias, axis=1)[np.arange(len(labels)), labels].mean()
        gradient = softmax(logits + bias, axis=1).mean(axis=0) - shares
        return PENALTY * (bias @ bias) - log_likelihood, 2 * PENALTY * bias + gradient

    return minimize(loss, np.zeros(logits.shape[1]), jac=True, method="L-BFGS-B").x


def with_bias(probabilities: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Probabilities [n, classes] after `bias` [classes] is added to their logits."""
    return softmax(np.log(np.maximum(probabilities, MIN_PROBABILITY)) + bias, axis=-1)


def cross_fitted(labels: np.ndarray, probabilities: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities of each image with biases that were fitted on other images.

    Args:
        labels: int [n], at least two of each class.
        probabilities: float [n, classes].
        seed: of the five stratified folds.

    Returns:
        float64 [n, classes].
    """
    folds = StratifiedKFold(min(FOLDS, np.bincount(labels).min()), shuffle=True, random_state=seed)
    result = np.empty(probabilities.shape)
    for others, rows in folds.split(probabilities, labels):
        result[rows] = with_bias(probabilities[rows], fit_class_bias(labels[others], probabilities[others]))
    return result


def class_bias(folder: Path) -> tuple[dict[str, float], Difference]:
    """The class biases of a run or cross-validation, and what they are worth on images that they were not fitted on.

    Args:
        folder: of a finished run with a validation set, or of a cross-validation.

    Returns:
        Class name → bias, rounded to two decimals, for `head.class_bias` (those of the run's recipe are added); and
        the difference in accuracy of `cross_fitted` biases to the run as it is.

    Raises:
        UserError: no such run, damaged files, a class with a single image, or a head that has no class biases. `auto`
            has none.
    """
    if best_of(folder) != folder:
        raise UserError(f"class biases are a setting of recipes, and {folder} is of auto, which takes none; give a run")
    head = read_record((finished_folds(folder) or [folder])[0]).recipe.head
    if head.kind != QUASI_SVM or head.softmax_share:
        raise UserError(
            f"class biases need a quasi-SVM without head.softmax_share; {folder} has head.kind={head.kind} and "
            f"head.softmax_share={head.softmax_share:g}; train it with --set head.kind={QUASI_SVM}"
            " --set head.softmax_share=0.0"
        )
    images = held_out(folder)
    labels, probabilities, names = images.labels, images.probabilities, images.names
    rarest = int(np.bincount(labels, minlength=len(names)).argmin())
    if (labels == rarest).sum() < 2:
        raise UserError(
            f"every class needs at least 2 images that {folder} held out, and {names[rarest]} has "
            f"{(labels == rarest).sum()}; give a cross-validation, which holds out all images"
        )
    bias = zip(names, fit_class_bias(labels, probabilities), strict=True)
    worth = paired_difference(labels, probabilities, cross_fitted(labels, probabilities))
    return {name: round(head.class_bias.get(name, 0.0) + float(one), 2) for name, one in bias}, worth
