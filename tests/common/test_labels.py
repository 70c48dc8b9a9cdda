"""Labels from a CSV file: which columns are recognized, what is refused, and the same images as by class folders."""

import numpy as np
import pytest

from common.errors import UserError
from common.folders import list_classes
from common.images import load_images
from common.labels import _Files, list_labelled

pytestmark = pytest.mark.unit
FILES = ("a.jpg", "b.jpg", "c.jpg", "sub/d.jpg")


@pytest.fixture
def listed(tmp_path):
    """Lists FILES, empty ones, by a table of this text or these bytes. Returns (class → file names, notes)."""

    def call(table, columns=None, files=FILES):
        folder = tmp_path / "images"
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        (tmp_path / "train.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
        result = list_labelled(folder, tmp_path / "train.csv", columns)
        classes = {name: [path.relative_to(folder).as_posix() for path in paths] for name, paths in result.classes}
        return classes, result.notes

    return call


EXPECTED = {"ash": ["b.jpg"], "oak": ["a.jpg", "c.jpg", "sub/d.jpg"]}
ROWS = "a.jpg,oak\nb.jpg,ash\nc.jpg,oak\nsub/d.jpg,oak\n"
HEAD = "image,label\n"
ONE_HOT = "id,oak,ash\na,1,0\nb,0,1\nc,1,0\nd,1,0\n"


@pytest.mark.parametrize(
    "table",
    [
        "image,label\n" + ROWS,
        "label,image\noak,a.jpg\nash,b.jpg\noak,c.jpg\noak,sub/d.jpg\n",
        "image_id;species\n" + ROWS.replace(",", ";").replace(".jpg", ""),
        "Image Name\tCategory\r\n" + ROWS.replace(",", "\t").replace("\n", "\r\n"),
        ("\ufefffile,what\n" + ROWS).encode(),
        "anything,what\n" + ROWS.replace("sub/d.jpg", "d.jpg"),
        "path,class\n" + "".join(f"images/{row}\n" for row in ROWS.split()),
        "path,class\n" + "".join(f"./{row}\n" for row in ROWS.split()),
        "path,class\n" + ROWS.replace("sub/", "sub\\"),
        'image,label\n"a.jpg"," oak "\n\nb.jpg,ash\nc.jpg,oak\nd.jpg,oak\n\n',
        ROWS,  # no header
        "Unnamed: 0,file,kind\n0,a.jpg,oak\n1,b.jpg,ash\n2,c.jpg,oak\n3,d.jpg,oak\n",
        "image,label,width,source\n" + "".join(f"{row},640,web\n" for row in ROWS.split()),
        ONE_HOT,
        ONE_HOT.replace("0", "0.0").replace("1", "1.0"),
        ONE_HOT.replace("0", "False").replace("1", "True"),
        "id,path,label\n" + "".join(f"{row[0]},data/{row}\n" for row in ROWS.replace("sub/", "").split()),
        ",label\n" + ROWS,
    ],
)
def test_columns_and_files_are_recognized(listed, table):
    classes, notes = listed(table)
    assert classes == EXPECTED
    assert list(classes) == ["ash", "oak"]
    assert len(notes) == 1 and notes[0].startswith("train.csv: column ") and notes[0].endswith("; 2 classes")


def test_class_names_are_in_natural_order_and_numbers_are_names(listed):
    classes, notes = listed("image,target\na,10\nb,9\nc,10\nd,1\n")
    assert list(classes) == ["1", "9", "10"]
    assert notes == ("train.csv: column image has the files, column target the labels; 3 classes",)


def test_labels_that_are_also_names_of_files_are_told_apart_by_the_names_of_the_columns(listed):
    files = tuple(f"{number}.png" for number in range(4))
    classes, _ = listed("id,label\n0,3\n1,2\n2,3\n3,2\n", files=files)
    assert classes == {"2": ["1.png", "3.png"], "3": ["0.png", "2.png"]}


@pytest.mark.parametrize("name", ["picture", "name", "jpg"])
def test_whole_names_of_files_come_before_numbers_of_rows_that_are_names_without_extension(listed, name):
    files = tuple(f"{number}.png" for number in range(4))
    classes, notes = listed(f"id,{name},label\n0,1.png,a\n1,2.png,b\n2,3.png,a\n3,0.png,b\n", files=files)
    assert classes == {"a": ["1.png", "3.png"], "b": ["0.png", "2.png"]}
    assert f"column {name} has the files" in notes[0]


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("Unnamed: 0,filename,label\n0,3.png,oak\n1,2.png,oak\n2,1.png,ash\n3,0.png,ash\n", "Unnamed: 0, filename"),
        (",kind,label\n0,3.png,oak\n1,2.png,oak\n2,1.png,ash\n3,0.png,ash\n", "column 1, kind"),
        ("id,image,label\n0,3,oak\n1,9,ash\n2,8,ash\n", "id, image"),
        ("id,url,label\n0,http://x/3.jpg,oak\n1,http://x/2.jpg,ash\n", "id, url"),
    ],
)
def test_numbers_of_rows_are_not_taken_for_files_if_another_column_names_other_files(listed, table, names):
    """For example because the images were converted: 3.png of the table is the file 3.jpg."""
    with pytest.raises(UserError, match=f"cannot recognize which of {names} names the files"):
        listed(table, files=tuple(f"{number}.jpg" for number in range(4)))


