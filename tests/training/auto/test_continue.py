"""An interrupted search is continued by the same command."""

import functools
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import InUse, UserError
from common.files import digest, locked, write_json
from common.images import Images
from competition.synthetic import draw_folder, draw_images
from training.auto import choices, plan, search, trials
from training.auto.search import auto
from training.config.record import to_json
from training.fit import finetune
from training.fit.checkpoint import read_history
from training.inputs import Inputs
from training.run_folder import LOCK, read_metrics

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def two_epochs(one_epoch, monkeypatch):
    monkeypatch.setattr(choices, "MAX_EPOCHS", 2)
    monkeypatch.setattr(search, "clearly_worse", lambda *rest: False)


@pytest.fixture
def interrupted(auto_data, tmp_path, monkeypatch):
    """Interrupts a search when a function is called once more than allowed. Returns its inputs and folder."""

    def interrupt(module, name, allowed=0):
        original, calls = getattr(module, name), []

        def called(*arguments):
            calls.append(name)
            if len(calls) > allowed:
                raise KeyboardInterrupt
            return original(*arguments)

        inputs, out = Inputs(auto_data, "none"), tmp_path / "out"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, called)
            auto(inputs, out, minutes=20)
        return inputs, out

    return interrupt


@pytest.fixture
def trained(monkeypatch):
    """The names of the runs that are trained, and "epoch" for each epoch of a fine-tuning."""
    found, train, one_epoch = [], search.train, finetune._one_epoch
    monkeypatch.setattr(search, "train", lambda *rest: found.append(rest[1]) or train(*rest))
    monkeypatch.setattr(finetune, "_one_epoch", lambda *rest: found.append("epoch") or one_epoch(*rest))
    return found


def add_image(folder):
    draw_folder(folder.parent / "more", 1, classes=3, side=32, seed=7)
    next((folder.parent / "more" / "Species1").iterdir()).rename(folder / "Species1" / "new.jpg")


def saved(out):
    return json.loads((out / "plan.json").read_text("utf-8"))


def test_a_fine_tuning_goes_on_after_its_last_epoch(interrupted, trained, capsys):
    inputs, out = interrupted(finetune, "_one_epoch", allowed=1)
    before = saved(out)
    assert not before["finished"] and list(before["steps"]) == ["quick"]
    del trained[:]
    for path in out.rglob("*"):  # continued the next day
        os.utime(path, (path.stat().st_atime - 86_400, path.stat().st_mtime - 86_400))
    auto(inputs, out, minutes=20)
    assert trained[:2] == ["auto-finetuned", "epoch"] and "auto-quick" not in trained and trained.count("epoch") == 1
    after = saved(out)
    assert after["finished"] and before["seconds"] < after["seconds"] < before["seconds"] + 600
    assert after["decisions"][: len(before["decisions"])] == before["decisions"]
    assert "continuing the search" in after["decisions"]
    assert len(read_history(out / "finetuned" / "history.csv")) == 2
    assert after["accuracy"] == read_metrics(out / "best")["accuracy"]


@pytest.mark.slow
def test_a_continued_search_ends_as_one_without_interruption(interrupted, auto_data, tmp_path):
    auto(*interrupted(finetune, "_one_epoch", allowed=1), minutes=20)
    auto(Inputs(auto_data, "none"), tmp_path / "whole", minutes=20)
    names = ("out", "whole")
    recipes = [{name: step["recipe"] for name, step in saved(tmp_path / name)["steps"].items()} for name in names]
    assert recipes[0] == recipes[1]
    one, other = (np.load(tmp_path / name / "val.npz")["probabilities"] for name in names)
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_a_search_without_a_model_starts_again(interrupted, trained, auto_data):
    inputs, out = interrupted(search.Plan, "keep")
    assert not saved(out)["steps"] and (out / "quick" / "metrics.json").is_file()
    add_image(auto_data)
    del trained[:]
    auto(inputs, out, minutes=0.01)
    assert trained == ["auto-quick"]
    assert read_metrics(out / "best")["training_images"] == 30
    assert saved(out)["seconds"] < 60 and "continuing the search" not in saved(out)["decisions"]


