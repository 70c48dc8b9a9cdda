"""build_submission.py --layout: each zip meets its own server's contract and has reproducible bytes."""

import os
import shutil
import zipfile

import numpy as np
import pytest
from helpers import NAMES, load_module, python, tiny_submission

import build_submission
from competition.grade.grade import STEPS, Rules, grade
from competition.grade.report import report
from competition.package import build as package
from competition.package.archive import inspect
from competition.package.build import LAYOUTS, build
from competition.synthetic import draw_images

pytestmark = pytest.mark.integration

# Arguments: the unpacked zip, the images, the file for the answers.
CODE_2024 = """
import inspect, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from model import Model
images = np.load(sys.argv[2])
network = Model()
assert list(inspect.signature(Model).parameters) == []
answers = network.predict(images)
assert type(answers) is np.ndarray and answers.dtype == np.int64 and answers.shape == (len(images),), repr(answers)
for batch in (images.astype(np.float32), images.astype(np.float64)):
    assert np.array_equal(network.predict(batch), answers)
one = network.predict(images[:1])
assert one.shape == (1,) and one[0] == answers[0]
np.save(sys.argv[3], answers)
"""


@pytest.fixture(scope="module")
def layout_zips(tmp_path_factory):
    """{layout: its zip of the tiny submission}."""
    folder = tmp_path_factory.mktemp("layouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "SOURCE", tiny_submission())
        return {layout: build(out=folder / layout / "submission.zip", layout=layout) for layout in LAYOUTS}


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_layouts():
    assert LAYOUTS == ("codalab", "codabench", "an2dl2024")


def test_codalab_has_only_the_three_parts(layout_zips):
    got = contents(layout_zips["codalab"])
    assert {name.partition("/")[0] for name in got} == {"model.py", "metadata", "SubmissionModel"}
    for name in ("model.py", "metadata", "SubmissionModel/saved_model.pb"):
        assert got[name] == (tiny_submission() / name).read_bytes()


def test_codabench_adds_metadata_yaml(layout_zips):
    """Codabench reads this file first. Without any metadata file it does not treat the zip as code."""
    codalab, got = contents(layout_zips["codalab"]), contents(layout_zips["codabench"])
    added = got.pop("metadata.yaml")
    assert got == codalab
    assert added == codalab["metadata"]
    assert b"command" not in added


def test_an2dl2024_adds_a_class_to_the_code(layout_zips):
    codalab, got = contents(layout_zips["codalab"]), contents(layout_zips["an2dl2024"])
    assert set(got) == set(codalab)
    assert {name for name in got if got[name] != codalab[name]} == {"model.py"}
    assert got["model.py"].startswith(codalab["model.py"])
    assert b"class Model(model)" in got["model.py"][len(codalab["model.py"]) :]


def test_added_class_does_not_depend_on_the_end_of_the_code(submission_folder, tmp_path):
    code = submission_folder / "model.py"
    code.write_text(code.read_text("utf-8").rstrip("\n") + "  # a last line without a line break", "utf-8")
    got = contents(build(out=tmp_path / "a.zip", layout="an2dl2024"))["model.py"]
    compile(got, "model.py", "exec")
    assert got.count(b"class Model(model)") == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_zip_passes_the_archive_checks(layout_zips, layout):
    assert [check for check in inspect(layout_zips[layout]) if not check.passed] == []
    assert [path.name for path in layout_zips[layout].parent.iterdir()] == ["submission.zip"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_inputs_give_the_same_bytes(layout_zips, submission_folder, tmp_path, layout):
    shutil.rmtree(submission_folder / "__pycache__")
    for number, path in enumerate(path for path in sorted(submission_folder.rglob("*")) if path.is_file()):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        path.chmod(0o600)
    assert build(out=tmp_path / "again.zip", layout=layout).read_bytes() == layout_zips[layout].read_bytes()


@pytest.mark.parametrize(
    ("layout", "rules"),  # `make submission` grades the first one as itself
    [
        ("an2dl2024", "an2dl2024"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("codabench", "codabench"), ("an2dl2024", "codalab"))
        ),
    ],
)
def test_zip_passes_the_grading(layout_zips, layout, rules):
    result = grade(layout_zips[layout], rules=Rules(layout=rules))
    assert result.passed, report(result)
    assert set(STEPS) <= {check.name for check in result.checks}


@pytest.mark.slow
def test_codalab_fails_the_grading_of_an2dl2024(layout_zips):
    result = grade(layout_zips["codalab"], rules=Rules(layout="an2dl2024"))
    assert not result.passed
    failed = next(check for check in result.checks if not check.passed)
    assert failed.name == "import and constructor"
    assert "class Model" in failed.reason
    assert "class Model" in failed.fix


def test_class_Model_answers_like_class_model(layout_zips, tmp_path):
    """In a fresh process, in another working directory, with arrays in and out."""
    images = draw_images(40, seed=11)
    np.save(tmp_path / "images.npy", images)
    with zipfile.ZipFile(layout_zips["an2dl2024"]) as archive:
        archive.extractall(tmp_path / "unpacked")
    (tmp_path / "elsewhere").mkdir()
    arguments = tmp_path / "unpacked", tmp_path / "images.npy", tmp_path / "answers.npy"
    done = python("-c", CODE_2024, *arguments, cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    answers = np.load(tmp_path / "answers.npy")
    module = load_module(tiny_submission() / "model.py", "plain_model")
    np.testing.assert_array_equal(answers, module.model(tiny_submission()).predict(images).numpy())
    assert len(set(answers.tolist())) > len(NAMES) // 2


def test_command_line_builds_the_layout(layout_zips, tmp_path, submission_folder, capsys):
    assert build_submission.main(["--layout", "codabench", "--out", str(tmp_path / "a.zip")]) == 0
    assert "metadata.yaml" in capsys.readouterr().out
    assert (tmp_path / "a.zip").read_bytes() == layout_zips["codabench"].read_bytes()