@pytest.mark.parametrize("names", ["name,train,test", "common_name,is_male,is_female"])
def test_flags_beside_other_columns_are_no_classes(listed, names):
    table = f"image_id,{names}\na,oak,1,0\nb,ash,0,1\nc,oak,1,0\nd,oak,1,0\n"
    with pytest.raises(UserError, match=f"which of {names.replace(',', ', ')} has the labels; .* if it is one-hot"):
        listed(table)


@pytest.mark.parametrize("name", ["target", "label", "species", "class"])
def test_a_one_hot_table_may_have_a_class_that_is_called_as_labels(listed, name):
    table = f"image,oak,ash,{name}\na,1,0,0\nb,0,1,0\nc,0,0,1\nd,1,0,0\n"
    classes, notes = listed(table)
    assert classes == {"ash": ["b.jpg"], "oak": ["a.jpg", "sub/d.jpg"], name: ["c.jpg"]}
    assert f"3 columns are one-hot (oak, ash, {name})" in notes[0]


def test_a_column_of_labels_beside_flags_is_used(listed):
    classes, _ = listed("image,is_new,is_old,label\na,1,0,0\nb,0,1,1\nc,1,0,0\nd,1,0,0\n")
    assert list(classes) == ["0", "1"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line", ["sep={}", '"sep={}"', "SEP={}"])
def test_the_line_of_excels_separator_is_no_header(listed, separator, line):
    table = (line.format(separator) + "\r\n" + HEAD + ROWS).replace("\r\nimage,", f"\r\nimage{separator}")
    first, _, rest = table.partition("\r\n")
    assert listed(first + "\r\n" + rest.replace(",", separator))[0] == EXPECTED


def test_lines_are_counted_with_that_of_excels_separator(listed):
    with pytest.raises(UserError, match="the first is line 4; complete"):
        listed("sep=,\n" + HEAD + ROWS.replace("b.jpg,ash", "b.jpg,"))


def test_the_columns_of_a_one_hot_table_are_named(listed):
    assert "; 2 classes" in listed(ONE_HOT)[1][0] and "2 columns are one-hot (oak, ash)" in listed(ONE_HOT)[1][0]


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        (
            ("1", "1.0", "2", "3"),
            "warning: the classes 1, 1.0 of train.csv are the same numbers, written in several ways",
        ),
        (
            ("oak", "NA", "ash", "oak"),
            "warning: the class NA of train.csv may stand for a missing label; if so, remove its rows",
        ),
        *(
            (
                labels,
                f"warning: the class {labels[1]} of train.csv is a combination of others; if an image has several "
                "labels, each combination is learned as a class of its own",
            )
            for labels in (("rust", "rust scab", "scab", "rust"), ("616", "147 616", "7", "8"), ("a", "b|a", "b", "a"))
        ),
    ],
)
def test_labels_that_are_likely_no_classes_are_warned_of(listed, labels, warning):
    table = HEAD + "".join(f"{name},{label}\n" for name, label in zip("abcd", labels, strict=True))
    assert warning in listed(table)[1]


def test_a_table_of_pixels_is_told_how_to_become_files(listed):
    head = "label," + ",".join(f"pixel{number}" for number in range(784))
    with pytest.raises(UserError, match="must name files of images, got 785 columns; if they are the pixels, save"):
        listed(head + "\n1" + ",0" * 784 + "\n")


@pytest.mark.parametrize("label", ["hot dog", "common wheat", "no scab", "1 of 2", "1 000", "3|5"])
def test_a_class_of_several_words_is_no_combination(listed, label):
    table = HEAD + f"a,{label}\nb,dog\nc,scab\nd,wheat\n"
    assert not any("combination" in note for note in listed(table)[1])


def test_a_first_line_with_an_image_is_no_header(listed):
    with pytest.raises(UserError, match="1 of 5 do not exist, the first is 9.jpg"):
        listed("9.jpg,oak\n" + ROWS)


