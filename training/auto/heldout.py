"""Held-out images: which ones, and how accurate a head is on them."""

from dataclasses import replace

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from common.images import Images
from training.config.recipe import LINEAR, Head, Recipe
from training.fit.head import Features, fit_head, fit_linear

CLUSTERS = 8  # groups of similar images in each class; one of them is held out


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


def held_out_share(images: Images) -> float:
    """The share of the groups that is held out: one group of each class; 0 if a class has only one group."""
    pairs = set(zip(images.labels.tolist(), images.groups.tolist(), strict=True))
    groups = np.bincount([label for label, _ in pairs], minlength=len(images.names))
    return float(max(1 / CLUSTERS, len(groups) / groups.sum())) if groups.min() >= 2 else 0.0


def held_out_probabilities(recipe: Recipe, head: Head, features: np.ndarray, images: Images, rows: tuple) -> np.ndarray:
    """The probabilities of a head on the held-out rows, averaged over the views.

    Args:
        recipe: its `data` and `seed` are used.
        head: the head that is trained; its `softmax_share` is not used.
        features: float32 [views, n, d]. Views beyond those of `recipe.prediction` are only trained on.
        images: `Images`, n.
        rows: (training rows, held-out rows).

    Returns:
        float32 [held-out rows, classes].
    """
    train_rows, val_rows = rows
    labels = images.labels
    split = Features(features[:, train_rows], labels[train_rows], features[0, val_rows], labels[val_rows], images.names)
    model = (fit_linear if head.kind == LINEAR else fit_head)(
        replace(recipe, head=replace(head, softmax_share=0.0)), split
    )
    views = features[: len(recipe.prediction.tta_transforms)]
    return np.mean([model.predict(view[val_rows], verbose=0) for view in views], axis=0)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose most probable class is the label."""
    return float((probabilities.argmax(axis=-1) == labels).mean())
