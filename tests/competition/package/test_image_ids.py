"""Finding the image of each id: with and without suffix and folder, and ids that nearly match."""

import unicodedata
from pathlib import Path

import pytest

from common.errors import UserError
from competition.package.image_ids import ImageIds

pytestmark = pytest.mark.unit

OTHER = "1 other files"


def make_files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def find(folder, *ids):
    return ImageIds(folder).find(ids)


@pytest.mark.parametrize(
    "ids", [["7.jpg", "8.jpg"], ["7", "8"], ["a/7.jpg", "b/c/8.jpg"], ["a/7", "b/c/8"], ["8.jpg", "7"]], ids=str
)
def test_ids_match_with_and_without_suffix_and_folder(tmp_path, ids):
    make_files(tmp_path, "a/7.jpg", "b/c/8.jpg")
    found, notes = find(tmp_path, *ids)
    assert [path.stem for path in found] == [Path(name).stem for name in ids]
    assert notes == []


def test_same_name_in_two_folders_needs_the_folder(tmp_path):
    make_files(tmp_path, "a/7.jpg", "b/7.jpg")
    assert find(tmp_path, "b/7.jpg", "a/7.jpg")[0] == [tmp_path / "b/7.jpg", tmp_path / "a/7.jpg"]
    with pytest.raises(UserError, match=r"the id 7 matches .*a/7\.jpg and .*b/7\.jpg"):
        find(tmp_path, "7")


def test_dots_in_a_name_are_kept(tmp_path):
    make_files(tmp_path, "leaf.1.jpg", "leaf.2.jpg", "plain")
    found, _ = find(tmp_path, "leaf.2", "leaf.1.jpg", "plain")
    assert [path.name for path in found] == ["leaf.2.jpg", "leaf.1.jpg", "plain"]


@pytest.mark.parametrize("other", ["7.png", "7.JPG", "7.Jpg"])
def test_id_that_matches_two_files_fails(tmp_path, other):
    make_files(tmp_path, "7.jpg", other)
    with pytest.raises(UserError, match="the id 7 matches"):
        find(tmp_path, "7")
    found, notes = find(tmp_path, other)
    assert found == [tmp_path / other]
    assert notes[0].startswith(OTHER)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    make_files(tmp_path, "7.jpg")
    with pytest.raises(UserError, match="no image for 2 of the sample's 3 ids, the first is 8"):
        find(tmp_path, "7", "8", "9")


def test_ids_that_begin_with_the_name_of_the_folder_need_its_parent(tmp_path):
    make_files(tmp_path, "test/7.jpg")
    with pytest.raises(UserError, match=f"the ids begin with the folder's name: give its parent, {tmp_path}$"):
        find(tmp_path / "test", "test/7.jpg")
    assert find(tmp_path, "test/7.jpg")[0] == [tmp_path / "test/7.jpg"]


def test_missing_folder_fails(tmp_path):
    with pytest.raises(UserError, match="--images: no folder at"):
        find(tmp_path / "nowhere", "7")


def test_hidden_and_system_files_are_ignored(tmp_path):
    make_files(tmp_path, "7.jpg", "._7.jpg", ".DS_Store", "notes.txt", "__MACOSX/7.jpg", ".ipynb_checkpoints/7.jpg")
    found, notes = find(tmp_path, "7")
    assert found == [tmp_path / "7.jpg"]
    assert len(notes) == 1 and notes[0].startswith(OTHER)


NEAR = {
    "case of the suffix": ("1.jpg", "1.JPG", "upper and lower case"),
    "case of the name": ("Leaf1", "leaf1.jpg", "upper and lower case"),
    "composed accents": ("r\u00e9.jpg", unicodedata.normalize("NFD", "r\u00e9.jpg"), "encoding of accents"),
    "decomposed accents": (unicodedata.normalize("NFD", "r\u00e9"), "r\u00e9.jpg", "encoding of accents"),
    "zeros in the file": ("7", "00007.jpg", "leading zeros"),
    "zeros in the id": ("00007.jpg", "7.jpg", "leading zeros"),
    "zeros behind a prefix": ("img_7", "img_0007.png", "leading zeros"),
}


@pytest.mark.parametrize("case", NEAR)
def test_ids_that_nearly_match_are_found_with_a_note(tmp_path, case):
    name, file, difference = NEAR[case]
    make_files(tmp_path, file, "other.jpg")
    found, notes = find(tmp_path, name)
    assert found == [tmp_path / file]
    assert difference in notes[0]
    assert name in notes[0]


def test_exact_match_is_preferred(tmp_path):
    make_files(tmp_path, "1.jpg", "1.JPG", "01.jpg")
    assert find(tmp_path, "1.JPG", "01", "1.jpg")[0] == [tmp_path / name for name in ("1.JPG", "01.jpg", "1.jpg")]


@pytest.mark.parametrize(
    ("files", "ids", "named"),
    [
        (["a.JPG", "A.jpg"], ["a.jpg"], "matches"),
        (["007.jpg", "07.jpg"], ["7"], "matches"),
        (["1.jpg"], ["1", "01"], "both match"),
        (["1.jpg"], ["1.jpg", "1.JPG"], "both match"),
    ],
)
def test_near_match_of_two_files_or_of_two_ids_fails(tmp_path, files, ids, named):
    make_files(tmp_path, *files)
    with pytest.raises(UserError, match=named):
        find(tmp_path, *ids)
