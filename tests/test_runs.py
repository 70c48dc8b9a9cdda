"""Several runs: a fine-tuning that is taken over, many recipes in one command, images that are reported on only."""

import dataclasses
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import shrunk, tiny
from test_files import held_by_another

from competition.drawings import draw_folder
from training import __main__ as cli
from training import architectures, fit, run
from training.architectures import scratch_vgg
from training.augment import Augmentation, mix_up, rand_augment
from training.balance import oversample
from training.data import load_folder
from training.errors import UserError
from training.features import extract
from training.fit import read_history
from training.recipe import Recipe
from training.schedules import constant
from training.thaw import Edges

MORE = replace(shrunk(Recipe(validation=0.25, head="softmax", learning_rate=1e-2, warmup=0.0)), phases=((1, 48),), dense=(8,))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two folders, train and test, of three classes of eight drawn leaves each, 32×32."""
    folder = tmp_path_factory.mktemp("runs")
    draw_folder(folder / "train", 8, classes=3, side=32)
    draw_folder(folder / "test", 4, classes=3, side=40, seed=5)
    draw_folder(folder / "other", 3, classes=4, side=32, seed=6)
    return folder


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    """The folder of a run like `inception_more`, finished."""
    out = tmp_path_factory.mktemp("finished") / "more"
    run.train(MORE, "more", drawn / "train", "none", out)
    return out


@pytest.fixture
def beside(finished, tmp_path):
    """A copy of it in a folder of its own."""
    return shutil.copytree(finished, tmp_path / "runs" / "more")


def never(*arguments):
    raise AssertionError("an epoch was trained")


def test_a_finished_run_beside_gives_its_fine_tuning(drawn, beside, monkeypatch, capsys):
    monkeypatch.setattr(fit, "_one_epoch", never)
    out = beside.with_name("svm")
    recipe = replace(MORE, head="quasi_svm", head_epochs=3, head_views=3, test_flips=("none", "both"))
    result = run.train(recipe, "svm", drawn / "train", "none", out)
    assert f"in {beside}: taking that over" in capsys.readouterr().out
    for name in ("history.csv", "best.weights.h5"):
        assert (out / name).read_bytes() == (beside / name).read_bytes()
    record = json.loads((out / "recipe.json").read_text("utf-8"))
    assert (record["name"], record["finetuned_by"], record["recipe"]["head"]) == ("svm", "more", "quasi_svm")
    assert (result["epochs"], len(read_history(out / "head_history.csv"))) == (1, 3)
    with np.load(out / "features.npz") as file:  # the fine-tuned backbone's
        backbone = tiny("none")
        network = architectures.whole_network(backbone, architectures.softmax_head(MORE, 8, 3), (32, 32), 48)
        network.load_weights(beside / "best.weights.h5")
        held = run._parts(recipe, load_folder(drawn / "train"))[1]
        np.testing.assert_allclose(file["held"][0], extract(backbone, held.images, 48)[0], atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"learning_rate": 2e-2}, {"seed": 1}, {"repeats": {"Species1": 2}}, {"dense": ()}, {"thaw": Edges(3, 3)}], ids=str
)
def test_another_fine_tuning_is_trained(drawn, beside, monkeypatch, changes):
    monkeypatch.setattr(fit, "_one_epoch", never)
    with pytest.raises(AssertionError, match="an epoch was trained"):
        run.train(replace(MORE, head="quasi_svm", **changes), "svm", drawn / "train", "none", beside.with_name("svm"))


def test_an_unfinished_run_gives_nothing(drawn, beside, monkeypatch):
    (beside / "metrics.json").unlink()
    monkeypatch.setattr(fit, "_one_epoch", never)
    with pytest.raises(AssertionError, match="an epoch was trained"):
        run.train(replace(MORE, head="quasi_svm"), "svm", drawn / "train", "none", beside.with_name("svm"))


OTHERS = {
    "folds": 2,
    "fold": 1,
    "keep": "last",
    "averaged_epochs": 1,
    **{"validation": 0.1, "split_seed": 1, "seed": 1, "resampling": oversample, "repeats": {"a": 2}, "class_weights": True},
    **{"offline": (((), 1),), "offline_augmentation": Augmentation(tint=0.1), "augmentation": Augmentation(tint=0.1)},
    **{"layers": (rand_augment,), "pipeline": never, "backbone": scratch_vgg, "frozen_epochs": 1, "frozen_learning_rate": 0.5},
    **{"thaw": Edges(1, 1), "batch_norm": False, "phases": ((2, 48),), "learning_rate": 0.5, "schedule": constant, "warmup": 0.5},
    **{"weight_decay": 0.5, "label_smoothing": 0.5, "dense": (5,), "activation": "elu", "dense_l2": 0.5, "dropout": 0.5},
    **{"dense_dropout": 0.5, "batch": 4, "precision": "mixed_bfloat16", "replicas": 2, "start": MORE},
}


def identity(recipe, drawn, **changes):
    record = run._identity(recipe, "x", load_folder(drawn / "train"), "none")
    return run._finetuning(json.loads(json.dumps({**record, **changes})))


def test_a_fine_tuning_depends_on_every_field_that_is_not_the_head_s(drawn):
    fields = {field.name for field in dataclasses.fields(Recipe)}
    own = {name for name in fields if name.startswith("head") or name.startswith("test_")}
    assert OTHERS.keys() == fields - own
    base = identity(MORE, drawn)
    for name, value in OTHERS.items():
        among = {"fold": {"folds": 2}, "averaged_epochs": {"keep": "last"}}.get(name, {})
        assert identity(replace(MORE, **among, **{name: value}), drawn) != identity(replace(MORE, **among), drawn), name
    for name in ("classes", "data_sha256", "backbone_weights", "versions"):
        assert identity(MORE, drawn, **{name: "other"}) != base, name
    assert identity(replace(MORE, head="quasi_svm", head_views=5, head_l2=1.0, test_flips=("both",)), drawn) == base
    frozen = replace(MORE, frozen_epochs=1)
    assert identity(replace(frozen, head_views=5), drawn) != identity(frozen, drawn)  # of which the first phase is made


def test_a_fine_tuning_with_a_frozen_phase_is_taken_over_whole(drawn, tmp_path, monkeypatch):
    recipe = replace(MORE, frozen_epochs=2)
    first = run.train(recipe, "first", drawn / "train", "none", tmp_path / "first")
    monkeypatch.setattr(fit, "_one_epoch", never)
    second = run.train(replace(recipe, head="quasi_svm", head_epochs=1), "second", drawn / "train", "none", tmp_path / "second")
    assert first["frozen_epochs"] == second["frozen_epochs"] == 2


# Several recipes in one command

RECIPES = {"one": MORE, "two": replace(MORE, learning_rate=2e-2), "bad": replace(MORE, repeats={"Oak": 2})}


@pytest.fixture
def command(drawn, tmp_path, monkeypatch, capsys):
    """`python -m training run` with drawn images and small recipes: (exit code, stdout, stderr)."""
    monkeypatch.setattr(cli, "load_recipe", RECIPES.__getitem__)
    monkeypatch.setattr(cli, "recipe_names", lambda: sorted(RECIPES))

    def call(*arguments):
        code = cli.main(["run", *map(str, arguments), "--data", str(drawn / "train"), "--runs", str(tmp_path / "runs")])
        return code, *capsys.readouterr()

    return call


def folders(path):
    return {folder.name: (folder / "metrics.json").is_file() for folder in path.iterdir() if not folder.name.startswith(".")}


def test_several_recipes_have_a_folder_each_and_a_repetition_skips_what_is_finished(command, tmp_path, monkeypatch):
    code, out, error = command("one", "two")
    assert (code, error.count("error")) == (0, 0)
    assert folders(tmp_path / "runs") == {"one": True, "two": True}
    shutil.rmtree(tmp_path / "runs" / "two")
    code, out, _ = command("one", "two")
    assert code == 0
    assert f"{tmp_path / 'runs' / 'one'}: finished already" in out
    assert "two: finished" not in out
    monkeypatch.setattr(fit, "_one_epoch", never)
    assert command("one", "two")[0] == 0
    assert folders(tmp_path / "runs") == {"one": True, "two": True}


def test_what_fails_is_named_and_the_rest_goes_on(command, tmp_path):
    code, _, error = command("--all")
    assert code == 2
    assert f"{tmp_path / 'runs' / 'bad'}: repeats: no class Oak" in error
    assert error.splitlines()[-1] == f"error: 1 runs did not finish, the reasons are above: {tmp_path / 'runs' / 'bad'}"
    assert "Traceback" not in error
    assert folders(tmp_path / "runs") == {"bad": False, "one": True, "two": True}


def test_what_another_process_trains_is_left_to_it(command, tmp_path):
    out = tmp_path / "runs" / "one"
    out.mkdir(parents=True)
    with held_by_another(out / run.LOCK) as other:
        code, said, _ = command("one", "two")
    assert code == 0
    assert re.search(rf"one: left out, .*in use by process {other.pid}", said)
    assert folders(tmp_path / "runs") == {"one": False, "two": True}


def test_seeds_have_a_folder_each_on_one_split(command, tmp_path):
    assert command("one", "--seeds", 2)[0] == 0
    assert folders(tmp_path / "runs") == {"one": True, "one-seed1": True}
    one, other = (json.loads((tmp_path / "runs" / name / "recipe.json").read_text("utf-8"))["recipe"] for name in ("one", "one-seed1"))
    assert (one["seed"], other["seed"]) == (0, 1)
    assert {name for name in one if one[name] != other[name]} == {"seed"}
    histories = [read_history(tmp_path / "runs" / name / "history.csv")[0]["loss"] for name in ("one", "one-seed1")]
    assert histories[0] != histories[1]


@pytest.mark.parametrize("seeds", [0, -1])
def test_no_seeds_are_refused(command, tmp_path, seeds):
    try:
        code = command("one", "--seeds", seeds)[0]
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert not (tmp_path / "runs").exists()


def test_a_run_alone_goes_to_its_name_s_folder_and_takes_settings(command, tmp_path):
    code, out, _ = command("one", "--set", "batch=4", "--set", "dropout=0.0")
    assert code == 0
    assert f"done: {tmp_path / 'runs' / 'one'}; next: python build_submission.py" in out
    record = json.loads((tmp_path / "runs" / "one" / "recipe.json").read_text("utf-8"))["recipe"]
    assert (record["batch"], record["dropout"]) == (4, 0.0)


# Images that are reported on only


def test_test_images_are_reported_on_and_used_for_nothing_else(command, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "tiny", tiny, raising=False)
    assert command("one")[0] == 0
    plain = tmp_path / "runs" / "one"
    before = json.loads((plain / "metrics.json").read_text("utf-8"))
    weights = weights_of(plain)
    shutil.rmtree(plain)
    code, out, _ = command("one", "--test", drawn / "test")
    assert code == 0
    assert "reported only: accuracy" in out
    result = json.loads((plain / "metrics.json").read_text("utf-8"))
    assert result["test"]["images"] == 12
    assert (result["confusion"], result["training_images"]) == (before["confusion"], before["training_images"])
    assert "test" not in before
    for a, b in zip(weights, weights_of(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    network, _, flips, _ = run.load_network(plain)
    tested = load_folder(drawn / "test", (32, 32))
    answers = run.predict(network, tested.images, flips).argmax(axis=1)
    assert result["test"]["accuracy"] == (answers == tested.labels).mean()


def weights_of(out):
    return run.load_network(out)[0].get_weights()


def test_test_images_of_other_classes_are_refused(command, drawn, tmp_path):
    code, _, error = command("one", "--test", drawn / "other")
    assert code == 2
    assert "Species4" in error
    assert "they must be the same" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="no folder"):
        run.train(MORE, "one", drawn / "train", "none", tmp_path / "out", drawn / "nowhere")


FIRST = replace(MORE, learning_rate=2e-2, layers=(rand_augment,), phases=((2, 40),))
STARTED = replace(MORE, start=FIRST, learning_rate=1e-5, layers=(mix_up,))


def test_a_fine_tuning_that_starts_from_another_does_that_one_first(drawn, tmp_path):
    still = replace(STARTED, phases=((0, 48),))  # trains nothing of its own, so it has the other's network
    result = run.train(still, "still", drawn / "train", "none", tmp_path / "still")
    first = tmp_path / "still" / run.START
    assert (len(read_history(first / "history.csv")), result["epochs"]) == (2, 2)
    ours, theirs = (_weights(recipe, folder) for recipe, folder in ((still, first.parent), (still.start, first)))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))

    result = run.train(STARTED, "more", drawn / "train", "none", tmp_path / "more")
    record = json.loads((tmp_path / "more" / "recipe.json").read_text("utf-8"))["recipe"]
    assert (result["epochs"], record["start"]["phases"], record["phases"]) == (3, [[2, 40]], [[1, 48]])
    assert result["finetuning_minutes"] >= 0
    again = _weights(STARTED.start, tmp_path / "more" / run.START)
    assert all(np.array_equal(a, b) for a, b in zip(again, theirs, strict=True))
    other = run.train(replace(STARTED, head="quasi_svm"), "svm", drawn / "train", "none", tmp_path / "svm")  # takes it over
    assert other["epochs"] == 3 and not (tmp_path / "svm" / run.START / "best.weights.h5").exists()
    moved = _weights(STARTED, tmp_path / "more")
    steps = [np.abs(a - b).max() for a, b in zip(moved, again, strict=True) if a.ndim == 4]
    assert all(0 < step < 1e-3 for step in steps)  # it went on, it did not begin anew


def test_a_finished_run_beside_gives_what_another_starts_from(drawn, beside, monkeypatch, capsys):
    trained, one_epoch = [], fit._one_epoch
    monkeypatch.setattr(fit, "_one_epoch", lambda recipe, *rest: trained.append(recipe.learning_rate) or one_epoch(recipe, *rest))
    out = beside.with_name("longer")
    further = replace(MORE, start=replace(MORE, head="quasi_svm"), learning_rate=1e-5)  # whatever head the start had
    result = run.train(further, "longer", drawn / "train", "none", out)
    assert f"in {beside}: taking that over" in capsys.readouterr().out
    assert (trained, result["epochs"]) == ([1e-5], 2)
    for name in ("history.csv", "best.weights.h5"):
        assert (out / run.START / name).read_bytes() == (beside / name).read_bytes()
    assert json.loads((out / "recipe.json").read_text("utf-8"))["started_by"] == "more"

    again = replace(further, start=further, learning_rate=1e-6)  # a start that has a start itself
    assert run.train(again, "again", drawn / "train", "none", beside.with_name("again"))["epochs"] == 3
    assert trained == [1e-5, 1e-6]


def test_an_interruption_of_the_first_fine_tuning_loses_nothing(drawn, tmp_path, monkeypatch):
    out, one_epoch = tmp_path / "run", fit._one_epoch

    def interrupted(*arguments):
        if arguments[5] == 1:
            raise KeyboardInterrupt
        return one_epoch(*arguments)

    monkeypatch.setattr(fit, "_one_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.train(STARTED, "more", drawn / "train", "none", out)
    with pytest.raises(UserError, match="another recipe"):
        run.train(replace(STARTED, batch=4), "more", drawn / "train", "none", out)
    trained = []
    monkeypatch.setattr(fit, "_one_epoch", lambda *arguments: trained.append(arguments[5]) or one_epoch(*arguments))
    run.train(STARTED, "more", drawn / "train", "none", out)
    assert trained == [1, 0]  # the first one's second epoch, then its own


def _weights(recipe, folder):
    network = architectures.whole_network(tiny("none"), architectures.softmax_head(recipe, 8, 3), (32, 32), 48)
    network.load_weights(folder / "best.weights.h5")
    return network.get_weights()
