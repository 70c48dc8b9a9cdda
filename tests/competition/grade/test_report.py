"""The report on a terminal: its tables fit 100 columns and stay short, however many classes there are."""

import re

import numpy as np
import pytest
from helpers import ROOT, load_module

from competition.grade.grade import Grade
from competition.grade.report import OWN_WARNING, report, verdict
from competition.package.archive import Check

pytestmark = pytest.mark.unit

score = load_module(ROOT / "competition" / "scoring_program" / "score.py", "score")
LONG = "A_class_with_a_very_long_name_in_which_only_the_end_differs_{:03d}"
WIDE = "苹果和梨子以及其他各种各样的水果和蔬菜的很长的名字{}"


def graded(names, labels, predictions):
    """A grade with the scores of these predictions."""
    scores = score.scores(score.confusion(np.array(labels), np.array(predictions), len(names)))
    checks = [Check("scoring", True)]
    return Grade("a.zip", len(labels), True, tuple(names), checks=checks, scores=scores)


def confused(names, per_class=10):
    """A grade in which class k has k % 10 mistakes, all predicted as the next class."""
    rows = np.arange(len(names) * per_class)
    labels, place = rows // per_class, rows % per_class
    return graded(names, labels, np.where(place < labels % per_class, (labels + 1) % len(names), labels))


def columns(text):
    """The columns of a line on a terminal, on which Chinese characters take two."""
    return sum(2 if "\u2e80" <= letter <= "\uffef" else 1 for letter in text)


@pytest.mark.parametrize("classes", [2, 8, 20, 31, 200])
@pytest.mark.parametrize("name", ["Species{}", LONG, WIDE])
def test_tables_fit_100_columns_and_are_short(name, classes):
    lines = report(confused([name.format(number) for number in range(classes)])).splitlines()
    assert max(map(columns, lines)) <= 100
    assert len(lines) <= 45


class CountingScores(dict):
    """Scores that count how often one is looked up."""

    looked_up = 0

    def __getitem__(self, key):
        self.looked_up += 1
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.looked_up += 1
        return super().get(key, default)


def test_scores_of_thousands_of_classes_are_looked_up_once():
    """Not each pair of classes: 3,000 classes have nine million."""
    grade = confused([f"Species{number}" for number in range(200)], per_class=2)
    grade.scores = CountingScores(grade.scores)
    report(grade)
    assert grade.scores.looked_up < 10 * 200


def test_few_classes_have_a_row_each_with_all_counts():
    text = report(confused([f"Species{number}" for number in range(8)]))
    assert re.search(r"^ +precision +recall +F1 +images +predicted as +0 +1 +2 +3 +4 +5 +6 +7$", text, re.MULTILINE)
    assert re.search(r"^Species3 +0\.\d+ +0\.700 +0\.\d+ +10 +3 +0 +0 +0 +7 +3 +0 +0 +0$", text, re.MULTILINE)
    assert "more classes" not in text


@pytest.mark.parametrize("classes", [31, 200])
def test_many_classes_are_shown_by_the_worst(classes):
    names = [f"Species{number}" for number in range(classes)]
    grade = confused(names)
    shown = re.findall(r"^(Species\d+)  +0\.\d{3}", report(grade), re.MULTILINE)
    f1 = {name: grade.scores[f"f1_{row}"] for row, name in enumerate(names)}
    assert [f1[name] for name in shown] == sorted(f1.values())[:20]
    assert f"… and {classes - 20} more classes, see --html" in report(grade)


def test_classes_without_images_are_not_the_worst():
    names = [f"Species{number}" for number in range(30)]
    labels = np.arange(25).repeat(4)
    predictions = labels.copy()
    predictions[:4] = 1
    shown = re.findall(r"^(Species\d+)  +[01]\.\d{3}", report(graded(names, labels, predictions)), re.MULTILINE)
    assert shown[:2] == ["Species0", "Species1"]
    assert not set(shown) & set(names[25:])


def test_largest_confusions_are_listed_in_order_of_their_count():
    names = [f"Species{number}" for number in range(31)]
    text = report(confused(names))
    listed = re.findall(r"^ +(\d+) of +10  Species(\d+) +taken for  Species(\d+)$", text, re.MULTILINE)
    expected = sorted(((row % 10, row) for row in range(31)), key=lambda pair: (-pair[0], pair[1]))[:10]
    assert [tuple(map(int, line)) for line in listed] == [(count, row, (row + 1) % 31) for count, row in expected]
    assert "… and 17 more pairs, see --html" in text  # 27 classes have a mistake


def test_no_confusions_are_listed_if_there_are_none():
    text = report(graded(["a", "b"], [0, 1, 1], [0, 1, 1]))
    assert "confusions" not in text
    assert "accuracy  100.00%" in text


