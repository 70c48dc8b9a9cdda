"""The size at which the grader reads labelled images: that of the server's, as far as it is known."""

import shutil
import tempfile
import zipfile
from pathlib import Path

from common.folders import ClassFiles
from common.images import stored_sizes
from competition.package.archive import MODEL_NAME
from competition.package.class_names import model_size

GRAPH = f"{MODEL_NAME}/saved_model.pb"


def size_of_mixed(path: Path, listed: ClassFiles) -> tuple[int, int] | None:
    """Returns the size of the model's training images if the files to grade have several sizes.

    `predict` reads each file at that size, and so does `--test` of a training. At another size, for example the most
    frequent one, other parts of the images may be cropped, and the accuracy would be another one.

    Args:
        path: a zip that has passed the checks of `inspect`.
        listed: the files to grade.

    Returns:
        (height, width) in pixels, or None if all files have one size, or the zip names none.
    """
    return _size_in_zip(path) if len(stored_sizes(listed)) > 1 else None


def _size_in_zip(path: Path) -> tuple[int, int] | None:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(GRAPH) as entry, tempfile.NamedTemporaryFile() as graph:
            shutil.copyfileobj(entry, graph)
            graph.flush()
            return model_size(graph.name)
    except KeyError:  # the zip has no SavedModel
        return None
