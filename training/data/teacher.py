"""A cross-validation as the teacher: its out-of-fold predictions become soft targets of another training."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import digest
from common.images import Images
from training.config.recipe import Recipe
from training.run_folder import FIRST_FOLD, OUT_OF_FOLD, read_record, saved_probabilities


def with_teacher(images: Images, recipe: Recipe, folder: Path | None) -> Images:
    """Adds a cross-validation's out-of-fold predictions to the images, if the recipe trains on them.

    A prediction of an image is by a model that was not trained on it, so it can contradict a wrong label.

    Args:
        images: the images that the cross-validation was trained on, in the same order.
        recipe: its `largest_teacher_share` says whether there is a teacher.
        folder: of the finished cross-validation, or None. The predictions of several seeds are averaged.

    Returns:
        The images, with `teacher` if there is one.

    Raises:
        UserError: a recipe that needs a teacher without a folder, or the opposite; no finished cross-validation;
            damaged files; other images.
    """
    share = recipe.largest_teacher_share
    if folder is None and not share:
        return images
    if folder is None:
        raise UserError(f"teacher_share={share:g} needs the folder of a cross-validation; give --teacher")
    if not share:
        raise UserError(
            "--teacher has no effect while finetune.teacher_share and head.teacher_share are 0; leave it out"
        )
    path = Path(folder) / OUT_OF_FOLD
    if not path.is_file():
        raise UserError(f"--teacher must be the folder of a finished cross-validation; {folder} has no {OUT_OF_FOLD}")
    record = read_record(Path(folder) / FIRST_FOLD)
    if (record.classes, record.data_sha256) != (tuple(images.names), digest(images.images, images.labels)):
        raise UserError(
            f"--teacher must be trained on the images and classes of --data, at the same --size and without "
            f"--validation; {folder} was not: give its own --data and options, or another --teacher"
        )
    try:
        with np.load(path) as file:
            probabilities = saved_probabilities(file, path).mean(axis=0, dtype=np.float32)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); repeat the crossval command") from error
    return replace(images, teacher=probabilities)
