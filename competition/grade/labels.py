"""Compares labels by class name, so that no folder is taken for another class because of its place."""

from collections.abc import Sequence

import numpy as np

from common.images import Images


def by_class_name(images: Images, names: Sequence[str] | None) -> tuple[Images, tuple[str, ...]]:
    """Returns images whose labels are the model's class numbers.

    Args:
        images: labelled images; their class names are the names of the folders.
        names: the model's class names in the order of its class numbers, or None if they are not known.

    Returns:
        (the images with the model's class names, notes for the user).

    Raises:
        UserError: a folder is none of the model's classes.
    """
    if names is None:
        folders = ", ".join(images.names)
        return images, (f"the zip does not tell its class names: class numbers are taken in this order, {folders}",)
    mapped = images.with_classes(names, "--data", "the model in the zip")
    positions = mapped.labels[np.unique(images.labels, return_index=True)[1]].tolist()
    absent = [name for number, name in enumerate(names) if number not in positions]
    if absent:
        return mapped, (f"labels are matched by class name; the model's {', '.join(absent)} has no folder",)
    if positions != sorted(positions):
        return mapped, ("labels are matched by class name; the model has another order of classes than the folders",)
    return mapped, ()
