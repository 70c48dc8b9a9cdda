"""The folder of a run: its files, its record and its lock."""

import contextlib
import importlib
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from common.errors import UserError
from common.files import TEMPORARY, digest, file_sha256, locked, write_json
from common.images import Images
from training.config.recipe import Recipe
from training.config.record import from_json, to_json, upgrade
from training.fit.checkpoint import read_history
from training.fit.finetune import CHECKPOINT, FINETUNED_WEIGHTS, HISTORY, WARMUP_HISTORY, init_recipe

RECORD = "run.json"
METRICS = "metrics.json"
VAL = "val.npz"  # probabilities and labels of the validation part
OUT_OF_FOLD = "out_of_fold.npz"  # the same of a whole cross-validation
FEATURES = "features.npz"
SAMPLES = "samples.npz"  # some photographs, on which an export is checked, and hashes of the training images
HEAD_WEIGHTS = {"quasi_svm": "quasi_svm.weights.h5", "linear": "linear.weights.h5"}  # of the model that ships
INIT = "init_from"  # folder, within the run's, of the fine-tuning that it starts from
LOCK = ".lock"
FIRST_FOLD = "seed0-fold0"  # folder, within that of a cross-validation, of its first run
BEST = "best"  # folder, within that of `auto`, of its best run
PLAN = "plan.json"  # of `auto`: its decisions
CACHE = ".features"  # beside the run folders, shared by all of them
# Names of the same files in runs of earlier versions.
OLD_NAMES = {
    RECORD: "recipe.json",
    VAL: "held.npz",
    FINETUNED_WEIGHTS: "best.weights.h5",
    WARMUP_HISTORY: "frozen_history.csv",
    INIT: "start",
}
OLD_METRICS = {"frozen_epochs": "head_warmup_epochs"}

# Fields that must be equal for two runs to count as the same, with the option that sets each.
COMPARED = {
    "recipe": "recipe or --set",
    "classes": "class names",
    "image_shape": "--size",
    "data_sha256": "--data",
    "groups_sha256": "--groups or --validation",
    "teacher_sha256": "--teacher",
}


class Finished(UserError):
    """A folder holds a finished run."""


def best_of(folder: Path) -> Path:
    """The folder of the best run if a folder is that of `training.auto`, else the folder itself."""
    return folder / BEST if (folder / BEST).is_dir() else folder


def saved_probabilities(file: Any, path: Path) -> np.ndarray:
    """The probabilities in a file of predictions.

    Args:
        file: the opened .npz file.
        path: its path, for the error.

    Raises:
        UserError: some are NaN or infinite: the weights were, which earlier versions did not notice.
    """
    probabilities = file["probabilities"]
    if not np.isfinite(probabilities).all():
        raise UserError(f"the probabilities in {path} must be finite, and some are not; train the run again")
    return probabilities


@dataclass(frozen=True)
class Record:
    """What `run.json` says: the recipe, the data and the software of a run.

    groups_sha256: of the groups that a split keeps together; "" if none were given.
    teacher_sha256: of the teacher's probabilities; "" without a teacher.
    backbone_weights: imagenet, none, or the name of a file.
    backbone_sha256: of that file; "" without one, and in runs of earlier versions.
    max_images: maximum number of images that were read; None: all.
    val_sha256: of the rows that are held out; "" in runs of earlier versions.
    """

    name: str
    recipe: Recipe
    classes: tuple
    image_shape: tuple
    images: int
    data_sha256: str
    backbone_weights: str
    versions: dict
    groups_sha256: str = ""
    teacher_sha256: str = ""
    backbone_sha256: str = ""
    max_images: int | None = None
    val_sha256: str = ""

    def differences(self, other: "Record") -> list[str]:
        """Names what another run chose differently, in words or as options of the command."""
        known = self.backbone_sha256 and other.backbone_sha256  # runs of earlier versions have only the name
        weights = "backbone_sha256" if known else "backbone_weights"
        compared = {**COMPARED, weights: "--backbone-weights"}
        return [what for field, what in compared.items() if getattr(self, field) != getattr(other, field)]

    def to_json(self) -> dict:
        fields = {**vars(self), "recipe": to_json(self.recipe)}
        return json.loads(json.dumps(fields))


def make_record(
    name: str, recipe: Recipe, images: Images, backbone_weights: str, max_images: int | None = None
) -> Record:
    """The record of a run that is about to start."""
    held_together = images.groups.tolist() if images.group_names else list(images.held_out)
    return Record(
        name=name,
        recipe=recipe,
        classes=tuple(images.names),
        image_shape=tuple(images.images.shape[1:3]),
        images=len(images),
        data_sha256=digest(images.images, images.labels),
        backbone_weights=Path(backbone_weights).name,
        backbone_sha256=weights_sha256(backbone_weights),
        groups_sha256=digest(held_together) if held_together else "",
        teacher_sha256=teacher_sha256(images),
        max_images=max_images,
        versions=package_versions(),
    )


def package_versions() -> dict[str, str]:
    """The versions of Python, Keras and its backend."""
    backend = keras.backend.backend()
    own = {"python": platform.python_version(), "keras": keras.__version__}
    return {**own, backend: importlib.import_module(backend).__version__}


def weights_sha256(backbone_weights: str) -> str:
    """The hash of a file of backbone weights; "" for imagenet and none."""
    path = Path(backbone_weights)
    return file_sha256(path) if path.is_file() else ""