def test_given_columns_are_used_instead_of_recognized_ones(listed):
    table = "image,label,species\na,1,oak\nb,0,ash\nc,1,oak\nd,1,oak\n"
    assert listed(table, ("image", "species"))[0] == EXPECTED
    assert list(listed(table, ("image", "label"))[0]) == ["0", "1"]
    table = "".join(f"{row},x\n" for row in ROWS.split())
    assert listed(table, ("column 1", "column 2"))[0] == EXPECTED


def test_unused_images_and_repeated_rows_are_noted(listed):
    files = (*FILES, "e.jpg", "f.HEIC", "train.txt", ".DS_Store")
    classes, notes = listed("image,label\n" + ROWS + "a.jpg,oak\n", files=files)
    assert classes == EXPECTED
    assert notes[1] == "train.csv names 1 files more than once, with the same label"
    assert notes[2].startswith("skipped 2 images that are not in train.csv, for example ")
    assert notes[2].endswith("e.jpg")


def test_classes_that_differ_only_in_case_are_warned_of(listed):
    classes, notes = listed(HEAD + ROWS.replace("a.jpg,oak", "a.jpg,Oak"))
    assert len(classes) == 3
    assert notes[1] == "warning: the classes Oak, oak of train.csv differ only in upper and lower case, or in blanks"


def test_blanks_before_quotes_do_not_become_part_of_the_class(listed):
    assert listed('image, label\na.jpg, "oak"\nb.jpg, ash\nc.jpg,oak\nsub/d.jpg,   "oak"\n')[0] == EXPECTED


def test_a_one_hot_column_without_a_1_is_warned_of(listed):
    classes, notes = listed(ONE_HOT.replace("oak,", "oak,elm,").replace(",1,0", ",1,0,0").replace(",0,1", ",0,0,1"))
    assert classes == EXPECTED
    assert notes[1] == "warning: no row of train.csv has a 1 in elm, so these are no classes of the model"


def test_two_one_hot_columns_of_one_name_are_refused(listed):
    with pytest.raises(UserError, match="two of its columns have the same name"):
        listed("id,oak,oak\na,1,0\nb,0,1\nc,1,0\nd,1,0\n")


def test_thousands_of_files_of_one_name_are_found_by_their_folders(listed, tmp_path):
    """Each row looks at the files of its own folder only."""
    files = [f"{number}/image.png" for number in range(4000)]
    rows = "".join(f"{number}/image{'.png' * (number % 2)},{'ab'[number % 2]}\n" for number in range(4000))
    classes, _ = listed("path,label\n" + rows, files=files)
    assert classes == {"a": files[::2], "b": files[1::2]}
    found = _Files(tmp_path / "images", [tmp_path / "images" / name for name in files])._by_end
    assert len(found["7", "image.png"]) == 1


def test_an_annotation_beside_an_image_is_not_taken_for_it(listed):
    assert listed("id,label\na,oak\nb,ash\nc,oak\nd,oak\n", files=(*FILES, "a.xml", "b.txt"))[0] == EXPECTED


def test_a_path_within_the_folder_comes_before_one_in_a_subfolder(listed):
    assert listed("image,label\n" + ROWS, files=(*FILES, "sub/a.jpg"))[0] == EXPECTED


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (HEAD + ROWS + "x.jpg,oak\ny.jpg,oak\n", "2 of 6 do not exist, the first is x.jpg"),
        (HEAD + "x,oak\ny,ash\n", "2 of 2 do not exist, the first is x"),
        (HEAD + ROWS + "a.jpg,ash\n", "one label, a.jpg has two, oak and ash .line 6"),
        (HEAD + ROWS.replace("ash", "oak"), "at least two classes, got only oak"),
        (HEAD + ROWS.replace("ash", ""), "no empty cells, 1 rows have one, the first is line 3"),
        (HEAD + ROWS.replace("a.jpg", ""), "no empty cells"),
        (HEAD + ROWS + "a.jpg\n", "2 cells in each row, line 6 has 1"),
        (HEAD + ROWS + '"a.jpg,oak\n', "damaged in line"),
        (HEAD, "must have a header, rows"),
        ("", "must have a header, rows"),
        ("image\na.jpg\n", "a column each"),
        ((HEAD + ROWS).encode("utf-16"), "must be UTF-8"),
        ((HEAD + ROWS).replace("oak", "ch\xeane").encode("latin-1"), "must be UTF-8"),
        ("one,two\nx,oak\ny,ash\n", "a column of files of .*--label-columns"),
        (
            "id,file,label\na.jpg,a.jpg,oak\nb.jpg,b.jpg,ash\n",
            "which of id, file names the files; .*--label-columns",
        ),
        ("image,class,species\na,1,oak\nb,0,ash\n", "which of class, species has the labels; .*--label-columns image"),
        ("image,x,y,kind\na,1,2,oak\nb,3,4,ash\n", "which of x, y, kind has the labels"),
        ("image,age,sex\na,1,oak\nb,3,ash\n", "which of age, sex has the labels"),
        (ONE_HOT + "a,1,1\n", "exactly one of oak, ash must be 1, line 6 has 2"),
        (ONE_HOT + "a,0,0\n", "line 6 has 0"),
        (HEAD + ROWS.replace("ash", "../x"), "usable as the name of a folder, got ../x"),
        (HEAD + ROWS.replace("ash", ".x"), "usable as the name of a folder"),
        (HEAD + ROWS.replace("ash", "a\x1b"), "usable as the name of a folder, got a.x1b"),
    ],
)
def test_wrong_tables_are_one_clear_line(listed, table, words):
    with pytest.raises(UserError, match=words) as error:
        listed(table)
    assert "\n" not in str(error.value)


