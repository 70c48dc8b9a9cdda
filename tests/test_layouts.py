"""build_submission.py --layout: each zip does what its server asks for, and is the same zip every time."""

import os
import shutil
import zipfile

import numpy as np
import pytest
from helpers import NAMES, load_module, python, tiny_submission

import build_submission
from competition.archive import inspect
from competition.drawings import draw_images
from grade_submission import STEPS, Rules, grade, report

LAYOUTS = build_submission.LAYOUTS

# Arguments: the unpacked zip, images, file for the answers.
CODE = """
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
def zips(tmp_path_factory):
    """Layout → its zip of the tiny submission."""
    folder = tmp_path_factory.mktemp("layouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_submission, "SOURCE", tiny_submission())
        return {layout: build_submission.build(out=folder / layout / "submission.zip", layout=layout) for layout in LAYOUTS}


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def names_of(checks):
    return {check.name: check for check in checks}


def test_the_layouts_are_those_that_are_offered():
    assert LAYOUTS == ("codalab", "codabench", "an2dl2024")


def test_codalab_has_just_the_three_parts(zips):
    got = contents(zips["codalab"])
    assert {name.partition("/")[0] for name in got} == {"model.py", "metadata", "SubmissionModel"}
    for name in ("model.py", "metadata", "SubmissionModel/saved_model.pb"):
        assert got[name] == (tiny_submission() / name).read_bytes()


def test_codabench_adds_metadata_yaml(zips):
    """Codabench looks for it first, and without any metadata file it would not take the zip for code."""
    plain, got = contents(zips["codalab"]), contents(zips["codabench"])
    extra = got.pop("metadata.yaml")
    assert got == plain
    assert extra == plain["metadata"]
    assert b"command" not in extra


def test_an2dl2024_adds_a_class_to_the_code(zips):
    plain, got = contents(zips["codalab"]), contents(zips["an2dl2024"])
    assert set(got) == set(plain)
    assert {name for name in got if got[name] != plain[name]} == {"model.py"}
    assert got["model.py"].startswith(plain["model.py"])
    assert b"class Model(model)" in got["model.py"][len(plain["model.py"]) :]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_zip_holds_to_the_rules(zips, layout):
    assert [check for check in inspect(zips[layout]) if not check.passed] == []
    assert [path.name for path in zips[layout].parent.iterdir()] == ["submission.zip"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_inputs_give_the_same_bytes(zips, tmp_path, monkeypatch, layout):
    source = tmp_path / "source"
    shutil.copytree(tiny_submission(), source, ignore=shutil.ignore_patterns("__pycache__"))
    for number, path in enumerate(path for path in sorted(source.rglob("*")) if path.is_file()):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        path.chmod(0o600)
    monkeypatch.setattr(build_submission, "SOURCE", source)
    assert build_submission.build(out=tmp_path / "again.zip", layout=layout).read_bytes() == zips[layout].read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_passes_its_own_grading(zips, layout):
    result = grade(zips[layout], rules=Rules(layout=layout))
    assert result.passed, report(result)
    assert set(STEPS) <= set(names_of(result.checks))


def test_an2dl2024_passes_as_codalab_too(zips):
    result = grade(zips["an2dl2024"], rules=Rules(layout="codalab"))
    assert result.passed, report(result)
    assert set(STEPS) <= set(names_of(result.checks))


def test_codalab_does_not_pass_as_an2dl2024(zips):
    result = grade(zips["codalab"], rules=Rules(layout="an2dl2024"))
    assert not result.passed
    failed = next(check for check in result.checks if not check.passed)
    assert failed.name == "import and constructor"
    assert "has no class Model" in failed.reason
    assert "name the class Model" in failed.mend


def test_model_without_argument_answers_as_class_model(zips, tmp_path):
    """In a fresh process, in another working directory, with arrays in and out."""
    images = draw_images(40, seed=11)
    np.save(tmp_path / "images.npy", images)
    with zipfile.ZipFile(zips["an2dl2024"]) as archive:
        archive.extractall(tmp_path / "unpacked")
    (tmp_path / "elsewhere").mkdir()
    done = python("-c", CODE, tmp_path / "unpacked", tmp_path / "images.npy", tmp_path / "answers.npy", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    answers = np.load(tmp_path / "answers.npy")
    module = load_module(tiny_submission() / "model.py", "plain_model")
    np.testing.assert_array_equal(answers, module.model(tiny_submission()).predict(images).numpy())
    assert len(set(answers.tolist())) > len(NAMES) // 2


def test_command(zips, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build_submission, "SOURCE", tiny_submission())
    assert build_submission.main(["--layout", "codabench", "--out", str(tmp_path / "a.zip")]) == 0
    assert "metadata.yaml" in capsys.readouterr().out
    assert (tmp_path / "a.zip").read_bytes() == zips["codabench"].read_bytes()
    with pytest.raises(SystemExit) as caught:
        build_submission.main(["--layout", "nonsense"])
    assert caught.value.code == 2
    assert "an2dl2024" in capsys.readouterr().err


def test_a_class_model_of_ones_own_stays(tmp_path, monkeypatch):
    """What is added must not depend on how model.py ends."""
    source = tmp_path / "source"
    shutil.copytree(tiny_submission(), source, ignore=shutil.ignore_patterns("__pycache__"))
    code = source / "model.py"
    code.write_text(code.read_text("utf-8").rstrip("\n") + "  # the last line, without an end", "utf-8")
    monkeypatch.setattr(build_submission, "SOURCE", source)
    got = contents(build_submission.build(out=tmp_path / "a.zip", layout="an2dl2024"))["model.py"]
    compile(got, "model.py", "exec")
    assert got.count(b"class Model(model)") == 1
