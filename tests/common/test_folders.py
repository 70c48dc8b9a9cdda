"""Class folders are listed without hidden and system files, and folders that are no classes are refused."""

import errno
import os
import re
from pathlib import Path

import pytest

from common.errors import UserError
from common.folders import ClassFiles, is_hidden, list_classes, natural_key, printable, warnings_of_names
from common.images import load_folder

pytestmark = pytest.mark.unit


def make(folder, *paths):
    """Creates files, with their folders. Returns `folder`."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode("utf-8", "surrogateescape"))
    return folder


# --- natural order


@pytest.mark.parametrize(
    "names",
    [
        ["Species1", "Species2", "Species10"],
        ["1", "9", "10"],
        ["①", "②"],
        ["10", "10²"],
        ["a٣", "a10"],  # Arabic digits are numbers
        ["", "a"],
        ["x" + "9" * 250, "y"],
    ],
)
def test_names_have_a_natural_order(names):
    assert sorted(reversed(names), key=natural_key) == names


# --- hidden and system files

SYSTEM = [
    ".ipynb_checkpoints/a.jpg",
    ".Trash-0/files/a.jpg",
    ".AppleDouble/a.jpg",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/a.jpg",
    "#recycle/a.jpg",
    "lost+found/a.jpg",
    "$RECYCLE.BIN/a.jpg",
    "System Volume Information/a.jpg",
    "Thumbs.db",
    "thumbs.db",
    "desktop.ini",
    "._a.jpg",
    ".DS_Store",
    "Icon\r",
]


@pytest.mark.parametrize("place", ["Oak/", "Oak/2024/", ""])
@pytest.mark.parametrize("system", SYSTEM)
def test_hidden_and_system_files_are_in_no_class(tmp_path, place, system):
    make(tmp_path, "Oak/1.jpg", "Ash/1.jpg", place + system)
    listed = list_classes(tmp_path)
    assert [(name, [path.name for path in files]) for name, files in listed.classes] == [
        ("Ash", ["1.jpg"]),
        ("Oak", ["1.jpg"]),
    ]
    # Files that lie beside the class folders are in no class anyway.
    assert listed.skipped == ((tmp_path / (place + system),) if place or "/" in system else ())


@pytest.mark.parametrize("name", ["eaDir", "trash", "recycle", "a.jpg", "Thumbs", "Oak."])
def test_ordinary_names_are_not_hidden(name):
    assert not is_hidden(name)


def test_data_set_in_a_hidden_folder_is_listed(tmp_path):
    folder = make(tmp_path / ".data" / "@eaDir", "Oak/1.jpg", "Ash/1.jpg")
    assert [name for name, _ in list_classes(folder).classes] == ["Ash", "Oak"]


def test_class_of_hidden_files_only_is_empty(tmp_path):
    make(tmp_path, "Oak/1.jpg", "Ash/.DS_Store")
    with pytest.raises(UserError, match="Ash is empty"):
        list_classes(tmp_path)


def test_files_of_subfolders_and_linked_classes_are_listed(tmp_path):
    make(tmp_path, "data/Oak/2024/10.jpg", "data/Oak/2024/9.jpg", "elsewhere/1.jpg")
    (tmp_path / "data" / "Ash").symlink_to(tmp_path / "elsewhere")
    (ash, ash_files), (oak, oak_files) = list_classes(tmp_path / "data").classes
    assert (ash, oak) == ("Ash", "Oak")
    assert [path.name for path in ash_files] == ["1.jpg"]
    assert [path.name for path in oak_files] == ["9.jpg", "10.jpg"]


def test_links_that_cannot_be_read_are_listed_and_named(tmp_path, leaf_folder):
    """They are often images: of a disk that is not mounted, or of a folder that was meant to be followed."""
    (tmp_path / "batch").mkdir()
    (leaf_folder / "Species1" / "batch").symlink_to(tmp_path / "batch")
    (leaf_folder / "Species1" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    (leaf_folder / "Species1" / ".gone").symlink_to(tmp_path / "gone.jpg")
    notes = load_folder(leaf_folder).notes
    assert [note.split(":")[0] for note in notes[:2]] == [
        f"skipped {leaf_folder / 'Species1' / name}" for name in ("batch", "gone.jpg")
    ]
    assert "directory" in notes[0] and "No such file" in notes[1]
    assert "1 hidden" in notes[2]
    assert len(load_folder(leaf_folder)) == 24


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    folder = make(tmp_path, "Oak/1.jpg", "Ash/1.jpg", "Ash/sub/2.jpg")
    scandir = os.scandir

    def fail(path):
        if str(path).endswith("sub"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="sub"):
        list_classes(folder)


# --- the folder above

CLASSES = ("Oak/1.jpg", "Ash/1.jpg", "Elm/1.jpg")


@pytest.mark.parametrize(
    ("parts", "best"),
    [
        (("train", "validation"), "train"),
        (("train", "val", "test"), "train"),
        (("Training", "Testing"), "Training"),
        (("test", "valid"), "test"),
        (("phase1", "phase2", "train"), "train"),
        (("fold_0", "fold_1"), "fold_0"),
        (("train", "field"), "train"),
        (("train_images", "test_images"), "train_images"),
    ],
)
def test_folder_above_is_refused_and_the_right_one_is_named(tmp_path, parts, best):
    for part in parts:
        make(tmp_path / part, *CLASSES)
    with pytest.raises(UserError, match=rf"class folders, got .*, which hold .*; give .*/{best}$"):
        list_classes(tmp_path)


def test_folder_above_with_unlabelled_images_is_refused(tmp_path):
    make(tmp_path / "train", *CLASSES)
    make(tmp_path / "test", "1.jpg", "2.jpg")
    with pytest.raises(UserError, match="give .*/train$"):
        list_classes(tmp_path)


def test_folder_above_a_single_part_names_it(tmp_path):
    make(tmp_path / "leaves", *CLASSES)
    with pytest.raises(UserError, match="only leaves; give .*/leaves$"):
        list_classes(tmp_path)


@pytest.mark.parametrize(
    "paths",
    [
        ("train/1.jpg", "car/1.jpg"),  # a train is also a vehicle
        ("train/steam/1.jpg", "train/diesel/1.jpg", "car/sedan/1.jpg"),
        ("Oak/2024/1.jpg", "Oak/2025/1.jpg", "Ash/2026/1.jpg"),
    ],
)
def test_classes_with_such_names_or_subfolders_are_listed_without_a_note(tmp_path, paths):
    listed = list_classes(make(tmp_path, *paths))
    assert len(listed.classes) == 2
    assert listed.notes == ()


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (("phase1/1.jpg", "phase2/1.jpg"), "phase1, phase2"),
        (("val/1.jpg", "test/1.jpg"), "test, val"),
        (("cat/1.jpg", "dog/1.jpg", "test/1.jpg"), "test"),
    ],
)
def test_folders_that_are_likely_parts_are_warned_of(tmp_path, paths, named):
    (note,) = list_classes(make(tmp_path, *paths)).notes
    found = re.match("warning: the folders (.*) are taken as classes, but are called as parts of a data set", note)
    assert set(found[1].split(", ")) == set(named.split(", "))


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (("train/1.jpg", "test/1.jpg"), "train, with"),
        (("train_images/1.jpg", "test_images/1.jpg"), "train_images, with"),
        (("seg_train/1.jpg", "seg_test/1.jpg", "seg_pred-test/1.jpg"), "seg_train, with"),
        (("train/images/1.jpg", "test/images/1.jpg"), "train, or rename"),
        (("test_stg1/1.jpg", "test_stg2/1.jpg", "Train/1.jpg"), "Train, with"),
        (("asl_alphabet_train/asl/A/1.jpg", "asl_alphabet_test/1.jpg"), "asl_alphabet_train, or"),
        (("train/1.jpg", "test/1.jpg", "unlabeled/1.jpg"), "train, with"),
        (("train_1/1.jpg", "train_2/1.jpg", "test_1/1.jpg"), r"[^/]*\d, with"),
        (("annotations_train/a.xml", "images_train/A/1.jpg", "images_test/1.jpg"), "images_train, or"),
    ],
)
def test_folders_for_training_and_testing_are_no_classes(tmp_path, paths, named):
    with pytest.raises(UserError, match=f"are called as parts of a data set; give .*/{named}"):
        list_classes(make(tmp_path, *paths))


@pytest.mark.parametrize("names", [("trainer", "tester"), ("steam train", "car"), ("constrained", "latest")])
def test_words_that_only_contain_train_or_test_are_no_parts(tmp_path, names):
    assert list_classes(make(tmp_path, *(f"{name}/1.jpg" for name in names))).notes == ()


def test_table_in_place_of_a_folder_is_told_how_to_be_given(tmp_path):
    make(tmp_path, "train.csv")
    with pytest.raises(
        UserError, match="train.csv is a file; give the folder of its images, and this file with --labels"
    ):
        list_classes(tmp_path / "train.csv")


@pytest.mark.parametrize(("names", "named"), [(("images", "masks"), "masks"), (("train", "unlabeled"), "unlabeled")])
def test_folders_of_masks_or_unlabelled_images_are_warned_of(tmp_path, names, named):
    (note,) = list_classes(make(tmp_path, *(f"{name}/1.jpg" for name in names))).notes
    assert note.startswith(f"warning: the folders {named} are taken as classes, but are called as masks")


@pytest.mark.parametrize("names", [("mask", "no_mask"), ("Masks", "without masks"), ("unlabeled", "unlabeled_other")])
def test_classes_that_are_about_masks_need_no_word(tmp_path, names):
    assert list_classes(make(tmp_path, *(f"{name}/1.jpg" for name in names))).notes == ()


def test_a_class_train_may_have_subfolders(tmp_path):
    paths = ("bus/1.png", "car/1.png", "train/steam/1.png", "train/electric/1.png")
    listed = list_classes(make(tmp_path, *paths))
    assert [name for name, _ in listed.classes] == ["bus", "car", "train"] and listed.notes == ()


@pytest.mark.parametrize("inner", ["masks", "test"])
def test_subfolders_of_masks_or_test_images_are_warned_of(tmp_path, inner):
    paths = [f"{name}/{sub}/1.jpg" for name in ("cat", "dog") for sub in ("images", inner)]
    (note,) = list_classes(make(tmp_path, *paths)).notes
    assert note.startswith(f"warning: the images in the subfolders {inner} of the classes are used like the others")


def test_a_part_with_class_folders_beside_a_folder_without_is_refused(tmp_path):
    make(tmp_path, "train/ant/1.png", "train/bee/1.png", "unlabeled/1.png")
    with pytest.raises(UserError, match="got train among them, .* give .*/train, or rename it if it is a class$"):
        list_classes(tmp_path)


def test_class_folders_far_below_are_named(tmp_path):
    make(tmp_path, "archive/data/ant/1.png", "archive/data/bee/1.png")
    with pytest.raises(UserError, match="got only archive; give .*/archive/data$"):
        list_classes(tmp_path)


def test_a_class_that_is_a_broken_link_is_refused(tmp_path):
    make(tmp_path, "ant/1.png", "bee/1.png")
    (tmp_path / "cat").symlink_to("/mnt/not_mounted/cat")
    with pytest.raises(UserError, match="cat is a link to /mnt/not_mounted/cat, which does not; mount its disk, or"):
        list_classes(tmp_path)
    (tmp_path / "cat").rename(tmp_path / ".cat")
    (tmp_path / "README.md").symlink_to("/nowhere/README.md")
    (tmp_path / "labels").symlink_to("/nowhere/labels.csv")
    listed = list_classes(tmp_path)
    assert [name for name, _ in listed.classes] == ["ant", "bee"]
    assert listed.notes == (f"skipped 2 broken links, for example {tmp_path / 'labels'}",)


def test_archives_beside_the_classes_are_noted(tmp_path):
    (note,) = list_classes(make(tmp_path, "ant/1.png", "bee/1.png", "cat.zip", "dog.tar.gz", ".old.zip")).notes
    assert note == f"skipped 2 archives that are not unpacked, for example {tmp_path / 'cat.zip'}"


@pytest.mark.parametrize(("name", "fix"), [("train.npz", "save each image as a PNG file"), ("train.zip", "unpack it")])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path, name, fix):
    with pytest.raises(UserError, match=f"{name} is a file; .*{fix}$"):
        list_classes(make(tmp_path, name) / name)


def test_a_part_beside_the_classes_that_it_holds_is_refused(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg")
    with pytest.raises(UserError, match=r"got val among them, .*; give .*/val, or move it elsewhere$"):
        list_classes(tmp_path)


def test_subfolders_that_could_be_the_classes_are_noted(tmp_path):
    listed = list_classes(make(tmp_path, "A/Oak/1.jpg", "A/Ash/1.jpg", "B/Oak/1.jpg", "B/Ash/1.jpg"))
    assert [name for name, _ in listed.classes] == ["A", "B"]
    (note,) = listed.notes
    assert "subfolders Ash, Oak" in note


# --- names


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"caf\xe9", r"caf\xe9"), (b"new\nline", r"new\nline"), (b"tab\t", r"tab\t"), (b"\x1b[31m", r"\x1b[31m")],
)
def test_class_name_that_cannot_be_printed_is_refused(tmp_path, name, shown):
    make(tmp_path, "Oak/1.jpg", os.fsdecode(name) + "/1.jpg")
    with pytest.raises(UserError, match="printable UTF-8") as error:
        list_classes(tmp_path)
    assert shown in str(error.value)
    assert printable(error.value) == str(error.value)


def test_two_classes_that_look_the_same_are_refused(tmp_path):
    make(tmp_path, "caf\u00e9/1.jpg", "cafe\u0301/1.jpg")
    with pytest.raises(UserError, match="two class folders"):
        list_classes(tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ahorn – ①", "Ahorn – ①"),
        ("葉\u3000x", "葉\u3000x"),
        ("a\udce9b", r"a\xe9b"),
        ("a\nb", r"a\nb"),
        ("a\u2028", r"a\u2028"),
    ],
)
def test_text_is_printable(text, shown):
    assert printable(text) == shown
    assert printable(text).encode()


@pytest.mark.parametrize(
    ("most", "expected"),
    [(9999, (900, 300)), (1200, (900, 300)), (1000, (749, 251)), (40, (26, 14)), (4, (2, 2)), (3, (2, 1)), (1, (1, 1))],
)
def test_limited_listing_keeps_the_shares_of_the_classes(most, expected):
    files = tuple(Path(f"{number}.png") for number in range(900))
    listed = ClassFiles((("Oak", files), ("Ash", files[:300])), ())
    limited = listed.limited(most)
    assert tuple(len(kept) for _, kept in limited.classes) == expected
    assert set(limited.classes[0][1]) <= set(files)
    assert limited.count == sum(expected)


def test_limited_listing_keeps_the_files_of_rare_classes():
    files = tuple(Path(f"{number}.png") for number in range(94_000))
    listed = ClassFiles((("Oak", files), ("Ash", files[:5800]), ("Yew", files[:188]), ("Fig", files[:3])), ())
    counts = [len(kept) for _, kept in listed.limited(600).classes]
    assert counts[3] == 3 and counts[2] >= 8
    assert 590 <= sum(counts) <= 600 and counts[0] > 10 * counts[1]


@pytest.mark.parametrize("most", [100, 120, 121, 239, 240, 241, 1000])
def test_limited_listing_of_many_classes_uses_what_is_allowed(most):
    files = tuple(Path(f"{number}.png") for number in range(150))
    listed = ClassFiles(tuple((f"class{number}", files) for number in range(120)), ())
    counts = [len(kept) for _, kept in listed.limited(most).classes]
    assert sum(counts) == max(120, most)
    assert max(counts) - min(counts) <= 1


def test_limited_listing_keeps_two_files_of_each_class_if_that_is_possible():
    sizes = [500, *range(50, 99)]
    listed = ClassFiles(tuple((f"class{size}", tuple(map(Path, map(str, range(size))))) for size in sizes), ())
    assert {len(kept) for _, kept in listed.limited(100).classes} == {2}


def test_limited_listing_is_spread_over_a_class():
    files = tuple(Path(f"{number}.png") for number in range(9))
    kept = ClassFiles((("Oak", files), ("Ash", files)), ()).limited(6).classes[0][1]
    assert kept == (files[0], files[3], files[6])


def test_images_beside_the_class_folders_are_noted(tmp_path):
    make(
        tmp_path, "cat/1.png", "dog/1.png", "10.mpo", "9.png", ".hidden.png", "labels.csv", "Thumbs.db", "a.pdf", "b.h5"
    )
    listed = list_classes(tmp_path)
    assert listed.count == 2
    assert listed.notes == (f"skipped 2 images that are in no class folder, for example {tmp_path / '9.png'}",)


@pytest.mark.parametrize(
    ("names", "alike", "what"),
    [
        (("Cat", "cat", "dog"), "Cat, cat", "upper and lower case, or in blanks"),
        (("cat", "cat ", "dog"), "cat, cat ", "upper and lower case, or in blanks"),
        (("red fox", "red\u00a0fox", "red  fox", "fox"), "red fox, red\u00a0fox, red  fox", "or in blanks"),
        (("1", "01", "2"), "1, 01", "the same numbers"),
        (("-1", "-1.0", "1"), "-1, -1.0", "the same numbers"),
    ],
)
def test_names_that_may_mean_one_class_are_warned_of(names, alike, what):
    (warning,) = warnings_of_names(names, "here")
    assert warning.startswith(f"warning: the classes {alike} of here ")
    assert what in warning


def test_different_names_are_not_warned_of():
    assert not list(
        warnings_of_names(
            ("cat", "cats", "1", "10", "1.1", "1.10", "1a", "nan", *(str(10**17 + one) for one in (1, 2))), "here"
        )
    )


def test_class_folders_of_nearly_equal_names_are_warned_of(tmp_path):
    listed = list_classes(make(tmp_path, "Cat/1.png", "cat/1.png", "dog/1.png"))
    assert any(note.startswith("warning: the classes Cat, cat of ") for note in listed.notes)
