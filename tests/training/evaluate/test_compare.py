"""The comparison of runs: its rows against the runs' files, its Markdown table and plots, and damaged runs."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import ROOT, change, tiny
from PIL import Image

from common.errors import UserError
from competition.synthetic import draw_folder
from training.__main__ import main
from training.config.override import in_bfloat16, override
from training.evaluate import plots
from training.evaluate.compare import _settings, collect, compare, write_table
from training.evaluate.rows import RUNS, read_rows, reported
from training.recipes import RENAMED, load_recipe, recipe_names, recipe_summary
from training.run import Inputs, train

pytestmark = pytest.mark.integration
TEST_IMAGES = sum(range(3, 11))
TINY = 'finetune.backbone="tiny"'
SHORT = "finetune.resolution_schedule=[[1, 32]]"
HEADER = ["recipe", "report", "accuracy", "macro F1", "F1 Species1", "F1 Species6", "validation", "parameters"]
HEADER += ["epochs", "minutes", "note"]


@pytest.fixture(scope="module")
def compared_runs(tmp_path_factory):
    """Runs of one epoch on a tiny network.

    Two seeds, another dropout, nothing held out, and a frozen backbone without test images.
    """
    folder = tmp_path_factory.mktemp("compare")
    draw_folder(folder / "train", 8, side=32)
    draw_folder(folder / "test", 11, side=32, seed=5)
    for number in range(1, 9):  # a different number for each class, so that two models rarely have the same accuracy
        for path in sorted((folder / "test" / f"Species{number}").iterdir())[number + 2 :]:
            path.unlink()
    short = ["finetune.resolution_schedule=((1, 32),)", "finetune.batch_size=16"]

    def run(name, out, settings, test=folder / "test", **fields):
        recipe = change(override(change(load_recipe(name), backbone=tiny), settings), **fields)
        train(recipe, name, Inputs(folder / "train", "none", test), folder / "runs" / out)

    run("online", "online", short)
    run("online", "online-seed1", short, seed=1)
    run("class_weights", "class_weights", [*short, "finetune.dropout=0.5", "head.l2=0.5"])  # it has no such head
    run("concat", "concat", [short[0], "data.validation_split=0.0"], test=None)
    run("tuned", "tuned", ["finetune.head_warmup_epochs=2", "head.views=1"], test=None)
    return folder / "runs"


@pytest.fixture(scope="module")
def tested_runs(compared_runs):
    """The folders of the runs with test images."""
    return [compared_runs / name for name in ("class_weights", "online", "online-seed1")]


@pytest.fixture(scope="module")
def comparison(tested_runs, compared_runs, tmp_path_factory):
    """The Markdown file of these runs and of the one without test images; the rows are beside it."""
    out = tmp_path_factory.mktemp("comparison") / "table.md"
    assert run_compare(out, *tested_runs, compared_runs / "tuned") == 0
    return out


def run_compare(out, *folders):
    return main(["compare", *map(str, folders), "--rows", str(out.with_name("rows.csv")), "--out", str(out)])


def tables(path):
    """Title → recipe → column → cell, for each table of a Markdown file."""
    found, title = {}, ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif line.startswith("| recipe |"):
            assert cells(line) == HEADER
            found[title] = {}
        elif line.startswith("| `"):
            found[title][cells(line)[0].strip("`")] = dict(zip(HEADER, cells(line), strict=True))
    return found


def cells(line):
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def table(path):
    """Recipe → column → cell, over all tables."""
    return {name: row for rows in tables(path).values() for name, row in rows.items()}


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def edit(path, change_value):
    value = json.loads(path.read_text())
    change_value(value)
    path.write_text(json.dumps(value))


def percent(share):
    return f"{100 * share:.1f} %"


def wilson_by_quadratic(share, images):
    """The proportions p of which `share` is 1.96 standard deviations away."""
    z2 = 1.959964**2
    return sorted(np.roots([1 + z2 / images, -(2 * share + z2 / images), share**2]))


def interval(share, images):
    low, high = wilson_by_quadratic(share, images)
    return f"{percent(share)} ({percent(low)} to {percent(high)})"


def mean(values):
    return math.fsum(values) / len(values)


def rounded_f1(metrics, name):
    """The F1 of a class with the digits that rows have."""
    return round(metrics["test"]["classes"][name]["f1"], 4)


# Rows


def test_collect_reads_the_fields_of_a_row_from_the_files_of_the_run(compared_runs):
    folder = compared_runs / "class_weights"
    row, metrics, record = collect(folder), metrics_of(folder), record_of(folder)
    test, history = metrics["test"], np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    assert (row.run, row.recipe, row.seed) == ("class_weights", "class_weights", 0)
    assert len(row.data) == 12 and record["data_sha256"].startswith(row.data)
    assert (row.test_images, row.accuracy, row.macro_f1) == (TEST_IMAGES, test["accuracy"], test["macro_f1"])
    assert [row.low, row.high] == pytest.approx(wilson_by_quadratic(test["accuracy"], TEST_IMAGES))
    assert {name: row.f1(name) for name in test["classes"]} == {
        name: rounded_f1(metrics, name) for name in test["classes"]
    }
    assert (row.val_images, row.val_accuracy) == (metrics["images"], metrics["accuracy"])
    assert row.parameters == metrics["trainable_parameters"] == 1_280
    assert (row.epochs, row.planned_epochs, row.warmup_epochs) == (1, 12, 0)
    assert row.minutes == metrics["finetuning_minutes"]
    assert row.images_per_second == pytest.approx(float(history["images"]) / float(history["seconds"]), rel=0.1)
    assert row.finished == metrics["finished"] and re.fullmatch(r"\d{4}-\d\d-\d\d", row.finished)


def test_collect_of_a_frozen_backbone_counts_the_warm_up(compared_runs):
    row, metrics = collect(compared_runs / "tuned"), metrics_of(compared_runs / "tuned")
    assert (row.epochs, row.planned_epochs, row.warmup_epochs) == (0, 0, 2)
    assert (row.test_images, row.accuracy, row.low, row.high, row.macro_f1, row.class_f1) == (0, *[None] * 4, "")
    assert row.minutes == metrics["head_minutes"]
    assert row.images_per_second is None
    assert row.measured_on == ("validation", metrics["accuracy"], metrics["images"])


def test_collect_of_a_run_that_holds_nothing_out(compared_runs):
    row = collect(compared_runs / "concat")
    assert (row.val_images, row.val_accuracy, row.test_images) == (0, None, 0)


def test_settings_are_the_fields_that_differ_and_have_an_effect(compared_runs):
    assert collect(compared_runs / "online").settings == f"{TINY}, {SHORT}, finetune.batch_size=16"
    changed = f"{TINY}, {SHORT}, finetune.dropout=0.5, finetune.batch_size=16"
    assert collect(compared_runs / "class_weights").settings == changed
    assert collect(compared_runs / "tuned").settings == f"{TINY}, finetune.head_warmup_epochs=2, head.views=1"


def test_rows_are_replaced_and_those_of_other_runs_are_kept(tested_runs, compared_runs, tmp_path):
    out = tmp_path / "table.md"
    assert run_compare(out, *tested_runs) == 0
    first = read_rows(tmp_path / "rows.csv")
    assert [row.run for row in first] == ["class_weights", "online", "online-seed1"]
    assert first == [collect(folder) for folder in tested_runs]
    again = shutil.copytree(tested_runs[1], tmp_path / "online")
    edit(again / "metrics.json", lambda value: value.update(finished="2001-02-03"))
    assert run_compare(out, again, compared_runs / "tuned") == 0
    second = read_rows(tmp_path / "rows.csv")
    assert [row.run for row in second] == ["class_weights", "online", "online-seed1", "tuned"]
    assert second[1] == replace(first[1], finished="2001-02-03")
    assert [second[0], second[2]] == [first[0], first[2]]
    assert table(out)["class_weights"]["accuracy"] != "–"


def test_runs_of_auto_are_rows_of_their_own(compared_runs, tmp_path):
    for name in ("mine", "yours"):
        shutil.copytree(compared_runs / "online", tmp_path / name / "best")
    assert compare([tmp_path / "mine", tmp_path / "yours"], tmp_path / "rows.csv", tmp_path / "table.md") == []
    assert [row.recipe for row in read_rows(tmp_path / "rows.csv")] == ["auto: mine", "auto: yours"]
    text = (tmp_path / "table.md").read_text("utf-8")
    assert "## Models of auto\n" in text and "| `auto: mine` |" in text and "Recipes of earlier" not in text


def test_another_csv_file_is_refused_and_not_changed(tested_runs, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("name,marks\nAda,30\n")
    assert run_compare(tmp_path / "table.md", *tested_runs) == 2
    error = capsys.readouterr().err
    assert re.match("error: .*rows.csv must have the columns run, recipe", error) and error.count("\n") == 1
    assert (tmp_path / "rows.csv").read_text() == "name,marks\nAda,30\n"
    assert not (tmp_path / "table.md").exists()


# The Markdown table


def test_the_tables_are_the_report_s_experiments_our_own_and_earlier_ones(tested_runs, comparison, tmp_path):
    runs = ["online", "class_weights", "tuned"]
    not_run = [name for name, row in reported().items() if row.not_run]
    order = [name for name in reported() if name in [*runs, *not_run]]
    assert {title: list(rows) for title, rows in tables(comparison).items()} == {"The report's experiments": order}
    own = shutil.copytree(tested_runs[0], tmp_path / "own")
    edit(own / "run.json", lambda value: value.update(name="leaderboard"))  # the earlier name of released
    gone = shutil.copytree(tested_runs[0], tmp_path / "gone")
    edit(gone / "run.json", lambda value: value.update(name="horoscope"))
    assert run_compare(tmp_path / "table.md", own, gone) == 0
    assert {title: list(rows) for title, rows in tables(tmp_path / "table.md").items()} == {
        "Our own": ["released"],
        "Recipes of earlier versions": ["horoscope"],
    }


def test_a_row_has_the_numbers_of_its_metrics(comparison, compared_runs):
    row, metrics = table(comparison)["class_weights"], metrics_of(compared_runs / "class_weights")
    test = metrics["test"]
    assert row["accuracy"] == interval(test["accuracy"], TEST_IMAGES)
    assert row["macro F1"] == f"{mean([c['f1'] for c in test['classes'].values()]):.3f}"
    assert row["F1 Species1"] == f"{rounded_f1(metrics, 'Species1'):.3f}"
    assert row["F1 Species6"] == f"{rounded_f1(metrics, 'Species6'):.3f}"
    assert row["validation"] == percent(metrics["accuracy"])
    assert row["parameters"].replace(",", "") == str(metrics["trainable_parameters"])
    assert row["epochs"] == "1 of 12"
    assert row["minutes"] == f"{metrics['finetuning_minutes']:.1f}"


def test_several_seeds_are_their_mean_and_their_range(comparison, compared_runs):
    row = table(comparison)["online"]
    both = [metrics_of(compared_runs / name) for name in ("online", "online-seed1")]
    shares = [metrics["test"]["accuracy"] for metrics in both]
    assert shares[0] != shares[1]  # otherwise their mean could not be told from either
    seeds = f"2 seeds {percent(min(shares))} to {percent(max(shares))}"
    assert row["accuracy"] == f"{interval(mean(shares), TEST_IMAGES)}, {seeds}"
    assert row["macro F1"] == f"{mean([metrics['test']['macro_f1'] for metrics in both]):.3f}"
    for rare in ("Species1", "Species6"):
        assert row[f"F1 {rare}"] == f"{mean([rounded_f1(metrics, rare) for metrics in both]):.3f}"
    assert row["validation"] == percent(mean([metrics["accuracy"] for metrics in both]))


def test_the_precision_that_run_chooses_is_no_difference():
    planned = load_recipe("online")
    assert _settings(planned, in_bfloat16(planned)) == _settings(planned, planned) == []
    assert _settings(planned, change(planned, precision="mixed_float16")) == ['finetune.precision="mixed_float16"']


def test_the_two_seeds_are_two_different_runs(compared_runs):
    one, other = ((compared_runs / name / "finetuned.weights.h5").read_bytes() for name in ("online", "online-seed1"))
    assert one != other


def test_the_note_names_the_settings_that_differ(comparison):
    rows = table(comparison)
    assert rows["online"]["note"] == f"with {TINY}, {SHORT}, finetune.batch_size=16"
    assert rows["class_weights"]["note"] == f"with {TINY}, {SHORT}, finetune.dropout=0.5, finetune.batch_size=16"
    assert rows["tuned"]["note"].startswith(f"with {TINY}, ")


def test_an_experiment_that_was_not_run_says_why(comparison):
    rows = table(comparison)
    missing = {name: row.not_run for name, row in reported().items() if row.not_run}
    assert missing
    for name, reason in missing.items():
        assert rows[name]["note"] == f"not run: {reason}"
        assert {rows[name][column] for column in HEADER[2:-1]} == {"–"}


def test_every_row_has_the_report_s_result(comparison):
    for name, row in table(comparison).items():
        report = reported()[name]
        assert row["report"] == (percent(report.accuracy) if report.accuracy else report.result)


def test_a_run_without_test_images_has_its_validation_only(comparison, compared_runs):
    row, metrics = table(comparison)["tuned"], metrics_of(compared_runs / "tuned")
    assert {row[column] for column in ("accuracy", "macro F1", "F1 Species1", "F1 Species6")} == {"–"}
    assert row["validation"] == percent(metrics["accuracy"])
    assert row["epochs"] == "2 (head only) + 0"
    assert row["minutes"] == f"{metrics['head_minutes']:.1f}"


def test_a_run_without_validation_part_and_test_images_has_a_row(compared_runs, tested_runs, tmp_path):
    assert run_compare(tmp_path / "table.md", compared_runs / "concat", *tested_runs) == 0
    row = table(tmp_path / "table.md")["concat"]
    assert (row["accuracy"], row["macro F1"], row["validation"], row["epochs"]) == ("–", "–", "none", "1 of 11")


def test_each_recipe_is_described(comparison):
    text = " ".join(comparison.read_text("utf-8").split())
    for name in table(comparison):
        assert f" - `{name}`: {recipe_summary(name)}" in text
        assert reported()[name].why in text


def test_two_data_sets_are_two_tables(tested_runs, tmp_path):
    folders = [shutil.copytree(folder, tmp_path / folder.name) for folder in tested_runs]
    edit(folders[0] / "run.json", lambda value: value.update(data_sha256="f" * 64))
    assert compare(folders, tmp_path / "rows.csv", tmp_path / "table.md") == []
    first = record_of(folders[1])["data_sha256"][:12]
    parts = re.split(r"^## Data set .*$", (tmp_path / "table.md").read_text("utf-8"), flags=re.MULTILINE)
    assert len(parts) == 3
    assert "`online` |" in parts[1] and "`class_weights` |" not in parts[1]
    assert "`class_weights` |" in parts[2] and "`online` |" not in parts[2]
    assert first < "f" * 12  # the order of the data sets
    pictures = {name for part in parts for name in re.findall(r"\((img/.*?)\)", part)}
    assert len(pictures) == 4 and all((tmp_path / name).is_file() for name in pictures)


# The plots


def test_the_plots_are_in_img_beside_the_table(comparison):
    text = comparison.read_text("utf-8")
    for name in ("table_accuracy.png", "table_rare.png"):
        assert f"](img/{name})" in text
        with Image.open(comparison.parent / "img" / name) as picture:
            assert picture.format == "PNG"
            assert 500 < picture.width < 2500 and 150 < picture.height < 1500
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50  # it is not empty
    assert sorted(path.name for path in comparison.parent.iterdir()) == ["img", "rows.csv", "table.md"]
    assert len(list((comparison.parent / "img").iterdir())) == 2


def test_the_plot_of_the_accuracy_has_the_reports_numbers(tmp_path, monkeypatch):
    from matplotlib import pyplot

    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    write_table(read_rows(RUNS), tmp_path / "table.md")
    axis = figures[0].axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    (line,) = (line for line in axis.lines if line.get_label() == "report")
    drawn = {labels[int(place)]: value for value, place in zip(*line.get_data(), strict=True)}
    expected = {name: one.accuracy for name, one in reported().items() if one.accuracy and name in labels}
    assert drawn == expected and drawn["inception_svm"] == 0.885
    for figure in figures:
        pyplot.close(figure)


def test_without_test_images_there_is_a_table_and_no_plot(compared_runs, tmp_path):
    assert run_compare(tmp_path / "table.md", compared_runs / "tuned") == 0
    assert "![" not in (tmp_path / "table.md").read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "table.md"]


def test_the_same_rows_give_the_same_files(comparison, compared_runs, tmp_path):
    shutil.copyfile(comparison.with_name("rows.csv"), tmp_path / "rows.csv")
    assert run_compare(tmp_path / "table.md", compared_runs / "tuned") == 0
    for name in ("rows.csv", "table.md", "img/table_accuracy.png", "img/table_rare.png"):
        assert (tmp_path / name).read_bytes() == (comparison.parent / name).read_bytes()


# Folders that are no finished run


def lacking(*keys):
    """A change of a metrics.json: without the value that these keys lead to."""

    def damage(folder):
        def remove(value):
            for key in keys[:-1]:
                value = value[key]
            del value[keys[-1]]

        edit(folder / "metrics.json", remove)

    return damage


DAMAGES = {
    "no run.json": lambda folder: (folder / "run.json").unlink(),
    "no metrics.json": lambda folder: (folder / "metrics.json").unlink(),
    "half a metrics.json": lambda folder: (folder / "metrics.json").write_text('{"images": 3'),
    "half a run.json": lambda folder: (folder / "run.json").write_text('{"name": "online"'),
    "a list for metrics.json": lambda folder: (folder / "metrics.json").write_text("[]"),
    "a list for run.json": lambda folder: (folder / "run.json").write_text("[]"),
    "bytes for metrics.json": lambda folder: (folder / "metrics.json").write_bytes(b"\xff\xfe\x00"),
    "no name": lambda folder: edit(folder / "run.json", lambda value: value.pop("name")),
    "no recipe": lambda folder: edit(folder / "run.json", lambda value: value.pop("recipe")),
    "no minutes": lacking("finetuning_minutes"),
    "no images": lacking("images"),
    "no epochs": lacking("epochs"),
    "no validation accuracy": lacking("accuracy"),
    "no test accuracy": lacking("test", "accuracy"),
    "no test interval": lacking("test", "interval95"),
    "no test images": lacking("test", "images"),
    "no test F1": lacking("test", "macro_f1"),
    "no test classes": lacking("test", "classes"),
}


def test_runs_with_other_settings_are_another_row_and_not_another_seed(tested_runs, tmp_path):
    other = shutil.copytree(tested_runs[1], tmp_path / "other")
    record = json.loads((other / "run.json").read_text())
    record["recipe"]["finetune"]["batch_size"] = 4
    (other / "run.json").write_text(json.dumps(record))
    assert run_compare(tmp_path / "table.md", other, *tested_runs) == 0
    rows = [cells(line) for line in (tmp_path / "table.md").read_text("utf-8").splitlines() if "| `online`" in line]
    assert [("2 seeds" in row[2], "batch_size=4" in row[-1]) for row in rows] == [(True, False), (False, True)]


def test_folders_of_the_same_name_are_refused(tested_runs, tmp_path, capsys):
    other = shutil.copytree(tested_runs[1], tmp_path / "again" / "online")
    assert run_compare(tmp_path / "table.md", other, *tested_runs) == 2
    assert "must have different names" in capsys.readouterr().err
    assert run_compare(tmp_path / "table.md", other, other) == 0


def test_folders_whose_rows_have_the_same_name_are_refused(tested_runs, tmp_path, capsys):
    """A recipe that was renamed, and its present name."""
    old, new = next(iter(RENAMED.items()))
    for name in (old, new):
        shutil.copytree(tested_runs[1], tmp_path / name)
    assert run_compare(tmp_path / "table.md", tmp_path / old, tmp_path / new) == 2
    assert "must have different names" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["data", "settings"])
def test_another_run_of_the_same_name_does_not_replace_a_row(tested_runs, tmp_path, capsys, what):
    """The folds of two cross-validations, for example."""
    other = shutil.copytree(tested_runs[1], tmp_path / "other" / tested_runs[1].name)
    record = json.loads((other / "run.json").read_text())
    if what == "data":
        record["data_sha256"] = "0" * 64
    else:
        record["recipe"]["finetune"]["batch_size"] = 4
    (other / "run.json").write_text(json.dumps(record))
    assert run_compare(tmp_path / "table.md", tested_runs[1]) == 0
    assert run_compare(tmp_path / "table.md", tested_runs[1]) == 0
    assert run_compare(tmp_path / "table.md", other) == 2
    assert "has another run" in capsys.readouterr().err


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_skipped_and_named(damage, tested_runs, tmp_path, capsys):
    broken = shutil.copytree(tested_runs[0], tmp_path / "broken")
    DAMAGES[damage](broken)
    assert run_compare(tmp_path / "table.md", broken, *tested_runs[1:]) == 0
    error = capsys.readouterr().err
    assert error.startswith("skipped: ") and str(broken) in error
    assert error.count("\n") == 1
    assert "class_weights" not in table(tmp_path / "table.md")
    assert "2 seeds" in table(tmp_path / "table.md")["online"]["accuracy"]


def test_without_a_finished_run_nothing_is_written(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run_compare(tmp_path / "table.md", tmp_path / "empty", tmp_path / "nowhere") == 2
    error = capsys.readouterr().err
    assert re.match(
        "error: compare needs a finished run, got 2 other folders: no run at .*empty.*no folder .*nowhere", error
    )
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    with pytest.raises(UserError, match="finished run"):
        compare([tmp_path / "empty"], tmp_path / "rows.csv", tmp_path / "table.md")


# The committed runs


def committed():
    """The folders of committed runs that have a record."""
    return sorted(path.parent for path in (ROOT / "results" / "runs").glob("*/run.json"))


@pytest.mark.docs
@pytest.mark.parametrize("folder", committed(), ids=lambda folder: folder.name)
def test_a_committed_row_is_that_of_its_run(folder):
    (row,) = (row for row in read_rows(RUNS) if row.run == folder.name)
    assert collect(folder) == row


@pytest.mark.docs
def test_the_committed_rows_have_values_in_range():
    for row in read_rows(RUNS):
        assert row.recipe in recipe_names() or row.recipe.startswith("inception_svm_"), row.run
        assert row.accuracy is None or 0 < row.low < row.accuracy < row.high < 1, row.run
        assert row.epochs <= row.planned_epochs, row.run
    with open(RUNS, newline="") as file:
        assert len(list(csv.reader(file))) == len(read_rows(RUNS)) + 1
