"""Model soups: the mean of the weights of several fine-tunings that start from the same weights.

Source: M. Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", ICML 2022.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from common.files import atomically
from training.config.checks import MAX_SEED
from training.config.recipe import Recipe
from training.data.split import TrainVal
from training.fit.checkpoint import read_history, write_history
from training.fit.features import FeatureSpec
from training.fit.finetune import FINETUNED_WEIGHTS, HISTORY, finetune, make_backbone
from training.fit.swa import add_to_mean, update_batch_norm
from training.model.build import build_model, load_weights
from training.model.heads import softmax_head

SEED_STEP = 1000  # between the fine-tunings, so that soups with consecutive seeds have no fine-tuning in common
SOUP = "soup"  # folder, within the run's, of the folders of its fine-tunings


def soup_parts(recipe: Recipe, folder: Path) -> Iterator[tuple[Recipe, Path]]:
    """(recipe, folder) of each fine-tuning of a soup; none for a recipe without a soup.

    Args:
        recipe: its `finetune.soup` is their number. Fine-tuning i, from 0, has the recipe's seed + 1,000 i.
        folder: of the run.
    """
    count = recipe.finetune.soup
    for number in range(count if count > 1 else 0):
        one = replace(recipe.finetune, soup=1)
        seed = (recipe.seed + SEED_STEP * number) % (MAX_SEED + 1)
        yield replace(recipe, finetune=one, seed=seed), folder / SOUP / str(number)


def finetune_soup(
    recipe: Recipe, data: TrainVal, backbone_weights: str, folder: Path, cache: Path, init: Path | None
) -> int:
    """Fine-tunes several times from the same weights, or continues, and averages. Batch statistics are measured anew.

    Args:
        recipe, data, backbone_weights, folder, cache, init: see `finetune`. `folder` gets the mean's
            `finetuned.weights.h5`, `history.csv` with the epochs of all, and `soup/0`, `soup/1` and so on.

    Returns:
        Number of trainable parameters, see `finetune`.

    Raises:
        UserError: see `finetune`.
    """
    tune, parameters = recipe.finetune, 0
    history: list[dict] = []
    for number, (part, target) in enumerate(soup_parts(recipe, folder)):
        target.mkdir(parents=True, exist_ok=True)
        print(f"fine-tuning {number + 1} of {tune.soup} that are averaged, in {target}", flush=True)
        parameters = finetune(part, data, backbone_weights, target, cache, init)
        history += read_history(target / HISTORY)
    _average(recipe, data, folder)
    write_history(folder / HISTORY, [{**row, "epoch": epoch} for epoch, row in enumerate(history, 1)])
    return parameters


def _average(recipe: Recipe, data: TrainVal, folder: Path) -> None:
    """Writes the mean of the finished fine-tunings."""
    tune, images = recipe.finetune, data.train.images
    backbone = make_backbone(recipe, "none")
    head = softmax_head(tune, backbone.output_shape[-1], len(data.train.names))
    model = build_model(backbone, head, images.shape[1:3], tune.input_size)
    mean: list = []
    for number, (_, source) in enumerate(soup_parts(recipe, folder)):
        load_weights(model, source / FINETUNED_WEIGHTS)
        mean = add_to_mean(mean, model.get_weights(), number)
    model.set_weights(mean)
    spec = FeatureSpec(tune.input_size, recipe.augmentation.transforms, seed=recipe.seed)
    update_batch_norm(backbone, images, spec, tune.batch_size)
    atomically(folder / FINETUNED_WEIGHTS, model.save_weights)
