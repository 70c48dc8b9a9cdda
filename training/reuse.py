"""Reusing the fine-tuning of a finished run that made the same choices."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.files import atomically, digest, write_json
from training.fit.checkpoint import read_history
from training.fit.finetune import CHECKPOINT, FINETUNED_WEIGHTS, HISTORY, WARMUP_HISTORY, init_recipe
from training.fit.soup import soup_parts
from training.run_folder import INIT, OLD_NAMES, RECORD, VAL, Record, read_metrics, read_record, run_file


@dataclass(frozen=True)
class _Finetuning:
    """One of the fine-tunings that a run consists of.

    choices: what its weights depend on, those of the fine-tuning that it started from included.
    folder: its folder.
    init: the folder of the fine-tuning that it started from.
    parts: if it is a soup, the fine-tunings that it averages. All started from the same one.
    """

    choices: list
    folder: Path
    init: Path
    parts: tuple["_Finetuning", ...] = ()


def reuse_finetuning(out: Path, record: Record, runs: list[Path], val_rows: np.ndarray | None = None) -> bool:
    """Copies the fine-tuned weights of a run with the same settings, or of the fine-tuning that both start from.

    The parts of a soup are copied only together with what they started from, because training it again would not give
    exactly the same weights.

    Args:
        out: folder of the new run.
        record: of the new run.
        runs: folders of runs whose fine-tuning is finished; the first that fits is used, and a line says so.
        val_rows: the images that the new run holds out. A run that held out others is not used; earlier versions drew
            others of rare classes.

    Returns:
        Whether something was copied, or was there already.

    Raises:
        UserError: a folder without a run, or its fine-tuning is not finished.
    """
    records = {run: _finished(run, record) for run in runs}
    sources = [_finetunings(there, run) for run, there in records.items() if _holds_out(run, there, val_rows)]
    if any(out.rglob(CHECKPOINT)):
        return True
    wanted = _finetunings(record, out)
    for place, target in enumerate(wanted):
        for chain in sources:
            source = _same(target, chain)
            if not source:
                continue
            parts = wanted[place - 1].parts if place else ()
            found = [(source, target), *((_same(part, chain), part) for part in parts)]
            notes = {_note(to, out): str(of.folder) for of, to in found if of}
            write_json(out / RECORD, {**record.to_json(), **notes})
            for of, to in found:
                if of:
                    print(f"the fine-tuning is the same as in {of.folder}: reusing its weights", flush=True)
                    _copy_finetuning(of, to)
            return True
    return False


def _finished(run: Path, wanted: Record) -> Record:
    """The record of a run whose fine-tuning is finished, even if its head is not.

    One of an earlier version knows its backbone weights by their file's name only.
    """
    record, history = read_record(run), run / HISTORY
    tune = record.recipe.finetune
    complete = tune.epochs and tune.soup == 1 and history.is_file() and len(read_history(history)) == tune.epochs
    if not complete:
        read_metrics(run)  # raises if the run is not finished
    if record.backbone_sha256 or record.backbone_weights != wanted.backbone_weights:
        return record
    return replace(record, backbone_sha256=wanted.backbone_sha256)


def _holds_out(run: Path, record: Record, val_rows: np.ndarray | None) -> bool:
    """Whether a run held out these images, as far as its files tell."""
    path = run_file(run, VAL)
    if val_rows is None:
        return True
    if record.val_sha256:
        return record.val_sha256 == digest(val_rows)
    if not path.is_file():  # of an earlier version, and not finished
        return not len(val_rows)
    with np.load(path) as file:
        return "rows" not in file.files or np.array_equal(file["rows"], val_rows)


def _finetunings(record: Record, folder: Path) -> list[_Finetuning]:
    """The fine-tuning of a run, the one that it starts from, and so on."""
    recipe, init = record.recipe, run_file(folder, INIT)
    earlier = _finetunings(replace(record, recipe=init_recipe(recipe)), init) if recipe.finetune.init_from else []
    start = earlier[0].choices if earlier else []  # with its own seed, which the parts of a soup have not
    parts = [
        _Finetuning([*_choices(replace(record, recipe=part)), start], target, init)
        for part, target in soup_parts(recipe, folder)
    ]
    return [_Finetuning([*_choices(record), start], folder, init, tuple(parts)), *earlier]


def _choices(record: Record) -> list:
    """What the fine-tuned weights depend on, besides the weights that they start from."""
    recipe = record.recipe
    warmup = (recipe.head.views, recipe.head.feature_precision) if recipe.finetune.head_warmup_epochs else None
    choices = (recipe.data, recipe.augmentation, recipe.finetune, recipe.checkpoint, recipe.seed, warmup)
    teacher = record.teacher_sha256 if recipe.finetune.teacher_share else ""
    data = (record.classes, record.data_sha256, record.groups_sha256, teacher)
    return [*choices, *data, record.backbone_sha256 or record.backbone_weights, record.versions]


def _same(wanted: _Finetuning, chain: Iterable[_Finetuning]) -> _Finetuning | None:
    """The fine-tuning with the same choices whose files are there, or None."""
    there = [one for item in chain for one in (item, *item.parts) if (one.folder / CHECKPOINT).exists()]
    return next((one for one in there if one.choices == wanted.choices), None)


def _note(target: _Finetuning, out: Path) -> str:
    """The field of the record that says from where a fine-tuning was copied."""
    place = target.folder.relative_to(out).as_posix().replace("/", "_")
    return "finetuning_of" if place == "." else f"{place}_of"


def _copy_finetuning(source: _Finetuning, target: _Finetuning) -> None:
    """Copies a fine-tuning and the histories of those before it; last the checkpoint, which marks it as done."""
    for history in source.init.rglob(HISTORY):
        nested = [INIT if part == OLD_NAMES[INIT] else part for part in history.relative_to(source.init).parts]
        _copy(history, target.init.joinpath(*nested))
    for name in (HISTORY, WARMUP_HISTORY, FINETUNED_WEIGHTS, CHECKPOINT):
        if run_file(source.folder, name).is_file():
            _copy(run_file(source.folder, name), target.folder / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    atomically(target, lambda temporary: shutil.copyfile(source, temporary))
