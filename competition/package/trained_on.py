"""The file in a SavedModel that tells which images its model was trained on, so that a grade on them is recognized."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

TRAINED_ON = "assets.extra/trained_on.bin"  # TensorFlow keeps this folder for files that it does not use
HASH_BYTES = 8  # the first ones of the SHA-256 of an image's file
MAX_BYTES = 80_000_000  # of ten million images


def write_trained_on(model_folder: Path, hashes: Iterable[bytes]) -> None:
    """Writes the images that a model was trained on into the folder of its SavedModel.

    Args:
        model_folder: the folder.
        hashes: of their files, 8 bytes each, see `common.images.Images.file_hashes`.
    """
    path = model_folder / TRAINED_ON
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(sorted(set(hashes))))


def count_trained_on(model_folder: Path, hashes: Iterable[bytes]) -> int:
    """Counts the images that a model was trained on.

    Args:
        model_folder: the folder of its SavedModel, which may be an untrusted one.
        hashes: of the images' files, 8 bytes each.

    Returns:
        How many of the hashes the SavedModel names; 0 if it names none.
    """
    try:
        with open(model_folder / TRAINED_ON, "rb") as file:
            content = file.read(MAX_BYTES)
    except OSError:  # not there, or not a file
        return 0
    known = np.frombuffer(content[: len(content) // HASH_BYTES * HASH_BYTES], np.uint64)
    asked = np.frombuffer(b"".join(hashes), np.uint64)
    return int(np.isin(asked, known).sum())
