"""Properties of packing over made-up inputs: no traceback, and no wrong class without a word.

A few hundred examples by default, ten thousand with -m slow.
"""

import csv
import io
import string
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError
from competition.package.answer import KINDS
from competition.package.archive import extract, inspect
from competition.package.kaggle import write_csv
from competition.package.sample import read_sample

QUICK = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
THOROUGH = settings(QUICK, max_examples=10_000)
MOST = 12  # classes


class StubModel:
    """Predicts that an image's red value is its class."""

    def __init__(self, names):
        self.names = names

    def predict_proba(self, X):
        X = np.stack(list(X))
        return np.eye(len(self.names), dtype=np.float32)[np.minimum(X[:, 0, 0, 0], len(self.names) - 1)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Images 0.png to 11.png of class 0 to 11."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(MOST):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


# --- samples of competitions whose meaning is known


@dataclass
class Competition:
    """A made-up competition.

    names: the model's class names, which are the folders of the training images.
    kind: what the competition takes, as `Answer.kind`.
    labels: its label for each class, or the column of each class.
    rows: the sample's rows, with the header if it has one.
    has_header, id_column: the form of the rows.
    top: how many labels a cell has.
    told: whether the user says the kind.
    """

    names: tuple
    kind: str
    labels: tuple
    rows: list
    has_header: bool
    id_column: int
    top: int
    told: bool


NAMES = {
    "words": lambda count: [f"{letter}leaf" for letter in string.ascii_lowercase[:count]],
    "Species": lambda count: [f"Species{number + 1}" for number in range(count)],
    "from 0": lambda count: [str(number) for number in range(count)],
    "from 1": lambda count: [str(number + 1) for number in range(count)],
    "padded": lambda count: [f"{number + 1:02d}" for number in range(count)],
    "gaps": lambda count: [str(3 * number + 2) for number in range(count)],
}


@st.composite
def competitions(draw):
    count = draw(st.integers(2, MOST))
    style = draw(st.sampled_from(sorted(NAMES)))
    names = tuple(NAMES[style](count))
    numeric = style not in ("words", "Species")
    kinds = ["names", "probabilities"] if numeric else ["names", "positions", "one-based", "probabilities"]
    kind = draw(st.sampled_from(kinds + ["probability"] * (count == 2)))
    numbers = {"positions": range(count), "one-based": range(1, count + 1)}.get(kind)
    width = draw(st.integers(1, 3))
    labels = names if numbers is None else tuple(f"{number:0{width}d}" for number in numbers)
    if kind == "probabilities":
        labels = tuple(draw(st.sampled_from(["{}", "prob_{}", "{} p", "p({})"])).format(name) for name in names)
    ids = [str(number) for number in draw(st.permutations(range(count)))][: draw(st.integers(1, count))]
    ids = [draw(st.sampled_from(["{}", "{}.png", "0{}", "{}.PNG"])).format(name) for name in ids]
    top = draw(st.sampled_from([1, 1, min(3, count), count])) if kind not in ("probability", "probabilities") else 1
    columns, answers = answers_of(draw, kind, names, labels, top)
    id_column = draw(st.integers(0, len(columns)))
    has_header = kind in ("probabilities", "probability") or draw(st.booleans())
    rows = [["label"] if columns == [""] else list(columns)] * has_header + [list(answers()) for _ in ids]
    for row, name in zip(rows, ["id"] * has_header + ids, strict=True):
        row.insert(id_column, name)
    return Competition(names, kind, labels, rows, has_header, id_column, top, draw(st.booleans()))


def answers_of(draw, kind, names, labels, top):
    """(columns of answers in the header, a function that draws the answers of a row)."""
    if kind == "probabilities":
        order = draw(st.permutations(labels))
        return order, lambda: ["0.5"] * len(names)
    if kind == "probability":
        placeholder = draw(st.sampled_from(["0", "0.5", "0.0"]))
        return [draw(st.sampled_from(["", names[1]]))], lambda: [placeholder]
    cells = st.permutations(labels).map(lambda order: " ".join(order[:top]))
    one = draw(cells)
    constant = draw(st.booleans())
    return [""], lambda: [one if constant else draw(cells)]


def check_competition(competition, folder):
    """The answers are the competition's own labels of the images' classes, or the command says why not."""
    (folder.parent / "s.csv").write_text("\n".join(map(",".join, competition.rows)) + "\n")
    told = competition.kind if competition.told and competition.kind in KINDS else None
    try:
        path, notes = write_csv(
            StubModel(competition.names), folder, folder.parent / "s.csv", folder.parent / "a.csv", told
        )
    except UserError as error:
        assert "\n" not in str(error)
        assert not told or "several columns hold ids" in str(error)  # what the user says is not ambiguous
        return
    with open(path, newline="", encoding="utf-8") as file:
        written = list(csv.reader(file))
    assert len(written) == len(competition.rows)
    if competition.has_header:
        assert written[0] == competition.rows[0]
    header = [cell for place, cell in enumerate(competition.rows[0]) if place != competition.id_column]
    body = slice(int(competition.has_header), None)
    for got, row in zip(written[body], competition.rows[body], strict=True):
        assert got.pop(competition.id_column) == row[competition.id_column]
        number = int(row[competition.id_column].partition(".")[0])
        if competition.kind == "probabilities":
            assert header[int(np.argmax(np.array(got, float)))] == competition.labels[number]
        elif competition.kind == "probability":
            assert (float(got[0]) > 0.5) == (number == 1)
        else:
            got = got[0].split()
            assert len(set(got)) == len(got) == competition.top
            assert got[0] == competition.labels[number] or int(got[0]) == int(competition.labels[number])
    assert notes


@pytest.mark.integration
@QUICK
@given(competition=competitions())
def test_no_wrong_label_is_written(pictures, competition):
    check_competition(competition, pictures)


@pytest.mark.slow
@THOROUGH
@given(competition=competitions())
def test_no_wrong_label_is_written_thoroughly(pictures, competition):
    check_competition(competition, pictures)


# --- any text as a sample

CELLS = st.one_of(
    st.sampled_from(
        [
            "id",
            "label",
            "0",
            "1",
            "8",
            "0.5",
            "Species1",
            "7.jpg",
            "01",
            "",
            '"',
            "nan",
            "1e999",
            "٣",
            "²",
            "0 1",
            "cat 7",
        ]
    ),
    st.text(max_size=5),
)
TABLES = st.lists(st.lists(CELLS, max_size=4), max_size=6)


def check_text(data, names, told, folder):
    (folder / "s.csv").write_bytes(data)
    try:
        sample = read_sample(folder / "s.csv", names, {"7.jpg", "7", "8"}, told)
    except UserError as error:
        assert str(error).startswith("--sample")
        assert "\n" not in str(error)
        return
    assert len(set(sample.ids)) == len(sample.ids) > 0
    assert len(set(sample.answer.labels)) == len(sample.answer.labels) in (0, len(names))
    assert len(set(sample.answer.columns)) == len(sample.answer.columns)
    assert "\n" not in sample.mapping(names)


def encoded(table):
    text = io.StringIO()
    csv.writer(text).writerows(table)
    return text.getvalue().encode("utf-8", "surrogatepass")


SAMPLES = {
    "data": st.one_of(st.binary(max_size=60), TABLES.map(encoded)),
    "names": st.lists(st.sampled_from(["Species1", "0", "1", "01", "7", "cat"]), min_size=2, unique=True).map(tuple),
    "told": st.sampled_from([None, *KINDS]),
}


@pytest.mark.integration
@QUICK
@given(**SAMPLES)
def test_any_text_is_a_sample_or_an_error(tmp_path_factory, data, names, told):
    check_text(data, names, told, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@THOROUGH
@given(**SAMPLES)
def test_any_text_is_a_sample_or_an_error_thoroughly(tmp_path_factory, data, names, told):
    check_text(data, names, told, tmp_path_factory.getbasetemp())


# --- entries of a zip

PARTS = st.one_of(
    st.sampled_from(
        ["model.py", "metadata", "SubmissionModel", ".", "..", "", "a", "A", "ä", "a\u0308", "C:", "\\", "x" * 256]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
ENTRIES = st.lists(
    st.tuples(st.lists(PARTS, min_size=1, max_size=4).map("/".join), st.sampled_from(["", "x", "description: y"])),
    max_size=6,
)


def check_zip(entries, folder):
    """A zip is refused, or it is unpacked to exactly the places that its names say, all inside the folder."""
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            archive.writestr(info, content)
    checks = inspect(path)
    assert all(check.passed or (check.reason and check.fix) for check in checks)
    if not all(check.passed for check in checks):
        return
    target = folder / f"out{len(list(folder.iterdir()))}"
    target.mkdir()
    extract(path, target)
    named = [(name.partition("\0")[0], content) for name, content in entries]  # as every reader of zips cuts it
    files = {str(PurePosixPath(name)): content for name, content in named if not name.endswith("/")}
    got = {file.relative_to(target).as_posix(): file.read_text() for file in target.rglob("*") if file.is_file()}
    assert got == files
    assert {"model.py", "metadata"} <= set(got)


REQUIRED = [("model.py", "x"), ("./metadata", "")]


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:Duplicate name")
@QUICK
@given(entries=ENTRIES, required=st.booleans())
def test_any_entries_are_refused_or_unpacked_inside(tmp_path_factory, entries, required):
    check_zip(REQUIRED * required + entries, Path(tmp_path_factory.mktemp("zip")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")
@THOROUGH
@given(entries=ENTRIES, required=st.booleans())
def test_any_entries_are_refused_or_unpacked_inside_thoroughly(tmp_path_factory, entries, required):
    check_zip(REQUIRED * required + entries, Path(tmp_path_factory.mktemp("zip")))