def test_a_name_of_several_files_is_refused(listed):
    with pytest.raises(UserError, match="line 5: d.jpg must name one file, got .*other/d.jpg and .*sub/d.jpg"):
        listed(HEAD + ROWS.replace("sub/", ""), files=(*FILES, "other/d.jpg"))


@pytest.mark.parametrize("columns", [("image", "kind"), ("file", "label")])
def test_columns_that_do_not_exist_are_refused(listed, columns):
    with pytest.raises(UserError, match="--label-columns must be two of image, label, got (kind|file)"):
        listed(HEAD + ROWS, columns)


@pytest.mark.parametrize(("values", "warned"), [(("train", "Test"), True), (("train", "a"), False), (("", ""), False)])
def test_a_column_of_parts_is_warned_of(tmp_path, values, warned):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    rows = [
        f"{name},{label},{part}" for name, label, part in zip(("a.png", "b.png"), ("cat", "dog"), values, strict=True)
    ]
    (tmp_path / "all.csv").write_text("\n".join(["image,label,data set", *rows]))
    notes = list_labelled(tmp_path, tmp_path / "all.csv").notes
    warning = "warning: column data set of all.csv has the parts test, train, and all rows are read"
    assert any(note.startswith(warning) for note in notes) == warned


@pytest.mark.parametrize(
    ("column", "values", "warned"),
    [
        ("is_train", "1010", True),
        ("is_training_image", "0110", True),
        ("Is-Test", ("True", "False", "True", "True"), True),
        ("split", ("train1", "test", "train2", "test"), True),
        ("split", "0121", False),
        ("subset", ("web", "own", "web", "own"), False),
        ("is_train", "1111", False),
        ("is_train", "1234", False),
        ("is_new", "1010", False),
        ("fold", "0123", False),
    ],
)
def test_a_column_that_is_called_as_parts_is_warned_of(listed, column, values, warned):
    rows = "".join(f"{row},{value}\n" for row, value in zip(ROWS.split(), values, strict=True))
    _, notes = listed(f"image,label,{column}\n{rows}")
    assert any(f"column {column} of train.csv has the parts" in note for note in notes) == warned


def test_a_column_of_parts_with_an_empty_cell_is_warned_of(listed):
    parts = iter(["Train", "Val", "", "Train"])
    _, notes = listed("image,label,split\n" + "".join(f"{row},{next(parts)}\n" for row in ROWS.split()))
    assert any("column split of train.csv has the parts train, val, and all rows are read" in note for note in notes)


def test_a_missing_table_or_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        list_labelled(tmp_path / "nowhere", tmp_path / "train.csv")
    with pytest.raises(UserError, match="the file of labels must be a CSV file, .*No such file"):
        list_labelled(tmp_path, tmp_path / "train.csv")


def test_class_folders_and_a_table_of_them_are_the_same_images(leaf_folder, tmp_path):
    rows = [f"{path.relative_to(leaf_folder)},{path.parent.name}" for path in leaf_folder.glob("*/*.jpg")]
    (tmp_path / "train.csv").write_text("\n".join(["path,species", *rows]))
    one, other = (
        load_images(listed)
        for listed in (list_classes(leaf_folder), list_labelled(leaf_folder, tmp_path / "train.csv"))
    )
    assert (one.names, one.paths, one.digests) == (other.names, other.paths, other.digests)
    assert np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_line_ends_are_read(listed, end):
    assert listed((HEAD + ROWS).replace("\n", end)) == listed(HEAD + ROWS)
