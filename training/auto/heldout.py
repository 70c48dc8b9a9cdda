"""Held-out images: which ones, and how accurate a head is on them."""

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import StandardScaler

from common.images import Images
from training.config.recipe import Head, Recipe
from training.data.split import movable_rows
from training.evaluate.paired import changed_answers
from training.fit.head import Features, fit_head

HELD_OUT = 1 / 8  # of the groups
SIGNIFICANCE = 0.1  # one-sided significance level
FEW_HELD_OUT = 8  # with fewer held-out images no difference is significant, so the more accurate model is better
PERCENTILE = 95  # of the similarities of images to those of other classes
LARGEST_GROUP = 1 / 4  # of a class, at least 2 images; in a larger one, the bound of the similarity is raised
SIMILARITY_STEP = 0.05
NEIGHBORS = 30  # of each image that are compared with it; more would need too much memory in large classes
SAMPLE = 1000  # images whose similarity to other classes is measured


def similar_groups(labels: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, int]:
    """Groups the images of each class that look alike: photographs of one object or scene.

    If some of a series are held out and others trained on, the held-out accuracy is far too high. Images of a class are
    alike if the cosine of their standardized features is above that of 95 % of the images with any image of another
    class, which cannot be of the same series. Groups are the connected components. One that is larger than a quarter of
    its class is split, because too few images would be left to train on: the bound is raised for its images.

    Args:
        labels: int [n].
        features: float32 [n, d].

    Returns:
        (int64 [n], the number of each image's group, from 0; no group has images of two classes. The number of groups
        that were split.)
    """
    unit = StandardScaler().fit_transform(features)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    bound = _similarity_to_other_classes(labels, unit)
    groups, count, split = np.zeros(len(labels), np.int64), 0, 0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        own, too_large = _components(unit[rows], bound)
        groups[rows] = count + own
        count, split = groups.max() + 1, split + too_large
    return groups, split


def _similarity_to_other_classes(labels: np.ndarray, unit: np.ndarray) -> float:
    """A high percentile of the largest cosines of images with images of another class; 1 if there is one class."""
    rows = np.random.default_rng(0).permutation(len(labels))[:SAMPLE]
    cosines = np.where(labels[rows, None] == labels[None], -np.inf, unit[rows] @ unit.T).max(axis=1)
    return float(np.percentile(cosines, PERCENTILE)) if np.isfinite(cosines).all() else 1.0


def _components(unit: np.ndarray, bound: float) -> tuple[np.ndarray, int]:
    """Groups of one class, none larger than a quarter of it or 2 images; and how many were split for that."""
    if len(unit) == 1:
        return np.zeros(1, np.int64), 0
    largest, too_large = min(len(unit) - 1, max(2, LARGEST_GROUP * len(unit))), None
    nearest = kneighbors_graph(unit, min(NEIGHBORS, len(unit) - 1), mode="distance").tocoo()
    near = np.ones(len(nearest.data), bool)
    raised = np.ones(len(unit), bool)  # the images whose bound this step is
    for similarity in np.append(np.arange(bound, 1, SIMILARITY_STEP), 1.0):
        near &= ~raised[nearest.row] | (nearest.data <= np.sqrt(2 - 2 * similarity))
        pairs = (np.ones(near.sum()), (nearest.row[near], nearest.col[near]))
        groups = connected_components(csr_array(pairs, shape=nearest.shape), directed=False)[1]
        sizes = np.bincount(groups)
        too_large = (sizes > largest).sum() if too_large is None else too_large
        raised = sizes[groups] > largest
        if not raised.any():
            break
    return groups, int(too_large or 0)


def held_out_share(images: Images) -> float:
    """The share of the groups that is held out: at least one group of each class that has several.

    It is 0 if fewer than two classes have several groups.
    """
    rows = movable_rows(images.labels, images.groups)
    pairs = np.unique(np.stack([images.labels[rows], images.groups[rows]]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(images.names))
    several = counts[counts >= 2]
    if len(several) < 2:
        return 0.0
    mixed = pairs.shape[1] > len(np.unique(pairs[1]))  # groups with images of several classes, which are held out whole
    return float(max(HELD_OUT, 1 / several.min() if mixed else len(several) / several.sum()))


def held_out_probabilities(recipe: Recipe, head: Head, features: np.ndarray, images: Images, rows: tuple) -> np.ndarray:
    """The probabilities of a head on the held-out rows, averaged over the views.

    Args:
        recipe: its `data` and `seed` are used.
        head: the head that is trained.
        features: float32 [views, n, d]. Views beyond those of `recipe.prediction` are only trained on.
        images: `Images`, n.
        rows: (training rows, held-out rows).

    Returns:
        float32 [held-out rows, classes].
    """
    train_rows, val_rows = rows
    labels = images.labels
    split = Features(features[:, train_rows], labels[train_rows], features[0, val_rows], labels[val_rows], images.names)
    model = fit_head(replace(recipe, head=head), split)
    views = features[: len(recipe.prediction.tta_transforms)]
    return np.mean([model.predict(view[val_rows], verbose=0) for view in views], axis=0)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose most probable class is the label."""
    return float((probabilities.argmax(axis=-1) == labels).mean())


def clearly_worse(after: np.ndarray, before: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a model is worse than another by more than chance: a one-sided sign test on the images they differ in.

    Held-out images are often few: of 87, two models that are equally good differ by several images. Of fewer than 8,
    even a model that loses three of them could be kept, so any difference counts.

    Args:
        after: probabilities [n, classes] of the model.
        before: those of the other one.
        labels: int [n].
    """
    gained, lost = changed_answers(labels, before, after)
    if len(labels) < FEW_HELD_OUT:
        return lost > gained
    return lost > gained and binomtest(lost, lost + gained, alternative="greater").pvalue < SIGNIFICANCE
