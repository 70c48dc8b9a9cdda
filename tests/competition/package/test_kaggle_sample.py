"""Reading sample_submission.csv and finding the image of each id."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import NAMES

from common.errors import UserError
from competition.package.kaggle import find_images, read_sample, write_csv

pytestmark = pytest.mark.unit


def make_files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


# --- ids and files


@pytest.mark.parametrize(
    "ids", [["7.jpg", "8.jpg"], ["7", "8"], ["a/7.jpg", "b/c/8.jpg"], ["a/7", "b/c/8"], ["8.jpg", "7"]], ids=str
)
def test_ids_match_with_and_without_suffix_and_folder(tmp_path, ids):
    make_files(tmp_path, "a/7.jpg", "b/c/8.jpg")
    found, others = find_images(tmp_path, ids)
    assert [path.stem for path in found] == [Path(name).stem for name in ids]
    assert others == 0


def test_same_name_in_two_folders_needs_the_folder(tmp_path):
    make_files(tmp_path, "a/7.jpg", "b/7.jpg")
    assert find_images(tmp_path, ["b/7.jpg", "a/7.jpg"])[0] == [tmp_path / "b/7.jpg", tmp_path / "a/7.jpg"]
    with pytest.raises(UserError, match=r"the id 7 matches .*a/7\.jpg and .*b/7\.jpg"):
        find_images(tmp_path, ["7"])


def test_dots_in_a_name_are_kept(tmp_path):
    make_files(tmp_path, "leaf.1.jpg", "leaf.2.jpg", "plain")
    found, _ = find_images(tmp_path, ["leaf.2", "leaf.1.jpg", "plain"])
    assert [path.name for path in found] == ["leaf.2.jpg", "leaf.1.jpg", "plain"]


def test_id_that_matches_two_files_fails(tmp_path):
    make_files(tmp_path, "7.jpg", "7.png")
    with pytest.raises(UserError, match="the id 7 matches"):
        find_images(tmp_path, ["7"])
    assert find_images(tmp_path, ["7.png"]) == ([tmp_path / "7.png"], 1)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    make_files(tmp_path, "7.jpg")
    with pytest.raises(UserError, match="no image for 2 of the sample's 3 ids, the first is 8"):
        find_images(tmp_path, ["7", "8", "9"])


def test_missing_folder_fails(tmp_path):
    with pytest.raises(UserError, match="--images: no folder at"):
        find_images(tmp_path / "nowhere", ["7"])


def test_hidden_files_are_ignored(tmp_path):
    make_files(tmp_path, "7.jpg", "._7.jpg", ".DS_Store", "notes.txt")
    assert find_images(tmp_path, ["7"]) == ([tmp_path / "7.jpg"], 1)


# --- the sample


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["plain", "BOM"])
def test_sample_with_windows_line_ends_and_byte_order_mark(tmp_path, end, bom):
    lines = ("id,label", "a.jpg,Species1", "b.jpg,Species1")
    (tmp_path / "s.csv").write_bytes((bom + "".join(line + end for line in lines)).encode())
    sample = read_sample(tmp_path / "s.csv", NAMES)
    assert (sample.header, sample.ids, sample.kind) == (("id", "label"), ("a.jpg", "b.jpg"), "names")


def test_blank_lines_are_skipped(tmp_path):
    (tmp_path / "s.csv").write_text("id,label\n7,0\n\n8,0\n\n")
    assert read_sample(tmp_path / "s.csv", NAMES).ids == ("7", "8")


INVALID = {
    "empty": ("", "needs a header"),
    "header only": ("id,label\n", "a line for each image"),
    "header and blank lines": ("id,label\n\n\n", "a line for each image"),
    "one column": ("id\n7\n", "two or more columns"),
    "an id twice": ("id,label\n7,0\n8,0\n7,0\n", "the id 7 more than once"),
    "a short line": ("id,label\n7,0\n8\n", "line 3 has 1 columns, the header has 2"),
    "a long line": ("id,label\n7,0,0\n", "line 2 has 3 columns, the header has 2"),
    "another class": (
        "id,label\n7,Species1\n8,Species9\n",
        "the model's classes or numbers from 0 to 7, got 'Species9'",
    ),
    "number out of range": ("id,label\n7,8\n", "got '8'"),
    "negative number": ("id,label\n7,-1\n", "got '-1'"),
    "no value": ("id,label\n7,\n", "got ''"),
    "other columns": ("id,Species1,Rose\n7,0.5,0.5\n", "the model's classes differ in Rose, Species2"),
    "a column too few": (f"id,{','.join(NAMES[:7])}\n7{',0' * 7}\n", "differ in Species8"),
    "a column twice": (f"id,{','.join(NAMES)},Species1\n7{',0' * 9}\n", "differ in number"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_sample_fails_before_anything_is_written(tmp_path, case):
    text, reason = INVALID[case]
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        write_csv(SimpleNamespace(names=NAMES), tmp_path, tmp_path / "s.csv", tmp_path / "out" / "a.csv")
    assert "--sample" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["missing", "folder", "no text"])
def test_unreadable_sample_fails(tmp_path, case):
    path = tmp_path / "s.csv"
    if case == "folder":
        path.mkdir()
    elif case == "no text":
        path.write_bytes(b"id,label\n\xff\xfe,0\n")
    with pytest.raises(UserError, match=r"--sample .*s\.csv: .*sample_submission\.csv"):
        read_sample(path, NAMES)
