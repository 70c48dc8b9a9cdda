"""Loads the model of a submission: a zip, its unpacked folder, or a finished run."""

import contextlib
import hashlib
import importlib.util
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import require_space
from common.folders import printable
from competition.package.archive import MODEL_NAME, extract, inspect, unpacked_bytes
from competition.package.class_names import class_names

SOURCE = Path(__file__).resolve().parents[2] / "submission"
CODE = "model.py"
SAVED_MODEL = f"{MODEL_NAME}/saved_model.pb"
PRECISION = "SUBMISSION_PRECISION"  # environment variable that model.py reads
FLOAT32 = "float32"  # the precision of models of earlier versions
MODULE = "_predicted_submission"  # a name that no other module has


@contextlib.contextmanager
def unpacked(model: Path, run: Path | None = None) -> Iterator[Path]:
    """Yields a folder with model.py and SubmissionModel/.

    Args:
        model: a submission's zip, or its unpacked folder.
        run: folder of a finished run, which is exported in place of `model`.

    Raises:
        UserError: not a submission or run, a damaged one, or too little disk space for it.
    """
    if run is None and model.is_dir():
        yield _checked(model)
        return
    with tempfile.TemporaryDirectory(prefix="predict-") as temporary:
        folder = Path(temporary)
        if run is None:
            _unzip(model, folder)
        else:
            _export(run, folder)
        yield _checked(folder, run or model)


def class_names_of(folder: Path, source: Path) -> tuple[str, ...]:
    """Returns the class names of an unpacked submission, without loading it.

    Raises:
        UserError: there are none, or two are equal.
    """
    names = class_names(folder / SAVED_MODEL)
    if names is None:
        raise UserError(f"{source} must be a model with different class names; build it with build_submission.py")
    return names


def model_files(folder: Path) -> dict[str, Path]:
    """Returns the code and all files of the SavedModel: {relative name: path}."""
    saved = sorted(path for path in (folder / MODEL_NAME).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in (folder / CODE, *saved)}


def model_sha256(folder: Path) -> str:
    """Returns the SHA-256 of the names and contents of `model_files`."""
    result = hashlib.sha256()
    for name, path in model_files(folder).items():
        result.update(f"{name} {path.stat().st_size}\n".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                result.update(block)
    return result.hexdigest()


def load(folder: Path, precision: str = "") -> Any:
    """Returns an instance of the submission's class `model`, with `names` and `predict_proba`.

    Args:
        folder: an unpacked submission.
        precision: "float32", "bfloat16", or "" for what the model chooses.

    Raises:
        UserError: the code or the SavedModel cannot be loaded.
    """
    spec = importlib.util.spec_from_file_location(MODULE, folder / CODE)
    assert spec is not None and spec.loader is not None  # holds for every .py file
    module = importlib.util.module_from_spec(spec)
    try:
        with _no_bytecode():
            spec.loader.exec_module(module)
        with _environment(PRECISION, precision):
            loaded = module.model(folder)
        if not callable(loaded.predict_proba):
            raise TypeError("predict_proba is not a method")
    except (MemoryError, UserError):
        raise
    except Exception as error:  # whatever the code raises
        raise UserError(f"the model cannot be loaded ({_reason(error)}); build it with build_submission.py") from error
    return loaded


def image_size(folder: Path) -> tuple[int, int]:
    """Returns the (height, width) in pixels of the images that a SavedModel takes.

    Raises:
        UserError: the SavedModel is damaged, or takes no images of one size.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        saved = SavedModel.FromString((folder / SAVED_MODEL).read_bytes())
        dimensions = saved.meta_graphs[0].signature_def["probabilities"].inputs["pixels"].tensor_shape.dim
        _, height, width, _ = (dimension.size for dimension in dimensions)
    except (DecodeError, IndexError, ValueError) as error:
        raise UserError(f"{SAVED_MODEL} is damaged ({_reason(error)}); build the submission again") from error
    if min(height, width) < 1:
        raise UserError(f"{SAVED_MODEL} must take images of one size, got {height}×{width}; build the submission again")
    return height, width


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable while the block runs, unless the value is empty."""
    before = os.environ.get(name)
    if value:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        elif value:
            del os.environ[name]


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Lets an import write no __pycache__ into the folder of the submission."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _checked(folder: Path, source: Path | None = None) -> Path:
    """Returns the folder if it has the files of a submission."""
    missing = [name for name in (CODE, SAVED_MODEL) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"--model must be a submission.zip or its unpacked folder, {printable(source or folder)} has no "
            f"{missing[0]}; give --run for the folder of a run"
        )
    return folder


def _unzip(path: Path, folder: Path) -> None:
    for check in inspect(path, math.inf):  # the server's limit of the size does not matter here
        if not check.passed:
            raise UserError(f"--model {printable(path)}: {check.name}: {check.reason}; {check.fix}")
    require_space(folder, unpacked_bytes(path), "the unpacked model")
    extract(path, folder)


def _export(run: Path, folder: Path) -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"  # a SavedModel is TensorFlow's
    from training.export import export_run

    export_run(run, folder / MODEL_NAME)
    shutil.copy(SOURCE / CODE, folder / CODE)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
