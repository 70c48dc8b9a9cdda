"""Trained model → dist/submission.zip, in the layout that the competition's server expects, checked before it exists.

examples:
  python build_submission.py                          pack the committed model
  python build_submission.py --run runs/first         export a finished run, then pack it
  python build_submission.py --run runs/first --limit-mb 100 --out dist/small.zip
  python build_submission.py --layout an2dl2024       class Model, no argument, numpy in and out
  python build_submission.py --layout kaggle --images data/test --sample data/sample_submission.csv

exit codes: 0 built, 1 the server would refuse it, 2 wrong input, 130 interrupted; the old zip stays unless a new one is whole
"""

import argparse
import hashlib
import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from competition.archive import LIMIT_MB, Check, inspect
from training.errors import interruptible

SOURCE = Path(__file__).resolve().parent / "submission"
MODEL = "SubmissionModel"
TIME = (2022, 11, 1, 0, 0, 0)  # of every entry, so that the same inputs give the same bytes
LAYOUTS = ("codalab", "codabench", "an2dl2024")
OUT = {"kaggle": "dist/submission.csv"}  # and the zip for all others
MODEL_2024 = '''

class Model(model):  # the contract of 2024: no argument, numpy in and out
    """`model` of the folder that holds this file."""

    def __init__(self):
        super().__init__(os.path.dirname(os.path.abspath(__file__)))

    def predict(self, X):
        """The most probable class of each image: int64 array [n]. Takes what `model.predict` takes."""
        return super().predict(X).numpy()
'''


class Refused(Exception):
    """The zip was not built; the text says why and what to do."""

    code = 2


def build(run=None, out="dist/submission.zip", limit_mb=LIMIT_MB, layout="codalab"):
    """Packs `submission/`, with a run's model in place of the committed one if a run is given.

    Args:
        run: folder of a finished run, or None.
        out: the zip to write; replaced only when the new one is whole and passes all checks.
        limit_mb: largest size of the zip, in MB of 1,000,000 bytes.
        layout: one of `LAYOUTS`. codabench adds `metadata.yaml`, which Codabench looks for first; an2dl2024 adds
            `class Model` to model.py.

    Returns:
        Path of the zip.

    Raises:
        Refused: a missing or damaged model, an unfinished run, an unwritable disk, or what the server would refuse.
    """
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent) as folder:
            model = _exported(run, Path(folder) / MODEL) if run else SOURCE / MODEL
            temporary = Path(folder) / out.name
            pack(_laid_out(_files(model), layout, Path(folder)), temporary)
            _refuse(inspect(temporary, limit_mb))
            saved_with(temporary)
            os.replace(temporary, out)
    except OSError as error:
        raise Refused(f"cannot write {out}: {error.strerror or error}; free the disk or give another --out") from error
    return out


def predict_csv(images, sample, run=None, out=OUT["kaggle"]):
    """Predicts a folder of test images in the form of a Kaggle competition's sample.

    Args:
        images: folder of the test images.
        sample: the competition's sample_submission.csv.
        run: folder of a finished run, or None for the committed model.
        out: the CSV file to write.

    Returns:
        (path, notes).

    Raises:
        Refused: see `build`; and what `competition.kaggle` finds wrong.
    """
    from competition.kaggle import write_csv
    from training.errors import UserError

    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        if run:
            _exported(run, Path(folder) / MODEL)
        else:
            _files(SOURCE / MODEL)
        try:
            return write_csv(_submitted().model(folder if run else SOURCE), images, sample, out)
        except (UserError, RuntimeError) as error:
            raise Refused(str(error)) from error
        except OSError as error:
            raise Refused(f"cannot write {out}: {error.strerror or error}; free the disk or give another --out") from error


