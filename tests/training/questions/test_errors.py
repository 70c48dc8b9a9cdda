"""Wrong input of the questions: exit code 2 and one line on standard error."""

import importlib
import json

import pytest

from competition.synthetic import draw_folder
from training.config.override import change
from training.config.record import RENAMED, to_json
from training.recipes.tuned import recipe as tuned
from training.tune import RECORD, TRIALS, fixed_fields

pytestmark = pytest.mark.integration

NAMES = ("everything", "selection", "smote", "species1", "two_devices")
HEAD = "trial,val_accuracy,test_accuracy,size,dropout,dense_dropout,layers,width,learning_rate,activation"
ROW = "1,0.5,0.5,96,0.3,0.3,1,128,0.001,relu"


@pytest.fixture
def question(tmp_path):
    """A function that runs the command line of a question in this process. Returns its exit code."""

    def run(name, data, *more):
        module = importlib.import_module(f"training.questions.{name}")
        folders = ["--cache", tmp_path / "cache", "--out", tmp_path / "out", "--pictures", tmp_path / "out"]
        words = ["--data", data, "--backbone-weights", "none", *folders, *more]
        return module.main([str(word) for word in words])

    return run


@pytest.fixture
def one_error(capsys):
    """A function that asserts one line on standard error with some words, and nothing on standard output."""

    def check(*words):
        out, error = capsys.readouterr()
        assert not out
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert all(word in error for word in words), error

    return check


def write_search(folder, trials, recipe=None):
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps({"recipe": recipe or fixed_fields(to_json(tuned))}))
    (folder / TRIALS).write_text(trials)
    return folder


@pytest.mark.parametrize("name", ["everything", "selection"])
def test_question_about_test_images_requires_them(name, small_leaves, question, one_error, tmp_path):
    assert question(name, small_leaves / "train") == 2
    one_error("--test")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_missing_folder_of_images_is_reported(name, question, one_error, tmp_path):
    assert question(name, tmp_path / "nowhere", "--test", tmp_path) == 2
    one_error("nowhere")


@pytest.mark.parametrize(
    ("name", "counts", "side", "words"),
    [
        ("everything", (10, 4), 32, ["at least 5 images", "Species2 has 4"]),
        ("selection", (4, 10), 32, ["at least 5 images", "Species1 has 4"]),
        ("species1", (10, 4), 32, ["at least 5 images", "Species2 has 4"]),
        ("smote", (20, 7), 32, ["at least 8 images", "Species2 has 7"]),
        ("smote", (20, 8), 16, ["at least 24×24", "16×16"]),
        ("smote", (10, 9), 32, ["less than 50% of the images"]),
    ],
)
def test_images_that_are_too_few_or_too_small_are_refused(name, counts, side, words, question, one_error, tmp_path):
    draw_folder(tmp_path / "data", max(counts), classes=2, side=side)
    for number, count in enumerate(counts, start=1):
        for path in sorted((tmp_path / "data" / f"Species{number}").iterdir())[count:]:
            path.unlink()
    assert question(name, tmp_path / "data", "--test", tmp_path / "data") == 2
    one_error(*words)


def test_selection_requires_a_finished_search(small_leaves, question, one_error, tmp_path):
    (tmp_path / "search").mkdir()
    more = ["--test", small_leaves / "test", "--search", tmp_path / "search"]
    assert question("selection", small_leaves / "train", *more) == 2
    one_error(str(tmp_path / "search"), "python -m training tune")


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ("", ["no test accuracy"]),
        (f"{HEAD}\n", ["no test accuracy"]),
        (f"{HEAD}\n{ROW.replace('0.001', 'fast')}\n", ["damaged"]),
        (f"{HEAD.replace('test_accuracy,', '')}\n{ROW.replace('0.5,', '', 1)}\n", ["no test accuracy", "--test"]),
        (f"{HEAD}\n{ROW.replace('0.5', '0.123', 1)}\n", ["0.123", "6 images"]),
    ],
)
def test_table_of_trials_that_does_not_fit_is_refused(trials, words, small_leaves, question, one_error, tmp_path):
    more = ["--test", small_leaves / "test", "--search", write_search(tmp_path / "search", trials)]
    assert question("selection", small_leaves / "train", *more) == 2
    one_error(*words)


def test_search_of_another_recipe_is_refused(small_leaves, question, one_error, tmp_path):
    other = fixed_fields(to_json(change(tuned, {"finetune.head_warmup_epochs": 2})))
    search = write_search(tmp_path / "search", f"{HEAD}\n{ROW}\n", other)
    assert question("selection", small_leaves / "train", "--test", small_leaves / "test", "--search", search) == 2
    one_error("tuned", "--set")


@pytest.mark.parametrize(
    ("key", "option"),
    [("data_sha256", "--data"), ("test_sha256", "--test"), ("backbone_sha256", "--backbone-weights")],
)
def test_search_of_other_images_or_weights_is_refused(small_leaves, question, one_error, tmp_path, key, option):
    search = write_search(tmp_path / "search", "\n".join([HEAD, ROW, ROW, ROW, ""]))
    record = json.loads((search / RECORD).read_text())
    (search / RECORD).write_text(json.dumps({**record, key: "0" * 64}))
    assert question("selection", small_leaves / "train", "--test", small_leaves / "test", "--search", search) == 2
    one_error(f"--search must be of the same {option}, and")


def test_search_of_two_trials_is_refused(small_leaves, question, one_error, tmp_path):
    search = write_search(tmp_path / "search", "\n".join([HEAD, ROW, ROW, ""]))
    assert question("selection", small_leaves / "train", "--test", small_leaves / "test", "--search", search) == 2
    one_error("at least 3 trials", "has 2")


def test_search_of_an_earlier_version_is_read(small_leaves, question, one_error, tmp_path):
    """Its record has flat fields. The accuracy is wrong, which is checked after the recipe."""
    fixed, flat = fixed_fields(to_json(tuned)), {}
    for old, new in RENAMED.items():
        section, _, field = new.rpartition(".")
        part = fixed[section] if section else fixed
        if field in part:
            flat[old] = part[field]
    flat.update(keep="best", thaw={"name": "Everything"})
    search = write_search(tmp_path / "search", f"{HEAD}\n{ROW.replace('0.5', '0.123', 1)}\n", flat)
    assert question("selection", small_leaves / "train", "--test", small_leaves / "test", "--search", search) == 2
    one_error("0.123", "6 images")
