"""The report's questions: each command as a process of its own on drawn leaves, and the parts they share."""

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from helpers import own_lines
from PIL import Image
from sklearn.metrics import f1_score

from competition.drawings import draw_folder
from training.questions import COMPONENTS, class_f1, folds, linear_classifier, main_components, thinned

NAMES = ("everything", "selection", "smote", "species1", "two_devices")
CLASSES = [f"Species{number}" for number in range(1, 9)]
COMMON, RARE = 58, {"Species1": 16, "Species6": 18}  # enough for 256 components of a thinned fold's training part
DOCUMENT = ROOT / "docs" / "questions.md"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with train, whose rare species are rare, and test."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_folder(folder / "train", COMMON, side=32)
    for name, count in RARE.items():
        for path in sorted((folder / "train" / name).iterdir())[count:]:
            path.unlink()
    draw_folder(folder / "test", 5, side=32, seed=5)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Three classes of ten drawn leaves each to train on, and as many to test."""
    folder = tmp_path_factory.mktemp("few")
    draw_folder(folder / "train", 10, classes=3, side=32)
    draw_folder(folder / "test", 10, classes=3, side=32, seed=5)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def command(module, *arguments):
    """A command of this project as a process of its own."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    words = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)


def ask(name, folder, cache, out, *more):
    where = ["--data", folder / "train", "--backbone-weights", "none", "--cache", cache, "--out", out]
    return command(f"training.questions.{name}", *where, *more)


def answered(done, name, out):
    """The answer of a question that went well, every number in it finite and its picture drawn."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert f"done: {out / name}.json and .png" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.json", f"{name}.png"]
    with Image.open(out / f"{name}.png") as picture:
        assert picture.format == "PNG" and picture.width > 800 and picture.height > 300
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
    answer = json.loads((out / f"{name}.json").read_text())
    assert all(map(math.isfinite, numbers(answer)))
    return answer


def numbers(value):
    """Every number in plain values, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


def shares(values):
    return all(0 <= value <= 1 for value in values)


@pytest.mark.slow
def test_two_devices_agree_with_one_where_their_statistics_are_together(drawn, cache, tmp_path):
    answer = answered(ask("two_devices", drawn, cache, tmp_path), "two_devices", tmp_path)
    difference = answer["difference"]
    assert difference["two, statistics together"]["largest"] < 1e-9  # in double precision it is rounding alone
    assert difference["two, statistics together"]["steps_that_agree"] == answer["steps"]
    assert difference["two, statistics apart"]["largest"] > 1e-3
    assert difference["at 64 images"]["largest"] < 1e-9
    assert {name: len(losses) for name, losses in answer["losses"].items()} == {
        "one device": 12,
        "two, statistics together": 12,
        "two, statistics apart": 12,
        "two, 32 images each": 6,
        "one device, batches of 64": 6,
        "one device, single precision": 12,
        "two, statistics together, single precision": 12,
    }
    assert answer["losses"]["one device"][0] == pytest.approx(math.log(8), abs=1)  # nothing learned yet
    noise = answer["noise_of_statistics"]
    assert noise["16 images"] > noise["32 images"] > 0


@pytest.mark.slow
def test_smote(drawn, cache, tmp_path):
    answer = answered(ask("smote", drawn, cache, tmp_path), "smote", tmp_path)
    assert answer["rare"] == ["Species1", "Species6"]
    total = COMMON * 6 + sum(RARE.values())
    assert answer["chance"] == pytest.approx({name: RARE.get(name, COMMON) / total for name in CLASSES})
    assert set(answer["own_neighbour"]) == set(answer["support_vectors"]) == {"pixels", "features"}
    assert all(list(own) == CLASSES and shares(own.values()) for own in answer["own_neighbour"].values())
    assert shares(answer["support_vectors"].values())
    assert 0 < answer["detail_kept"] < 1  # a mean of two pictures is smoother than a picture
    assert set(answer["folds"]) == {"nothing", "class weights", "repeated images", "SMOTE", "SVMSMOTE"}
    for cells in answer["folds"].values():
        assert list(cells) == ["accuracy", *CLASSES]
        assert shares(cell["mean"] for cell in cells.values()) and all(cell["spread"] >= 0 for cell in cells.values())
    assert answer["folds"]["nothing"]["accuracy"]["mean"] > 1.5 / 8  # it learns


@pytest.mark.slow
def test_species1(drawn, cache, tmp_path):
    answer = answered(ask("species1", drawn, cache, tmp_path), "species1", tmp_path)
    assert answer["images"] == {name: RARE.get(name, COMMON) for name in CLASSES}
    assert sum(answer["taken_by"].values()) == pytest.approx(1)
    assert sum(answer["neighbours"].values()) == pytest.approx(1)
    alike = answer["rare_or_alike"]
    assert list(alike) == CLASSES
    assert alike["Species1"]["natural"] == alike["Species1"]["as_rare"] == answer["lifts"]["nothing"]["f1"]
    assert np.mean([cell["as_rare"] - cell["natural"] for name, cell in alike.items() if name not in RARE]) < 0  # rare is worse
    assert set(answer["lifts"]) == {"nothing", "class weights", "images three times", "prior of equal shares"}
    assert all(shares(row.values()) for row in answer["lifts"].values())
    assert list(answer["with_fewer_images"]) == ["0.25", "0.50", "0.75", "1.00"]


