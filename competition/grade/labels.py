"""Compares labels by class name, so that no folder is taken for another class because of its place."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from common.errors import UserError
from common.images import Images
from competition.package.class_names import numbered, shortened


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
        order = numbered(images.names)
        return images, (f"the zip does not tell its class names: the score holds only if it numbers them {order}",)
    if not _composed(images.names) & _composed(names):
        raise UserError(
            f"--data must have the classes of the model in the zip, {shortened(names)}; got {shortened(images.names)}; "
            "build the zip with --run RUN if you trained a model on them"
        )
    mapped = images.with_classes(names, "--data", "the model in the zip")
    positions = mapped.labels[np.unique(images.labels, return_index=True)[1]].tolist()
    absent = [name for number, name in enumerate(names) if number not in positions]
    differences = [f"the model's {shortened(absent)} has no image"] if absent else []
    if positions != sorted(positions):
        differences.append("the model has another order of classes than the images")
    if not differences:
        return mapped, ()
    # A server compares class numbers and knows no names.
    consequence = f"the score holds only if the server numbers the classes {numbered(names)}"
    return mapped, (f"labels are matched by class name, and {' and '.join(differences)}: {consequence}",)


def _composed(names: Sequence[str]) -> set[str]:
    return {unicodedata.normalize("NFC", name) for name in names}
