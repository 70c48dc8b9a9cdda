"""Packs a trained model as a competition's server expects it: as a zip, or for Kaggle as a CSV file or a notebook."""

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import CommandError, UserError
from common.files import atomically
from common.folders import is_hidden
from competition.package.archive import LIMIT_MB, MODEL_NAME, UNPACKED_LIMIT_MB, inspect
from competition.package.class_names import class_names, order_note, shortened
from competition.package.kaggle import plan, write_csv
from competition.package.kaggle_code import CodeCompetition, commands, inputs_of, write_folders
from competition.package.kaggle_kernel import load_code

SOURCE = Path(__file__).resolve().parents[2] / "submission"
TIMESTAMP = (2022, 11, 1, 0, 0, 0)  # of every zip entry: the same files give the same bytes
LAYOUTS = ("codalab", "codabench", "an2dl2024")
MODEL_2024 = '''

class Model(model):  # the contract of 2024: no argument, numpy in and out
    """`model`, loaded from the folder that contains this file."""

    def __init__(self):
        super().__init__(os.path.dirname(os.path.abspath(__file__)))

    def predict(self, X):
        """Returns the most probable class of each image: int64 array [n]. Accepts the same X as `model.predict`."""
        return super().predict(X).numpy()
'''


class Refused(CommandError):
    """The server would reject the zip. Nothing was written."""

    exit_code = 1


def build(
    model_folder: Path | str | None = None,
    out: Path | str = "dist/submission.zip",
    limit_mb: float = LIMIT_MB,
    layout: str = "codalab",
) -> Path:
    """Packs submission/model.py, submission/metadata and a SavedModel.

    Args:
        model_folder: folder of the SavedModel; None selects the committed submission/SubmissionModel. A file `metadata`
            beside it is packed in place of the committed one.
        out: the zip file. An existing file is replaced only after the new zip has passed all checks.
        limit_mb: largest size of the zip, in MB of 1,000,000 bytes.
        layout: one of `LAYOUTS`. "codabench" adds `metadata.yaml`, which Codabench reads first; "an2dl2024" adds
            `class Model` to model.py.

    Returns:
        Path of the zip.

    Raises:
        UserError: the model is missing or damaged, or `out` cannot be written.
        Refused: the server would reject the zip.
    """
    out = Path(out)
    files = _apply_layout(_collect(_model_folder(model_folder)), layout)

    def save(temporary: Path) -> None:
        pack(files, temporary)
        _require_accepted(temporary, limit_mb)
        tensorflow_version(temporary)

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomically(out, save)
    except OSError as error:
        raise _not_writable(out, error) from error
    return out


def predict_csv(
    images: Path | str,
    sample: Path | str,
    model_folder: Path | str | None = None,
    out: Path | str = "dist/submission.csv",
    told: str | None = None,
) -> tuple[Path, list[str]]:
    """Predicts a folder of test images in the format of a Kaggle competition's sample_submission.csv.

    Args:
        images: folder of the test images.
        sample: the competition's sample_submission.csv.
        model_folder: folder of the SavedModel, named SubmissionModel; None selects the committed one.
        out: the CSV file.
        told: what the sample's answers are, see `competition.package.kaggle.plan`.

    Returns:
        (path of the CSV file, notes for the user; the first says which answer stands for which class).

    Raises:
        UserError: the model is missing or damaged, `out` cannot be written, or the sample or the images are invalid,
            see `competition.package.kaggle.write_csv`.
    """
    folder = _model_folder(model_folder)
    _collect(folder)  # raises if a file is missing
    names = class_names(folder / "saved_model.pb")
    if names:  # TensorFlow needs seconds to load the model, a wrong sample is found at once
        plan(images, sample, names, told)
    try:
        return write_csv(_load(folder), images, sample, out, told, folder)
    except OSError as error:
        raise _not_writable(out, error) from error


def write_code(
    images: Path | str,
    sample: Path | str,
    target: CodeCompetition,
    model_folder: Path | str | None = None,
    out: Path | str = "dist/kaggle",
    told: str | None = None,
) -> list[str]:
    """Writes the dataset and the notebook of a Kaggle code competition.

    Args:
        images: folder of the public test images, as the competition calls it. It may be empty.
        sample: the competition's sample_submission.csv.
        target: the competition and the user.
        model_folder: see `predict_csv`.
        out: folder for the folders `dataset` and `kernel`.
        told: see `predict_csv`.

    Returns:
        Lines for the user: what the answers are, and the client's commands.

    Raises:
        UserError: the model is missing or damaged, `out` cannot be written or has other files, or the sample or the
            images are invalid, see `competition.package.kaggle.plan`.
    """
    out, folder = Path(out), _model_folder(model_folder)
    _collect(folder)  # raises if a file is missing
    names = class_names(folder / "saved_model.pb") or _load(folder).names
    read, _, notes = plan(images, sample, names, told, hidden=True)
    settings = {**inputs_of(Path(images), Path(sample)), "form": read.form()}
    try:
        with tempfile.TemporaryDirectory(prefix="kaggle-") as temporary:
            archive = build(folder, Path(temporary) / "submission.zip", UNPACKED_LIMIT_MB)
            write_folders(out, archive, target, settings, notes[0])
    except OSError as error:
        raise _not_writable(out, error) from error
    return [*notes, *commands(out, target)]