@pytest.mark.slow
def test_everything(few, cache, tmp_path):
    answer = answered(ask("everything", few, cache, tmp_path, "--test", few / "test"), "everything", tmp_path)
    assert 1 <= answer["epochs"] <= 60 == len(answer["validation_loss"])
    assert answer["validation_loss"][answer["epochs"] - 1] == min(answer["validation_loss"])
    assert answer["out_of_fold"]["images"] == answer["test"]["images"] == 30
    assert len(answer["single_folds"]) == 5 and shares(answer["single_folds"])
    for part in (answer["out_of_fold"], answer["test"]):
        low, high = part["interval95"]
        assert 0 <= low < part["accuracy"] < high <= 1 or part["accuracy"] in (0, 1)


@pytest.fixture(scope="module")
def search(few, tmp_path_factory):
    """The folder of a search of three trials."""
    out = tmp_path_factory.mktemp("tune") / "search"
    given = ["--data", few / "train", "--test", few / "test", "--backbone-weights", "none", "--out", out, "--trials", 3]
    done = command("training", "tune", "tuned", *given, "--set", "frozen_epochs=2", "--set", "head_views=1")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_selection(few, cache, search, tmp_path):
    done = ask("selection", few, cache, tmp_path, "--test", few / "test", "--search", search)
    answer = answered(done, "selection", tmp_path)
    lines = [line.split(",") for line in (search / "trials.csv").read_text().splitlines()]
    assert lines[0][:3] == ["trial", "val_accuracy", "test_accuracy"]
    assert answer["trials"] == len(answer["rows"]) == 3
    assert [row["validation"] for row in answer["rows"]] == [float(line[1]) for line in lines[1:]]
    assert [row["test"] for row in answer["rows"]] == [float(line[2]) for line in lines[1:]]
    assert answer["validation_images"] == 6
    assert answer["best_validation"] == float(lines[1][1]) and answer["best_test"] == float(lines[1][2])
    p = answer["best_validation"]
    assert answer["spread_by_images"] == pytest.approx(math.sqrt(p * (1 - p) / 6))
    assert all((row["folds"] * 30) % 1 == pytest.approx(0, abs=1e-9) or row["folds"] * 30 % 1 > 1 - 1e-9 for row in answer["rows"])
    assert answer["ten_best_in_folds"] == pytest.approx(np.mean([row["folds"] for row in answer["rows"]]))


def refused(done, *words):
    """Asserts exit code 2, nothing on stdout, and one line on stderr with these words, TensorFlow's own lines aside."""
    assert (done.returncode, done.stdout) == (2, "")
    lines = own_lines(done.stderr)
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert all(word in lines[0] for word in words), done.stderr


@pytest.mark.parametrize("name", ["everything", "selection"])
def test_a_question_about_test_images_asks_for_them(name, few, cache, tmp_path):
    refused(ask(name, few, cache, tmp_path), "--test")
    assert list(tmp_path.iterdir()) == []


def test_selection_asks_for_a_finished_search(few, cache, tmp_path):
    (tmp_path / "search").mkdir()
    done = ask("selection", few, cache, tmp_path / "out", "--test", few / "test", "--search", tmp_path / "search")
    refused(done, str(tmp_path / "search"), "python -m training tune")