@pytest.mark.slow
def test_a_head_that_was_trained_but_not_kept_is_kept(interrupted, trained, monkeypatch):
    monkeypatch.setattr(trials, "accuracy", rising())
    inputs, out = interrupted(search.Plan, "keep_if_better")
    assert "head" not in saved(out)["steps"]
    monkeypatch.setattr(search.Plan, "keep_if_better", lambda self, *rest: self.keep(*rest) or True)
    del trained[:]
    auto(inputs, out, minutes=20)
    assert "epoch" not in trained
    assert list(saved(out)["steps"]) == ["quick", "finetuned", "head"]
    held_out, head = (np.load(folder / "val.npz")["probabilities"] for folder in (out, out / "head"))
    np.testing.assert_array_equal(held_out, head)


def rising():
    """An accuracy that is higher at each call."""
    calls = []
    return lambda probabilities, labels: calls.append(1) or 0.001 * len(calls)


@pytest.mark.slow
def test_other_images_are_refused(interrupted, auto_data):
    inputs, out = interrupted(search.Search, "_planned_finetuning")
    before = saved(out)
    add_image(auto_data)
    with pytest.raises(UserError, match="a search with another .*: a file has changed; give another --out"):
        auto(inputs, out, minutes=20)
    assert saved(out) == before


@pytest.mark.slow
def test_another_split_is_refused(interrupted):
    inputs, out = interrupted(search.Search, "_planned_finetuning")
    lines = (out / "groups.csv").read_text("utf-8").splitlines()
    groups = [line.rpartition(",")[0] + f",{number}" for number, line in enumerate(lines[1:])]
    (out / "groups.csv").write_text("\n".join([lines[0], *groups]), "utf-8")
    with pytest.raises(UserError, match="a search with another .*: a file has changed; give another --out"):
        auto(inputs, out, minutes=20)


@pytest.mark.slow
def test_the_training_on_all_images_is_continued_without_other_heads(interrupted, trained, monkeypatch):
    monkeypatch.setattr(search, "REPEAT_FACTOR", 0.0)
    inputs, out = interrupted(finetune, "_one_epoch", allowed=3)
    before = saved(out)
    assert "all" not in before["steps"] and (out / "all" / "checkpoint.npz").is_file()
    monkeypatch.setattr(search.Search, "_best_head", lambda *rest: pytest.fail("heads are tried again"))
    del trained[:]
    auto(inputs, out, minutes=20)
    assert (trained.count("epoch"), trained[0]) == (1, "auto-all")
    assert list(saved(out)["steps"]) == [*before["steps"], "all"]
    assert read_metrics(out / "best")["training_images"] == 29


@pytest.mark.slow
def test_a_head_is_not_trained_with_other_versions_than_the_fine_tuning(interrupted, monkeypatch):
    monkeypatch.setattr(trials, "accuracy", rising())
    inputs, out = interrupted(search.Search, "_train_head")
    monkeypatch.setattr(search, "package_versions", lambda: {"python": "3.99"})
    auto(inputs, out, minutes=20)
    assert "no other head: the fine-tuning was begun with other versions of the packages" in saved(out)["decisions"]
    assert list(saved(out)["steps"]) == ["quick", "finetuned"] and saved(out)["finished"]


def test_what_a_killed_process_left_is_no_file_of_the_user(tmp_path):
    for name in (".tmp-0123-plan.json", ".lock"):
        (tmp_path / name).touch()
    plan.require_own_folder(tmp_path)
    plan.open_plan(20, tmp_path, Inputs("leaves", "none"))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.fixture
def begun(tmp_path):
    """A plan whose quick model is kept."""
    (tmp_path / "best").mkdir()
    begun = plan.Plan(20, tmp_path, plan._given(Inputs("leaves", "none")))
    begun.steps["quick"] = {"recipe": to_json(choices.base_recipe({}, "float32")), "held_out_accuracy": None}
    begun.say("first")
    return begun


def test_the_time_before_the_interruption_counts(begun):
    begun.began -= 3000
    begun.save()
    continued = plan.open_plan(60, begun.out, Inputs("leaves", "none"))
    assert 3000 <= continued.seconds < 3060 and continued.seconds_left == pytest.approx(600, abs=60)
    assert continued.lines == ["first", "continuing the search"]
    assert saved(begun.out)["decisions"] == ["first"]
    continued.confirm()
    assert saved(begun.out)["decisions"] == continued.lines and 3000 <= saved(begun.out)["seconds"] < 3060
    assert continued.recipe("quick") == choices.base_recipe({}, "float32") and continued.recipe("head") is None


