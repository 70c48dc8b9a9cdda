"""Reading sample_submission.csv: its rows, and what its answers mean."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import NAMES

from common.errors import UserError
from competition.package.answer import Answer, match_columns, match_values
from competition.package.image_ids import ImageIds
from competition.package.kaggle import plan, write_csv
from competition.package.kaggle_kernel import read_ids, write_answers
from competition.package.sample import read_sample

pytestmark = pytest.mark.unit
TREES = ("alder", "ash", "beech", "birch", "elm", "lime", "oak", "yew")
FROM_ZERO = tuple(f"tree{number}" for number in range(8))


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["plain", "BOM"])
def test_sample_with_windows_line_ends_and_byte_order_mark(tmp_path, end, bom):
    lines = ("id,label", "a.jpg,Species1", "b.jpg,Species1")
    (tmp_path / "s.csv").write_bytes((bom + "".join(line + end for line in lines)).encode())
    sample = read_sample(tmp_path / "s.csv", NAMES)
    assert (sample.header, sample.ids, sample.answer.kind) == (("id", "label"), ("a.jpg", "b.jpg"), "names")


def test_blank_lines_are_skipped(tmp_path):
    (tmp_path / "s.csv").write_text("id,label\n7,0\n\n8,0\n\n")
    assert read_sample(tmp_path / "s.csv", FROM_ZERO).ids == ("7", "8")


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
    "number out of range": ("id,label\n7,9\n", "got '9'"),
    "numbers from 0 and the top one": ("id,label\n7,0\n8,8\n", "got 0 and 8"),
    "a class and a number": (
        "id,label\n7,Species2\n8,1\n",
        "must all be classes, or all be numbers, got 'Species2' and '1'; repair the sample",
    ),
    "negative number": ("id,label\n7,-1\n", "got '-1'"),
    "no value": ("id,label\n7,\n", "--answer names or --answer positions"),
    "a value is missing": ("id,label\n7,Species1\n8,\n", "got ''"),
    "other words": ("id,label\n7,Species1 Rose\n", "got 'Species1 Rose'"),
    "other columns": ("id,Species1,Rose\n7,0.5,0.5\n", "the model's classes differ in Rose, Species2"),
    "a column too few": (f"id,{','.join(NAMES[:7])}\n7{',0' * 7}\n", "differ in Species8"),
    "a column twice": (f"id,{','.join(NAMES)},Species1\n7{',0' * 9}\n", "differ in number"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_sample_fails_before_anything_is_written(tmp_path, case):
    text, reason = INVALID[case]
    (tmp_path / "s.csv").write_text(text)
    for name in ("7.jpg", "8.jpg"):
        (tmp_path / name).touch()
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


# --- the rows: which column holds the ids, and whether there is a header

IDS = {"7.jpg", "8.jpg", "7", "8"}
ROWS = {
    "header": ("id,label\n7.jpg,0\n8.jpg,0\n", ("id", "label"), 0),
    "no header": ("7.jpg,0\n8.jpg,0\n", (), 0),
    "no header, one row": ("7.jpg,0\n", (), 0),
    "no header, no suffix": ("7,tree0\n8,tree1\n", (), 0),
    "labels first": ("label,id\n0,7.jpg\n0,8.jpg\n", ("label", "id"), 1),
    "labels first, no header": ("tree0,7.jpg\ntree0,8.jpg\n", (), 1),
    "labels that are ids too": ("label,id\n8,7\n8,8\n", ("label", "id"), 1),
    "one row, called by the header": ("class,image\n8,7\n", ("class", "image"), 1),
}


@pytest.mark.parametrize("case", ROWS)
def test_every_row_and_the_column_of_the_ids_is_found(tmp_path, case):
    text, header, id_column = ROWS[case]
    (tmp_path / "s.csv").write_text(text)
    sample = read_sample(tmp_path / "s.csv", FROM_ZERO, IDS)
    assert (sample.header, sample.id_column) == (header, id_column)
    assert len(sample.ids) == text.count("\n") - bool(header)
    assert set(sample.ids) <= IDS


@pytest.mark.parametrize("first", ["9", "9.jpg", "sub/9.PNG"])
def test_first_row_of_a_missing_image_is_not_taken_for_a_header(tmp_path, first):
    (tmp_path / "s.csv").write_text(f"{first},0\n7.jpg,0\n")
    assert read_sample(tmp_path / "s.csv", FROM_ZERO, IDS).ids == (first, "7.jpg")


def test_columns_of_probabilities_need_a_header(tmp_path):
    (tmp_path / "s.csv").write_text("7.jpg,0.5,0.5\n8.jpg,0.5,0.5\n")
    with pytest.raises(UserError, match="need a header"):
        read_sample(tmp_path / "s.csv", ("cat", "dog"), IDS)


HEADERLESS = {
    "the class of others": "a1f3,cat\nb2c4,cat\nc9d0,cat\n",
    "another class": "a1f3,dog\nb2c4,cat\n",
    "a number": "a1f3,1\nb2c4,0\n",
    "a probability": "a1f3,0.5\nb2c4,0.5\n",
    "different probabilities": "a1f3,0.7\nb2c4,0.3\n",
    "a list of labels": "a1f3,dog cat\nb2c4,cat dog\n",
    "a list of numbers": "a1f3,1 0\nb2c4,0 1\n",
}


@pytest.mark.parametrize("case", HEADERLESS)
@pytest.mark.parametrize("images", [(), {"b2c4"}], ids=["no image is known", "the first image is missing"])
def test_first_row_with_an_answer_is_no_header(tmp_path, case, images):
    """Its image would silently be missing from what is written."""
    (tmp_path / "s.csv").write_text(HEADERLESS[case])
    with pytest.raises(UserError, match="first line must be a header, got the answer .*; add a header such as id,lab"):
        read_sample(tmp_path / "s.csv", ("cat", "dog"), images)


def test_header_may_be_called_as_one_of_two_classes(tmp_path):
    (tmp_path / "s.csv").write_text("a1f3,cat\nb2c4,0.5\n")
    assert read_sample(tmp_path / "s.csv", ("cat", "dog")).header == ("a1f3", "cat")


@pytest.mark.parametrize(
    "text", ["label,image_id\n0,0001.jpg\n0,0002.jpg\n", "image_id,label\n0001.jpg,0\n0002.jpg,0\n"]
)
def test_labels_are_not_taken_for_ids_with_other_leading_zeros(tmp_path, text):
    """The folder is that of other images, one of which is called 0000.jpg."""
    (tmp_path / "images").mkdir()
    for name in ("0000.jpg", "0002.jpg"):
        (tmp_path / "images" / name).touch()
    (tmp_path / "s.csv").write_text(text)
    assert read_sample(tmp_path / "s.csv", FROM_ZERO, ImageIds(tmp_path / "images")).ids == ("0001.jpg", "0002.jpg")


def test_labels_that_match_an_image_do_not_hide_that_the_folder_is_a_wrong_one(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0000.jpg").touch()
    (tmp_path / "s.csv").write_text("image_id,label\n0001.jpg,0\n0002.jpg,0\n")
    with pytest.raises(UserError, match="has no image for 2 of the sample's 2 ids, the first is 0001.jpg"):
        plan(tmp_path / "images", tmp_path / "s.csv", FROM_ZERO)


def test_ids_that_differ_in_leading_zeros_come_before_a_label_that_matches(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.jpg").touch()
    (tmp_path / "s.csv").write_text("label,id\n0,000\n0,001\n0,002\n0,003\n")
    assert read_sample(tmp_path / "s.csv", FROM_ZERO, ImageIds(tmp_path / "images")).ids == ("000", "001", "002", "003")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_be_separated_as_those_of_labels(tmp_path, delimiter):
    """The answers are written with the same delimiter."""
    text = "id,label\n7.jpg,Species1\n8.jpg,Species1\n".replace(",", delimiter)
    (tmp_path / "s.csv").write_text(text)
    sample = read_sample(tmp_path / "s.csv", NAMES, IDS)
    assert (sample.header, sample.ids) == (("id", "label"), ("7.jpg", "8.jpg"))
    assert read_ids(tmp_path / "s.csv", sample.form()) == ["7.jpg", "8.jpg"]
    write_answers(tmp_path / "out.csv", sample.ids, np.eye(8, dtype=np.float32)[[0, 0]], sample.form())
    assert (tmp_path / "out.csv").read_text() == text


def test_ids_may_stand_between_probabilities(tmp_path):
    (tmp_path / "s.csv").write_text("dog,id,cat\n0.5,7.jpg,0.5\n0.5,8.jpg,0.5\n")
    sample = read_sample(tmp_path / "s.csv", ("cat", "dog"), IDS)
    assert (sample.id_column, sample.answer.columns) == (1, (1, 0))


# --- one column of answers

EIGHT = tuple("12345678")
PADDED = tuple(f"0{name}" for name in EIGHT)
ZERO_BASED = tuple("01234567")
BINARY = ("cat", "dog")
DECIDED = {
    "names": (NAMES, {"Species1"}, NAMES),
    "numbers as names": (EIGHT, {"1"}, EIGHT),
    "numbers as names, several": (EIGHT, {"3", "8"}, EIGHT),
    "padded names": (PADDED, {"01"}, PADDED),
    "padded names, plain sample": (PADDED, {"1"}, EIGHT),
    "plain names, padded sample": (EIGHT, {"01", "08"}, PADDED),
    "names from 0": (ZERO_BASED, {"0"}, ZERO_BASED),
    "names with gaps": (("3", "5", "70"), {"5"}, ("3", "5", "70")),
    "positions": (TREES, {"0", "3"}, ZERO_BASED),
    "positions, names numbered from 0": (tuple(f"c{name}" for name in ZERO_BASED), {"0"}, ZERO_BASED),
    "positions, several": (NAMES, {"0", "7"}, ZERO_BASED),
    "padded positions": (NAMES, {"00", "03"}, tuple(f"0{name}" for name in ZERO_BASED)),
    "from 1": (NAMES, {"1", "8"}, EIGHT),
    "from 1, only the top one": (NAMES, {"8"}, EIGHT),
    "two classes from 1": (BINARY, {"1", "2"}, ("1", "2")),
    "two class names": (BINARY, {"cat"}, BINARY),
    "blanks in a name": (("new whale", "pug"), {"new whale"}, ("new whale", "pug")),
    "blanks for underscores": (("new_whale", "pug"), {"new whale"}, ("new whale", "pug")),
    "underscores for blanks": (("new whale", "pug"), {"new_whale"}, ("new_whale", "pug")),
    "decimal names, whole numbers": (("2.0", "3.0", "4.0"), {"2", "3"}, ("2", "3", "4")),
    "decimal names as they are": (("2.0", "3.0", "4.0"), {"2.0"}, ("2.0", "3.0", "4.0")),
    "decimal names, padded numbers": (("2.0", "3.0"), {"02"}, ("02", "03")),
    "names in another Unicode form": (("cafe\u0301", "the\u0301"), {"caf\u00e9"}, ("caf\u00e9", "th\u00e9")),
    "names in the other Unicode form": (("caf\u00e9", "th\u00e9"), {"cafe\u0301"}, ("cafe\u0301", "the\u0301")),
}


@pytest.mark.parametrize("case", DECIDED)
def test_labels_are_decided_by_the_names_and_the_sample(case):
    names, values, labels = DECIDED[case]
    answer = match_values(values, "label", names)
    assert (answer.labels, answer.columns, answer.top) == (labels, (), 1)


ANIMALS = ("ant_1", "bee_2", "zebra_0")
UNDECIDED = {
    "names without numbers, a sample of 0": (TREES, {"0"}, ("names", "positions", "one-based")),
    "names from 1, a sample of 0": (EIGHT, {"0"}, ("names", "positions", "one-based")),
    "padded names, a sample of 0": (PADDED, {"0"}, ("names", "positions", "one-based")),
    "padded names, a sample of 00": (PADDED, {"00"}, ("names", "positions", "one-based")),
    "decimal names, a sample of 0": (("1.0", "2.0", "3.0"), {"0"}, ("names", "positions", "one-based")),
    "names that end in numbers from 1, a sample of 0": (NAMES, {"0"}, ("names", "positions", "one-based")),
    "names that end in other numbers, a sample of 0": (("c_5", "c_7", "c_9"), {"0"}, ("positions", "one-based")),
    "names that begin with numbers, a sample of 0": (
        ("001.Albatross", "002.Auk", "003.Bunting"),
        {"0"},
        ("names", "positions", "one-based"),
    ),
    "names with numbers in another order, a sample of 0": (ANIMALS, {"0"}, ("names", "positions", "one-based")),
    "names with numbers in another order": (ANIMALS, {"0", "1", "2"}, ("positions",)),
    "names with numbers from 1 in another order, a sample from 0": (
        ("ant_2", "bee_3", "zebra_1"),
        {"0", "2"},
        ("positions",),
    ),
    "names with numbers from 1 in another order": (("ant_2", "bee_3", "zebra_1"), {"1", "3"}, ("one-based",)),
    "names with gaps, a sample of 0": (("3", "5", "7"), {"0"}, ("names", "positions")),
    "two spellings of one number": (("1", "01", "2"), {"001"}, ("names", "positions")),
    "from 1 without the top one": (NAMES, {"1", "5"}, ("positions", "one-based")),
    "a sample of 1": (NAMES, {"1"}, ("positions", "one-based")),
    "two classes, 0": (BINARY, {"0"}, ("positions", "probability")),
    "two classes, 0 and 1": (BINARY, {"0", "1"}, ("positions", "probability")),
    "two classes 0 and 1": (("0", "1"), {"0"}, ("names", "probability")),
    "a probability of an unknown class": (BINARY, {"0.5"}, ("probability:cat", "probability:dog")),
    "empty": (NAMES, {""}, ("names", "positions", "one-based")),
    "empty, two classes": (BINARY, {""}, ("names", "positions", "one-based", "probability")),
}


@pytest.mark.parametrize("case", UNDECIDED)
def test_undecided_labels_are_refused_and_the_readings_are_offered(case):
    names, values, options = UNDECIDED[case]
    with pytest.raises(UserError) as caught:
        match_values(values, "label", names)
    for option in options:
        assert f"--answer {option}" in str(caught.value)
    assert ", ".join(sorted(values)) in str(caught.value)


def test_blanks_beside_cells_are_no_part_of_answers(tmp_path):
    """The header is kept as it is; `--labels` drops such blanks as well."""
    (tmp_path / "s.csv").write_text("id, label\n7, ash\n8,ash \n")
    sample = read_sample(tmp_path / "s.csv", TREES, ("7", "8"))
    assert (sample.header, sample.answer.labels) == (("id", " label"), TREES)
    (tmp_path / "p.csv").write_text("id, dog, cat\n7,0.5, 0.5\n")
    sample = read_sample(tmp_path / "p.csv", BINARY, ("7",))
    assert (sample.header, sample.answer.columns) == (("id", " dog", " cat"), (1, 0))
    (tmp_path / "s.csv").write_text("id,label\n7,ash \n")
    assert read_sample(tmp_path / "s.csv", ("ash ", "oak"), ("7",)).answer.labels == ("ash ", "oak")  # as the folder


@pytest.mark.parametrize("names", [TREES, FROM_ZERO])
def test_note_says_that_the_order_of_names_without_numbers_is_assumed(tmp_path, names):
    (tmp_path / "s.csv").write_text("id,label\n7,0\n8,5\n")
    mapping = read_sample(tmp_path / "s.csv", names, ("7", "8")).mapping(names)
    assert ("the order of the class names is assumed" in mapping) == (names == TREES)


@pytest.mark.parametrize("told", ["positions", "one-based"])
def test_numbers_in_names_do_not_matter_if_the_user_says_what_the_answers_are(told):
    assert match_values({"1"}, "label", ANIMALS, told).kind == told


@pytest.mark.parametrize("placeholder", ["-1", "0.0", "unknown", "?", "NaN"])
@pytest.mark.parametrize("told", ["names", "positions", "one-based"])
def test_one_value_in_all_rows_is_a_placeholder_if_the_user_says_what_the_answers_are(placeholder, told):
    assert match_values({placeholder}, "label", ANIMALS, told) == match_values({""}, "label", ANIMALS, told)
    with pytest.raises(UserError, match="give --answer"):
        match_values({placeholder}, "label", ANIMALS)
    with pytest.raises(UserError, match=f"--answer {told} needs"):
        match_values({placeholder, "also"}, "label", ANIMALS, told)


PROBABILITY = {
    "column of a class": (BINARY, {"0.5"}, "cat", 0),
    "the other column": (BINARY, {"0.0"}, "dog", 1),
    "column c": (("c", "d"), {"0.5"}, "c", 0),
    "prefixed column": (BINARY, {"0.5", "1"}, "is_Dog", 1),
    "classes 0 and 1": (("0", "1"), {"0.5"}, "target", 1),
    "classes 1 and 0 padded": (("00", "01"), {"0.5"}, "target", 1),
}


@pytest.mark.parametrize(
    "column",
    [
        "not_cat",
        "no cat",
        "non-cat",
        "is_without_cat",
        "cat_free",
        "cat absent",
        "cat_absence",
        "un-cat",
        "cat_negative",
    ],
)
@pytest.mark.parametrize("told", [None, "probability"])
def test_column_of_what_an_image_is_not_is_undecided(column, told):
    with pytest.raises(UserError, match="--answer probability:cat or --answer probability:dog"):
        match_values({"0.5"}, column, BINARY, told)
    assert match_values({"0.5"}, column, BINARY, "probability:dog").columns == (1,)


@pytest.mark.parametrize(("column", "expected"), [("no_cactus", 0), ("cactus", 1), ("has_cactus", 1)])
def test_negation_may_belong_to_the_name_of_a_class(column, expected):
    assert match_values({"0.5"}, column, ("no_cactus", "cactus")) == Answer("probability", columns=(expected,))


@pytest.mark.parametrize(
    ("names", "column", "expected"),
    [
        (("dog", "hot dog"), "hot_dog", 1),
        (("dog", "hot dog"), "is_hot_dog", 1),
        (("dog", "hot dog"), "dog", 0),
        (("big_cat", "cat"), "prob_big_cat", 0),
        (("big_cat", "cat"), "prob_cat", 1),
        (("pneumonia", "viral_pneumonia"), "is_viral_pneumonia", 1),
        (("caf\u00e9", "the"), "cafe\u0301", 0),
    ],
)
def test_the_longest_class_in_the_name_of_the_column_counts(names, column, expected):
    assert match_values({"0.5"}, column, names) == Answer("probability", columns=(expected,))


def test_a_negation_that_is_a_class_is_none():
    assert match_values({"0.5"}, "prob_no", ("no", "yes")) == Answer("probability", columns=(0,))


@pytest.mark.parametrize("case", PROBABILITY)
def test_probability_of_one_of_two_classes(case):
    names, values, column, expected = PROBABILITY[case]
    assert match_values(values, column, names) == Answer("probability", columns=(expected,))


TOLD = {
    "names": (EIGHT, {"0"}, "names", EIGHT),
    "padded names": (PADDED, {"1"}, "names", PADDED),
    "positions": (EIGHT, {"0"}, "positions", ZERO_BASED),
    "positions of other names": (NAMES, {"1"}, "positions", ZERO_BASED),
    "from 1": (NAMES, {"1"}, "one-based", EIGHT),
    "from 1, a placeholder": (NAMES, {"0"}, "one-based", EIGHT),
    "two classes": (BINARY, {"0"}, "positions", ("0", "1")),
    "empty": (NAMES, {""}, "positions", ZERO_BASED),
    "some empty": (NAMES, {"", "Species1"}, "names", NAMES),
}


@pytest.mark.parametrize("case", TOLD)
def test_labels_are_what_the_user_says(case):
    names, values, told, labels = TOLD[case]
    assert match_values(values, "label", names, told) == Answer(told, labels)


@pytest.mark.parametrize(
    ("column", "told", "expected"),
    [
        ("label", "probability", 1),
        ("cat", "probability", 0),
        ("p_dog", "probability", 1),
        ("label", "probability:cat", 0),
        ("p_dog", "probability:cat", 0),
    ],
)
@pytest.mark.parametrize("value", ["0", "0.5", ""])
def test_probability_is_that_of_the_named_class_or_of_the_column_or_of_the_second_class(column, told, expected, value):
    assert match_values({value}, column, BINARY, told) == Answer("probability", columns=(expected,))


@pytest.mark.parametrize("told", ["name", "probability:bird", "names:cat", "-1"])
def test_unknown_answer_is_refused(told):
    with pytest.raises(UserError, match="--answer .*must"):
        match_values({"0"}, "label", BINARY, told)


@pytest.mark.parametrize(
    ("names", "values", "told"),
    [
        (NAMES, {"8"}, "positions"),
        (NAMES, {"9"}, "one-based"),
        (NAMES, {"Species1"}, "positions"),
        (NAMES, {"Species9"}, "names"),
        (NAMES, {"0.5"}, "probability"),
        (BINARY, {"cat"}, "probability"),
        (BINARY, {"2"}, "probability"),
    ],
)
def test_sample_that_contradicts_the_user_is_refused(names, values, told):
    with pytest.raises(UserError, match=f"--answer {told}"):
        match_values(values, "label", names, told)


# --- several labels in a cell: MAP@k

WHALES = ("new whale", "w_1", "w_2", "pug")
LISTS = {  # names, values, --answer, kind, labels, top
    "names": (NAMES, {"Species1 Species2 Species3"}, None, "names", NAMES, 3),
    "two of the names": (BINARY, {"dog cat"}, None, "names", BINARY, 2),
    "several cells": (NAMES, {"Species1 Species2", "Species8 Species7"}, None, "names", NAMES, 2),
    "all classes": (NAMES, {" ".join(NAMES)}, None, "names", NAMES, 8),
    "numbers as names": (EIGHT, {"1 2 3 4 5"}, None, "names", EIGHT, 5),
    "positions": (NAMES, {"0 1 2"}, None, "positions", ZERO_BASED, 3),
    "from 1": (NAMES, {"8 7 6"}, None, "one-based", EIGHT, 3),
    "told to be from 1": (NAMES, {"1 2 3"}, "one-based", "one-based", EIGHT, 3),
    "padded": (NAMES, {"00 01"}, None, "positions", tuple(f"0{name}" for name in ZERO_BASED), 2),
    "underscores": (WHALES, {"new_whale w_1 pug"}, None, "names", ("new_whale", "w_1", "w_2", "pug"), 3),
    "told, of names that are numbers": (("1 2", "3", "4"), {"0 1"}, "positions", "positions", ("0", "1", "2"), 2),
    "blanks at the ends": (NAMES, {" Species1  Species2 "}, None, "names", NAMES, 2),
    "numbers for names with blanks": (WHALES, {"0 3"}, None, "positions", tuple("0123"), 2),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_of_labels_are_read(case):
    names, values, told, *expected = LISTS[case]
    answer = match_values(values, "label", names, told)
    assert [answer.kind, answer.labels, answer.top] == expected


@pytest.mark.parametrize(
    ("names", "values", "named"),
    [
        (WHALES, {"new whale pug"}, "spaces.* got 'new whale'; rename"),
        (WHALES, {"pug new whale"}, "spaces.* got 'new whale'; rename"),
        (WHALES, {"pug w_1"}, "spaces.* got 'new whale'; rename"),
        (NAMES, {"Species1 Species2", "Species1"}, "the same number of labels, got 1 and 2"),
        (NAMES, {"Species1 Species1"}, "different classes .* got 'Species1 Species1'"),
        (("a", "b", "c"), {"0 1 2 3"}, "different classes of the model's 3"),
        (NAMES, {"1 2 3"}, "--answer positions or --answer one-based"),
        (NAMES, {"0.5 0.25"}, "got '0.5 0.25'"),
        (NAMES, {"0 9"}, "got '9'"),
        (("1 2", "3", "4 5 6"), {"0 1 2"}, "several right labels, as the class '1 2' does"),
    ],
)
def test_other_lists_are_refused(names, values, named):
    with pytest.raises(UserError, match=named):
        match_values(values, "label", names)


def test_list_is_no_probability():
    with pytest.raises(UserError, match="--answer probability needs"):
        match_values({"0 1"}, "label", BINARY, "probability")


# --- several columns of answers

COLUMNS = {
    "names": (NAMES, NAMES),
    "prefix": (NAMES, [f"prob_{name}" for name in NAMES]),
    "suffix": (NAMES, [f"{name} (probability)" for name in NAMES]),
    "numbers": (NAMES, ZERO_BASED),
    "numbers with a prefix": (NAMES, [f"status_{name}" for name in ZERO_BASED]),
    "numbers from 1": (NAMES, [f"c{name}" for name in EIGHT]),
    "numbered names": (EIGHT, [f"class_{name}" for name in EIGHT]),
    "padded names": (PADDED, [f"p{name}" for name in EIGHT]),
    "names with other numbers": (("2cm", "10cm", "30cm", "40cm"), ["c0", "c1", "c2", "c3"]),
    "padded columns": (EIGHT, [f"p{name}" for name in PADDED]),
    "a name within the prefix": (("s", "t"), ["class_s", "class_t"]),
    "a name within another": (("leaf", "leaflet"), ["p_leaf", "p_leaflet"]),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_are_matched_in_any_order(case):
    names, columns = COLUMNS[case]
    order = [(3 * place + 1) % len(names) for place in range(len(names))]
    answer = match_columns([columns[place] for place in order], names)
    assert answer == Answer("probabilities", columns=tuple(order))


@pytest.mark.parametrize(
    ("names", "columns", "named"),
    [
        (EIGHT, ZERO_BASED, "--answer positions"),
        (("2", "3", "4"), ("c0", "c1", "c2"), "--answer positions"),
        (NAMES, [f"Species{name}" for name in ZERO_BASED], "differ in Species0, Species8; .* --answer positions"),
        (NAMES, [f"p_species_{name}" for name in ZERO_BASED], "--answer positions"),
        (("c2", "c3", "c4", "c5"), ("c1", "c2", "c3", "c4"), "differ in c1, c5; .* --answer one-based"),
        (("h1", "h2", "h4"), ("h1", "h2", "h3"), "differ in h3, h4; .* --answer one-based"),
        (("c1", "cat", "dog"), ("c0", "c1", "c2"), "--answer positions"),
        (
            ANIMALS,
            ("class_0", "class_1", "class_2"),
            "numbers of the columns may follow those in the class names.* --answer positions$",
        ),
        (NAMES, [f"c{name}" for name in (*EIGHT[1:], "9")], "differ in"),
        (NAMES, [f"a{name}" if name != "1" else "b1" for name in EIGHT], "differ in"),
        (NAMES, [f"prob_{name}" for name in (*NAMES[1:], "Rose")], "differ in"),
    ],
)
def test_other_columns_are_refused(names, columns, named):
    with pytest.raises(UserError, match=named):
        match_columns(columns, names)


@pytest.mark.parametrize(("told", "columns"), [("positions", ZERO_BASED), ("one-based", EIGHT)])
def test_numbered_columns_are_what_the_user_says(told, columns):
    assert match_columns(columns, tuple("23456789"), told).columns == tuple(range(8))
    assert match_columns(columns, NAMES, told).columns == tuple(range(8))
    assert match_columns([f"Species{name}" for name in columns], NAMES, told).columns == tuple(range(8))


# --- what an error says about the classes


@pytest.mark.parametrize(
    ("names", "values", "fix"),
    [
        (NAMES, {"Rose", "Lily"}, "the model has the classes Species1, .*; build with --run RUN if you trained one"),
        (NAMES, {"9"}, "the model has the classes"),
        (NAMES, {"0", "8"}, "the model has the classes"),
        (NAMES, {"Rose", "Species1"}, "train on the competition's classes"),
        (BINARY, {"Cat", "dog"}, "Cat and the model's cat differ only in upper and lower case: rename the folder"),
    ],
)
def test_fix_depends_on_how_the_classes_differ(names, values, fix):
    with pytest.raises(UserError, match=fix):
        match_values(values, "label", names)
    if not any(map(str.isdecimal, values)):
        with pytest.raises(UserError, match=fix):
            match_columns(sorted(values), names)


# --- the mapping that is printed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,label\n7,Species1\n", "class names as they are, Species1, Species2"),
        ("id,label\n7,0\n8,7\n", "positions: 0 = Species1, 1 = Species2"),
        ("id,label\n7,8\n", "one-based: 1 = Species1"),
        (f"id,{','.join(f'c{name}' for name in ZERO_BASED)}\n7{',0' * 8}\n", "c0 = Species1, c1 = Species2"),
        (
            f"id,label\n7,{' '.join(NAMES[:5])}\n",
            "MAP@5: five labels in each cell, the most probable first; labels: the",
        ),
        (
            "id,label\n7,0 1 2\n",
            "MAP@3: three labels in each cell, the most probable first; labels, positions: 0 = Spec",
        ),
    ],
)
def test_mapping_says_what_each_answer_stands_for(tmp_path, text, words):
    (tmp_path / "s.csv").write_text(text)
    line = read_sample(tmp_path / "s.csv", NAMES, IDS).mapping(NAMES)
    assert words in line
    assert line.count("\n") == 0


ELEVEN = tuple(f"class{number}" for number in range(1, 12))


@pytest.mark.parametrize(
    ("names", "text", "told", "noted"),
    [
        (ELEVEN, "id,label\n7,0\n", "positions", True),
        (ELEVEN, "id,label\n7,class2\n", None, False),
        (ELEVEN, f"id,{','.join(f'c{number}' for number in range(11))}\n7{',0' * 11}\n", None, True),
        (ELEVEN, f"id,{','.join(f'p_{name}' for name in ELEVEN)}\n7{',0' * 11}\n", None, False),
        (("apple", "hot dog", "Pear"), "id,label\n7,hot_dog\n", None, False),
        (("apple", "hot dog", "Pear"), "id,apple,hot_dog,Pear\n7,0,0,0\n", None, False),
        (tuple(str(number) for number in range(12) if number != 3), "id,label\n7,0\n", "positions", True),
    ],
)
def test_mapping_to_numbers_notes_another_order_than_that_of_keras(tmp_path, names, text, told, noted):
    (tmp_path / "s.csv").write_text(text)
    line = read_sample(tmp_path / "s.csv", names, IDS, told).mapping(names)
    assert ("where classes are sorted as text" in line) == noted


@pytest.mark.parametrize(
    "text",
    [
        "label,id\na,x\na,y\nb,z\n",
        "label,id\na,x\nb,y\nc,z\n",
        "label,id\n0,x\n1,y\n2,z\n",
        "label,what\na,x.jpg\na,y.jpg\nb,z.jpg\n",
        "a,x.jpg\nb,y.jpg\nc,z.jpg\n",
    ],
)
def test_column_of_ids_is_recognized_although_no_image_is_known(tmp_path, text):
    (tmp_path / "s.csv").write_text(text)
    sample = read_sample(tmp_path / "s.csv", ("a", "b", "c"))
    assert (sample.id_column, [name[0] for name in sample.ids]) == (1, ["x", "y", "z"])


def test_column_called_id_may_be_the_last_of_several_and_have_one_row(tmp_path):
    (tmp_path / "s.csv").write_text("cat,dog,id\n0.1,0.9,x\n")
    sample = read_sample(tmp_path / "s.csv", ("cat", "dog"))
    assert (sample.id_column, sample.ids, sample.answer.columns) == (2, ("x",), (0, 1))


@pytest.mark.parametrize("head", ["name,class_id", "name,category_id", "case,pathology", "case,profile"])
def test_first_column_has_the_ids_if_no_image_is_known_and_they_differ(tmp_path, head):
    """Names of columns of answers can look like those of ids."""
    (tmp_path / "s.csv").write_text(f"{head}\nx,a\ny,b\nz,a\n")
    sample = read_sample(tmp_path / "s.csv", ("a", "b"))
    assert (sample.id_column, sample.ids, sample.answer.kind) == (0, ("x", "y", "z"), "names")


def test_mapping_of_many_classes_is_shortened(tmp_path):
    names = tuple(f"class{number}" for number in range(100))
    (tmp_path / "s.csv").write_text("id,label\n7,0\n")
    line = read_sample(tmp_path / "s.csv", names, IDS).mapping(names)
    assert "0 = class0," in line and "… 99 = class99" in line.replace("…,", "…")
    assert len(line) < 1000
