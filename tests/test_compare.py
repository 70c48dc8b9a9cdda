"""The table of all recipes: its numbers against the runs' files, what is left out and why, and the committed table itself."""

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, tiny
from helpers import own_lines
from PIL import Image

from competition.drawings import draw_folder
from training import compare, run
from training.__main__ import docstring, load_recipe, main, recipe_names
from training.errors import UserError
from training.recipe import override

SMALL = {"recipe.json", "metrics.json", "history.csv", "head_history.csv", "frozen_history.csv"}
KEPT_RUNS = sorted(path for path in (ROOT / "docs" / "runs").iterdir() if path.is_dir())
TESTED = sum(range(3, 11))  # images
HEADER = ["recipe", "report", "accuracy", "seeds", "macro F1", "F1 Species1", "F1 Species6", "validation", "parameters"]
HEADER += ["epochs", "minutes", "images/s", "state"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders, really trained, each for an epoch: two seeds, class weights with a dropout of its own, one that holds
    nothing out, and one frozen backbone without test images."""
    folder = tmp_path_factory.mktemp("compare")
    draw_folder(folder / "train", 8, side=32)
    draw_folder(folder / "test", 11, side=32, seed=5)
    for number in range(1, 9):  # another number of each class, so that two networks hardly have the same accuracy
        for path in sorted((folder / "test" / f"Species{number}").iterdir())[number + 2 :]:
            path.unlink()
    short = ["phases=((1, 32),)", "batch=16"]

    def trained(name, out, settings, test=folder / "test", **fields):
        recipe = replace(override(load_recipe(name), settings), **fields)
        run.train(recipe, name, folder / "train", "none", folder / "runs" / out, test)

    trained("online", "online", short)
    trained("online", "online-seed1", short, seed=1)
    trained("class_weights", "class_weights", [*short, "dropout=0.5", "head_l2=0.5"])  # of a head that it has not
    trained("concat", "concat", ["phases=((1, 32),)", "validation=0.0"], test=None)
    trained("tuned", "tuned", ["frozen_epochs=2", "head_views=1"], test=None, backbone=tiny)
    return folder / "runs"


@pytest.fixture(scope="module")
def with_test(runs):
    """The run folders that were reported on the test images."""
    return [runs / name for name in ("class_weights", "online", "online-seed1")]


@pytest.fixture(scope="module")
def written(with_test, runs, tmp_path_factory):
    """The Markdown file of these runs and the one without test images."""
    out = tmp_path_factory.mktemp("written") / "table.md"
    assert main(["compare", *map(str, [*with_test, runs / "tuned"]), "--out", str(out)]) == 0
    return out


def table(path):
    """Recipe → column → cell."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert cells[0] == HEADER
    assert set(lines[1]) == set("|- ")
    return {row[0].strip("`"): dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def percent(share):
    return f"{100 * share:.1f} %"


def interval(share, images):
    """Wilson's interval, from his quadratic: where |share - p| is 1.96 standard deviations of p."""
    z2 = 1.959964**2
    p = np.roots([1 + z2 / images, -(2 * share + z2 / images), share**2])
    return f"{percent(share)} ({percent(min(p))} to {percent(max(p))})"


def mean(values):
    return math.fsum(values) / len(values)


def test_every_recipe_has_a_row_in_the_order_of_the_list(written):
    assert list(table(written)) == recipe_names()


def test_a_measured_row_has_the_numbers_of_its_metrics(written, runs):
    row, metrics = table(written)["class_weights"], metrics_of(runs / "class_weights")
    test, history = metrics["test"], np.genfromtxt(runs / "class_weights" / "history.csv", delimiter=",", names=True)
    assert row["accuracy"] == interval(test["accuracy"], TESTED)
    assert row["seeds"] == "1"
    assert row["macro F1"] == f"{mean([c['f1'] for c in test['classes'].values()]):.3f}"
    assert row["F1 Species1"] == f"{test['classes']['Species1']['f1']:.3f}"
    assert row["F1 Species6"] == f"{test['classes']['Species6']['f1']:.3f}"
    assert row["validation"] == percent(metrics["accuracy"])
    assert row["parameters"].replace(",", "") == str(metrics["trainable_parameters"])
    assert 50_000 < metrics["trainable_parameters"] < 140_000
    assert row["epochs"] == "1"
    assert row["minutes"] == f"{metrics['finetuning_minutes']:.1f}"
    assert float(row["images/s"]) == pytest.approx(float(history["images"]) / float(history["seconds"]), abs=0.6)


def test_several_seeds_are_their_mean_and_their_range(written, runs):
    row, both = table(written)["online"], [metrics_of(runs / name) for name in ("online", "online-seed1")]
    shares = [metrics["test"]["accuracy"] for metrics in both]
    assert shares[0] != shares[1]  # or their mean could not be told from either
    assert row["accuracy"] == interval(mean(shares), TESTED)
    assert row["seeds"] == f"2: {percent(min(shares))} to {percent(max(shares))}"
    assert row["macro F1"] == f"{mean([metrics['test']['macro_f1'] for metrics in both]):.3f}"
    for rare in ("Species1", "Species6"):
        assert row[f"F1 {rare}"] == f"{mean([metrics['test']['classes'][rare]['f1'] for metrics in both]):.3f}"
    assert row["validation"] == percent(mean([metrics["accuracy"] for metrics in both]))
    assert row["images/s"] == f"{mean([metrics['images_per_second'] for metrics in both]):.0f}"


def test_the_two_seeds_are_two_different_runs(runs):
    one, other = ((runs / name / "best.weights.h5").read_bytes() for name in ("online", "online-seed1"))
    assert one != other


def test_the_state_says_what_was_run_and_with_which_other_fields(written):
    rows = table(written)
    assert rows["online"]["state"] == "measured short: 1 of 8 epochs, with batch=16"
    assert rows["class_weights"]["state"] == "measured short: 1 of 8 epochs, with batch=16, dropout=0.5"
    assert rows["tuned"]["state"] == "measured, with backbone=tiny, frozen_epochs=2, head_views=1"


def test_what_was_not_run_says_why(written):
    rows = table(written)
    for name in set(recipe_names()) - {"online", "class_weights", "tuned"}:
        reason = compare.paragraph(docstring(name), "Not run") or "no run among the folders"
        assert rows[name]["state"] == f"not run: {reason}"
        assert {rows[name][column] for column in HEADER[2:-1]} == {"–"}


def test_every_row_has_the_reports_words(written):
    for name, row in table(written).items():
        assert row["report"] == (compare.paragraph(docstring(name), "Report") or "–")


def test_a_percentage_of_the_report_is_not_changed(with_test, tmp_path):
    recipes = {name: (load_recipe(name), "A recipe.\n\nReport: 77 % on the server.") for name in ("online", "class_weights", "smote")}
    compare.compare(with_test, recipes, tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text().count("| 77 % on the server. |") == 3


def test_a_run_without_test_images_has_its_validation_only(written, runs):
    row, metrics = table(written)["tuned"], metrics_of(runs / "tuned")
    assert {row[column] for column in ("accuracy", "macro F1", "F1 Species1", "F1 Species6", "images/s")} == {"–"}
    assert row["validation"] == percent(metrics["accuracy"])
    assert row["epochs"] == "2 frozen + 0"
    assert row["minutes"] == f"{metrics['head_minutes']:.1f}"


def test_a_run_that_holds_nothing_out_and_has_no_test_images_still_has_its_row(runs, with_test, tmp_path):
    assert main(["compare", str(runs / "concat"), *map(str, with_test), "--out", str(tmp_path / "table.md")]) == 0
    row = table(tmp_path / "table.md")["concat"]
    assert (row["accuracy"], row["macro F1"], row["validation"], row["epochs"]) == ("–", "–", "nothing held out", "1")


def test_what_each_recipe_is_comes_from_its_file(written):
    text = written.read_text("utf-8")
    for name in recipe_names():
        assert f"\n- `{name}`: {' '.join(docstring(name).split(chr(10) * 2)[0].split())}\n" in text


def test_the_pictures_are_there_shown_and_of_a_sensible_size(written):
    text = written.read_text("utf-8")
    for name in ("table_accuracy.png", "table_rare.png"):
        assert f"]({name})" in text
        with Image.open(written.with_name(name)) as picture:
            assert picture.format == "PNG"
            assert 500 < picture.width < 2500 and 150 < picture.height < 1500
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50  # something is drawn
    assert sorted(path.name for path in written.parent.iterdir()) == ["table.md", "table_accuracy.png", "table_rare.png"]


def test_without_test_images_there_is_a_table_and_no_picture(runs, tmp_path):
    assert main(["compare", str(runs / "tuned"), "--out", str(tmp_path / "table.md")]) == 0
    assert "![" not in (tmp_path / "table.md").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def lacking(*keys):
    """A change of a metrics.json: without the field that these keys lead to."""

    def change(folder):
        def remove(value):
            for key in keys[:-1]:
                value = value[key]
            del value[keys[-1]]

        edit(folder / "metrics.json", remove)

    return change


DAMAGES = {
    "no recipe.json": lambda folder: (folder / "recipe.json").unlink(),
    "no metrics.json": lambda folder: (folder / "metrics.json").unlink(),
    "no history.csv": lambda folder: (folder / "history.csv").unlink(),
    "half a metrics.json": lambda folder: (folder / "metrics.json").write_text('{"images": 3'),
    "half a recipe.json": lambda folder: (folder / "recipe.json").write_text('{"name": "online"'),
    "a list for metrics.json": lambda folder: (folder / "metrics.json").write_text("[]"),
    "a list for recipe.json": lambda folder: (folder / "recipe.json").write_text("[]"),
    "letters in history.csv": lambda folder: (folder / "history.csv").write_text("epoch,loss\n1,low\n"),
    "bytes for metrics.json": lambda folder: (folder / "metrics.json").write_bytes(b"\xff\xfe\x00"),
    "no name": lambda folder: edit(folder / "recipe.json", lambda value: value.pop("name")),
    "no recipe": lambda folder: edit(folder / "recipe.json", lambda value: value.pop("recipe")),
    "no minutes": lacking("finetuning_minutes"),
    "no images": lacking("images"),
    "no epochs": lacking("epochs"),
    "no validation accuracy": lacking("accuracy"),
    "no test accuracy": lacking("test", "accuracy"),
    "no test images": lacking("test", "images"),
    "no test F1": lacking("test", "macro_f1"),
    "no test classes": lacking("test", "classes"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_named_and_the_others_stay(damage, with_test, tmp_path, capsys):
    broken = shutil.copytree(with_test[0], tmp_path / "broken")
    DAMAGES[damage](broken)
    assert main(["compare", str(broken), *map(str, with_test[1:]), "--out", str(tmp_path / "table.md")]) == 0
    error = capsys.readouterr().err
    assert error.startswith(f"left out: {broken}: ")
    assert error.count("\n") == 1
    assert table(tmp_path / "table.md")["class_weights"]["state"].startswith("not run: ")
    assert table(tmp_path / "table.md")["online"]["seeds"].startswith("2: ")


def test_a_run_of_a_recipe_that_is_gone_is_named(with_test, tmp_path, capsys):
    gone = shutil.copytree(with_test[0], tmp_path / "gone")
    edit(gone / "recipe.json", lambda value: value.update(name="horoscope"))
    assert main(["compare", str(gone), *map(str, with_test), "--out", str(tmp_path / "table.md")]) == 0
    assert capsys.readouterr().err == f"left out: {gone}: of horoscope, which is no recipe here\n"
    assert "horoscope" not in (tmp_path / "table.md").read_text("utf-8")


def test_without_one_finished_run_nothing_is_written(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(tmp_path / "empty"), str(tmp_path / "nowhere"), "--out", str(tmp_path / "table.md")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no finished run among 2 folders; ")
    assert "empty: no run, it has no recipe.json" in error and "nowhere" in error
    assert not (tmp_path / "table.md").exists()
    with pytest.raises(UserError, match="no finished run"):
        compare.compare([tmp_path / "empty"], {}, tmp_path / "table.md")


def test_keep_copies_the_small_files_and_they_give_the_same_table(runs, with_test, tmp_path):
    folders = [*with_test, runs / "tuned"]
    kept, again = tmp_path / "kept", tmp_path / "again" / "table.md"
    first = tmp_path / "first" / "table.md"
    assert main(["compare", *map(str, folders), "--out", str(first), "--keep", str(kept)]) == 0
    for folder in folders:
        names = {path.name for path in (kept / folder.name).iterdir()}
        assert names == SMALL & {path.name for path in folder.iterdir()}
        assert all((kept / folder.name / name).read_bytes() == (folder / name).read_bytes() for name in names)
    assert "frozen_history.csv" in {path.name for path in (kept / "tuned").iterdir()}
    assert main(["compare", *map(str, kept.iterdir()), "--out", str(again), "--keep", str(kept)]) == 0
    for name in ("table.md", "table_accuracy.png", "table_rare.png"):
        assert (again.parent / name).read_bytes() == (first.parent / name).read_bytes()


def test_the_sentence_of_a_recipes_runs(runs):
    both = [compare.read_run(runs / name) for name in ("online", "online-seed1")]
    shares = [metrics_of(one.folder)["test"]["accuracy"] for one in both]
    minutes = mean([metrics_of(one.folder)["finetuning_minutes"] for one in both])
    low_high = interval(mean(shares), TESTED)
    assert compare.ours(both) == f"{low_high} on phase 1, mean of 2 seeds, epochs: 1, {minutes:.1f} minutes"
    assert compare.ours(both[:1]) == f"{interval(shares[0], TESTED)} on phase 1, epochs: 1, {both[0].minutes:.1f} minutes"


def test_the_sentence_of_a_run_without_test_images_names_the_validation_part(runs):
    one = compare.read_run(runs / "tuned")
    share, images = (metrics_of(one.folder)[key] for key in ("accuracy", "images"))
    said = f"{interval(share, images)} on the validation part, epochs: 2 frozen + 0, {one.metrics['head_minutes']:.1f} minutes"
    assert compare.ours([one]) == said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("First line.\n\nReport: 77 %.\n\nCommand: x", "77 %."),
        ("First line.\n\nReport: over two\nlines.\n\nMore.", "over two lines."),
        ("First line.\n\nReport: over two\n  lines, at the end", "over two lines, at the end"),
        ("First line.\n\nReport: then a line with blanks\n   \nMore.", "then a line with blanks"),
        ("Report: the first line itself.", "the first line itself."),
        ("First line. Report: within a line.", ""),
        ("First line.\n\nReports: another word.", ""),
        ("First line.\n\nNot run: no.", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_paragraph_is_found_by_its_label(text, found):
    assert compare.paragraph(text, "Report") == found


def test_a_label_of_two_words_is_found():
    assert compare.paragraph("A.\n\nNot run: needs two\ndevices.\n\nCommand: x", "Not run") == "needs two devices."


# The committed files


def committed():
    """Recipe → its committed runs."""
    groups = {}
    for folder in KEPT_RUNS:
        one = compare.read_run(folder)
        groups.setdefault(one.name, []).append(one)
    return groups


def test_the_committed_table_is_what_the_command_writes(tmp_path):
    command = [sys.executable, "-m", "training", "compare", *(f"docs/runs/{path.name}" for path in KEPT_RUNS)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "experiments.md")], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, own_lines(done.stderr)) == (0, [])
    assert (tmp_path / "experiments.md").read_bytes() == (ROOT / "docs" / "experiments.md").read_bytes()
    shown = re.findall(r"!\[[^]]*\]\(([^)]*)\)", (tmp_path / "experiments.md").read_text("utf-8"))
    assert shown and all((ROOT / "docs" / name).is_file() for name in shown)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipes_docstring_says_what_its_runs_had_or_why_there_are_none(name):
    text, group = docstring(name), committed().get(name)
    if group:
        assert f"Ours: {compare.ours(group)}" in " ".join(text.split())
        assert compare.paragraph(text, "Ours").startswith(compare.ours(group))
    else:
        assert compare.paragraph(text, "Not run")
    assert not any("Command:" in compare.paragraph(text, label) for label in ("Report", "Ours", "Not run"))
