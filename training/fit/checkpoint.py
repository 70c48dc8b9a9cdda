"""What an interrupted fine-tuning continues from, and the history of its epochs."""

import csv
import json
import math
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from common.errors import Diverged, UserError
from common.files import write_arrays, write_csv

COLUMNS = ("epoch", "size", "images", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")


@dataclass
class TrainState:
    """The state of a fine-tuning after some epochs.

    arrays: see `snapshot`; None before the first epoch.
    swa_weights: the mean of the weights of the last epochs, [] before the first of them.
    history: a dictionary for each epoch.
    """

    arrays: list | None = None
    swa_weights: list = field(default_factory=list)
    history: list[dict] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes the state as one .npz file."""
        means = {f"swa_{number}": array for number, array in enumerate(self.swa_weights)}
        write_arrays(path, *(self.arrays or ()), **means, history=np.array(json.dumps(self.history)))

    @classmethod
    def load(cls, path: Path) -> "TrainState":
        """Reads a saved state; an empty one if there is no file.

        Raises:
            UserError: the file is damaged.
        """
        if not path.exists():
            return cls()
        try:
            with np.load(path) as file:
                arrays, swa = ([file[name] for name in _numbered(file.files, kind)] for kind in ("arr_", "swa_"))
                return cls(arrays, swa, json.loads(str(file["history"])))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged ({error}); delete the run's folder and start again") from error


def snapshot(model: keras.Model) -> list[np.ndarray]:
    """Everything the next step depends on: weights, moving averages, optimizer and random states."""
    return [keras.ops.convert_to_numpy(variable) for variable in _variables(model)]


def require_finite(arrays: list[np.ndarray], epoch: int, fix: str) -> None:
    """Raises `Diverged` if one of the arrays of a `snapshot` has NaN or infinite values.

    The loss does not show it: ReLU turns NaN into 0, and the network predicts the same for all images.

    Args:
        arrays: see `snapshot`.
        epoch: from 0, for the error.
        fix: a setting that can prevent it, for the error.
    """
    # The sum is not finite if one of the values is not, and needs no copy.
    if not all(np.isfinite(array.sum()) for array in arrays):
        raise Diverged(
            f"the weights must be finite, and are not after epoch {epoch + 1}; "
            f"start again with --set {fix} and another --out"
        )


def restore(model: keras.Model, arrays: list | None) -> None:
    """Restores a `snapshot`. None leaves the model unchanged."""
    if arrays is None:
        return
    for variable, array in zip(_variables(model), arrays, strict=True):
        variable.assign(array)


def history_row(epoch: int, logs: dict, began: float, lower: str) -> dict:
    """One epoch's line of the history.

    Args:
        epoch: from 0.
        logs: what `fit` returned.
        began: when the epoch began, of `time.monotonic`.
        lower: the setting of a lower learning rate, for the error.

    Raises:
        Diverged: a value is NaN or infinite.
    """
    values = {name: float(value[-1]) for name, value in logs.items()}
    row = {"epoch": epoch + 1, **values, "seconds": round(time.monotonic() - began, 1)}
    if not all(math.isfinite(value) for value in row.values()):
        raise Diverged(
            f"the loss must be finite, and is not in epoch {epoch + 1}; "
            f"start again with --set {lower} and another --out"
        )
    return row


def is_kept(checkpoint: str, history: list[dict]) -> bool:
    """Whether the weights of the latest epoch are kept: with "last" always, else if its loss is the lowest."""
    if checkpoint == "last" or "val_loss" not in history[-1]:
        return True
    return history[-1]["val_loss"] <= min(row["val_loss"] for row in history)


def write_history(path: Path, history: list[dict]) -> None:
    """Writes one line for each epoch, as CSV."""
    write_csv(path, COLUMNS, history)


def read_history(path: Path) -> list[dict]:
    """Reads what `write_history` wrote: a dictionary of numbers for each epoch, without empty columns."""
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _numbered(names: list, kind: str) -> list[str]:
    return [f"{kind}{number}" for number in range(sum(name.startswith(kind) for name in names))]
