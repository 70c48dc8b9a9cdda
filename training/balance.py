"""Rare classes seen more often. Runs after the split, so validation keeps its own distribution."""

import numpy as np

from training.errors import UserError


def oversample(labels, names, repeats):
    """Row numbers of one epoch, images of the given classes repeated.

    Args:
        labels: int [n], positions in `names`.
        names: class names.
        repeats: class name → how many times each of its images occurs (1 leaves it as it is).

    Returns:
        int64 [m], m ≥ n, sorted by repetition.

    Raises:
        UserError: a class in `repeats` that does not exist.
    """
    unknown = sorted(set(repeats) - set(names))
    if unknown:
        have = ", ".join(names)
        raise UserError(f"repeats: no class {', '.join(unknown)}; the data has {have}: give --set repeats={{}} or your own classes")
    counts = np.array([repeats.get(name, 1) for name in names])
    rows = np.arange(len(labels))
    return np.concatenate([rows[counts[labels] > turn] for turn in range(counts.max())])