def test_long_names_keep_their_ends():
    text = report(confused([LONG.format(number) for number in range(8)]))
    assert all(re.search(rf"^A_class\S*…\S*{number:03d} ", text, re.MULTILINE) for number in range(8))


def test_control_characters_of_a_name_are_escaped():
    assert "\x1b" not in report(confused(["a\x1b[2J", "b"]))


MEMORY = "it used more memory than the limit of 400 MB"
TIME = "it ran longer than the limit of 300 s"
READ_ONLY = "OSError: [Errno 30] Read-only file system: 'cache'"
NO_NETWORK = "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>"
REFUSED, UNKNOWN = "the server would not accept it: ", "not accepted here, but the server may score it: "


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ({"all images": f"did not finish: {MEMORY}", "limits": MEMORY, "scoring": "refused"}, UNKNOWN),
        ({"one image": "the shape [1, 1]", "odd batch": MEMORY, "limits": MEMORY, "scoring": "refused"}, REFUSED),
        ({"end of the process": MEMORY, "limits": MEMORY}, UNKNOWN),
        ({"odd batch": MEMORY, "limits": MEMORY, "no files left": "it wrote ingested_program/a"}, REFUSED),
        ({"all images": TIME, "limits": TIME, "scoring": "refused"}, REFUSED),
        ({"names": "appears twice"}, UNKNOWN),
        ({"names": "appears twice", "unpacked size": "9,000 MB"}, UNKNOWN),
        ({"names": "appears twice", "model.py": "there is no model.py"}, REFUSED),
        ({"scoring": "no number"}, REFUSED),
        ({"import and constructor": READ_ONLY, "scoring": "refused"}, UNKNOWN),
        ({"import and constructor": NO_NETWORK, "scoring": "refused"}, UNKNOWN),
        ({"import and constructor": READ_ONLY, "metadata": "unknown key"}, REFUSED),
        ({"all images": READ_ONLY, "limits": TIME}, REFUSED),
    ],
)
def test_the_server_may_score_only_what_local_rules_alone_refuse(failed, expected):
    checks = [Check("metadata", True), *(Check(name, False, reason, "fix") for name, reason in failed.items())]
    assert verdict(Grade("a.zip", 8, True, checks=checks)) == expected + ", ".join(failed)


@pytest.mark.parametrize("fix", ["the traceback is at the end of the log; fix model.py", "return integers"])
def test_the_log_tells_the_cause_of_an_exception_only(fix):
    log = f"{NO_NETWORK}\nThe above exception was the direct cause:\nRuntimeError: no weights"
    checks = [Check("import and constructor", False, "RuntimeError: no weights", fix)]
    expected = UNKNOWN if "traceback" in fix else REFUSED
    assert verdict(Grade("a.zip", 8, True, checks=checks, log=log)) == f"{expected}import and constructor"


def test_a_warning_in_the_log_is_no_cause():
    log = "fontconfig: cannot write cache: Read-only file system\nTraceback (most recent call last):\nAttributeError: x"
    checks = [Check("all images", False, "AttributeError: x", "the traceback is at the end of the log")]
    assert verdict(Grade("a.zip", 8, True, checks=checks, log=log)) == f"{REFUSED}all images"


@pytest.mark.parametrize("count", [10, 255, 10**6])
def test_a_long_class_name_is_shortened(count):
    text = report(confused(("a" * count, "b" * (count // 2) + "楓" * (count // 2))))
    assert max(map(columns, text.splitlines())) <= 100
    assert ("a" * 15 + "…" + "a" * 14 in text) == (count > 30)


def test_warnings_of_an_accepted_submission_are_shown_once():
    log = "".join(
        f"/a/model.py:7: UserWarning: rows {row}: taken as scaled\n  warn(row)\n" for row in (0, 1, 0, 2, 3, 4)
    )
    text = report(Grade("a.zip", 8, True, checks=[Check("metadata", True)], log=log))
    first = report(Grade("a.zip", 8, True, checks=[Check("metadata", True)], log=f"{log}{OWN_WARNING} an array\n"))
    assert f"note  its log has: {OWN_WARNING} an array\n" in first
    shown = re.findall("^note  its log has: (.+)$", text, re.MULTILINE)
    assert shown == [f"UserWarning: rows {row}: taken as scaled" for row in (0, 1, 2)]


def test_a_zip_that_cannot_be_unpacked_is_refused():
    checks = [Check("names", False, "the entry 'a' is encrypted", "zip without password")]  # no check of metadata
    assert verdict(Grade("a.zip", 8, False, checks=checks)) == REFUSED + "names"