def teacher_sha256(images: Images) -> str:
    """The hash of the probabilities of the images' teacher, or "" without one."""
    return "" if images.teacher is None else digest(images.teacher)


def fold_folder(out: Path, seed: int, fold: int) -> Path:
    """The folder of a fold's run, within that of a cross-validation."""
    return out / f"seed{seed}-fold{fold}"


def run_file(folder: Path, name: str) -> Path:
    """The path of a run's file, or its name in runs of earlier versions if only that exists."""
    path, old = folder / name, folder / OLD_NAMES.get(name, name)
    return old if old.exists() and not path.exists() else path


def read_record(folder: Path) -> Record:
    """Reads the record of a run, also of earlier versions.

    Raises:
        UserError: no run in this folder, or a damaged record.
    """
    path = run_file(folder, RECORD)
    if not path.is_file():
        raise UserError(_no_run(folder))
    try:
        fields = json.loads(path.read_text("utf-8"))
        return Record(
            name=str(fields["name"]),
            recipe=from_json(upgrade(fields["recipe"])),
            classes=tuple(fields["classes"]),
            image_shape=tuple(fields["image_shape"]),
            images=int(fields["images"]),
            data_sha256=str(fields["data_sha256"]),
            backbone_weights=str(fields["backbone_weights"]),
            versions=dict(fields["versions"]),
            groups_sha256=str(fields.get("groups_sha256", "")),
            teacher_sha256=str(fields.get("teacher_sha256", "")),
            backbone_sha256=str(fields.get("backbone_sha256", "")),
            max_images=None if fields.get("max_images") is None else int(fields["max_images"]),
            val_sha256=str(fields.get("val_sha256", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); train the run again") from error


def _no_run(folder: Path) -> str:
    if not folder.exists():
        return f"there is no folder {folder}; check the path of the run"
    if not folder.is_dir():
        return f"{folder} is a file; give the folder of a run"
    if (folder / BEST).is_dir():
        return f"{folder} is the folder of auto, and not of one run; give {folder / BEST}"
    if (folder / PLAN).is_file():
        return f"auto was ended before it had a model in {folder}; repeat its command to continue"
    return f"no run at {folder}: it has no {RECORD}; give a folder that training auto or run has written"


def read_metrics(folder: Path) -> dict[str, Any]:
    """Reads the metrics of a finished run, also of earlier versions.

    Raises:
        UserError: the run is not finished, or the file is damaged.
    """
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"the run in {folder} is not finished; repeat its command to continue it")
    try:
        return {OLD_METRICS.get(key, key): value for key, value in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); train the run again") from error


@contextlib.contextmanager
def open_run(out: Path, record: Record) -> Iterator[None]:
    """Creates the folder of a run, or opens the unfinished one, and locks it.

    Raises:
        UserError: a folder with other files, a finished run, or an unfinished one with other choices; see `locked`.
    """
    others = (path.name for path in out.iterdir()) if out.is_dir() and not _has_record(out) else ()
    if any(name != LOCK and not name.startswith(TEMPORARY) for name in others):
        raise UserError(f"--out must be a new folder or that of an unfinished run; {out} has other files")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, f"the run {out}"):
        for path in out.rglob(f"{TEMPORARY}*"):  # left by a process that was killed
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        _claim(out, record)
        yield


def _has_record(folder: Path) -> bool:
    return run_file(folder, RECORD).is_file()


def _claim(out: Path, record: Record) -> None:
    """Writes the record, or checks that the unfinished run in this folder has the same one."""
    if (out / METRICS).exists():
        raise Finished(f"{out} holds a finished run; give another --out")
    if not any(out.rglob(CHECKPOINT)):  # no epoch is done yet
        write_json(out / RECORD, record.to_json())
        for name in (VAL, "confusion.png"):  # of an earlier start, which may have held out other images
            (out / name).unlink(missing_ok=True)
        return
    if not (out / RECORD).is_file():
        raise UserError(
            f"{out} holds an unfinished run of an earlier version; finish it with that version, or give another --out"
        )
    there = read_record(out)
    for field in there.differences(record):
        raise UserError(
            f"{out} holds an unfinished run with another {field}; repeat its own command, or give another --out, with "
            f"--reuse {out} if its fine-tuning is finished and the same"
        )
    if there.val_sha256 and there.val_sha256 != record.val_sha256:
        raise UserError(
            f"{out} holds an unfinished run that holds out other images, drawn by another version of scikit-learn or "
            "of this project, so it may have trained on those of now; give another --out"
        )
    if keras.backend.backend() not in there.versions:  # random states cannot be moved between backends
        backend = ", ".join(set(there.versions) - {"python", "keras"})
        raise UserError(
            f"{out} holds an unfinished run of the {backend} backend; give --backend {backend}, or another --out"
        )
    print(f"continuing the run in {out}")


def read_whole_history(recipe: Recipe, folder: Path) -> list[dict]:
    """The epochs of a run, after those of the fine-tuning that it starts from."""
    earlier = read_whole_history(init_recipe(recipe), run_file(folder, INIT)) if recipe.finetune.init_from else []
    return earlier + [{**row, "epoch": len(earlier) + row["epoch"]} for row in read_history(folder / HISTORY)]
