"""The server's worker, as far as the bundle's programs see it: the folders of both stages, their commands, its note."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from competition.host.bundle import contract

ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}


@dataclass
class Hosted:
    """A submission's way over the server: the folders and the ended programs of both stages."""

    folder: Path
    prediction: Any
    scoring: Any

    @property
    def output(self):
        """What the prediction stage wrote."""
        return self.folder / "prediction" / "output"

    @property
    def checks(self):
        return json.loads((self.output / "checks.json").read_text())["checks"]

    @property
    def failed(self):
        """Name → record of each failed check."""
        return {record["name"]: record for record in self.checks if record["passed"] is not True}

    @property
    def scores(self):
        """The numbers of scores.json; empty if nothing was scored."""
        path = self.folder / "scoring" / "output" / "scores.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    @property
    def page(self):
        return (self.folder / "scoring" / "output" / "detailed_results.html").read_text("utf-8")


def submission(path, source, metadata="description: a stub\n", **files):
    """Writes a zip of model.py, metadata (None for no such file) and other files. Returns its path."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.py", source)
        if metadata is not None:
            archive.writestr("metadata", metadata)
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def lay_out_prediction(unpacked, folder, path, class_name="model", seconds=120):
    """Creates the prediction stage. Without a metadata file Codabench first copies the whole zip to the output."""
    shutil.copytree(unpacked.folder / "ingestion_program", folder / "program")
    (folder / "program" / "contract.json").write_text(contract(seconds, class_name))
    shutil.copytree(unpacked.folder / "input_data", folder / "input_data")
    (folder / "output").mkdir()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "ingested_program")
    if not any((folder / "ingested_program" / name).is_file() for name in ("metadata.yaml", "metadata")):
        shutil.copytree(folder / "ingested_program", folder / "output", dirs_exist_ok=True)
    return folder


def lay_out_scoring(unpacked, folder, prediction, code):
    """Creates the scoring stage, with the prediction's output and the worker's note on how it ended."""
    shutil.copytree(unpacked.folder / "scoring_program", folder / "program")
    shutil.copytree(unpacked.folder / "reference_data", folder / "input" / "ref")
    shutil.copytree(prediction / "output", folder / "input" / "res")
    note = f"elapsedTime: 3.25\nexitCode: {code}\ningestionElapsedTime: 3.25\ningestionExitCode: {code}\n"
    (folder / "input" / "res" / "metadata").write_text(note)
    (folder / "output").mkdir()
    return folder


def command_of(stage):
    """The arguments of Python in a stage's metadata.yaml, with the stage in place of /app."""
    words = shlex.split(yaml.safe_load((stage / "program" / "metadata.yaml").read_text())["command"])
    assert words[0] == "python3"
    return [word.replace("/app", str(stage), 1) for word in words[1:]]


def run_stage(stage, cwd=None, arguments=None):
    """Runs a stage's command, or Python with other arguments. The worker's working directory is the program's."""
    return subprocess.run(
        [sys.executable, *map(str, arguments or command_of(stage))],
        cwd=cwd or stage / "program",
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )


def submit(unpacked, folder, path, class_name="Model", seconds=120):
    """Runs both stages on a zip. The scoring follows whatever becomes of the prediction. Returns `Hosted`.

    The default is the contract of 2024, which needs no TensorFlow.
    """
    stage = lay_out_prediction(unpacked, folder / "prediction", path, class_name, seconds)
    prediction = run_stage(stage)
    scoring = run_stage(lay_out_scoring(unpacked, folder / "scoring", stage, prediction.returncode))
    return Hosted(folder, prediction, scoring)
