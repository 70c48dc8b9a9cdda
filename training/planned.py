"""The record that a run would have, and which finished runs have another one."""

from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.images import Images
from training.config.override import in_bfloat16
from training.config.recipe import Recipe
from training.data.teacher import with_teacher
from training.inputs import Inputs, load_inputs
from training.model.backbones import PRETRAINED
from training.run_folder import Record, make_record, read_record


def planned_record(recipe: Recipe, name: str, images: Images, inputs: Inputs) -> Record:
    """The record that a run of a recipe would have. Raises a UserError; see `with_teacher`."""
    images = with_teacher(images, recipe, inputs.teacher)
    return make_record(name, recipe, images, used_weights(recipe, inputs.backbone_weights), inputs.max_images)


def outdated(runs: dict[Path, tuple[str, Recipe]], inputs: Inputs) -> dict[Path, str]:
    """Finds the finished runs that are not those that would be trained now.

    The precision is no difference, because `run` chooses it for the processor.

    Args:
        runs: folder → name and recipe.
        inputs: `Inputs`.

    Returns:
        Folder → what is wrong with its run.

    Raises:
        UserError: see `load_inputs`.
    """
    if not runs:
        return {}
    images, _ = load_inputs(replace(inputs, test=None), say=lambda line: None)
    found = {}
    for folder, (name, recipe) in runs.items():
        try:
            there, planned = read_record(folder), planned_record(recipe, name, images, inputs)
        except UserError as error:
            found[folder] = str(error)
            continue
        there, planned = (replace(one, recipe=in_bfloat16(one.recipe)) for one in (there, planned))
        for what in there.differences(planned)[:1]:
            found[folder] = f"holds a finished run with another {what}; give another --runs"
    return found


def used_weights(recipe: Recipe, backbone_weights: str) -> str:
    """The backbone weights that a recipe starts from: the given ones, or none if its backbone has none."""
    return backbone_weights if recipe.finetune.backbone in PRETRAINED else "none"
