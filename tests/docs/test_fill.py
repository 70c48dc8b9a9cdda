"""The numbers in the documentation are those of the files in results/."""

import re

import pytest
from helpers import ROOT

from common.errors import UserError
from docs import fill
from docs.question_values import _largest, question_values
from training.config.override import change, in_bfloat16
from training.evaluate.paired import finished_folds
from training.recipes import load_recipe
from training.run_folder import read_record

pytestmark = pytest.mark.docs


def test_documents_are_filled():
    known = fill.values()
    for path in fill.documents():
        text = path.read_text("utf-8")
        assert fill.filled(text, known, path.name) == text, f"{path.name} differs; run python -m docs.fill"


def test_the_headline_documents_have_markers():
    for name in ("README.md", "docs/accuracy.md", "docs/model_card.md", "docs/performance.md", "docs/architecture.md"):
        assert fill.MARKER.search((ROOT / name).read_text("utf-8")), name


def test_the_answers_to_the_questions_have_every_number():
    text = (ROOT / "docs" / "questions.md").read_text("utf-8")
    assert {match["name"] for match in fill.MARKER.finditer(text)} == {*question_values(), "phase1.species1_f1"}


def test_largest_shares_leave_out_the_species_itself():
    shares = {"Species1": 0.9, "Species2": 0.05, "Species3": 0.01, "Species4": 0.3, "Species5": 0.2}
    assert _largest(shares) == "Species4 (30 %), Species5 (20 %) and Species2 (5 %)"


def test_experiments_are_those_of_the_table():
    from training.evaluate.compare import document
    from training.evaluate.rows import RUNS, read_rows

    path = ROOT / "docs" / "experiments.md"
    assert path.read_text("utf-8") == document(read_rows(RUNS), path.stem)


def test_the_held_out_accuracy_of_own_images_is_that_of_the_model_that_ships():
    """A fine-tuning is kept unless it is clearly worse, so the last step may have a lower accuracy than the first."""
    steps = {"quick": {"held_out_accuracy": 1.0}, "finetuned": {"held_out_accuracy": 0.99}}
    rows = {"twenty lines": {"test_accuracy": 0.5, "seconds": 9.6}}
    rows["auto, 1 minutes"] = {"test_accuracy": 0.75, "seconds": 50.0, "steps": steps}
    table = fill._own_data_rows(rows).splitlines()
    assert table[-2:] == ["| twenty lines | 50.0 % | – | 10 |", "| auto, 1 minute | 75.0 % | 99.0 % | 50 |"]


@pytest.mark.parametrize(("name", "folder"), [("folds", "released"), ("folds_before", "augmented_head")])
def test_the_folds_are_counted(name, folder):
    runs = finished_folds(fill.RESULTS / "folds" / folder)
    images = sum(fill._run_metrics(run)["images"] for run in runs)
    assert fill.values()[f"{name}.images"] == f"{images:,}"
    assert len({read_record(run).recipe.data.fold for run in runs}) == len(runs)
    assert fill.values()[f"{name}.count"].startswith(str(len(runs)))


@pytest.mark.parametrize(("name", "base", "changes"), [step[1:] for step in fill.FOLD_STEPS])
def test_the_folds_of_a_step_have_its_recipe(name, base, changes):
    folds = finished_folds(fill.RESULTS / "folds" / name)
    assert folds
    for run in folds:
        recipe = read_record(run).recipe
        own = {"data.folds": fill.FOLDS, "data.fold": recipe.data.fold, **changes}
        assert recipe == in_bfloat16(change(load_recipe(base), own))


def test_a_step_is_compared_with_the_one_before():
    folds = fill.RESULTS / "folds" / "released"
    points, p_value = fill._difference(folds, folds)
    assert points.startswith("+0.0 (-0.") and p_value == "1"
    assert fill._difference(None, folds) == ["–", "–"]


def test_a_changed_number_is_found(tmp_path, monkeypatch, capsys):
    text = "accuracy <!-- fill phase1.accuracy -->12.34 %<!-- /fill -->\n"
    (tmp_path / "README.md").write_text(text)
    monkeypatch.setattr(fill, "documents", lambda: [tmp_path / "README.md"])
    assert fill.main(["--check"]) == 1
    assert "README.md" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == text
    assert fill.main([]) == 0
    assert re.search(r"-->\d\d\.\d\d %<", (tmp_path / "README.md").read_text())
    assert fill.main(["--check"]) == 0


def test_an_unknown_name_is_an_error():
    with pytest.raises(UserError, match="no value nothing.of_this"):
        fill.filled("<!-- fill nothing.of_this --><!-- /fill -->", {}, "README.md")


@pytest.mark.parametrize("path", fill.documents(), ids=lambda path: path.name)
def test_links_point_to_files_and_headings(path):
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#][^)]*)\)", text):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        linked = (path.parent / name).resolve()
        assert linked.exists(), f"{path.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
            assert heading in slugs, f"{path.name}: {target}"


def test_prose_lines_have_at_most_120_characters():
    for path in fill.documents():
        for number, line in enumerate(fill.MARKER.sub("", path.read_text("utf-8")).splitlines(), 1):
            assert len(line) <= 120 or line.startswith("|"), f"{path.name}:{number}"


def test_lengths():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 100
    accuracy = fill.MARKER.sub(r"\g<text>", (ROOT / "docs" / "accuracy.md").read_text("utf-8"))
    prose = [line for line in accuracy.splitlines() if not line.startswith("|")]
    assert len(" ".join(prose).split()) < 500