def pack(files: Mapping[str, Path | bytes], path: Path | str) -> None:
    """Writes a zip whose bytes depend only on the names and contents of its entries.

    Args:
        files: {name in the zip: path of the file, or its content}.
        path: the zip.

    Raises:
        UserError: a file cannot be read.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, TIMESTAMP)
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3  # Unix, whatever system this runs on
            entry.compress_type = zipfile.ZIP_DEFLATED
            content = files[name]
            with archive.open(entry, "w") as target:
                if isinstance(content, bytes):
                    target.write(content)
                else:
                    for block in _blocks(content):
                        target.write(block)


def _blocks(path: Path) -> Iterator[bytes]:
    """Yields a file's content in blocks. Raises a UserError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            yield from iter(lambda: file.read(1 << 20), b"")
    except OSError as error:  # not of writing, which happens outside
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def describe(path: Path | str, model_folder: Path | str | None = None, source: str = "") -> str:
    """Returns what was packed as text.

    Args:
        path: the zip.
        model_folder: folder of the SavedModel that is in it, as for `build`.
        source: where the model comes from; "" says that it is the committed one.

    Returns:
        Lines with the model, its class names, a note on their order (see `order_note`), entries with sizes, total size,
        SHA-256 and TensorFlow version.
    """
    path, folder = Path(path), _model_folder(model_folder)
    names = class_names(folder / "saved_model.pb")
    lines = [f"model    {source or f'the committed one, {folder}'}", f"classes  {shortened(names or ['not known'])}"]
    lines += [f"note     {note}" for note in [order_note(names or ())] if note]
    with zipfile.ZipFile(path) as archive:
        lines += [f"{entry.file_size:>12,}  {entry.filename}" for entry in archive.infolist()]
    lines.append(f"{path.stat().st_size:>12,}  {path}")
    lines.append(f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    lines.append(f"saved with TensorFlow {tensorflow_version(path)}")
    return "\n".join(lines)


def model_line(model_folder: Path | str | None = None, source: str = "") -> str:
    """Returns one line that names the model and its classes. The arguments are those of `describe`."""
    folder = _model_folder(model_folder)
    names = shortened(class_names(folder / "saved_model.pb") or ["classes not known"])
    return f"model: {source}, {names}" if source else f"model: {folder}, {names}; --run RUN takes your own"


def tensorflow_version(path: Path | str) -> str:
    """Returns the version of TensorFlow that saved the model in a zip.

    Raises:
        UserError: saved_model.pb is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    name = f"{MODEL_NAME}/saved_model.pb"
    with zipfile.ZipFile(path) as archive:
        data = archive.read(name)
    try:
        return SavedModel.FromString(data).meta_graphs[0].meta_info_def.tensorflow_version
    except (DecodeError, IndexError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{name} is damaged ({reason}); restore it from the repository, or give --run") from error


def _model_folder(folder: Path | str | None) -> Path:
    return SOURCE / MODEL_NAME if folder is None else Path(folder)


def _collect(model_folder: Path) -> dict[str, Path | bytes]:
    """Returns the files of a submission: {name in the zip: path}. Raises a UserError if one is missing."""
    if not (model_folder / "saved_model.pb").is_file():
        raise UserError(
            f"no model at {model_folder}; train one (python -m training run …) and give --run, "
            "or restore the folder from the repository"
        )
    own = model_folder.parent / "metadata"
    files = {"model.py": SOURCE / "model.py", "metadata": own if own.is_file() else SOURCE / "metadata"}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise UserError(f"missing {', '.join(missing)}; restore it from the repository")
    paths = [path.relative_to(model_folder) for path in model_folder.rglob("*") if path.is_file()]
    parts = [path for path in paths if not any(is_hidden(part) or part == "__pycache__" for part in path.parts)]
    return {**files, **{f"{MODEL_NAME}/{path.as_posix()}": model_folder / path for path in parts}}


def _apply_layout(files: dict[str, Path | bytes], layout: str) -> dict[str, Path | bytes]:
    if layout == "codabench":
        return {**files, "metadata.yaml": files["metadata"]}
    if layout == "an2dl2024":
        return {**files, "model.py": (SOURCE / "model.py").read_bytes() + MODEL_2024.encode()}
    return files


def _load(folder: Path) -> Any:
    """Returns the submission's `model` with the SavedModel of a folder. Raises a UserError if it cannot be loaded."""
    try:
        return load_code(SOURCE / "model.py").model(folder.parent)
    except RuntimeError as error:
        raise UserError(str(error)) from error


def _require_accepted(path: Path, limit_mb: float) -> None:
    for check in inspect(path, limit_mb):
        if not check.passed:
            raise Refused(f"the server would refuse it: {check.name}: {check.reason}; {check.fix}")


def _not_writable(out: Path | str, error: OSError) -> UserError:
    return UserError(f"cannot write {out}: {error.strerror or error}; free the disk or give another --out")
