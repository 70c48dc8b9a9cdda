"""The record that a run would have, and whether a finished run has the same one."""

from pathlib import Path

from common.errors import UserError
from common.images import Images
from training.config.recipe import Recipe
from training.data.teacher import with_teacher
from training.inputs import Inputs
from training.model.backbones import PRETRAINED
from training.run_folder import Record, make_record, read_record


def planned_record(recipe: Recipe, name: str, images: Images, inputs: Inputs) -> Record:
    """The record that a run of a recipe would have. Raises a UserError; see `with_teacher`."""
    images = with_teacher(images, recipe, inputs.teacher)
    return make_record(name, recipe, images, used_weights(recipe, inputs.backbone_weights), inputs.max_images)


def require_same(folder: Path, name: str, recipe: Recipe, images: Images, inputs: Inputs) -> None:
    """Raises a UserError if a finished run is not the one that would be trained now, or cannot be read.

    Args:
        folder: of the run.
        name: of the recipe.
        recipe: in the precision of the run, unless the user chose another one.
        images: those of `inputs`.
        inputs: `Inputs`.
    """
    for what in read_record(folder).differences(planned_record(recipe, name, images, inputs))[:1]:
        raise UserError(f"holds a finished run with another {what}; give another --runs")


def used_weights(recipe: Recipe, backbone_weights: str) -> str:
    """The backbone weights that a recipe starts from: the given ones, or none if its backbone has none."""
    return backbone_weights if recipe.finetune.backbone in PRETRAINED else "none"