def test_a_best_run_that_was_lost_is_copied_again(begun):
    """A process that is killed while `best` is replaced leaves two temporary folders."""
    (begun.out / "quick").mkdir()
    (begun.out / "quick" / "run.json").write_text("{}")
    (begun.out / "best").rename(begun.out / ".tmp-0-best")
    plan.open_plan(60, begun.out, Inputs("leaves", "none")).confirm()
    assert sorted(path.name for path in begun.out.iterdir()) == ["best", "plan.json", "quick"]
    assert (begun.out / "best" / "run.json").read_text() == "{}"


def test_the_same_folder_may_be_spelled_with_a_slash(begun):
    assert plan.open_plan(20, begun.out, Inputs("leaves/", "none")).steps


def test_the_time_of_an_interrupted_training_counts_until_its_last_epoch(begun):
    (begun.out / "finetuned").mkdir()
    (begun.out / "finetuned" / "checkpoint.npz").touch()
    saved_at = (begun.out / "plan.json").stat().st_mtime
    for path, later in ((begun.out / "finetuned" / "checkpoint.npz", 500), (begun.out / "mine.txt", 90_000)):
        path.touch()
        os.utime(path, (saved_at + later, saved_at + later))
    assert 500 <= plan.open_plan(20, begun.out, Inputs("leaves", "none")).seconds < 560


def test_images_that_are_left_out_stay_left_out(begun):
    begun.max_images = 7
    begun.save()
    continued = plan.open_plan(20, begun.out, Inputs("leaves", "none"))
    limited = trials.Trials._limited(SimpleNamespace(plan=continued), Inputs("leaves", "none"), None)
    assert limited.max_images == 7


def test_other_test_images_under_the_same_name_are_refused(begun):
    labels = np.array([0, 1])
    reported = Images(draw_images(2, classes=2, side=32), labels, ("a", "b"), ("", ""))
    (begun.out / "quick").mkdir()
    write_json(begun.out / "quick" / "metrics.json", {"test": {"data_sha256": digest(reported.images, labels)}})
    search = SimpleNamespace(plan=begun, test=reported)
    search._refuse = functools.partial(trials.Trials._refuse, search)
    trials.Trials._require_same_test(search)
    search.test = replace(reported, labels=labels[::-1])
    with pytest.raises(UserError, match="another --test: a file has changed; give another --out"):
        trials.Trials._require_same_test(search)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": "elsewhere"}, "another --test; repeat its own command"),
        ({"test": "leaves", "test_labels": "test.csv"}, "another --test"),
        ({"validation_labels": "val.csv"}, "another --validation-labels"),
        ({"backbone_weights": "imagenet"}, "another --backbone-weights"),
        ({"size": (32, 32)}, "another --size"),
    ],
)
def test_other_inputs_are_refused(begun, change, message):
    before = saved(begun.out)
    with pytest.raises(UserError, match=message):
        plan.open_plan(20, begun.out, Inputs(**{"data": "leaves", "backbone_weights": "none", **change}))
    assert saved(begun.out) == before


@pytest.mark.parametrize("change", [{"finished": True}, {"finished": None}])
def test_a_finished_search_and_one_of_an_earlier_version_are_not_continued(begun, change):
    fields = {**saved(begun.out), **change}
    if change["finished"] is None:
        del fields["finished"]
    (begun.out / "plan.json").write_text(json.dumps(fields), "utf-8")
    with pytest.raises(UserError, match="--out must be a new folder or .*; the search in .* has ended, or is"):
        plan.open_plan(20, begun.out, Inputs("leaves", "none"))


@pytest.mark.parametrize(
    "change",
    [None, {"inputs": 3}, {"steps": ["quick"]}, {"steps": {"quick": {}}}, {"seconds": "many"}, {"decisions": 1}],
)
def test_a_damaged_plan_is_refused(begun, change):
    text = json.dumps({**saved(begun.out), **change}) if change else "{"
    (begun.out / "plan.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"plan\.json is damaged \(.*\); give another --out"):
        plan.open_plan(20, begun.out, Inputs("leaves", "none"))


def test_two_searches_cannot_use_one_folder(auto_data, tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out" / LOCK, "it"), pytest.raises(InUse, match="the search .*out is in use by process"):
        auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
