"""Writes the two folders that submit a model to a Kaggle code competition: a dataset and a notebook without internet.

The dataset is the content of a submission's zip. The notebook's code is kaggle_kernel.py and a call of it with what was
decided here: where the inputs are, and what the sample's answers mean.
"""

import inspect
import os
import pprint
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import atomic_folder, write_json
from competition.package import kaggle_kernel
from competition.package.archive import extract

SHORTEST, LONGEST = 6, 50  # characters of a title and of its slug, as the client checks it
FOLDERS = {"dataset", "kernel"}
CODE_FILE = "submission.ipynb"
LICENSE = "other"  # of the dataset, which is private


@dataclass(frozen=True)
class CodeCompetition:
    """Where a submission to a code competition goes.

    competition: the competition's name in its address, kaggle.com/competitions/NAME.
    user: the name in the address of the user's profile.
    title: of the dataset and of the notebook; "" makes one of the competition's name.
    """

    competition: str
    user: str
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or f"{self.competition} model")
        for option, value, pattern, what in (
            ("competition", self.competition, "[A-Za-z0-9]+(-[A-Za-z0-9]+)*", "letters, digits and hyphens"),
            ("user", self.user, "[a-z0-9]+([_-][a-z0-9]+)*", "lower-case letters, digits and hyphens"),
            ("title", self.title, "[A-Za-z0-9 _-]*", "letters without accents, digits, blanks and hyphens"),
        ):
            if not re.fullmatch(pattern, value):
                raise UserError(f"--{option} must have only {what}, got {value}; copy the name from Kaggle's address")
        if min(len(self.title), len(self.slug)) < SHORTEST or len(self.title) > LONGEST:
            raise UserError(f"--title must have {SHORTEST} to {LONGEST} letters, got {self.title!r}; give another one")
        if self.slug == self.competition.lower():
            raise UserError(f"--title must differ from the competition's name, got {self.title!r}; add a word")

    @property
    def slug(self) -> str:
        """The title as Kaggle writes it in an address."""
        return re.sub("[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def reference(self) -> str:
        """USER/SLUG, of the dataset and of the notebook."""
        return f"{self.user}/{self.slug}"


def write_folders(out: Path, archive: Path, target: CodeCompetition, settings: dict[str, Any], note: str) -> None:
    """Writes `out`/dataset and `out`/kernel. Existing ones are replaced only if both could be written.

    Args:
        out: a new folder, or one that this function has written.
        archive: the submission's zip.
        target: where it goes.
        settings: what `kaggle_kernel.predict_hidden` needs besides dataset, competition and digest of the model.
        note: one line of text for the notebook's head.

    Raises:
        UserError: `out` has other files.
        OSError: it cannot be written.
    """
    require_own_folder(out)
    with atomic_folder(out.resolve()) as folder:
        dataset, kernel = folder / "dataset", folder / "kernel"
        dataset.mkdir()
        kernel.mkdir()
        extract(archive, dataset)
        model = {"dataset": target.slug, "sha256": kaggle_kernel.digest_of(dataset)}
        settings = {**model, "competition": target.competition, **settings}
        write_json(dataset / "dataset-metadata.json", dataset_metadata(target))
        write_json(kernel / "kernel-metadata.json", kernel_metadata(target))
        write_json(kernel / CODE_FILE, notebook(settings, f"# {target.title}\n\n{note}"))


def require_own_folder(out: Path) -> None:
    """Raises a UserError unless a folder is new, or may be replaced because it holds only dataset and kernel."""
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= FOLDERS):
        raise UserError(f"--out must be a new folder, or hold only dataset and kernel, got {out}; give another one")


def dataset_metadata(target: CodeCompetition) -> dict[str, Any]:
    """Returns the content of dataset-metadata.json."""
    return {"title": target.title, "id": target.reference, "licenses": [{"name": LICENSE}]}


def kernel_metadata(target: CodeCompetition) -> dict[str, Any]:
    """Returns the content of kernel-metadata.json. Code competitions forbid the internet."""
    return {
        "id": target.reference,
        "title": target.title,
        "code_file": CODE_FILE,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": False,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [target.reference],
        "competition_sources": [target.competition],
        "kernel_sources": [],
        "model_sources": [],
    }


def notebook(settings: dict[str, Any], head: str) -> dict[str, Any]:
    """Returns a notebook of three cells: a text, kaggle_kernel.py, and the call of `predict_hidden`."""
    shown = textwrap.indent(pprint.pformat(settings, width=110, compact=True, sort_dicts=False), "    ")
    code: dict[str, Any] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": head},
            {**code, "source": inspect.getsource(kaggle_kernel).rstrip("\n")},
            {**code, "source": f"predict_hidden(\n{shown}\n)"},
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def inputs_of(images: Path, sample: Path) -> dict[str, str]:
    """Returns what images and sample are called in the competition's data.

    The folder of images is named by its path from the folder of the sample, if it is below it.
    """
    # Links are not followed, because the competition's data has the names that they have here.
    images, folder = (Path(os.path.abspath(path)) for path in (images, sample.parent))  # noqa: PTH100
    place = images.relative_to(folder).as_posix() if images.is_relative_to(folder) else images.name
    return {"sample": sample.name, "images": place}


def commands(out: Path, target: CodeCompetition) -> list[str]:
    """Returns the commands of the official client that upload, run and submit, in their order."""
    dataset, kernel = shlex.quote(str(out / "dataset")), shlex.quote(str(out / "kernel"))
    submit = f"kaggle competitions submit -c {target.competition} -k {target.reference} -f submission.csv"
    ready = f"kaggle datasets status {target.reference}  # wait until it says ready"
    return [
        f"kaggle datasets create -p {dataset} --dir-mode zip",
        ready,
        f"kaggle kernels push -p {kernel}  # prints the VERSION",
        f"{submit} -v VERSION -m message",
        "a new model later: build again, and in place of the first command:",
        f"kaggle datasets version -p {dataset} --dir-mode zip -m message",
        f"{ready}; a notebook that runs earlier gets the old model, and refuses it",
    ]
