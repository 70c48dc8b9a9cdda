"""The notebook cells of docs/environments.md, run as scripts in a copy of the repository, and its versions."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT
from PIL import Image

import build_submission
import grade_submission
from competition.synthetic import draw_folder, draw_images
from training.__main__ import _parser as training_parser

DOCUMENT = (ROOT / "docs" / "environments.md").read_text("utf-8")
CODE = ("common", "competition", "submission", "training", "*.py", "requirements*.txt")
# What a notebook does, for the same cells as a script. IPython replaces {NAME} by the variable as an f-string does.
NOTEBOOK = """import os, subprocess
def shell(line): subprocess.run(line, shell=True, check=True)
"""
COLAB_FILES = """
from pathlib import Path
def download(path): Path("downloaded").write_text(str(Path(path).stat().st_size))
"""
PARSERS = {"training": training_parser, "build_submission.py": build_submission._parser}


def cells(section):
    """The code of a section's cells."""
    text = DOCUMENT.split(f"\n### {section}\n")[1].split("\n### ")[0]
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def script(section, folder=None):
    """A section's cells as one program whose root is `folder`."""
    lines = [line for cell in cells(section) for line in cell.splitlines()]
    magics = {"%cd ": "os.chdir(f{!r})", "!": "shell(f{!r})"}
    for magic, call in magics.items():
        lines = [call.format(line.removeprefix(magic)) if line.startswith(magic) else line for line in lines]
    text = "\n".join(lines)
    text = re.sub(r"(?<!\w)/(?=(content|kaggle|tmp)\b)", f"{folder}/", text) if folder else text
    return NOTEBOOK + text.replace("--minutes 30", "--minutes 0.1 --backbone-weights none") + "\n"


def commands(section):
    """The words of each shell line of a section's cells."""
    return [shlex.split(line[1:]) for cell in cells(section) for line in cell.splitlines() if line.startswith("!")]


@pytest.mark.unit
@pytest.mark.parametrize("section", ["Colab", "Kaggle"])
def test_every_command_of_a_cell_is_accepted(section):
    compile(script(section), section, "exec")
    programs = []
    for words in commands(section):
        if words[:2] == ["pip", "install"]:
            assert (ROOT / words[-1]).is_file()
        if words[0] == "python":
            program, arguments = (words[2], words[3:]) if words[1] == "-m" else (words[1], words[2:])
            programs.append(program)
            parse = grade_submission.parse if program == "grade_submission.py" else PARSERS[program]().parse_args
            parse(arguments)
    assert programs[:3] == ["training", "build_submission.py", "grade_submission.py"]


def draw_test_images(folder):
    """A folder `test` of images and the sample submission of a competition on Kaggle."""
    (folder / "test").mkdir(parents=True)
    for number, pixels in enumerate(draw_images(4, seed=1)):
        Image.fromarray(pixels).save(folder / "test" / f"{number}.jpg")
    rows = [f"{number}.jpg,Species1" for number in range(4)]
    (folder / "sample_submission.csv").write_text("\n".join(["id,label", *rows]) + "\n")


@pytest.fixture
def notebook(tmp_path):
    """The folders of a notebook with the repository and tiny images, packed as the document says."""
    code = tmp_path / "kaggle" / "input" / "leaf-submission" / "leaf-submission"
    for pattern in CODE:
        for path in ROOT.glob(pattern):
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            (code / path.name).parent.mkdir(parents=True, exist_ok=True)
            copy(path, code / path.name)
    draw_folder(tmp_path / "kaggle" / "input" / "images", 6, 3)
    draw_test_images(tmp_path / "kaggle" / "input" / "competition")
    for folder in ("content", "tmp", "kaggle/working"):
        (tmp_path / folder).mkdir()
    shutil.make_archive(str(tmp_path / "content" / "leaf-submission"), "zip", code.parent)
    shutil.make_archive(str(tmp_path / "content" / "images"), "zip", tmp_path / "kaggle" / "input" / "images")
    (tmp_path / "packages" / "google" / "colab").mkdir(parents=True)
    (tmp_path / "packages" / "google" / "colab" / "files.py").write_text(COLAB_FILES)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "built"),
    [("Colab", "content/leaf-submission/dist/submission.zip"), ("Kaggle", "kaggle/working/submission.zip")],
)
def test_cells_train_build_and_grade(notebook, section, built):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(notebook / "packages"),
        "PIP_DRY_RUN": "1",
    }
    program = script(section, notebook)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=notebook, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("oneDNN|cpu_feature_guard|Unable to register|cuInit", done.stdout + done.stderr)
    with zipfile.ZipFile(notebook / built) as archive:
        assert "model.py" in archive.namelist()
    if section == "Colab":
        assert int((notebook / "content/leaf-submission/downloaded").read_text()) == (notebook / built).stat().st_size
    else:
        lines = (notebook / "kaggle/working/submission.csv").read_text().splitlines()
        assert [line.partition(",")[0] for line in lines] == ["id", "0.jpg", "1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.unit
def test_the_supported_versions_are_the_same_everywhere():
    requirement = re.search(r"^tensorflow-cpu>=(2\.\d+),<2\.(\d+);", (ROOT / "requirements.txt").read_text(), re.M)
    lowest, above = requirement.groups()
    assert f"TensorFlow {lowest} to 2.{int(above) - 1}" in DOCUMENT
    python = re.search(r'requires-python = ">=(3\.\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    supported = f"Python {python[1]} to 3.{int(python[2]) - 1}"
    assert supported in DOCUMENT
    assert supported in (ROOT / "README.md").read_text("utf-8")
    assert supported in (ROOT / "Makefile").read_text("utf-8")