def pack(files, path):
    """Writes a zip whose bytes depend on nothing but names and contents.

    Args:
        files: name in the zip → path of the file.
        path: the zip.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3  # Unix, on any system
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as target, open(files[name], "rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)


def describe(path):
    """What is in a zip, as lines to read: entries with sizes, total, SHA-256 and the TensorFlow it was saved with."""
    with zipfile.ZipFile(path) as archive:
        lines = [f"{entry.file_size:>12,}  {entry.filename}" for entry in archive.infolist()]
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    lines.append(f"{Path(path).stat().st_size:>12,}  {path}")
    return "\n".join([*lines, f"SHA-256 {digest}", f"saved with TensorFlow {saved_with(path)}"])


def saved_with(path):
    """The version of TensorFlow that saved the model in a zip."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    with zipfile.ZipFile(path) as archive:
        data = archive.read(f"{MODEL}/saved_model.pb")
    try:
        return SavedModel.FromString(data).meta_graphs[0].meta_info_def.tensorflow_version
    except (DecodeError, IndexError) as error:
        raise Refused(f"{MODEL}/saved_model.pb is damaged ({error}); restore it from the repository, or give --run") from error


def _exported(run, folder):
    from training.errors import UserError
    from training.export import export
    from training.run import load_network

    try:
        export(*load_network(run), folder)
    except (UserError, ValueError) as error:
        raise Refused(f"cannot export {run}: {error}") from error
    return folder


def _files(model):
    if not (model / "saved_model.pb").is_file():
        raise Refused(
            f"no model at {model}; train one (python -m training run …) and give --run, or restore the folder from the repository"
        )
    files = {name: SOURCE / name for name in ("model.py", "metadata")}
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise Refused(f"missing {', '.join(missing)}; restore it from the repository")
    files.update({f"{MODEL}/{path.relative_to(model).as_posix()}": path for path in model.rglob("*") if path.is_file()})
    return files


def _laid_out(files, layout, folder):
    """The files of a layout; what has to be written for it goes to `folder`."""
    if layout == "codabench":
        return {**files, "metadata.yaml": files["metadata"]}
    if layout == "an2dl2024":
        code = folder / "model.py"
        code.write_text(files["model.py"].read_text("utf-8") + MODEL_2024, "utf-8")
        return {**files, "model.py": code}
    return files


def _submitted():
    """submission/model.py as a module."""
    spec = importlib.util.spec_from_file_location("submitted", SOURCE / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _refuse(checks):
    for check in checks:
        if isinstance(check, Check) and not check.passed:
            refused = Refused(f"the server would refuse it: {check.name}: {check.reason}; {check.mend}")
            refused.code = 1
            raise refused


def _build_as_asked(options, out):
    if options.layout == "kaggle":
        if not (options.images and options.sample):
            raise Refused("--layout kaggle needs --images, the folder of test images, and --sample, the sample_submission.csv")
        path, notes = predict_csv(options.images, options.sample, options.run, out)
        command = f"kaggle competitions submit -c {options.competition} -f {shlex.quote(str(path))} -m 'message'"
        print("\n".join([*notes, f"{path}  hand it in: {command}"]))
    else:
        print(describe(build(options.run, out, options.limit_mb, options.layout)))


def main(arguments=None):
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="folder of a finished run; default: the committed submission/SubmissionModel")
    parser.add_argument("--out", help="default: dist/submission.zip, for kaggle dist/submission.csv")
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB, help="the server's limit (default %(default)s)")
    parser.add_argument("--layout", choices=[*LAYOUTS, "kaggle"], default="codalab", help="default: %(default)s")
    parser.add_argument("--images", help="for kaggle: folder of the test images")
    parser.add_argument("--sample", help="for kaggle: the competition's sample_submission.csv")
    parser.add_argument("--competition", default="COMPETITION", help="for kaggle: its name, for the command that is printed")
    options = parser.parse_args(arguments)
    try:
        with interruptible():
            _build_as_asked(options, options.out or OUT.get(options.layout, "dist/submission.zip"))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\ninterrupted; the old file is as it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
