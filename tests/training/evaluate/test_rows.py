"""Tables of runs: what is written is read again, other files are refused, and the lines that `list` prints."""

import dataclasses
import re

import pytest
from helpers import ROOT, python

from common.errors import UserError
from training.evaluate import rows
from training.evaluate.rows import (
    Row,
    accuracy_line,
    by_recipe,
    class_f1,
    epochs_text,
    measured,
    read_rows,
    reported,
    write_rows,
)
from training.recipes import RENAMED, recipe_names
from training.run_folder import read_record

ROW = Row(
    run="online",
    recipe="online",
    seed=0,
    data="0123456789ab",
    test_images=200,
    accuracy=0.75,
    low=0.69,
    high=0.8,
    macro_f1=0.5,
    class_f1="Species1=0.2500;a=b=0.7500",
    val_images=100,
    val_accuracy=0.8,
    parameters=1234,
    epochs=8,
    planned_epochs=8,
    warmup_epochs=0,
    minutes=2.0,
    images_per_second=161.5,
    settings='finetune.activation="elu", finetune.dense_units=[1, 2]',
    finished="2026-01-01",
)
UNTESTED = dataclasses.replace(
    ROW, run="untested", test_images=0, accuracy=None, low=None, high=None, macro_f1=None, class_f1="", settings=""
)
NOT_HELD_OUT = dataclasses.replace(UNTESTED, run="full", val_images=0, val_accuracy=None, images_per_second=None)


@pytest.mark.unit
def test_rows_are_read_as_they_were_written_and_sorted(tmp_path):
    seeds = [dataclasses.replace(ROW, run=f"online-seed{seed}", seed=seed) for seed in (10, 2)]
    other = dataclasses.replace(ROW, run="smote", recipe="smote", data="0000")
    write_rows(tmp_path / "new" / "rows.csv", [*seeds, ROW, UNTESTED, NOT_HELD_OUT, other])
    assert read_rows(tmp_path / "new" / "rows.csv") == [other, NOT_HELD_OUT, ROW, UNTESTED, *reversed(seeds)]


@pytest.mark.unit
@pytest.mark.parametrize(
    "content",
    [
        b"recipe,accuracy\nonline,0.5\n",
        b"some,other,table\n1,2,3\n",
        b"\xff\xfe\x00",
        b",".join(field.name.encode() for field in dataclasses.fields(Row)) + b"\nonline,online,first\n",
    ],
    ids=["columns are missing", "other columns", "bytes", "a short line"],
)
def test_another_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="table.csv must have the columns run, recipe") as error:
        read_rows(path)
    assert "\n" not in str(error.value)


@pytest.mark.unit
def test_f1_of_a_class():
    assert [ROW.f1(name) for name in ("Species1", "a=b", "Species2")] == [0.25, 0.75, None]
    assert UNTESTED.f1("Species1") is None


@pytest.mark.unit
def test_a_row_is_measured_on_test_images_or_else_on_the_validation_part():
    assert ROW.measured_on == ("test", 0.75, 200)
    assert UNTESTED.measured_on == ("validation", 0.8, 100)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "8"),
        ({"epochs": 5, "planned_epochs": 50}, "5 of 50"),
        ({"epochs": 9}, "9"),
        ({"warmup_epochs": 30}, "30 (head only) + 8"),
        ({"warmup_epochs": 30, "epochs": 2}, "30 (head only) + 2 of 8"),
        ({"warmup_epochs": 15, "epochs": 0, "planned_epochs": 0}, "15 (head only) + 0"),
    ],
)
def test_epochs_text(fields, text):
    assert epochs_text(dataclasses.replace(ROW, **fields)) == text


@pytest.mark.unit
def test_accuracy_line_of_one_run_and_of_several_seeds():
    other = dataclasses.replace(ROW, run="online-seed1", seed=1, accuracy=0.85, minutes=3.0)
    assert accuracy_line([ROW]) == "75.0% on 200 test images, 8 epochs, 2.0 minutes"
    assert accuracy_line([ROW, other]) == "80.0% on 200 test images, mean of 2 seeds, 8 epochs, 2.5 minutes"
    assert accuracy_line([UNTESTED]) == "80.0% on 100 validation images, 8 epochs, 2.0 minutes"
    assert accuracy_line([NOT_HELD_OUT]) == "nothing held out, 8 epochs, 2.0 minutes"


@pytest.mark.unit
def test_runs_with_the_same_seed_are_not_called_seeds():
    assert "mean of 2 runs" in accuracy_line([ROW, dataclasses.replace(ROW, run="again")])


@pytest.mark.unit
def test_runs_with_other_settings_are_an_experiment_of_their_own():
    plain, small = dataclasses.replace(ROW, settings=""), dataclasses.replace(ROW, settings="head.l2=1.0")
    assert by_recipe([small, plain, small]) == {"online": [plain], "online with head.l2=1.0": [small, small]}