LINE = "1,0.5,0.5,96,0.3,0.3,1,128,0.001,relu"
HEAD = "trial,val_accuracy,test_accuracy,size,dropout,dense_dropout,layers,width,learning_rate,activation"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        (HEAD + "\n", ()),
        (HEAD + "\n" + LINE.replace("0.001", "fast") + "\n", ()),
        (HEAD.replace("test_accuracy,", "") + "\n" + LINE.replace("0.5,", "", 1) + "\n", ("no test accuracy", "--test")),
        (HEAD + "\n" + LINE.replace("0.5", "0.123", 1) + "\n", ("0.123 is no share of 6 images", "other data")),
    ],
)
def test_a_trials_csv_that_does_not_fit_is_one_line(text, words, few, tmp_path, capsys, monkeypatch):
    from training import questions
    from training.questions import selection

    (tmp_path / "search.json").write_text(json.dumps({"recipe": selection.tuned.to_json()}))
    (tmp_path / "trials.csv").write_text(text)
    given = ["--data", few / "train", "--test", few / "test", "--backbone-weights", "none", "--cache", tmp_path, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["selection", *map(str, given)])
    assert questions.ask("", lambda question: selection.answer(question, tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_images_that_is_not_there_is_one_line(name, tmp_path, capsys, monkeypatch):
    import importlib

    from training import questions

    module = importlib.import_module(f"training.questions.{name}")
    arguments = ["--data", str(tmp_path / "nowhere"), "--test", str(tmp_path), "--backbone-weights", "none", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    (tmp_path / "trials.csv").write_text(f"{HEAD}\n{LINE}\n")
    answer = (lambda question: module.answer(question, tmp_path)) if name == "selection" else module.answer
    assert questions.ask("", answer) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "nowhere" in error


# What the questions share


def test_thinned_keeps_so_many_rows_of_a_class_and_all_of_the_others():
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    rows = thinned(labels, {1: 7, 2: 30}, 0)
    assert np.bincount(labels[rows]).tolist() == [10, 7, 30]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert set(range(10)) <= set(rows.tolist())


def test_thinned_is_random_and_the_same_for_the_same_seed():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], [40, 40]))
    rows = [thinned(labels, {0: 15}, seed).tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    assert thinned(labels, {}, 0).tolist() == list(range(80))


def test_folds_hold_every_row_out_once_a_repeat_and_keep_the_classes_shares():
    labels = np.repeat([0, 1, 2], [15, 25, 60])
    parts = folds(labels, repeats=2)
    assert len(parts) == 10
    for repeat in (parts[:5], parts[5:]):
        assert sorted(np.concatenate([held for _, held in repeat]).tolist()) == list(range(100))
    for rows, held in parts:
        assert sorted([*rows, *held]) == list(range(100))
        assert np.bincount(labels[held]).tolist() == [3, 5, 12]
    assert [held.tolist() for _, held in parts[:5]] != [held.tolist() for _, held in parts[5:]]


def test_folds_are_the_same_for_the_same_seed():
    labels = np.repeat([0, 1], [20, 20])
    held = [[part.tolist() for _, part in folds(labels, seed=seed)] for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_class_f1_is_of_every_class_even_one_that_never_comes_up():
    truth, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    # Class 0: one right, one missed, one wrongly; class 1: two right, one missed, one wrongly.
    assert class_f1(truth, predicted, 3) == pytest.approx([2 / 4, 4 / 6, 0])
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, (2, 200))
    assert class_f1(truth, predicted, 4) == pytest.approx(f1_score(truth, predicted, average=None))


def test_the_linear_classifier_sees_256_components_and_learns():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 100)
    x = rng.normal(size=(300, 400)) + 3 * np.eye(3)[y] @ rng.normal(size=(3, 400))
    x *= rng.uniform(0.01, 100, 400)  # features of any scale
    space = main_components().fit(x)
    assert space.transform(x).shape == (300, COMPONENTS)
    model = linear_classifier().fit(space.transform(x), y)
    assert (model.predict(space.transform(x)) == y).mean() > 0.95


# The documentation


@pytest.mark.parametrize("name", NAMES)
def test_the_document_names_the_command_and_shows_the_picture(name):
    text = DOCUMENT.read_text("utf-8")
    assert f"python -m training.questions.{name}" in text
    assert f"](questions/{name}.png)" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_committed(name):
    answer = json.loads((ROOT / "docs" / "questions" / f"{name}.json").read_text("utf-8"))
    assert numbers(answer) and all(map(math.isfinite, numbers(answer)))
    with Image.open(ROOT / "docs" / "questions" / f"{name}.png") as picture:
        assert picture.format == "PNG"


def sections():
    """Question → its part of the document."""
    parts = re.split(r"^## ", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {re.search(r"training\.questions\.(\w+)", part).group(1): part for part in parts}


@pytest.mark.parametrize("name", NAMES)
def test_measured_numbers_of_the_text_are_those_of_the_answer(name):
    """Every share with a decimal and every F1 with three is a number of the JSON file, rounded."""
    answer = json.loads((ROOT / "docs" / "questions" / f"{name}.json").read_text("utf-8"))
    known = {f"{value:.3f}" for value in numbers(answer)} | {f"{100 * value:.1f} %" for value in numbers(answer)}
    text = " ".join(sections()[name].split())
    said = set(re.findall(r"(?<![\d.])0\.\d{3}(?!\d)", text)) | set(re.findall(r"\d+\.\d %", text))
    if name == "species1":  # and the released model's
        grade = json.loads((ROOT / "docs" / "grade_phase1.json").read_text("utf-8"))
        known.add(f"{grade['scores']['f1_0']:.3f}")
    assert said - known == set()
    assert said or name == "two_devices"


def test_every_question_has_a_module_and_says_how_to_ask_it():
    modules = {path.stem for path in (ROOT / "training" / "questions").glob("*.py")} - {"__init__"}
    assert modules == set(NAMES)
    for name in NAMES:
        source = (ROOT / "training" / "questions" / f"{name}.py").read_text("utf-8")
        assert f"    python -m training.questions.{name} --data " in source


def test_the_committed_agreement_of_two_devices_holds():
    answer = json.loads((ROOT / "docs" / "questions" / "two_devices.json").read_text("utf-8"))
    assert answer["difference"]["two, statistics together"]["steps_that_agree"] == answer["steps"]
