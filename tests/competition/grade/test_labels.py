"""Labels are compared by class name, never by place."""

import json
import shutil
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import NAMES, load_module, stub, stub_zip, tiny_submission

import grade_submission
from common.errors import UserError
from common.images import Images, load_folder
from competition.grade.labels import by_class_name

support = load_module(Path(__file__).with_name("grading.py"), "grading")


def images_of(names, labels=None):
    labels = np.arange(len(names)) if labels is None else np.array(labels)
    return Images(np.zeros((len(labels), 2, 2, 3), np.uint8), labels, tuple(names), ("",) * len(labels))


@pytest.mark.unit
def test_equal_names_change_nothing():
    images, notes = by_class_name(images_of(NAMES), NAMES)
    assert (images.names, images.labels.tolist(), notes) == (NAMES, list(range(8)), ())


@pytest.mark.unit
@pytest.mark.parametrize(
    ("folders", "names", "labels", "word"),
    [
        (NAMES[1:], NAMES, [1, 2, 3, 4, 5, 6, 7], "Species1 has no image"),
        (NAMES[:3] + NAMES[4:], NAMES, [0, 1, 2, 4, 5, 6, 7], "Species4 has no image"),
        (("a", "b", "c"), ("c", "a", "b"), [1, 2, 0], "another order"),
        (("b", "c"), ("c", "a", "b"), [2, 0], "a has no image"),
    ],
)
def test_subset_or_another_order_is_mapped_by_name(folders, names, labels, word):
    images, notes = by_class_name(images_of(folders), names)
    assert (images.names, images.labels.tolist()) == (names, labels)
    assert len(notes) == 1
    assert "by class name" in notes[0]
    assert word in notes[0]
    order = ", ".join(f"{number} = {name}" for number, name in enumerate(names))
    assert notes[0].endswith(f": the score holds only if the server numbers the classes {order}")


@pytest.mark.unit
def test_a_missing_class_and_another_order_are_both_said():
    (note,) = by_class_name(images_of(("b", "c")), ("c", "a", "b"))[1]
    assert "the model's a has no image and the model has another order" in note


@pytest.mark.unit
def test_many_classes_are_shortened():
    names = [f"c{number:03d}" for number in range(200)]
    (note,) = by_class_name(images_of(names), names[::-1])[1]
    assert "classes 0 = c199, 1 = c198, 2 = " in note and note.endswith("8 = c191, …, 199 = c000")


@pytest.mark.unit
def test_accents_may_be_composed_or_not():
    names = ("Blätter", "Nadeln")
    images, notes = by_class_name(images_of([unicodedata.normalize("NFD", name) for name in names]), names)
    assert (images.names, images.labels.tolist(), notes) == (names, [0, 1], ())


@pytest.mark.unit
@pytest.mark.parametrize(
    "folders",
    [(*NAMES[1:], "Species9"), (*NAMES, "Species9"), [name.lower() for name in NAMES], ["cat", "dog"]],
    ids=str,
)
def test_other_names_are_refused_naming_both(folders):
    with pytest.raises(UserError) as caught:
        by_class_name(images_of(folders), NAMES)
    assert ", ".join(NAMES) in str(caught.value)
    assert folders[-1] in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("folders", "fix"),
    [(["cat", "dog"], "build the zip with --run RUN"), ([*NAMES, "dog"], "rename or remove these classes")],
    ids=["another task", "one more class"],
)
def test_fix_depends_on_whether_a_class_is_shared(folders, fix):
    with pytest.raises(UserError, match=f"--data must have the classes of the model in the zip, Species1, .*{fix}"):
        by_class_name(images_of(folders), NAMES)


@pytest.mark.unit
def test_unknown_names_are_a_note():
    images, notes = by_class_name(images_of(["a", "b"]), None)
    assert images.names == ("a", "b")
    assert "does not tell its class names" in notes[0]
    assert "0 = a, 1 = b" in notes[0]


# --- the whole grader


@pytest.fixture(scope="module")
def knowing_zip(labelled_folder, tmp_path_factory):
    """A submission that knows the class of every image, with a SavedModel that tells the class names."""
    images = load_folder(labelled_folder)
    sums = images.images.astype(np.int64)[:, ::2].sum((1, 2, 3))
    answers = dict(zip(sums.tolist(), images.labels.tolist(), strict=True))
    source = stub(f"np.array([{answers}[int(s)] for s in x[:, ::2].sum((1, 2, 3))], np.int64)")
    path = stub_zip(tmp_path_factory.mktemp("knowing") / "a.zip", source)
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tiny_submission() / "SubmissionModel" / "saved_model.pb", "SubmissionModel/saved_model.pb")
    return path


@pytest.fixture
def folders(labelled_folder, tmp_path):
    return Path(shutil.copytree(labelled_folder, tmp_path / "leaves"))


def graded(path, folder, capsys):
    """(exit code, standard output, standard error, grade) of the command."""
    saved = folder.with_name("grade.json")
    arguments = [str(path), "--data", str(folder), "--layout", "an2dl2024", "--json", str(saved)]
    code = grade_submission.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err, json.loads(saved.read_text()) if saved.exists() else None


@pytest.mark.integration
def test_a_missing_class_is_graded_right(knowing_zip, folders, capsys):
    shutil.rmtree(folders / "Species3")
    code, out, _, saved = graded(knowing_zip, folders, capsys)
    assert code == 0, out
    assert saved["scores"]["accuracy"] == 1
    assert saved["names"] == list(NAMES)
    assert [saved["scores"][f"confusion_{row}_{row}"] for row in range(8)] == [4, 4, 0, 4, 4, 4, 4, 4]
    assert "Species3 has no image" in out


@pytest.mark.integration
def test_the_right_folders_are_graded_without_a_note(knowing_zip, folders, capsys):
    code, out, _, saved = graded(knowing_zip, folders, capsys)
    assert code == 0, out
    assert saved["scores"]["accuracy"] == 1
    assert "class name" not in out


@pytest.mark.integration
def test_another_class_is_refused_with_exit_code_2(knowing_zip, folders, capsys):
    (folders / "Species1").rename(folders / "Species9")
    code, out, err, saved = graded(knowing_zip, folders, capsys)
    assert (code, out, saved) == (2, "", None)
    assert err.startswith("error: ") and err.count("\n") == 1
    assert ", ".join(NAMES) in err
    assert "Species9" in err


@pytest.mark.integration
@pytest.mark.parametrize("listed", ["all", "others"])
def test_names_in_the_starting_kits_text_file_are_used_if_they_are_those_of_the_images(
    knowing_zip, folders, tmp_path, capsys, listed
):
    with zipfile.ZipFile(knowing_zip) as archive:
        source = archive.read("model.py").decode()
    path = stub_zip(tmp_path / "kit.zip", source)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("classes.txt", "".join(f"{name}\n" for name in (NAMES if listed == "all" else "abcdefgh")))
    shutil.rmtree(folders / "Species3")
    code, out, _, saved = graded(path, folders, capsys)
    assert ("does not tell its class names" in out) == (listed == "others")
    if listed == "all":
        assert code == 0, out
        assert (saved["names"], saved["scores"]["accuracy"]) == (list(NAMES), 1)


@pytest.mark.integration
def test_a_zip_without_class_names_is_graded_by_position_with_a_note(folders, tmp_path, capsys):
    code, out, _, _ = graded(stub_zip(tmp_path / "a.zip", stub()), folders, capsys)
    assert code == 0, out
    assert "does not tell its class names" in out