@pytest.mark.unit
def test_runs_on_other_test_images_are_an_experiment_of_their_own():
    plain = dataclasses.replace(ROW, settings="")
    other = dataclasses.replace(plain, test_images=50)
    assert by_recipe([UNTESTED, other, plain]) == {
        "online": [plain],
        "online on 50 test images": [other],
        "online on 0 test images": [UNTESTED],
    }


@pytest.mark.unit
def test_as_many_other_test_images_are_an_experiment_of_their_own():
    first, second, third = (dataclasses.replace(ROW, settings="", test_data=data) for data in ("aaaa", "bbbb", "cccc"))
    assert by_recipe([first, second, third, second]) == {
        "online": [first],
        "online on 200 test images": [second, second],
        "online on 200 test images cccc": [third],
    }


@pytest.mark.unit
def test_runs_of_earlier_versions_have_the_test_images_of_the_others_if_these_are_the_same():
    earlier = dataclasses.replace(ROW, settings="")
    first, second = (dataclasses.replace(earlier, test_data=data) for data in ("aaaa", "bbbb"))
    assert by_recipe([earlier, first]) == {"online": [earlier, first]}
    assert by_recipe([first, second, earlier]) == {
        "online": [first],
        "online on 200 test images": [second],
        "online on 200 test images of an earlier version": [earlier],
    }


@pytest.mark.unit
def test_a_table_of_an_earlier_version_has_no_column_of_test_data(tmp_path):
    write_rows(tmp_path / "rows.csv", [ROW])
    lines = (tmp_path / "rows.csv").read_text("utf-8").splitlines()
    assert lines[0].endswith(",finished,test_data") and lines[1].endswith(",")
    earlier = "".join(line.rpartition(",")[0] + "\n" for line in lines)
    (tmp_path / "rows.csv").write_text(earlier, "utf-8")
    assert read_rows(tmp_path / "rows.csv") == [ROW]


@pytest.mark.unit
def test_measured_leaves_out_other_data_sets(tmp_path):
    seed = dataclasses.replace(ROW, run="online-seed1", seed=1)
    elsewhere = dataclasses.replace(ROW, run="cats", data="0000", accuracy=0.1)
    write_rows(tmp_path / "rows.csv", [elsewhere, ROW, seed])
    assert measured(tmp_path / "rows.csv") == {"online": f"{accuracy_line([ROW, seed])}, with {ROW.settings}"}


@pytest.mark.unit
def test_class_names_may_have_the_separators():
    row = dataclasses.replace(ROW, class_f1=class_f1({"a;b": {"f1": 0.25}, "c=d": {"f1": 0.5}}))
    assert (row.f1("a;b"), row.f1("c=d"), row.f1("b")) == (0.25, 0.5, None)


@pytest.mark.unit
def test_measured_has_a_line_for_each_recipe_of_a_table(tmp_path):
    other = dataclasses.replace(ROW, run="smote", recipe="smote", accuracy=0.5)
    write_rows(tmp_path / "rows.csv", [ROW, other])
    assert by_recipe([ROW, other]) == {"online": [ROW], "smote": [other]}
    lines = measured(tmp_path / "rows.csv")
    assert {name: line[:5] for name, line in lines.items()} == {"online": "75.0%", "smote": "50.0%"}
    assert measured(tmp_path / "missing.csv") == reported(tmp_path / "missing.csv") == {}


@pytest.mark.unit
def test_every_recipe_of_the_report_exists_and_each_recipe_was_run_or_says_why_not():
    ours, report, known = measured(), reported(), recipe_names()
    folds = {read_record(path.parent).name for path in (rows.RESULTS / "folds").glob("*/*/run.json")}
    assert set(report) <= set(known)
    for name in known:
        assert name in ours or name in folds or report[name].not_run
    for name, row in report.items():
        assert row.result
        assert bool(row.not_run) == (name not in ours)
        assert row.accuracy is None or 0.5 < row.accuracy < 1


@pytest.mark.unit
def test_the_committed_rows_have_no_duplicates_and_no_old_names():
    committed = read_rows(rows.RUNS)
    assert len({row.run for row in committed}) == len(committed) > 20
    assert not {row.recipe for row in committed} & set(RENAMED)


LIST = """
import sys
from training.__main__ import main
code = main(["list"])
loaded = {"tensorflow", "keras", "jax", "sklearn"} & set(sys.modules)
assert not loaded, loaded
sys.exit(code)
"""


@pytest.mark.integration
def test_list_prints_ours_and_the_report_without_importing_tensorflow():
    done = python("-c", LIST, cwd=ROOT, isolated=False)
    assert (done.returncode, done.stderr) == (0, "")
    ours, report = measured(), reported()
    blocks = [block.splitlines() for block in re.split(r"\n(?=  \w)", done.stdout) if block.startswith("  ")]
    recipes = {block[0].strip(): [line.strip() for line in block[1:] if line.startswith("    ")] for block in blocks}
    assert set(recipes) >= set(recipe_names())
    for name in recipe_names():
        assert recipes[name][1:] == [
            *([f"Report: {report[name].result}"] if name in report else []),
            *([f"Ours: {ours[name]}"] if name in ours else []),
        ]
